"""The smallest fraction as good as all pairs: draws made by hand, and how often the tests claim what is not so."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from score_folders import cell, drawn_predictions, score_row, write_scores
from sklearn.metrics import roc_auc_score
from sweep_records import plan, trial

from chexray.evals.board.sample_scores import NotCompared
from chexray.evals.statistics import FloatArray, bootstrap_weights
from chexray.evals.sweep.paired_scores import differences, paired_runs, score_differences
from chexray.evals.sweep.smallest import Differences, FractionTest, compare_to_full, smallest_fraction
from chexray.evals.sweep.trials import trial_table

FINDINGS = ["Pneumonia", "Edema"]


def around(keep: float, centre: float, spread: float = 0.002, draws: int = 1001) -> Differences:
    """One seed whose draws are evenly spaced over `centre` ± `spread`: the 5 % quantile is centre - 0.9 spread."""
    draw_R = centre + spread * np.linspace(-1, 1, draws)
    return Differences(keep, np.array([centre]), draw_R[None])


def compared(candidate: Differences) -> FractionTest:
    found = compare_to_full(candidate, 0.01)
    assert found is not None
    return found


def test_compare_to_full_one_seed_bound_is_the_draws_quantile() -> None:
    found = compared(around(0.5, -0.005))
    # Measured worst error: 9e-19.
    assert found.lower == pytest.approx(-0.005 - 0.9 * 0.002, abs=1e-12)
    assert (found.difference, found.passed, found.over) == (-0.005, True, "patients only")
    assert (found.seeds, found.draws) == (1, 1001)
    assert found.p_value == pytest.approx(1 / 1002)


@pytest.mark.parametrize(("centre", "passed"), [(-0.0081, True), (-0.0083, False), (-0.02, False), (0.02, True)])
def test_compare_to_full_passes_where_the_bound_is_above_minus_delta(centre: float, passed: bool) -> None:
    assert compared(around(0.5, centre)).passed is passed


def test_compare_to_full_p_value_counts_draws_that_are_worse_by_delta() -> None:
    draw_R = np.array([-0.02, -0.01, 0.0, 0.01, math.nan])
    found = compared(Differences(0.5, np.array([0.0]), draw_R[None]))
    assert found.p_value == pytest.approx((1 + 2) / (1 + 4))
    assert found.draws == 4


def test_compare_to_full_seeds_alone_have_students_bound() -> None:
    difference_S = np.array([0.001, -0.004, 0.002, -0.003])
    expected = difference_S.mean() - stats.t.ppf(0.95, 3) * stats.sem(difference_S)
    found = compared(Differences(0.5, difference_S, None))
    # 2,000 draws of Student's t: the bound's standard error is 4 % of its distance.
    assert found.lower == pytest.approx(expected, abs=0.15 * abs(expected - found.difference))
    assert found.over == "seeds only"


def test_compare_to_full_seeds_and_patients_are_wider_than_either() -> None:
    generator = np.random.default_rng(0)
    difference_S = np.array([0.001, -0.004, 0.002])
    draw_SR = difference_S[:, None] + 0.003 * generator.standard_normal(4000)
    both = compared(Differences(0.5, difference_S, draw_SR))
    seeds = compared(Differences(0.5, difference_S, None))
    patients = float(np.quantile(draw_SR.mean(axis=0), 0.05))
    assert both.over == "patients and seeds"
    assert both.lower < min(seeds.lower, patients)


def test_compare_to_full_one_seed_without_draws_is_no_test() -> None:
    assert compare_to_full(Differences(0.5, np.array([0.1]), None), 0.01) is None
    assert compare_to_full(Differences(0.5, np.array([0.1]), np.full((1, 3), math.nan)), 0.01) is None


def test_smallest_fraction_is_the_last_that_passes_from_the_largest_down() -> None:
    found = smallest_fraction([around(0.1, -0.03), around(0.5, 0.0), around(0.25, -0.004)], 0.01)
    assert found.keep == 0.25
    assert [(one.keep, one.passed) for one in found.tested] == [(0.5, True), (0.25, True), (0.1, False)]
    assert found.untested == ()


def test_smallest_fraction_below_one_that_failed_is_not_claimed() -> None:
    found = smallest_fraction([around(0.1, 0.02), around(0.25, -0.03), around(0.5, 0.0)], 0.01)
    assert found.keep == 0.5
    assert found.untested == (0.1,)


def test_smallest_fraction_largest_fails_says_so() -> None:
    found = smallest_fraction([around(0.1, 0.0), around(0.5, -0.03)], 0.01)
    assert found.keep is None
    assert found.reason == "0.5 of the pairs is not shown to be as good"


def test_smallest_fraction_nothing_to_compare_says_so() -> None:
    assert smallest_fraction([], 0.01).reason == "no fraction could be compared"
    bare = Differences(0.25, np.array([0.0]), None)
    found = smallest_fraction([bare, around(0.5, 0.0)], 0.01)
    assert (found.keep, found.untested) == (0.5, (0.25,))
    assert found.reason is not None
    assert found.reason.startswith("one seed, and no draws")


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_smallest_fraction_false_claims_are_at_most_one_in_twenty(seeds: int) -> None:
    # Four fractions, each worse by delta exactly, which is the hardest truth: any claim is false.
    generator, delta, cases, claims = np.random.default_rng(seeds), 0.01, 1500, 0
    for case in range(cases):
        found = smallest_fraction([noisy(keep, -delta, seeds, generator) for keep in (0.1, 0.2, 0.4, 0.8)], delta, case)
        claims += found.keep is not None
    # Standard error 0.006. Measured 0.054, 0.018, 0.037 and 0.040.
    assert claims / cases <= 0.068


def noisy(keep: float, true: float, seeds: int, generator: np.random.Generator, draws: int = 400) -> Differences:
    """Patients' part of 0.004, the same for every seed; a seed's part of 0.006, none where there is one seed only."""
    patients, own_S = 0.004 * generator.standard_normal(), 0.006 * generator.standard_normal(seeds) * (seeds > 1)
    difference_S = true + patients + own_S
    draw_SR = difference_S[:, None] + 0.004 * generator.standard_normal(draws)
    return Differences(keep, difference_S, draw_SR)


def test_smallest_fraction_as_good_as_full_is_mostly_found() -> None:
    generator = np.random.default_rng(0)
    found = [smallest_fraction([noisy(0.25, 0.0, 5, generator)], 0.02, case).keep for case in range(200)]
    # Measured 1.0: the margin is 4 standard errors.
    assert found.count(0.25) >= 180


@pytest.mark.parametrize(
    ("keep", "difference_S", "draw_SR", "message"),
    [
        (1.0, [0.0], None, "keep is 1.0; allowed: between 0 and 1"),
        (0.5, [], None, "difference_S is"),
        (0.5, [math.nan], None, "difference_S is"),
        (0.5, [0.0, 0.1], [[0.0, 0.0]], r"draw_SR has shape \(1, 2\); allowed: \(2, R\)"),
    ],
)
def test_differences_that_cannot_be_raise(
    keep: float, difference_S: list[float], draw_SR: list[list[float]] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Differences(keep, np.array(difference_S), None if draw_SR is None else np.array(draw_SR))


def test_smallest_fraction_arguments_that_cannot_be_raise() -> None:
    with pytest.raises(ValueError, match="delta is 0; allowed: above 0"):
        smallest_fraction([], 0)
    with pytest.raises(ValueError, match="allowed: each fraction once"):
        smallest_fraction([around(0.5, 0.0), around(0.5, 0.1)], 0.01)


def test_paired_runs_are_of_one_seed_and_budget_and_done() -> None:
    trials = [
        trial("full", 1.0, 0.9, methods=("random", "prototype")),
        trial("full", 1.0, 0.9, seed=1, state="failed", methods=("random", "prototype")),
        trial("random", 0.5, 0.8),
        trial("random", 0.5, 0.8, seed=1),
        trial("random", 0.5, 0.8, budget=2.0),
        trial("prototype", 0.5, 0.8, state="stopped"),
        trial("prototype", 0.25, 0.8),
    ]
    found = paired_runs(trial_table(plan(trials), trials))
    assert found == [("random-0.5-4x-s0", "full-4x-s0"), ("prototype-0.25-4x-s0", "full-4x-s0")]


def test_differences_pair_by_seed_and_turn_the_sign_where_less_is_better() -> None:
    trials = [trial("full", 1.0, 0.9, seed=seed, methods=("random",)) for seed in (0, 1)]
    trials += [trial("random", 0.5, value, seed=seed) for seed, value in ((0, 0.8), (1, 0.85), (2, 0.1))]
    table = trial_table(plan(trials), trials)
    runs = table[table["keep"] == 0.5]
    found = differences(runs, table, {}, higher_is_better=False)
    assert found is not None
    # Measured worst error: 3e-17.
    np.testing.assert_allclose(found.difference_S, [0.1, 0.05], atol=1e-12)
    assert (found.draw_SR, found.missing_seeds) == (None, 1)
    draws = {("random-0.5-4x-s1", "full-4x-s1"): np.array([-0.1, -0.2])}
    drawn = differences(runs, table, draws, higher_is_better=True)
    assert drawn is not None
    assert drawn.draw_SR is not None
    np.testing.assert_array_equal(drawn.draw_SR, [[-0.1, -0.2]])
    np.testing.assert_allclose(drawn.difference_S, [-0.05], atol=1e-12)
    assert drawn.missing_seeds == 2


def test_differences_draws_of_different_lengths_raise() -> None:
    trials = [trial("full", 1.0, 0.9, seed=seed, methods=("random",)) for seed in (0, 1)]
    trials += [trial("random", 0.5, 0.8, seed=seed) for seed in (0, 1)]
    table = trial_table(plan(trials), trials)
    draws = {(f"random-0.5-4x-s{seed}", f"full-4x-s{seed}"): np.zeros(2 + seed) for seed in (0, 1)}
    with pytest.raises(ValueError, match=r"draws have lengths \[2, 3\]; allowed: the same"):
        differences(table[table["keep"] == 0.5], table, draws, True)


def scores(folder: Path, strength: float, noise: int) -> tuple[str, FloatArray, FloatArray]:
    table, score_BF, target_BF = drawn_predictions(strength, FINDINGS, 80, noise=noise)
    value = float(np.mean([roc_auc_score(target_BF[:, f], score_BF[:, f]) for f in range(2)]))
    files = {"c0/predictions.parquet": table}
    uri = write_scores(folder, [score_row("checkpoint", value=value)], [cell("checkpoint", path="c0")], files)
    return uri, score_BF, target_BF


def test_score_differences_equal_explicit_resampling_of_both_folders(tmp_path: Path) -> None:
    candidate, candidate_BF, target_BF = scores(tmp_path / "a", 1.0, 1)
    full, full_BF, _ = scores(tmp_path / "b", 2.0, 2)
    found_R = score_differences(candidate, full, "zero_shot.mean_auroc", draws=50, seed=3)
    patients = [f"p{number:032x}" for number in range(80)]
    for draw, weight_B in zip(found_R, bootstrap_weights(patients, 50, 3), strict=True):
        row_B = np.repeat(np.arange(80), weight_B.astype(int))
        aurocs = [
            [roc_auc_score(target_BF[row_B, f], score_BF[row_B, f]) for f in range(2)]
            for score_BF in (candidate_BF, full_BF)
        ]
        # Measured worst error: 2e-16.
        assert draw == pytest.approx(np.mean(aurocs[0]) - np.mean(aurocs[1]), abs=1e-12)


def test_score_differences_metric_that_is_not_there_is_not_compared(tmp_path: Path) -> None:
    candidate, *_ = scores(tmp_path / "a", 1.0, 1)
    with pytest.raises(NotCompared, match=r"retrieval.rank of one checkpoint on one benchmark is needed, found none"):
        score_differences(candidate, candidate, "retrieval.rank")
