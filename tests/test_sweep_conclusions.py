"""What whole sweeps made by hand conclude: in words, as a table, as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sweep_records import METRIC, TRAIN_PAIRS, look, plan, trial

from chexray.evals.statistics import FloatArray
from chexray.evals.sweep.conclusions import Conclusions, conclude
from chexray.evals.sweep.cost import Device
from chexray.evals.sweep.paired_scores import paired_runs
from chexray.evals.sweep.trials import trial_table
from chexray.platform.sweep.records import Measured, TrialRecord

SEEDS = (0, 1, 2)
DEVICE = Device(1e12, 0.5, 2.0)


def runs(method: str, keep: float, value: float, budget: float = 4.0, **changes: object) -> list[TrialRecord]:
    """Three seeds, a thousandth apart, full's in the other order: paired, a fraction's differences vary a little."""
    step = -0.001 if method == "full" else 0.001
    shared = {"methods": ("prototype", "random")} if method == "full" else {}
    return [trial(method, keep, value + step * (seed - 1) / 4, seed, budget, **(shared | changes)) for seed in SEEDS]


def usual() -> list[TrialRecord]:
    """prototype holds at 0.227 and not at 0.1; random does not hold at a half; two runs came to nothing."""
    return [
        *runs("full", 1.0, 0.900),
        *runs("prototype", 0.5, 0.901),
        *runs("prototype", 0.227, 0.898),
        *runs("prototype", 0.1, 0.850),
        *runs("random", 0.5, 0.870),
        *runs("random", 0.227, 0.840),
        trial("random", 0.1, None, state="stopped"),
        trial("random", 0.1, None, seed=1, state="failed", reason="out of memory"),
    ]


def draws_of(trials: list[TrialRecord], spread: float = 0.002) -> dict[tuple[str, str], FloatArray]:
    """Of each pair that is asked for: its difference, and the same patients' part for all."""
    patients_R = spread * np.random.default_rng(0).standard_normal(2000)
    table = trial_table(plan(trials), trials).drop_duplicates("name").set_index("name")["value"]
    pairs = paired_runs(trial_table(plan(trials), trials))
    return {(one, full): table[one] - table[full] + patients_R for one, full in pairs}


def concluded(trials: list[TrialRecord], device: Device | None = None, **space: object) -> Conclusions:
    return conclude(plan(trials, seeds=SEEDS, **space), trials, draws_of(trials), device)


def test_conclude_usual_sweep_chooses_the_smallest_fraction_that_holds() -> None:
    found = concluded(usual())
    assert {one.method: one.result.keep for one in found.smallest} == {"prototype": 0.227, "random": None}
    assert found.winner is not None
    assert (found.winner.method, found.winner.keep, found.winner.budget) == ("prototype", 0.227, 4.0)
    assert found.winner.names == tuple(f"prototype-0.227-4x-s{seed}" for seed in SEEDS)
    assert found.winner.value == pytest.approx(0.898)
    assert found.states == {"done": 18, "stopped": 1, "failed": 1}


def test_conclude_usual_sweep_says_it_in_lines() -> None:
    lines = concluded(usual()).as_lines()
    text = "\n".join(lines)
    assert lines[0] == "20 trials: 18 done, 1 stopped early, 1 failed"
    assert "At budget 4, prototype at 0.227 is not worse than full by more than 0.01 (difference -0.002, lower" in text
    assert "3 seeds, 2,000 draws)" in text
    assert "prototype at 0.1 may be worse than full by more than 0.01 (difference -0.050" in text
    assert "At budget 4, random is not tested at 0.227: none is, after the first that fails" in text
    assert "At budget 4, random is not compared with full at 0.1: no full run of the same seed" in text
    assert "random: no scaling law: " in text
    assert "Chosen: prototype at 0.227, budget 4, mean AUROC 0.898: the smallest fraction" in text
    assert not any(line.endswith(".") for line in lines)


def test_conclude_lower_bound_in_the_lines_is_that_of_the_test() -> None:
    found = concluded(usual())
    test = next(one for one in found.smallest[0].result.tested if one.keep == 0.227)
    # Seeds' differences -0.0025, -0.002 and -0.0015: a standard error of 0.00029 under patients' 0.002.
    assert test.difference == pytest.approx(-0.002, abs=1e-9)
    assert -0.0065 < test.lower < -0.0045
    assert f"lower bound {test.lower:+.3f}" in "\n".join(found.as_lines())


def test_conclude_as_dict_is_plain_json_without_nan() -> None:
    said = json.loads(json.dumps(concluded(usual(), DEVICE).as_dict(), allow_nan=False))
    assert said["metric"] == METRIC
    assert said["winner"]["keep"] == 0.227
    assert said["costs"]["winner"]["gpu_hours"] > 0
    assert {one["method"] for one in said["fits"]} == {"prototype", "random"}
    assert len(said["designs"]) == 7


def test_conclude_table_has_a_row_for_each_design() -> None:
    table = concluded(usual()).as_table().set_index(["method", "keep"])
    assert len(table) == 7
    assert table[table["winner"]].index.tolist() == [("prototype", 0.227)]
    assert table[table["smallest"]].index.tolist() == [("prototype", 0.227)]
    assert table.loc[("random", 0.1)][["done", "stopped", "failed"]].tolist() == [0, 1, 1]
    assert np.isnan(table.loc[("random", 0.1)]["mean"])
    assert table.loc[("full", 1.0)]["done"] == 3
    assert bool(table.loc[("prototype", 0.1)]["passed"]) is False


