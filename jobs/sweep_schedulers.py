"""Ray Tune's schedulers and searchers, as a sweep's space asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from chexray.jobs.looks import PROGRESS, progress_of
from chexray.platform.sweep.points import Point
from chexray.platform.sweep.records import TrialRecord
from chexray.platform.sweep.space import VALIDATION_LOSS, Range, Scheduler, SweepSpace

_MODE = "min"
_WHOLE = 100
_FEWEST = 3
"""Trials with which one is compared, at least, before its median may stop it."""


@dataclass(frozen=True, eq=False)
class _Remembered:
    """What schedulers look at of a trial."""

    trial_id: str
    config: dict[str, Any]


class PerBudget(FIFOScheduler):  # type: ignore[misc]
    """One scheduler for the trials of each budget: another budget has another learning-rate schedule.

    Halfway through its own schedule a run is worse than a shorter one at its end; so they are not compared.
    """

    def __init__(self, make: Callable[[], TrialScheduler]) -> None:
        super().__init__()
        self._make = make
        self._inner: dict[float, TrialScheduler] = {}

    def remember(self, records: Sequence[TrialRecord]) -> None:
        """Take the looks of trials that ran before, so that those to come are compared with them too."""
        for record in records:
            trial = _Remembered(record.name, {"point": record.point.model_dump()})
            self.on_trial_add(None, trial)
            for look in record.looks:
                progress = progress_of(look.pairs_seen, (record.pairs_kept or 0) * (record.epochs or 0))
                self.on_trial_result(None, trial, {PROGRESS: progress, VALIDATION_LOSS: look.validation_loss})

    def set_search_properties(self, metric: str | None, mode: str | None, **_: Any) -> bool:
        return (metric, mode) == (VALIDATION_LOSS, _MODE)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision: str = TrialScheduler.CONTINUE
        # Stopped at its end, a run would be killed before it has written its checkpoint.
        if VALIDATION_LOSS in result and self._of(trial).on_trial_result(tune_controller, trial, result) != decision:
            decision = TrialScheduler.STOP if result.get(PROGRESS, 0) < _WHOLE else decision
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if VALIDATION_LOSS in result:  # else it failed before its first look
            self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_remove(tune_controller, trial)

    def _of(self, trial: Any) -> TrialScheduler:
        budget = float(trial.config["point"]["budget"])
        if budget not in self._inner:
            self._inner[budget] = self._make()
            self._inner[budget].set_search_properties(VALIDATION_LOSS, _MODE)
        return self._inner[budget]


def scheduler_of(config: Scheduler) -> PerBudget:
    """`first_look` and `reduction` are as Li et al. (2020, ASHA) have them, on the share of the budget."""
    grace = round(100 * config.first_look)
    if config.name == "asha":
        return PerBudget(
            lambda: AsyncHyperBandScheduler(
                time_attr=PROGRESS,
                max_t=_WHOLE,
                grace_period=grace,
                reduction_factor=config.reduction,
                stop_last_trials=False,
            )
        )
    if config.name == "median":
        return PerBudget(
            # Without a time slice: a trial that waits for others would have to start anew.
            lambda: MedianStoppingRule(
                time_attr=PROGRESS, grace_period=grace, min_samples_required=_FEWEST, min_time_slice=inf
            )
        )
    return PerBudget(FIFOScheduler)


def searcher_of(space: SweepSpace, before: Sequence[TrialRecord]) -> Any:
    """Optuna's sampler (tree-structured Parzen estimators) over the space, told of the trials that ran before."""
    from ray.tune.search.optuna import OptunaSearch

    known = [(record.point, record.looks[-1].validation_loss) for record in before if record.looks]
    return OptunaSearch(
        {"point": parameter_space(space)},
        metric=VALIDATION_LOSS,
        mode=_MODE,
        seed=space.search_seed,
        points_to_evaluate=[_flat(point) for point, _ in known] or None,
        evaluated_rewards=[loss for _, loss in known] or None,
    )


def parameter_space(space: SweepSpace) -> dict[str, Any]:
    """As Tune has it, with the keys of a `Point`."""
    keys = {"method": space.methods, "keep": space.keep, "budget": space.budgets, "seed": space.seeds}
    found: dict[str, Any] = {name: tune.choice(list(values)) for name, values in keys.items()}
    if space.settings:
        found["settings"] = {key: _domain(values) for key, values in space.settings.items()}
    return found | {"budget_unit": space.budget_unit}


def _flat(point: Point) -> dict[str, Any]:
    """As Optuna names what it has drawn."""
    drawn = point.model_dump(include={"method", "keep", "budget", "seed"})
    return {f"point/{key}": value for key, value in drawn.items()} | {
        f"point/settings/{key}": value for key, value in point.settings.items()
    }


def _domain(values: Sequence[Any] | Range) -> Any:
    if isinstance(values, Range):
        return (tune.loguniform if values.log else tune.uniform)(values.low, values.high)
    return tune.choice(list(values))
