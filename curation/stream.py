"""Scoring a whole corpus as it streams by, and choosing from it meanwhile, with Ray Data.

Scorers encode; one actor writes the features down, cuts the stream into super-batches, keeps its share of each and
lets the prototypes follow what was kept. Features go to it straight from the scorers, once. As the order of the
stream is ours and each super-batch's budget follows from its place, the result does not depend on how many scorers
there are or which was first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.data

from chexray.curation.curator import Block, Curated, Curator, Record
from chexray.curation.features import FeatureWriter, open_features
from chexray.curation.selection import superbatch_budget
from chexray.platform.config import CurateConfig, Runtime
from chexray.platform.corpus.order import epoch_windows
from chexray.platform.corpus.shards import Shard
from chexray.platform.errors import UsageError
from chexray.platform.streaming import encoded_pairs

SHUFFLE_SHARDS = 1
"""Shards are random samples already; one after the other is enough for super-batches that look like the corpus."""


@dataclass(frozen=True)
class Scoring:
    """What is scored, by what, and where the features go. `image_size`: pixels. `logit_scale`: the scorer's."""

    corpus: str
    shards: list[Shard]
    scorer: str
    image_size: int
    logit_scale: float
    batch: int
    features: str


@dataclass(frozen=True, eq=False)
class Scored:
    """`curated`: None where another selector looks at the features. `device_seconds`: time of the scorers, summed."""

    curated: Curated | None
    device_seconds: float


def score_stream(scoring: Scoring, config: CurateConfig, runtime: Runtime, reporter: Any) -> Scored:
    """Write down the features of every pair, and choose by prototypes where the selector is that."""
    windows = epoch_windows(scoring.shards, 0, config.seed, SHUFFLE_SHARDS)
    scorer, size, batch = scoring.scorer, scoring.image_size, scoring.batch
    features = encoded_pairs(scorer, scoring.corpus, windows, size, batch, runtime, config.precision, half=True)
    pairs = sum(shard.pairs for shard in scoring.shards)
    return take_features(features, pairs, scoring.features, scoring.logit_scale, config, reporter)


def take_features(
    features: ray.data.Dataset, pairs: int, uri: str, logit_scale: float, config: CurateConfig, reporter: Any
) -> Scored:
    """The same for a stream of `pairs` features that someone else scores.

    Its blocks: `sample_id` [n], `image` and `text` unit rows [n, D] in float16 or float32, `seconds` [n].
    """
    require_pairs(config, pairs)
    actor = _ScoredStreamActor.remote(config, pairs)
    (stream,) = features.streaming_split(1)
    try:
        result: Scored = ray.get(actor.run.remote(stream, uri, logit_scale, reporter))
    finally:
        ray.kill(actor)
    return result


def choose_again(features: str, config: CurateConfig, shuffle: int | None = None) -> Curated:
    """Choose by prototypes from features that are there already: the same pairs as when they were scored.

    With a seed to `shuffle` by, from a stream in another order.
    """
    task = ray.remote(num_cpus=1)(_choose_again)
    result: Curated = ray.get(task.remote(features, config, shuffle))
    return result


def require_keepable(config: CurateConfig, pairs: int) -> None:
    """Raise `UsageError` where the fraction is less than a pair: before anything is scored for it."""
    if config.mode == "budget" and superbatch_budget(config.keep, 0, pairs) == 0:
        raise UsageError(f"curate.keep={config.keep}: keeps none of the {pairs} pairs to train on")


def require_pairs(config: CurateConfig, pairs: int) -> None:
    if config.selector == "prototype" and pairs < config.prototypes:
        raise UsageError(f"curate.prototypes={config.prototypes}: the train split has only {pairs} pairs")


class _ScoredStream:
    def __init__(self, config: CurateConfig, pairs: int) -> None:
        self.config, self.pairs = config, pairs
        self.seconds = 0.0

    def run(self, stream: Any, uri: str, logit_scale: float, reporter: Any) -> Scored:
        """Consume a Ray Data iterator over blocks of `sample_id`, `image`, `text`, `seconds`."""
        writer = FeatureWriter(uri, self.pairs)
        blocks = (writer.take(block) for block in self._timed(stream))
        curated = None
        if self.config.selector == "prototype":
            curated = curate_blocks(blocks, self.config, self.pairs, reporter)
        else:
            _drain(blocks, reporter)
        writer.finish(logit_scale)
        writer.close()
        return Scored(curated, self.seconds)

    def _timed(self, stream: Any) -> Iterator[Block]:
        for block in stream.iter_batches(batch_size=None, prefetch_batches=2):
            self.seconds += float(np.sum(block["seconds"]))
            yield block


_ScoredStreamActor = ray.remote(num_cpus=0)(_ScoredStream)


def curate_blocks(blocks: Iterator[Block], config: CurateConfig, pairs: int, reporter: Any = None) -> Curated:
    """Choose from a stream to its end."""
    curator, record = Curator(config, pairs), Record(pairs)
    for chosen in curator.choose_all(blocks):
        done = record.add(chosen.block["sample_id"], chosen.selection)
        if reporter is not None:
            reporter.update(done)
    assert curator.prototype_KE is not None  # the last super-batch ends at or after the sample
    return record.curated(curator.prototype_KE)


def _choose_again(features: str, config: CurateConfig, shuffle: int | None) -> Curated:
    with open_features(features) as found:
        return curate_blocks(found.blocks(shuffle), config, len(found.sample_id))


def _drain(blocks: Iterator[Block], reporter: Any) -> None:
    done = 0
    for block in blocks:
        done += len(block["sample_id"])
        reporter.update(done)
