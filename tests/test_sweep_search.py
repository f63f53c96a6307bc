"""Optuna's search over a sweep's space: its points are a sweep's, and it learns from what ran before."""

from __future__ import annotations

from typing import Any

import pytest

from chexray.jobs.sweep_schedulers import searcher_of
from chexray.platform.sweep.points import Point
from chexray.platform.sweep.records import Look, TrialRecord
from chexray.platform.sweep.space import VALIDATION_LOSS, Range, SweepSpace

SPACE = SweepSpace(
    methods=("random", "prototype"),
    keep=(0.2, 0.5),
    search="optuna",
    trials=30,
    settings={"train.lr": Range(low=1e-4, high=1e-1, log=True), "train.augment": (0.0, 0.1)},
)


def _loss(point: Point) -> float:
    """Least for prototypes and a learning rate of 0.1."""
    return (point.method != "prototype") - float(point.settings["train.lr"])


def _record(number: int, point: Point) -> TrialRecord:
    look = Look(
        epoch=1, step=9, pairs_seen=100, flops=0, loss=1.0, validation_loss=_loss(point), seconds=1.0, workers=1
    )
    return TrialRecord(name=f"{number}", point=point, methods=(point.method,), looks=(look,))


def _ask(searcher: Any, count: int) -> list[Point]:
    points = []
    for number in range(count):
        point = Point.model_validate(searcher.suggest(str(number))["point"])
        searcher.on_trial_complete(str(number), {VALIDATION_LOSS: _loss(point)})
        points.append(point)
    return points


def test_optuna_asks_for_points_of_the_space_the_same_by_seed() -> None:
    points = _ask(searcher_of(SPACE, []), 10)
    assert points == _ask(searcher_of(SPACE, []), 10)
    for point in points:
        assert point.method in SPACE.methods
        assert point.keep in SPACE.keep
        assert 1e-4 <= float(point.settings["train.lr"]) <= 1e-1
        assert point.settings["train.augment"] in (0.0, 0.1)
        assert (point.budget, point.budget_unit) == (4.0, "passes")


def test_optuna_goes_where_the_loss_is_lower() -> None:
    points = _ask(searcher_of(SPACE, []), 30)
    assert sum(_loss(point) for point in points[20:]) < sum(_loss(point) for point in points[:10])


@pytest.mark.parametrize("before", [15])
def test_optuna_learns_from_trials_of_before_a_restart(before: int) -> None:
    records = [_record(number, point) for number, point in enumerate(_ask(searcher_of(SPACE, []), before))]
    fresh, told = (_ask(searcher_of(SPACE, known), 8) for known in ([], records))
    assert sum(_loss(point) for point in told) < sum(_loss(point) for point in fresh)