def test_conclude_cost_is_the_winner_scaled_to_the_corpus() -> None:
    trials = usual()
    found = conclude(plan(trials), trials, draws_of(trials), DEVICE, full_size_pairs=1_000_000)
    # 4 passes at 30 FLOPs, and 10 for each pair scored once.
    assert found.costs["winner"].flops == pytest.approx(1_000_000 * (4 * 30 + 10))
    assert found.costs["full"].flops == pytest.approx(1_000_000 * 4 * 30)
    assert found.costs["winner"].money == pytest.approx(1.3e8 / (1e12 * 0.5 * 3600) * 2)
    assert any("Cost of the winner run on a corpus of 1,000,000 pairs" in line for line in found.as_lines())
    assert concluded(trials, DEVICE).full_size_pairs == TRAIN_PAIRS


def test_conclude_none_as_good_as_full_chooses_the_best_mean() -> None:
    trials = [*runs("full", 1.0, 0.9), *runs("random", 0.5, 0.8)]
    found = concluded(trials)
    assert found.winner is not None
    assert (found.winner.method, found.winner.keep) == ("full", 1.0)
    assert found.winner.reason.startswith("the best mean over seeds")


def test_conclude_best_mean_is_not_that_of_a_lone_seed() -> None:
    trials = [*runs("random", 0.5, 0.8), trial("prototype", 0.5, 0.95)]
    found = concluded(trials)
    assert found.winner is not None
    assert found.winner.method == "random"
    assert all(one.result.reason == "no fraction could be compared" for one in found.smallest)


def test_conclude_fraction_as_good_at_a_small_budget_alone_is_not_chosen() -> None:
    trials = [
        *runs("full", 1.0, 0.6, budget=1.0),
        *runs("random", 0.5, 0.6, budget=1.0),
        *runs("full", 1.0, 0.9),
        *runs("random", 0.5, 0.8),
    ]
    found = concluded(trials)
    assert [(one.budget, one.result.keep) for one in found.smallest] == [(1.0, 0.5), (4.0, None)]
    assert found.winner is not None
    assert (found.winner.keep, found.winner.budget) == (1.0, 4.0)


def test_conclude_fraction_as_good_at_settings_that_do_not_work_is_not_chosen() -> None:
    bad = {"train.lr": 9.0}
    broken = [
        one.model_copy(update={"point": one.point.model_copy(update={"settings": bad}), "name": f"{one.name}-bad"})
        for one in [*runs("full", 1.0, 0.5), *runs("random", 0.1, 0.5)]
    ]
    found = concluded([*broken, *runs("full", 1.0, 0.9), *runs("random", 0.5, 0.9)])
    assert [(one.settings, one.result.keep) for one in found.smallest] == [('{"train.lr": 9.0}', 0.1), ("{}", 0.5)]
    assert found.winner is not None
    assert (found.winner.settings, found.winner.keep) == ("{}", 0.5)


def test_conclude_validation_loss_is_better_when_lower() -> None:
    trials = [
        trial(method, keep, None, seed, metrics={}, looks=(look(loss + 0.0002 * seed * (keep < 1)),), methods=methods)
        for method, keep, loss, methods in (("full", 1.0, 0.5, ("random",)), ("random", 0.5, 0.4, ("random",)))
        for seed in SEEDS
    ]
    found = conclude(plan(trials, metric="validation_loss"), trials, {})
    (one,) = found.smallest
    assert one.result.keep == 0.5
    assert one.result.tested[0].difference == pytest.approx(0.0998)
    assert any("over seeds only" in line for line in found.as_lines())
    assert any("below 0 is worse" in line for line in found.as_lines())


def test_conclude_one_seed_says_that_the_bound_is_over_patients_only() -> None:
    trials = [trial("full", 1.0, 0.9, methods=("random",)), trial("random", 0.5, 0.9)]
    found = concluded(trials)
    assert any("one seed, so the bound is over patients only" in line for line in found.as_lines())


def test_conclude_nothing_done_says_so() -> None:
    trials = [trial("random", 0.5, None, state="failed")]
    swept = plan(trials).model_copy(update={"trials": ("random-0.5-4x-s0", "full-4x-s0")})
    found = conclude(swept, trials, {}, DEVICE)
    assert found.winner is None
    assert found.as_lines()[0] == "2 trials: 1 failed, 1 not begun"
    assert found.as_lines()[-1] == "Nothing is chosen: no run is done and has the metric"
    assert conclude(plan([]), [], {}).as_lines()[0] == "0 trials: none begun"
    json.dumps(found.as_dict(), allow_nan=False)


def test_conclude_test_scores_beside_the_validation_metric_change_nothing() -> None:
    trials = usual()
    more = [
        one.model_copy(update={"metrics": one.metrics | {"test.mean_auroc": Measured(value=float(place))}})
        for place, one in enumerate(trials)
    ]
    assert (
        conclude(plan(more), more, draws_of(more)).as_dict()
        == conclude(plan(trials), trials, draws_of(trials)).as_dict()
    )


def test_conclude_many_settings_that_say_nothing_are_said_once() -> None:
    trials = []
    for rate in range(1, 6):
        one = trial("random", 0.5, 0.8)
        point = one.point.model_copy(update={"settings": {"train.lr": rate / 100}})
        trials.append(one.model_copy(update={"point": point, "name": point.name}))
    lines = conclude(plan(trials), trials, {}).as_lines()
    assert sum("is not compared with full" in line for line in lines) == 1
    assert sum("no scaling law" in line for line in lines) == 1
    assert any(line.startswith("At budget 4, random with 5 choices of its other settings") for line in lines)
