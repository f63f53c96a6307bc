"""Between the curator, which keeps pairs as they come, and the training workers, which take whole steps. Thread-safe.

B: pairs of a step; b: a worker's share.
"""

from __future__ import annotations

import threading
from collections import Counter, deque

import numpy as np

from chexray.curation.curator import Block
from chexray.platform.corpus.order import EpochSteps


class Handout:
    """Kept pairs, in their order, cut into the steps of an epoch, of which each worker takes its share once."""

    def __init__(self, steps: EpochSteps, limit: int, first_step: int = 0) -> None:
        """`limit`: pairs that may wait beyond the next step; while no step is whole, any number may.

        `first_step`: whose pairs are the first to come.
        """
        self._steps = steps
        self._limit = limit
        self._changed = threading.Condition()
        self._waiting: deque[Block] = deque()
        self._waiting_pairs = 0
        self._cut = first_step
        self._ready: dict[int, Block] = {}
        self._taken: Counter[int] = Counter()
        self._failure: BaseException | None = None

    def put(self, block: Block) -> None:
        """Add kept pairs. Waits while as many as allowed are there; raises what `fail` was told."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or not self._ready or self._held() <= self._limit)
            self._raise()
            self._waiting.append(block)
            self._waiting_pairs += len(block["sample_id"])
            self._cut_steps()
            self._changed.notify_all()

    def take(self, step: int, rank: int, world: int) -> Block:
        """Worker `rank`'s share of a step; waits for it. Raises what `fail` was told."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or step in self._ready)
            self._raise()
            block = self._ready[step]
            self._taken[step] += 1
            if self._taken[step] == world:
                del self._ready[step]
            self._changed.notify_all()
        begin = self._steps.bounds(step)[0]
        first, end = self._steps.share(step, rank, world)
        return {name: values[first - begin : end - begin] for name, values in block.items()}

    def fail(self, error: BaseException) -> None:
        """Wake everyone up with this error."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def _held(self) -> int:
        """Pairs beyond the step that is to be taken next."""
        later = sorted(self._ready)[1:]
        return self._waiting_pairs + sum(len(self._ready[step]["sample_id"]) for step in later)

    def _cut_steps(self) -> None:
        while self._cut < self._steps.steps:
            first, end = self._steps.bounds(self._cut)
            if self._waiting_pairs < end - first:
                return
            self._ready[self._cut] = self._next(end - first)
            self._cut += 1

    def _next(self, pairs: int) -> Block:
        """The next `pairs` that wait, each copied once."""
        pieces: list[Block] = []
        self._waiting_pairs -= pairs
        while pairs:
            block = self._waiting.popleft()
            pieces.append({name: values[:pairs] for name, values in block.items()})
            left = len(block["sample_id"]) - pairs
            if left > 0:
                self._waiting.appendleft({name: values[pairs:] for name, values in block.items()})
            pairs = max(0, -left)
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure
