"""What the first epoch of a run that chooses its pairs will do, checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chexray.curation.plan import CurationPlan
from chexray.curation.stream import require_pairs
from chexray.platform.artifacts import read_manifest
from chexray.platform.config import CurateConfig, Recipe
from chexray.platform.corpus.order import EpochSteps
from chexray.platform.errors import UsageError
from chexray.platform.model.checkpoint import require_checkpoint, require_same_model

Curation = Literal["paper", "streaming"]


@dataclass(frozen=True)
class CuratedEpoch:
    """How a run's epochs are cut: steps of the first, and planned ones of each later one (exact with a budget)."""

    plan: CurationPlan
    mode: Curation

    @property
    def config(self) -> CurateConfig:
        """The settings that choose: inside the step a super-batch is a global batch."""
        config = self.plan.config
        return config if self.mode == "streaming" else config.model_copy(update={"super_batch": self.plan.global_batch})

    @property
    def follows(self) -> bool:
        """Whether the run's own weights score, so that it starts from the scorer's."""
        return self.mode == "paper" or self.plan.config.refresh_steps is not None

    @property
    def steps(self) -> EpochSteps:
        return self.plan.steps if self.mode == "streaming" else EpochSteps(self.plan.pairs, self.plan.global_batch)

    @property
    def later_steps(self) -> int:
        return self.plan.steps.steps

    def total_steps(self, epochs: int) -> int:
        return self.steps.steps + self.later_steps * (epochs - 1)


def epoch_of(recipe: Recipe, corpus: str, mode: Curation, scorer: str | None) -> CuratedEpoch:
    """What the epoch will do. `UsageError` for settings that do not go with the mode."""
    config = recipe.curate
    if config.selector != "prototype":
        raise UsageError(f"--curation {mode}: chooses by prototypes; curate.selector is {config.selector}")
    if mode == "streaming" and config.mode == "paper":
        raise UsageError("--curation streaming: needs curate.mode=budget; for fixed counts give --curation paper")
    pairs = int(read_manifest(corpus, "corpus").counts["pairs_by_split"]["train"])
    require_pairs(config, pairs)
    epoch = CuratedEpoch(CurationPlan(config, pairs, recipe.train.global_batch), mode)
    if scorer and epoch.follows:
        require_checkpoint(scorer)
        require_same_model(scorer, recipe.model)
    return epoch
