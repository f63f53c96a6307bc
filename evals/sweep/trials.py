"""A sweep's trials as one table, from its plan and what is written of each run.

Only a run that is done has a final value. Those stopped early, failed or unfinished stay in the table with their
state, and enter no fit, frontier or comparison.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from chexray.platform.sweep.points import Point
from chexray.platform.sweep.records import Measured, SweepPlan, TrialRecord
from chexray.platform.sweep.space import VALIDATION_LOSS

FULL = "full"
COLUMNS = (
    "method",
    "keep",
    "pairs_kept",
    "budget",
    "seed",
    "settings",
    "state",
    "pairs_seen",
    "flops",
    "training_flops",
    "curation_flops",
    "value",
    "low",
    "high",
    "validation_loss",
    "worker_seconds",
    "name",
)
DESIGN = ("method", "settings", "budget", "keep")
"""What two runs share that differ by their seed alone."""


def trial_table(plan: SweepPlan, trials: Sequence[TrialRecord]) -> pd.DataFrame:
    """One row for each method and run: at a kept fraction of 1 a run stands for several methods.

    `value`, `low`, `high`: of the sweep's metric on validation data, NaN where the run is not done. `flops`: of the
    training and of the run's own curation. `settings`: JSON with sorted keys. `validation_loss`: at the last look.
    """
    rows = [_row(plan.space.metric, trial, method) for trial in trials for method in trial.methods]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def done_trials(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that may enter a fit, a frontier or a comparison: done, with a value."""
    return table[(table["state"] == "done") & table["value"].notna()]


def higher_is_better(plan: SweepPlan, trials: Sequence[TrialRecord]) -> bool:
    """Of the sweep's metric, as the trials' scores say. Raises ValueError where they do not agree."""
    if plan.space.metric == VALIDATION_LOSS:
        return False
    said = {one.metrics[plan.space.metric].higher_is_better for one in trials if plan.space.metric in one.metrics}
    if len(said) > 1:
        raise ValueError(f"higher_is_better of {plan.space.metric} is True and False; allowed: one of them")
    return said.pop() if said else True


def _row(metric: str, trial: TrialRecord, method: str) -> dict[str, Any]:
    loss = trial.looks[-1].validation_loss if trial.looks else None
    measured = _measured(metric, trial, loss)
    return {
        "method": method,
        "keep": _kept_fraction(trial.point),
        "pairs_kept": math.nan if trial.pairs_kept is None else trial.pairs_kept,
        "budget": trial.point.budget,
        "seed": trial.point.seed,
        "settings": json.dumps(trial.point.settings, sort_keys=True),
        "state": trial.state,
        "pairs_seen": trial.pairs_seen,
        # As floats: paper-sized runs cost more than an int64 column may hold when summed.
        "flops": float(trial.training_flops + trial.curation_flops),
        "training_flops": float(trial.training_flops),
        "curation_flops": float(trial.curation_flops),
        "value": _or_nan(measured.value),
        "low": _or_nan(measured.low),
        "high": _or_nan(measured.high),
        "validation_loss": _or_nan(loss),
        "worker_seconds": trial.worker_seconds,
        "name": trial.name,
    }


def _kept_fraction(point: Point) -> float:
    return 1.0 if point.method == FULL else point.keep


def _measured(metric: str, trial: TrialRecord, loss: float | None) -> Measured:
    nothing = Measured(value=None)
    if trial.state != "done":
        return nothing
    if metric == VALIDATION_LOSS:
        return Measured(value=loss, higher_is_better=False)
    return trial.metrics.get(metric, nothing)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
