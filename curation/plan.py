"""What a curation epoch will do, known before it starts: how much it keeps, in which steps, scored by which weights.

Position: place of a pair in the epoch's order. Step: one optimizer step. Version: the number of steps after which the
weights that score a pair were taken; 0 for those at the start.
"""

from __future__ import annotations

from dataclasses import dataclass

from chexray.curation.selection import superbatch_budget
from chexray.platform.config import CurateConfig
from chexray.platform.corpus.order import EpochSteps


@dataclass(frozen=True)
class CurationPlan:
    """`pairs` of the epoch are scored in super-batches; the kept ones fill steps of at most `global_batch`.

    As the budget fixes how many of each super-batch are kept, all follows from the settings: which step trains on a
    kept pair, and how old the weights are that scored it.
    """

    config: CurateConfig
    pairs: int
    global_batch: int

    @property
    def superbatches(self) -> EpochSteps:
        return EpochSteps(self.pairs, self.config.super_batch)

    @property
    def kept(self) -> int:
        return superbatch_budget(self.config.keep, 0, self.pairs)

    @property
    def steps(self) -> EpochSteps:
        return EpochSteps(self.kept, self.global_batch)

    @property
    def sample(self) -> int:
        """Pairs, the first of the epoch, on which the prototypes start; super-batches in them wait for each other."""
        return min(self.config.kmeans_sample, self.pairs)

    def version(self, position: int) -> int:
        """The version that scores the pair at `position`.

        The newest multiple of `refresh_steps` that does not need any of the `ahead` super-batches before this one:
        those can be scored meanwhile.
        """
        if self.config.refresh_steps is None:
            return 0
        batch = self._superbatch_of(position)
        end, _ = self.superbatches.bounds(max(0, batch - self.config.ahead))
        if self.superbatches.bounds(batch)[0] < self.sample or end == 0:
            return 0
        done = self._steps_within(superbatch_budget(self.config.keep, 0, end))
        return done // self.config.refresh_steps * self.config.refresh_steps

    @property
    def versions(self) -> list[int]:
        """Every version that a scorer will ask for, ascending, without the first."""
        starts = (self.superbatches.bounds(batch)[0] for batch in range(self.superbatches.steps))
        return sorted({self.version(start) for start in starts} - {0})

    def step_of(self, rank: int) -> int:
        """The step that trains on the pair kept as number `rank`, counted from 0."""
        return ((rank + 1) * self.steps.steps - 1) // self.kept

    def _superbatch_of(self, position: int) -> int:
        return ((position + 1) * self.superbatches.steps - 1) // self.pairs

    def _steps_within(self, kept: int) -> int:
        """How many whole steps the first `kept` kept pairs fill."""
        if self.kept == 0:
            return 0
        return min(self.steps.steps, ((kept + 1) * self.steps.steps - 1) // self.kept)
