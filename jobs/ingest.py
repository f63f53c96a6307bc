"""Ingestion: reads a dataset's own files and writes a corpus.

As a cluster job: `ray job submit ... -- python -m chexray.jobs.ingest nih --root s3://... --out s3://...`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow.compute as pc
import ray.data

from chexray.cluster.local import ray_session
from chexray.jobs.progress import bar
from chexray.platform import storage
from chexray.platform.artifacts import Manifest, Stage, check_reject_rate
from chexray.platform.cli import run_job
from chexray.platform.config import Recipe, Runtime
from chexray.platform.corpus.adapters import open_adapter
from chexray.platform.corpus.ingest import Chunk, Plan, ingest_chunk, merge_rejects, plan, salt_for
from chexray.platform.corpus.shards import read_columns
from chexray.platform.errors import ChexrayError


def ingest(
    recipe: Recipe,
    name: str,
    root: str,
    out: str,
    options: dict[str, Any] | None = None,
    runtime: Runtime | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Ingest the dataset `name` (an adapter's) below `root` into a corpus at `out`. Returns its manifest.

    Bad pairs are left out with their reason; the job fails only above `recipe.ingest.max_reject_rate`. Interrupted, it
    goes on with the shards that are missing.
    """
    runtime = runtime or Runtime()
    root = storage.resolve(root)
    planned = plan(open_adapter(name, root, **(options or {})).pairs(), recipe.ingest)
    if not planned.chunks:
        first = f"; first reason: {planned.rejects[0].reason}" if planned.rejects else ""
        raise ChexrayError(f"{root}: no pairs to ingest for '{name}' ({planned.listed} listed{first})")
    settings = {"adapter": name, "options": options or {}, **recipe.model_dump(include={"ingest"})}
    stage = Stage(out, "corpus", settings, source=(root, planned.digest), overwrite=overwrite)
    if done := stage.begin():
        return done
    with ray_session(runtime), bar("ingest", sum(len(chunk.pairs) for chunk in planned.chunks)) as reporter:
        _ingest_chunks(planned, root, stage.uri, recipe, salt_for(stage.uri), reporter)
    reasons = merge_rejects(stage.uri, planned)
    check_reject_rate(
        sum(reasons.values()), planned.listed, recipe.ingest.max_reject_rate, stage.path("rejects.parquet")
    )
    return stage.finish(_counts(stage.uri, planned, reasons))


def _ingest_chunks(planned: Plan, root: str, out: str, recipe: Recipe, salt: str, reporter: Any) -> None:
    config = recipe.ingest
    chunks = [{"chunk": chunk.to_json()} for chunk in planned.chunks]

    def write(row: dict[str, Any]) -> dict[str, int]:
        return ingest_chunk(root, out, Chunk.from_json(row["chunk"]), config, salt)

    written = ray.data.from_items(chunks, override_num_blocks=len(chunks)).map(write, num_cpus=1)
    done = 0
    for row in written.iter_rows():
        done += row["kept"] + row["rejected"]
        reporter.update(done)


def _counts(corpus: str, planned: Plan, reasons: Counter[str]) -> dict[str, Any]:
    table = read_columns(corpus, ["split", "dataset", "patient_id", "report_source"])
    by_split = Counter(table["split"].to_pylist())
    patients = {
        split: pc.count_distinct(table.filter(pc.equal(table["split"], split))["patient_id"]).as_py()
        for split in sorted(by_split)
    }
    return {
        "listed": planned.listed,
        "pairs": table.num_rows,
        "rejected": sum(reasons.values()),
        "rejected_by_reason": dict(sorted(reasons.items())),
        "pairs_by_split": {split: by_split.get(split, 0) for split in ("train", "validation", "test")},
        "pairs_by_dataset": dict(sorted(Counter(table["dataset"].to_pylist()).items())),
        "patients": pc.count_distinct(table["patient_id"]).as_py(),
        "patients_by_split": patients,
        "report_source": dict(sorted(Counter(table["report_source"].to_pylist()).items())),
    }


if __name__ == "__main__":
    run_job("ingest")
