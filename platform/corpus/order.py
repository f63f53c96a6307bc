"""In which order an epoch reads its pairs, and which of them are whose. A pure function of the seed.

An epoch is a seeded permutation in two levels: the shards are shuffled and put together in windows of a few, and the
pairs of a window are shuffled among themselves. Reads stay sequential and memory bounded, yet every epoch has another
order. The epoch is then cut into steps of at most `global_batch` pairs, all of the same size to within one pair, so
no pair is dropped and none is seen twice. Step t holds the same pairs at any number of workers: each takes a
contiguous share of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chexray.platform.corpus.shards import Shard

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """Shards that are read and shuffled together. `first` is the epoch's position of the window's first pair."""

    epoch: int
    index: int
    first: int
    shards: tuple[str, ...]
    pairs: int
    seed: int | None

    def permutation(self) -> IntArray:
        """[pairs] int64: row of the concatenated shards that is read at each position of the window."""
        if self.seed is None:
            return np.arange(self.pairs)
        return np.random.default_rng([self.seed, self.epoch, self.index]).permutation(self.pairs)


def epoch_windows(shards: Sequence[Shard], epoch: int, seed: int | None, shuffle_shards: int) -> list[Window]:
    """The windows of an epoch in their order of reading. Without a seed: the corpus's own order."""
    order = list(range(len(shards)))
    if seed is not None:
        order = np.random.default_rng([seed, epoch]).permutation(len(shards)).tolist()
    windows: list[Window] = []
    first = 0
    for start in range(0, len(order), shuffle_shards):
        members = [shards[i] for i in order[start : start + shuffle_shards]]
        pairs = sum(shard.pairs for shard in members)
        paths = tuple(shard.path for shard in members)
        windows.append(Window(epoch, len(windows), first, paths, pairs, seed))
        first += pairs
    return windows


@dataclass(frozen=True)
class EpochSteps:
    """How an epoch of `pairs` pairs is cut into steps, and a step into the workers' shares."""

    pairs: int
    global_batch: int

    @property
    def steps(self) -> int:
        return math.ceil(self.pairs / self.global_batch)

    def bounds(self, step: int) -> tuple[int, int]:
        """First and one-past-last position of a step: at most `global_batch` apart, even to within one pair."""
        return step * self.pairs // self.steps, (step + 1) * self.pairs // self.steps

    def share(self, step: int, rank: int, world: int) -> tuple[int, int]:
        """First and one-past-last position of what worker `rank` of `world` takes of a step."""
        first, end = self.bounds(step)
        size = end - first
        return first + rank * size // world, first + (rank + 1) * size // world

    def share_sizes(self, step: int, world: int) -> list[int]:
        return [end - first for first, end in (self.share(step, rank, world) for rank in range(world))]

    def positions(self, window: Window, rank: int, world: int) -> IntArray:
        """Positions within `window`, ascending, that belong to worker `rank`'s shares."""
        shares = [self.share(step, rank, world) for step in range(self.steps)]
        last = window.first + window.pairs
        parts = [
            np.arange(max(first, window.first), min(end, last))
            for first, end in shares
            if first < last and end > window.first
        ]
        return np.concatenate(parts) - window.first if parts else np.empty(0, np.int64)
