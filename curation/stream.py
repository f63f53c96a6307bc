"""Curation of a whole corpus as it streams by: the pairs are scored ahead, one curator selects in their order.

Ray Data reads, decodes and encodes; a curator actor holds the prototypes, cuts the stream into super-batches, keeps
its share of each and lets the prototypes follow what was kept. Features go to it straight from the scorers. As the
order of the stream is ours and each super-batch's budget follows from its place, the result does not depend on how
many scorers there are or which was first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch

from chexray.curation.prototypes import kmeans, pair_features, update_prototypes
from chexray.curation.selection import Selection, SelectionRule, select, superbatch_budget
from chexray.platform.config import CurateConfig, Runtime
from chexray.platform.corpus.order import EpochSteps, epoch_windows
from chexray.platform.corpus.reading import RowTaker
from chexray.platform.corpus.shards import Shard
from chexray.platform.errors import UsageError
from chexray.platform.streaming import encoded_pairs

SHUFFLE_SHARDS = 1
"""Shards are random samples already; one after the other is enough for super-batches that look like the corpus."""


@dataclass(frozen=True)
class Curated:
    """What became of every pair, in the order of the stream; and the prototypes at its end (float32 [K, E])."""

    sample_id: list[str]
    selection: Selection
    prototype_KE: torch.Tensor


def curate_stream(
    corpus: str,
    shards: list[Shard],
    scorer: str,
    image_size: int,
    batch: int,
    config: CurateConfig,
    runtime: Runtime,
    reporter: Any,
) -> Curated:
    """Score the pairs of `shards` with the checkpoint `scorer` and select from them. `reporter.update` is told."""
    windows = epoch_windows(shards, 0, config.seed, SHUFFLE_SHARDS)
    features = encoded_pairs(scorer, corpus, windows, image_size, batch, runtime)
    pairs = sum(shard.pairs for shard in shards)
    if pairs < config.prototypes:
        raise UsageError(f"curate.prototypes={config.prototypes}: the train split has only {pairs} pairs")
    curator = _Curator.remote(config, pairs)
    (stream,) = features.streaming_split(1)
    try:
        result: Curated = ray.get(curator.run.remote(stream, reporter))
    finally:
        ray.kill(curator)
    return result


def start_prototypes(feature_NE: torch.Tensor, config: CurateConfig) -> torch.Tensor:
    """[K, E] unit rows: k-means on the features of a random sample of the corpus."""
    return kmeans(feature_NE, config.prototypes, config.seed)


class Curator:
    """Holds the prototypes and takes one super-batch after the other."""

    def __init__(self, config: CurateConfig, pairs: int) -> None:
        self.config = config
        self.cut = EpochSteps(pairs, config.super_batch)
        self.rule = SelectionRule(config.outlier, config.support, config.mode, config.central_per_cluster)
        self.prototype_KE: torch.Tensor | None = None

    def run(self, stream: Any, reporter: Any) -> Curated:
        """Consume a Ray Data iterator over blocks of `sample_id`, `image`, `text`."""
        blocks = stream.iter_batches(batch_size=None, prefetch_batches=2)
        return self.consume(blocks, lambda done: reporter.update(done))

    def consume(self, blocks: Iterator[dict[str, Any]], on_pairs: Any) -> Curated:
        """Select from the whole stream of blocks; `on_pairs` is told how many pairs are done."""
        rows = RowTaker(iter(blocks))
        ids: list[str] = []
        selections: list[Selection] = []
        waiting: list[tuple[list[str], torch.Tensor]] = []
        sample = min(self.config.kmeans_sample, self.cut.pairs)
        for step in range(self.cut.steps):
            first, end = self.cut.bounds(step)
            block = rows.take(end - first)
            feature_BE = pair_features(torch.from_numpy(block["image"]), torch.from_numpy(block["text"]))
            waiting.append((block["sample_id"].tolist(), feature_BE))
            if self.prototype_KE is None and end < sample:
                continue
            if self.prototype_KE is None:
                self.prototype_KE = start_prototypes(torch.cat([f for _, f in waiting])[:sample], self.config)
            for batch_ids, batch_BE in waiting:
                selections.append(self._select(batch_ids, batch_BE, len(ids)))
                ids += batch_ids
            waiting = []
            on_pairs(len(ids))
        assert self.prototype_KE is not None  # the last super-batch ends at or after the sample
        return Curated(ids, _joined(selections), self.prototype_KE)

    def _select(self, ids: list[str], feature_BE: torch.Tensor, seen: int) -> Selection:
        assert self.prototype_KE is not None
        config = self.config
        budget = superbatch_budget(config.keep, seen, len(ids)) if config.mode == "budget" else None
        selection = select(feature_BE, self.prototype_KE, self.rule, budget, ids)
        kept_BE = feature_BE[selection.keep_B]
        self.prototype_KE = update_prototypes(
            self.prototype_KE, kept_BE, config.momentum, config.sinkhorn_epsilon, config.sinkhorn_iterations
        )
        return selection


_Curator = ray.remote(num_cpus=0)(Curator)


def _joined(selections: list[Selection]) -> Selection:
    return Selection(
        torch.cat([s.cluster_B for s in selections]),
        torch.cat([s.distance_B for s in selections]),
        torch.cat([s.band_B for s in selections]),
        torch.cat([s.keep_B for s in selections]),
    )


def random_keep(ids: list[str], keep: float, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """[N] bool: round(keep * N) of the ids, the lowest by a seeded hash, so that the order of ids does not matter."""
    from chexray.platform.corpus.schema import seeded_fraction

    draws = np.array([seeded_fraction(seed, "random-subset", sample) for sample in ids])
    kept = np.zeros(len(ids), dtype=bool)
    kept[np.argsort(draws, kind="stable")[: superbatch_budget(keep, 0, len(ids))]] = True
    return kept
