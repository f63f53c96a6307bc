"""Writing a subset, whatever chose its pairs: its table, the kept pairs as a compact corpus, their ids, the audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray

from chexray.curation.audit_report import Audited, write_audit
from chexray.curation.features import has_features
from chexray.curation.stream import choose_again
from chexray.platform.artifacts import Manifest, Stage
from chexray.platform.config import CurateConfig
from chexray.platform.corpus.shards import Shard, write_compact_shard, write_table
from chexray.platform.corpus.uids import write_uids
from chexray.platform.errors import UsageError

AUDITED = (
    "sample_id",
    "dataset",
    "view",
    "sex",
    "age_years",
    "split",
    "labels",
    "pixel_hash",
    "perceptual_hash",
)
"""The corpus's columns that the audit needs."""


def write_subset(
    stage: Stage,
    corpus: str,
    shards: Sequence[Shard],
    pairs: pa.Table,
    table: pa.Table,
    cost: Mapping[str, Any],
    counts: Mapping[str, Any] | None = None,
    config: CurateConfig | None = None,
    features: str | None = None,
) -> Manifest:
    """Write all that a subset is made of and finish the stage, which has begun. Needs Ray.

    `pairs`: the columns `AUDITED` of the train split, whose shards are `shards`. `table`: the subset's rows, in the
    order of `pairs`; it keeps one or more. `counts` go into the manifest beside how many pairs there are and are kept.
    `config` is what chose them, and `features` where the pairs' features are, if they have any.
    """
    kept_ids = table.filter(table["kept"])["sample_id"].to_pylist()
    _write_compact_corpus(corpus, stage, [shard.path for shard in shards], kept_ids)
    write_table(stage.path("subset.parquet"), table)
    write_uids(stage.path("kept.npy"), kept_ids)
    config = config or CurateConfig()
    paths = tuple(shard.path for shard in shards)
    audited = Audited(stage.uri, corpus, paths, pairs, table, features, _under_other_seeds(features, config))
    # A task: features are large, and the driver may be a small machine.
    ray.get(ray.remote(num_cpus=1)(write_audit).remote(audited, config.examples, config.seed))
    sizes = {"pairs": len(pairs), "kept": len(kept_ids), "kept_fraction": len(kept_ids) / len(pairs)}
    return stage.finish({**sizes, **(counts or {})}, cost)


def require_kept(table: pa.Table, config: CurateConfig) -> None:
    """Raise `UsageError` where nothing is kept: there is no subset without pairs."""
    if not any(table["kept"].to_pylist()):
        raise UsageError(f"curate.keep={config.keep}: keeps none of the {len(table)} pairs to train on")


def _under_other_seeds(features: str | None, config: CurateConfig) -> list[frozenset[str]]:
    """What prototypes keep under other seeds, of which the stream's order is one thing."""
    if features is None or config.selector != "prototype" or not has_features(features):
        return []
    kept = []
    for seed in range(config.seed + 1, config.seed + 1 + config.stability_seeds):
        other = choose_again(features, config.model_copy(update={"seed": seed}), shuffle=seed)
        keep = other.selection.keep_B.tolist()
        kept.append(frozenset(sample for sample, kept_B in zip(other.sample_id, keep, strict=True) if kept_B))
    return kept


def _write_compact_corpus(corpus: str, stage: Stage, shards: list[str], kept_ids: list[str]) -> None:
    """The kept rows as shards of their own, so that training reads nothing else."""
    ids = ray.put(frozenset(kept_ids))
    write = ray.remote(num_cpus=1)(write_compact_shard)
    ray.get([write.remote(corpus, stage.path("corpus"), shard, ids) for shard in shards])
