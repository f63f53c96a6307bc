"""A point of a sweep's space, the run that it asks for, and how long that run is."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from chexray.platform.config import Recipe, SelectorName, with_settings
from chexray.platform.settings import Positive, Seed, Settings

if TYPE_CHECKING:  # torch comes with it
    from chexray.platform.ledger import PairFlops

BudgetUnit = Literal["passes", "pairs", "flops"]
Value = bool | int | float | str


class Point(Settings):
    """What is to be chosen how, for how much compute. `settings`: of a recipe, by dotted key."""

    method: SelectorName
    keep: float = Field(gt=0, le=1)
    budget: float = Field(gt=0)
    budget_unit: BudgetUnit = "passes"
    seed: Seed = 0
    settings: dict[str, Value] = Field({})

    def run(self) -> Point:
        """The point that stands for its run: at a kept fraction of 1 every method keeps the same pairs."""
        if self.keep == 1 or self.method == "full":
            return self.model_copy(update={"method": "full", "keep": 1.0})
        return self

    @property
    def name(self) -> str:
        """Of the run, as a folder's name: the same point has the same name in every sweep."""
        point = self.run()
        unit = {"passes": "x", "pairs": "-pairs", "flops": "-flops"}[point.budget_unit]
        kept = "" if point.method == "full" else f"-{point.keep:g}"
        digest = hashlib.sha256(json.dumps(point.settings, sort_keys=True).encode()).hexdigest()[:8]
        return f"{point.method}{kept}-{point.budget:g}{unit}-s{point.seed}" + (f"-{digest}" if point.settings else "")

    def recipe(self, base: Recipe) -> Recipe:
        """The recipe of the point's run, but for its epochs. Raises `UsageError` for what cannot be."""
        point = self.run()
        own = {
            "curate.selector": point.method,
            "curate.keep": point.keep,
            "curate.seed": point.seed,
            "train.seed": point.seed,
        }
        return with_settings(base, {**own, **point.settings})


def whole_epochs(point: Point, train_pairs: int, kept: int, per_pair: PairFlops, curation_flops: int) -> Positive:
    """Epochs over `kept` pairs that come nearest to the point's budget, one at least.

    A budget in FLOPs pays for the curation first. `train_pairs`: of the whole train split.
    """
    pairs = point.budget
    if point.budget_unit == "passes":
        pairs = point.budget * train_pairs
    elif point.budget_unit == "flops":
        pairs = (point.budget - curation_flops) / per_pair.train
    return max(1, round(pairs / kept))
