"""Merging: several corpora into one, without pairs that are in it twice or in an evaluation set.

As a cluster job: `ray job submit ... -- python -m chexray.jobs.merge s3://a s3://b --out s3://...`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from chexray.cluster.local import ray_session
from chexray.jobs.spread import spread
from chexray.platform import storage
from chexray.platform.artifacts import Kind, Manifest, Stage
from chexray.platform.cli import run_job
from chexray.platform.config import Recipe, Runtime
from chexray.platform.corpus.counting import count_pairs
from chexray.platform.corpus.drops import LEAKS_FILE
from chexray.platform.corpus.merge import MergedShard, MergePlan, plan_merge, write_merged_shard
from chexray.platform.corpus.salt import salt_of, warn_of_other_salts
from chexray.platform.corpus.shards import write_rejects, write_table
from chexray.platform.errors import ChexrayError, UsageError

MERGE_SETTINGS = {"shard_pairs", "duplicates", "leaks", "near_duplicate_bits"}
"""The settings of `ingest` that merging goes by."""


def merge(
    recipe: Recipe,
    corpora: Sequence[str],
    out: str,
    evaluation: Sequence[str] = (),
    runtime: Runtime | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Merge the corpora into one at `out`; `evaluation`: corpora that must share no image and no patient with it."""
    if len({storage.resolve(uri) for uri in corpora}) < len(corpora) or len(corpora) < 1:
        raise UsageError(f"merge: give each corpus once ({', '.join(corpora) or 'none given'})")
    salts = {salt_of(uri) for uri in corpora}
    settings = {
        "merge": True,
        "salt": salts.pop() if len(salts) == 1 else None,
        "ingest": recipe.ingest.model_dump(include=MERGE_SETTINGS),
    }
    inputs: dict[str, tuple[str, Kind]] = {f"corpus {n}": (uri, "corpus") for n, uri in enumerate(corpora, start=1)}
    inputs |= {f"evaluation {n}": (uri, "corpus") for n, uri in enumerate(evaluation, start=1)}
    stage = Stage(out, "corpus", settings, inputs, overwrite=overwrite)
    if done := stage.begin():
        return done
    sources = [stage.inputs[role] for role in inputs]
    warn_of_other_salts(salt_of(sources[0]), sources)
    planned = plan_merge(sources[: len(corpora)], sources[len(corpora) :], recipe.ingest)
    if not planned.shards:
        raise ChexrayError(f"merge: all {planned.listed} pairs were dropped; look at the inputs with chexray inspect")
    with ray_session(runtime or Runtime()):
        _write_shards(planned, stage.uri)
    rejects = planned.dropped.drop_columns(["sample_id"])
    write_rejects(stage.path("rejects.parquet"), rejects.to_pylist())
    if evaluation:
        write_table(stage.path(LEAKS_FILE), planned.leaks)
    reasons = Counter(str(reason) for reason in rejects["reason"].to_pylist())
    return stage.finish(count_pairs(stage.uri, planned.listed, reasons))


def _write_shards(planned: MergePlan, out: str) -> None:
    pairs = planned.listed - len(planned.dropped)
    shards = [shard.to_json() for shard in planned.shards]
    spread("merge", pairs, shards, lambda shard: write_merged_shard(out, MergedShard.from_json(shard)))


if __name__ == "__main__":
    run_job("merge")
