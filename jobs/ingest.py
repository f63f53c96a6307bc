"""Ingestion: reads a dataset's own files and writes a corpus.

As a cluster job: `ray job submit ... -- python -m chexray.jobs.ingest nih --root s3://... --out s3://...`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import ray.data

from chexray.cluster.local import ray_session
from chexray.jobs.progress import bar
from chexray.platform import storage
from chexray.platform.artifacts import Kind, Manifest, Stage, check_reject_rate
from chexray.platform.cli import run_job
from chexray.platform.config import Recipe, Runtime
from chexray.platform.corpus.adapters import open_adapter
from chexray.platform.corpus.counting import count_pairs
from chexray.platform.corpus.drops import DROPS_FILE, NO_FAULT, decide_drops, drop_from_shard
from chexray.platform.corpus.ingest import ingest_chunk, merge_rejects, write_source_names
from chexray.platform.corpus.pair_reader import PairReader, redaction_rules, settings_digests
from chexray.platform.corpus.plan import Chunk, Plan, plan, with_salted_ids
from chexray.platform.corpus.salt import keep_salt, salt_for, salt_name, warn_of_other_salts
from chexray.platform.errors import ChexrayError


def ingest(
    recipe: Recipe,
    name: str,
    root: str,
    out: str,
    options: dict[str, Any] | None = None,
    runtime: Runtime | None = None,
    overwrite: bool = False,
    evaluation: Sequence[str] = (),
) -> Manifest:
    """Ingest the dataset `name` (an adapter's) below `root` into a corpus at `out`. Returns its manifest.

    Bad pairs are left out with their reason; the job fails only above `recipe.ingest.max_reject_rate`. Pairs to train
    on whose image or patient is in one of the `evaluation` corpora are left out too. Interrupted, it goes on with the
    shards that are missing.
    """
    root = storage.resolve(root)
    adapter = open_adapter(name, root, **(options or {}))
    salt = salt_for(storage.resolve(out))
    entries = adapter.pairs() if adapter.card.public else with_salted_ids(adapter.pairs(), salt)
    planned = plan(entries, recipe.ingest)
    if not planned.chunks:
        first = f"; first reason: {planned.rejects[0].reason}" if planned.rejects else ""
        raise ChexrayError(f"{root}: no pairs to ingest for '{name}' ({planned.listed} listed{first})")
    settings = {
        "adapter": name,
        "options": options or {},
        "salt": salt_name(salt),
        # Which share may be bad changes nothing in what is written.
        "ingest": recipe.ingest.model_dump(exclude={"max_reject_rate"}),
        "files": settings_digests(recipe.ingest),
    }
    inputs: dict[str, tuple[str, Kind]] = {f"evaluation {n}": (uri, "corpus") for n, uri in enumerate(evaluation, 1)}
    stage = Stage(out, "corpus", settings, inputs, source=(root, planned.digest), overwrite=overwrite)
    if done := stage.begin():
        return done
    keep_salt(stage.uri, salt)
    warn_of_other_salts(salt_name(salt), evaluation)
    reader = PairReader(root, recipe.ingest, salt, adapter.card.public, redaction_rules(recipe.ingest.redaction))
    with ray_session(runtime or Runtime()):
        _write_chunks(planned, reader, stage.uri)
        dropped = decide_drops(stage.uri, evaluation, recipe.ingest)
        if len(dropped):
            _drop(planned, dropped, stage.uri)
    reasons = merge_rejects(reader, stage.uri, planned, dropped.drop_columns(["sample_id"]))
    write_source_names(reader, stage.uri, planned)
    bad = sum(number for reason, number in reasons.items() if reason not in NO_FAULT)
    check_reject_rate(bad, planned.listed, recipe.ingest.max_reject_rate, stage.path("rejects.parquet"))
    counts = count_pairs(stage.uri, planned.listed, reasons) | {"salt": salt_name(salt)}
    if adapter.card.public and adapter.card.images is not None and name != "synthetic":
        counts["images_of_the_whole_dataset"] = adapter.card.images
    storage.remove_tree(stage.path(DROPS_FILE))
    return stage.finish(counts)


def _write_chunks(planned: Plan, reader: PairReader, out: str) -> None:
    """Read the chunks into shards, in parallel."""

    def write(row: dict[str, Any]) -> dict[str, int]:
        return ingest_chunk(reader, out, Chunk.from_json(row["item"]))

    pairs = sum(len(chunk.pairs) for chunk in planned.chunks)
    _spread("ingest", pairs, [chunk.to_json() for chunk in planned.chunks], write)


def _drop(planned: Plan, dropped: pa.Table, out: str) -> None:
    """Rewrite the shards without the dropped pairs, in parallel."""

    def rewrite(row: dict[str, Any]) -> dict[str, int]:
        drop_from_shard(out, row["item"], dropped)
        return {"done": 1}

    _spread("drop duplicates", len(planned.chunks), [chunk.shard for chunk in planned.chunks], rewrite)


def _spread(what: str, total: int, items: list[str], work: Callable[[dict[str, Any]], dict[str, int]]) -> None:
    """Run `work` on every item on Ray, one task each, under a bar that counts what it returns."""
    done = 0
    with bar(what, total) as reporter:
        tasks = ray.data.from_items([{"item": item} for item in items], override_num_blocks=len(items))
        for row in tasks.map(work, num_cpus=1).iter_rows():
            done += sum(row.values())
            reporter.update(done)


if __name__ == "__main__":
    run_job("ingest")
