"""Ingestion: reads a dataset's own files and writes a corpus.

As a cluster job: `ray job submit ... -- python -m chexray.jobs.ingest nih --root s3://... --out s3://...`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from chexray.cluster.local import ray_session
from chexray.jobs.spread import spread
from chexray.platform import storage
from chexray.platform.artifacts import Kind, Manifest, Stage, check_reject_rate
from chexray.platform.cli import run_job
from chexray.platform.config import Recipe, Runtime
from chexray.platform.corpus.adapters import open_adapter
from chexray.platform.corpus.counting import count_pairs
from chexray.platform.corpus.drops import NO_FAULT, decide_drops, drop_from_shard
from chexray.platform.corpus.ingest import ingest_chunk, merge_rejects, write_source_names
from chexray.platform.corpus.pair_reader import PairReader
from chexray.platform.corpus.plan import Chunk, Plan, plan, with_salted_ids
from chexray.platform.corpus.salt import keep_salt, salt_for, salt_name, warn_of_other_salts
from chexray.platform.corpus.setting_files import file_digests, redaction_rules
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
        "files": file_digests(recipe.ingest),
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
        _rewrite_without(dropped, planned, stage.uri)
    reasons = merge_rejects(reader, stage.uri, planned, dropped.drop_columns(["sample_id"]))
    write_source_names(reader, stage.uri, planned)
    bad = {reason: number for reason, number in reasons.items() if reason not in NO_FAULT}
    check_reject_rate(bad, planned.listed, recipe.ingest.max_reject_rate, stage.path("rejects.parquet"))
    counts = count_pairs(stage.uri, planned.listed, reasons)
    if adapter.card.images is not None:
        counts["images_of_the_whole_dataset"] = adapter.card.images
    return stage.finish(counts)


def _write_chunks(planned: Plan, reader: PairReader, out: str) -> None:
    pairs = sum(len(chunk.pairs) for chunk in planned.chunks)
    chunks = [chunk.to_json() for chunk in planned.chunks]
    spread("ingest", pairs, chunks, lambda chunk: ingest_chunk(reader, out, Chunk.from_json(chunk)))


def _rewrite_without(dropped: pa.Table, planned: Plan, out: str) -> None:
    def rewrite(shard: str) -> int:
        drop_from_shard(out, shard, dropped)
        return 1

    if len(dropped):
        shards = [chunk.shard for chunk in planned.chunks]
        spread("drop copies", len(shards), shards, rewrite)


if __name__ == "__main__":
    run_job("ingest")
