"""What a sweep looks at: methods, kept fractions, compute budgets, seeds, and any other setting of a recipe.

It is given as a YAML file (`chexray sweep --space FILE`), whose keys are the fields of `SweepSpace`.
"""

from __future__ import annotations

from itertools import product
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from chexray.platform import storage
from chexray.platform.config import SelectorName, setting_keys
from chexray.platform.errors import UsageError
from chexray.platform.settings import Positive, Seed, Settings, first_problem
from chexray.platform.sweep.points import BudgetUnit, Point, Value

T = TypeVar("T")

VALIDATION_LOSS = "validation_loss"

SWEPT_ELSEWHERE = {
    "curate.selector": "methods",
    "curate.keep": "keep",
    "curate.mode": "keep",
    "train.epochs": "budgets",
    "train.seed": "seeds",
    "curate.seed": "seeds",
}
"""Settings that have a key of their own in a space."""


class Range(Settings):
    """Numbers from `low` to `high`, for search 'random' and 'optuna'. `log`: even in the logarithm."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError(f"low {self.low} and high {self.high}: low must be below high, and above 0 with log")
        return self

    def draw(self, generator: np.random.Generator) -> float:
        if self.log:
            return float(np.exp(generator.uniform(np.log(self.low), np.log(self.high))))
        return float(generator.uniform(self.low, self.high))


class Scheduler(Settings):
    """Which trials are stopped early, by the validation loss. Trials are compared within one budget only."""

    name: Literal["none", "asha", "median"] = "asha"
    first_look: float = Field(0.5, gt=0, lt=1, description="share of its budget after which a trial may be stopped")
    reduction: float = Field(2.0, gt=1, description="of asha: one of so many trials goes on at each look")
    looks: Positive = Field(4, description="how often a trial is looked at, evenly over its budget")


class FullSize(Settings):
    """The run for which a cost is asked: on how many pairs, on which GPU, at what price."""

    pairs: Positive | None = Field(None, description="of the corpus; null: of the one that is swept")
    gpu: str = Field("NVIDIA H100 80GB HBM3", description="as torch.cuda.get_device_name() gives it")
    utilisation: float = Field(0.4, gt=0, le=1, description="share of the GPU's peak that training reaches")
    price_per_hour: float | None = Field(None, ge=0, description="of a GPU, in any currency")


class SweepSpace(Settings):
    """A sweep's space, how it is searched, and by what its trials are judged."""

    methods: tuple[SelectorName, ...] = Field(("random", "prototype"), min_length=1)
    keep: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field((0.1, 0.227, 0.5, 1.0), min_length=1)
    budgets: tuple[Annotated[float, Field(gt=0)], ...] = Field((4.0,), min_length=1)
    budget_unit: BudgetUnit = Field(
        "passes", description="pairs seen, as passes over the whole train split or as a number; or FLOPs, with curation"
    )
    seeds: tuple[Seed, ...] = Field((0,), min_length=1)
    settings: dict[str, tuple[Value, ...] | Range] = Field({}, description="any other setting: values, or a range")
    search: Literal["grid", "random", "optuna"] = "grid"
    trials: Positive | None = Field(None, description="how many, of search 'random' and 'optuna'")
    search_seed: Seed = 0
    scheduler: Scheduler = Scheduler()
    benchmarks: tuple[str, ...] = Field(
        ("zero_shot", "retrieval"), min_length=1, description="on which every trained checkpoint is scored"
    )
    metric: str = Field(
        "zero_shot.mean_auroc", description="by which the sweep concludes: benchmark.metric, or validation_loss"
    )
    delta: float = Field(0.01, gt=0, description="how much worse than full a smaller fraction may be")

    full_size: FullSize = FullSize()

    @field_validator("settings", mode="before")
    @classmethod
    def _ranges_are_told_from_values(cls, given: Any) -> Any:
        """So that what is wrong with a range is said of a range."""
        if not isinstance(given, dict):
            return given
        read = dict(given)
        for key, values in given.items():
            if isinstance(values, dict):
                try:
                    read[key] = Range.model_validate(values)
                except ValidationError as error:
                    problem = first_problem(error, lambda name: f"{name}: a range has low, high and log")
                    raise ValueError(f"{key}: {problem}") from error
        return read

    @model_validator(mode="after")
    def _can_be_searched(self) -> Self:
        for name in ("methods", "keep", "budgets", "seeds", "benchmarks"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: one is named twice")
        ranges = [key for key, values in self.settings.items() if isinstance(values, Range)]
        if self.search == "grid" and ranges:
            raise ValueError(f"settings.{ranges[0]}: a range is no grid; give values, or another search")
        if (self.trials is None) != (self.search == "grid"):
            raise ValueError(f"trials={self.trials} with search {self.search}: a grid has no number, others need one")
        if self.metric != VALIDATION_LOSS and self.metric.split(".")[0] not in self.benchmarks:
            allowed = f"{VALIDATION_LOSS}, or benchmark.metric, of {', '.join(self.benchmarks)}"
            raise ValueError(f"metric {self.metric}: expected {allowed}")
        for key, values in self.settings.items():
            if key in SWEPT_ELSEWHERE:
                raise ValueError(f"settings.{key}: is what '{SWEPT_ELSEWHERE[key]}' is for")
            if key not in setting_keys() or key.split(".")[0] not in ("model", "curate", "train"):
                raise ValueError(f"settings.{key}: not a setting of model, curate or train")
            if not isinstance(values, Range) and not values:
                raise ValueError(f"settings.{key}: no values")
        if "learnability" in self.methods:
            raise ValueError("methods: learnability compares with a reference checkpoint, which a sweep does not have")
        if "train.global_batch" in self.settings and self.scheduler.name != "none":
            raise ValueError(
                "settings.train.global_batch: the validation loss depends on it, so trials cannot be compared by it; "
                "set scheduler.name: none"
            )
        return self

    def points(self) -> list[Point]:
        """Every point of a grid, in the order of its keys; or as many as are to be drawn, by `search_seed`.

        Of search 'optuna' none: it asks for them one by one.
        """
        if self.search == "optuna":
            return []
        if self.search == "random":
            generator = np.random.default_rng(self.search_seed)
            return [self._drawn(generator) for _ in range(self.trials or 0)]
        values = [list(one) for one in self.settings.values() if not isinstance(one, Range)]
        return [
            self.point(method, keep, budget, seed, dict(zip(self.settings, others, strict=True)))
            for method in self.methods
            for keep in self.keep
            for budget in self.budgets
            for seed in self.seeds
            for others in product(*values)
        ]

    def point(self, method: SelectorName, keep: float, budget: float, seed: int, settings: dict[str, Any]) -> Point:
        return Point(
            method=method, keep=keep, budget=budget, budget_unit=self.budget_unit, seed=seed, settings=settings
        )

    def _drawn(self, generator: np.random.Generator) -> Point:
        def one_of(values: tuple[T, ...]) -> T:
            return values[int(generator.integers(len(values)))]

        method, keep = one_of(self.methods), one_of(self.keep)
        budget, seed = one_of(self.budgets), one_of(self.seeds)
        settings = {
            key: values.draw(generator) if isinstance(values, Range) else one_of(values)
            for key, values in self.settings.items()
        }
        return self.point(method, keep, budget, seed, settings)


def read_space(uri: str | None) -> SweepSpace:
    """The space in the YAML file at `uri`; the default one for None. Raises `UsageError` naming key and value."""
    if uri is None:
        return SweepSpace()
    if not storage.exists(uri):
        raise UsageError(f"--space {uri}: no such file")
    try:
        content = yaml.safe_load(storage.read_bytes(uri).decode()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--space {uri}: not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise UsageError(f"--space {uri}: expected keys such as methods, keep, budgets, seeds")
    try:
        return SweepSpace.model_validate(content)
    except ValidationError as error:
        allowed = ", ".join(SweepSpace.model_fields)
        problem = first_problem(error, lambda key: f"{key}: unknown key; allowed: {allowed}")
        raise UsageError(f"--space {uri}: {problem}") from error
