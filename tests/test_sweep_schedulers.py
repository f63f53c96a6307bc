"""Which trials are stopped: compared within their own budget, and with those that ran before a restart."""

from __future__ import annotations

from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from chexray.jobs.looks import PROGRESS
from chexray.jobs.sweep_schedulers import PerBudget, scheduler_of
from chexray.jobs.sweep_trials import unfinished
from chexray.platform.sweep.points import Point
from chexray.platform.sweep.records import Look, TrialRecord
from chexray.platform.sweep.space import VALIDATION_LOSS, Scheduler


class _Trial:
    def __init__(self, name: str, budget: float) -> None:
        self.trial_id = name
        self.config: dict[str, Any] = {"point": {"budget": budget}}


def _report(scheduler: PerBudget, name: str, budget: float, loss: float, progress: int = 50) -> str:
    trial = _Trial(name, budget)
    scheduler.on_trial_add(None, trial)
    return scheduler.on_trial_result(None, trial, {PROGRESS: progress, VALIDATION_LOSS: loss})


def _ran(name: str, loss: float, budget: float = 2.0) -> TrialRecord:
    look = Look(
        epoch=1, step=9, pairs_seen=100, flops=0, loss=1.0, validation_loss=loss, seconds=1.0, workers=1
    )  # halfway
    point = Point(method="random", keep=0.5, budget=budget)
    return TrialRecord(name=name, point=point, methods=("random",), epochs=4, pairs_kept=50, looks=(look,))


def test_asha_stops_the_worse_half_at_the_first_look() -> None:
    scheduler = scheduler_of(Scheduler(name="asha", first_look=0.5, reduction=2))
    decided = [_report(scheduler, str(n), 2.0, loss) for n, loss in enumerate((1.0, 2.0, 0.5, 3.0))]
    # By hand, each against the median of those before it: the first goes on, 2.0 > 1.0, 0.5 < 1.5, 3.0 > 1.0.
    go, stop = TrialScheduler.CONTINUE, TrialScheduler.STOP
    assert decided == [go, stop, go, stop]


def test_asha_before_the_first_look_stops_none() -> None:
    scheduler = scheduler_of(Scheduler(name="asha", first_look=0.5))
    assert [_report(scheduler, str(n), 2.0, loss, 49) for n, loss in enumerate((1.0, 2.0))] == ["CONTINUE"] * 2


def test_trials_of_another_budget_are_not_compared() -> None:
    scheduler = scheduler_of(Scheduler(name="asha", first_look=0.5))
    _report(scheduler, "short", 2.0, 1.0)
    assert _report(scheduler, "long", 4.0, 2.0) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("name", ["asha", "median"])
def test_trials_are_compared_with_those_of_before_a_restart(name: Any) -> None:
    scheduler = scheduler_of(Scheduler(name=name, first_look=0.5))
    assert _report(scheduler, "first", 2.0, 9.0) == TrialScheduler.CONTINUE
    scheduler = scheduler_of(Scheduler(name=name, first_look=0.5))
    scheduler.remember([_ran(str(n), loss) for n, loss in enumerate((1.0, 1.1, 1.2))])
    assert _report(scheduler, "first", 2.0, 9.0) == TrialScheduler.STOP
    assert _report(scheduler, "second", 2.0, 0.9) == TrialScheduler.CONTINUE


def test_median_with_too_few_to_compare_with_waits_for_none() -> None:
    scheduler = scheduler_of(Scheduler(name="median", first_look=0.5))
    assert [_report(scheduler, str(n), 2.0, 1.0 + n) for n in range(2)] == [TrialScheduler.CONTINUE] * 2


def test_without_a_scheduler_no_trial_is_stopped() -> None:
    scheduler = scheduler_of(Scheduler(name="none"))
    assert {_report(scheduler, str(n), 2.0, float(n)) for n in range(10)} == {TrialScheduler.CONTINUE}


def test_trial_at_the_end_of_its_budget_is_not_stopped() -> None:
    """It would be killed before it has written its checkpoint."""
    for name in ("asha", "median"):
        scheduler = scheduler_of(Scheduler(name=name, first_look=0.5))  # type: ignore[arg-type]
        scheduler.remember([_ran(str(n), loss) for n, loss in enumerate((1.0, 1.1, 1.2))])
        assert _report(scheduler, "ended", 2.0, 9.0, progress=100) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("name", ["asha", "median", "none"])
def test_trial_that_fails_before_its_first_look_disturbs_no_other(name: Any) -> None:
    scheduler = scheduler_of(Scheduler(name=name, first_look=0.5))
    failed = _Trial("failed", 2.0)
    scheduler.on_trial_add(None, failed)
    assert scheduler.on_trial_result(None, failed, {"done": True}) == TrialScheduler.CONTINUE
    scheduler.on_trial_complete(None, failed, {"done": True})
    assert [_report(scheduler, str(n), 2.0, 1.0) for n in range(4)] == [TrialScheduler.CONTINUE] * 4


def test_trials_that_have_not_begun_are_unfinished_too() -> None:
    records = [_ran(name, 1.0).model_copy(update={"state": state}) for name, state in (("a", "done"), ("b", "running"))]
    assert unfinished(["a", "b", "c"], records, None) == 2
    assert unfinished(["a"], records[:1], None) == 0
    assert unfinished(["a"], records[:1], 5) == 4  # of a search that asks for its points one by one
