"""Plans and trial records of sweeps, made here."""

from __future__ import annotations

from typing import Any

from chexray.platform.config import load_recipe
from chexray.platform.sweep.points import Point
from chexray.platform.sweep.records import Look, Measured, SweepPlan, TrialRecord
from chexray.platform.sweep.space import SweepSpace

TRAIN_PAIRS = 10_000
METRIC = "zero_shot.mean_auroc"


def plan(trials: list[TrialRecord], **space: Any) -> SweepPlan:
    return SweepPlan(
        corpus="corpus",
        train_pairs=TRAIN_PAIRS,
        recipe=load_recipe("tiny"),
        space=SweepSpace.model_validate(space),
        trials=tuple(one.name for one in trials),
        started=0.0,
    )


def trial(
    method: str, keep: float, value: float | None, seed: int = 0, budget: float = 4.0, **changes: Any
) -> TrialRecord:
    """A run that is done, at 30 FLOPs a pair seen; methods that score the corpus pay 10 for each of its pairs."""
    point = Point.model_validate({"method": method, "keep": keep, "budget": budget, "seed": seed})
    seen = int(budget * TRAIN_PAIRS)
    made = {
        "name": point.name,
        "point": point,
        "methods": (method,),
        "state": "done",
        "pairs_kept": int(keep * TRAIN_PAIRS),
        "pairs_seen": seen,
        "training_flops": 30 * seen,
        "curation_flops": 0 if method in ("random", "full") else 10 * TRAIN_PAIRS,
        "metrics": {METRIC: Measured(value=value)},
        "looks": (look(0.9), look(0.5)),
        "worker_seconds": 12.0,
    }
    return TrialRecord.model_validate(made | changes)


def look(validation_loss: float | None) -> Look:
    return Look(
        epoch=1, step=1, pairs_seen=1, flops=1, loss=1.0, validation_loss=validation_loss, seconds=1.0, workers=1
    )
