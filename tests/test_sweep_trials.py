"""A sweep's table, from records made by hand."""

from __future__ import annotations

import math

import pytest
from sweep_records import METRIC, look, plan, trial

from chexray.evals.sweep.trials import COLUMNS, done_trials, higher_is_better, trial_table
from chexray.platform.sweep.records import Measured


def test_trial_table_hand_made_record_is_one_row() -> None:
    one = trial("prototype", 0.25, 0.8, seed=3, metrics={METRIC: Measured(value=0.8, low=0.7, high=0.9)})
    (row,) = trial_table(plan([one]), [one]).to_dict("records")
    assert tuple(row) == COLUMNS
    assert row == {
        "method": "prototype",
        "keep": 0.25,
        "pairs_kept": 2500,
        "budget": 4.0,
        "seed": 3,
        "settings": "{}",
        "state": "done",
        "pairs_seen": 40_000,
        "flops": 1_300_000.0,
        "training_flops": 1_200_000.0,
        "curation_flops": 100_000.0,
        "value": 0.8,
        "low": 0.7,
        "high": 0.9,
        "validation_loss": 0.5,
        "worker_seconds": 12.0,
        "name": "prototype-0.25-4x-s3",
    }


def test_trial_table_run_on_all_pairs_stands_for_every_method() -> None:
    full = trial("full", 1.0, 0.9, methods=("random", "prototype"))
    table = trial_table(plan([full]), [full])
    assert table["method"].tolist() == ["random", "prototype"]
    assert table["name"].tolist() == ["full-4x-s0"] * 2
    assert table["keep"].tolist() == [1.0, 1.0]


def test_trial_table_method_full_keeps_all_whatever_fraction_was_asked() -> None:
    one = trial("full", 0.5, 0.9)
    assert trial_table(plan([one]), [one])["keep"].tolist() == [1.0]


@pytest.mark.parametrize("state", ["waiting", "running", "trained", "stopped", "failed"])
def test_trial_table_unfinished_run_keeps_its_row_and_has_no_value(state: str) -> None:
    done, other = trial("random", 0.5, 0.8), trial("random", 0.5, 0.99, seed=1, state=state)
    table = trial_table(plan([done, other]), [done, other])
    assert table["state"].tolist() == ["done", state]
    assert math.isnan(table["value"][1])
    assert table["validation_loss"].tolist() == [0.5, 0.5]
    assert done_trials(table)["name"].tolist() == [done.name]


def test_trial_table_done_run_without_the_metric_has_no_value() -> None:
    one = trial("random", 0.5, None)
    other = trial("random", 0.5, 0.8, seed=1, metrics={}, looks=(), pairs_kept=None)
    table = trial_table(plan([one, other]), [one, other])
    assert table["value"].isna().all()
    assert math.isnan(table["validation_loss"][1])
    assert math.isnan(table["pairs_kept"][1])
    assert done_trials(table).empty


def test_trial_table_validation_loss_is_that_of_the_last_look() -> None:
    one = trial("random", 0.5, 0.8, looks=(look(2.0), look(1.25)))
    swept = plan([one], metric="validation_loss")
    assert trial_table(swept, [one])["value"].tolist() == [1.25]
    assert higher_is_better(swept, [one]) is False


def test_trial_table_settings_are_the_same_text_in_any_order() -> None:
    first = {"train.lr": 0.1, "model.dim": 8}
    made = [trial("random", 0.5, 0.8), trial("random", 0.5, 0.8, seed=1)]
    orders = [first, dict(reversed(first.items()))]
    trials = [
        one.model_copy(update={"point": one.point.model_copy(update={"settings": order})})
        for one, order in zip(made, orders, strict=True)
    ]
    assert trial_table(plan(trials), trials)["settings"].tolist() == ['{"model.dim": 8, "train.lr": 0.1}'] * 2


def test_trial_table_no_trials_has_its_columns() -> None:
    assert tuple(trial_table(plan([]), []).columns) == COLUMNS


def test_higher_is_better_is_what_the_scores_say() -> None:
    lower = trial("random", 0.5, 0.8, metrics={METRIC: Measured(value=3.0, higher_is_better=False)})
    upper = trial("random", 0.5, 0.8)
    assert higher_is_better(plan([lower]), [lower]) is False
    assert higher_is_better(plan([]), []) is True
    with pytest.raises(ValueError, match="allowed: one of them"):
        higher_is_better(plan([lower]), [lower, upper])
