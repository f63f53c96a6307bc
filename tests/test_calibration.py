"""Calibration against scikit-learn, hand-computed cases and explicit resampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from chexray.evals.calibration import (
    brier_score,
    calibration,
    calibration_statistic,
    expected_calibration_error,
    reliability_bins,
)
from chexray.evals.statistics import FloatArray, bootstrap_weights
from chexray.evals.zero_shot import zero_shot_probability


def predicted_sample(seed: int, size: int, levels: int) -> tuple[FloatArray, FloatArray]:
    """Probabilities of few levels (ties) or many, and targets that follow them loosely, a tenth unknown."""
    generator = np.random.default_rng(seed)
    probability_B = generator.integers(levels + 1, size=size) / levels
    target_B = (generator.random(size) < 0.5 * probability_B + 0.2).astype(float)
    target_B[generator.random(size) < 0.1] = np.nan
    return probability_B, target_B


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 80),
    levels=st.sampled_from([1, 4, 10, 997]),
    bins=st.integers(1, 20),
)
def test_reliability_bins_ties_and_unknowns_equal_sklearn(seed: int, size: int, levels: int, bins: int) -> None:
    probability_B, target_B = predicted_sample(seed, size, levels)
    known_B = ~np.isnan(target_B)
    if not known_B.any():
        return
    table = reliability_bins(probability_B, target_B, bins)
    observed, predicted = calibration_curve(target_B[known_B], probability_B[known_B], n_bins=bins, strategy="quantile")
    # Measured worst error: 4.4e-16.
    np.testing.assert_allclose([one.predicted for one in table], predicted, atol=1e-12)
    np.testing.assert_allclose([one.observed for one in table], observed, atol=1e-12)
    assert sum(one.n for one in table) == known_B.sum()
    for one in table:
        assert one.low <= one.predicted + 1e-12
        assert one.predicted <= one.high + 1e-12
    assert brier_score(probability_B, target_B) == pytest.approx(
        brier_score_loss(target_B[known_B], probability_B[known_B]), abs=1e-12
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bins=st.integers(1, 20))
def test_expected_calibration_error_is_at_least_the_mean_excess_and_the_same_in_any_order(seed: int, bins: int) -> None:
    probability_B, target_B = predicted_sample(seed, 50, 30)
    error = expected_calibration_error(probability_B, target_B, bins)
    known_B = ~np.isnan(target_B)
    assert error >= abs(probability_B[known_B].mean() - target_B[known_B].mean()) - 1e-12
    order = np.random.default_rng(seed).permutation(50)
    assert expected_calibration_error(probability_B[order], target_B[order], bins) == pytest.approx(error, abs=1e-12)


def test_calibration_hand_computed_case() -> None:
    probability_B = np.array([0.1, 0.2, 0.3, 0.6, 0.8, 0.9])
    target_B = np.array([0.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    low, high = reliability_bins(probability_B, target_B, bins=2)
    assert (low.n, high.n, low.low, high.high) == (3, 3, 0.1, 0.9)
    assert low.high == high.low == pytest.approx(0.45)
    assert (low.predicted, low.observed) == pytest.approx((0.2, 1 / 3))
    assert (high.predicted, high.observed) == pytest.approx((2.3 / 3, 2 / 3))
    expected = (abs(0.2 - 1 / 3) + abs(2.3 / 3 - 2 / 3)) / 2
    assert expected_calibration_error(probability_B, target_B, bins=2) == pytest.approx(expected, abs=1e-12)
    assert brier_score(probability_B, target_B) == pytest.approx((0.01 + 0.04 + 0.49 + 0.36 + 0.04 + 0.01) / 6)


def test_equal_probabilities_share_one_bin_whatever_the_targets() -> None:
    (only,) = reliability_bins(np.full(9, 0.5), np.array([1.0] * 3 + [0.0] * 6))
    assert (only.n, only.predicted, only.observed) == (9, 0.5, pytest.approx(1 / 3))


@pytest.mark.parametrize(("value", "error"), [(0.0, 0.3), (1.0, 0.7)])
def test_calibration_of_a_single_class_is_defined(value: float, error: float) -> None:
    found = calibration(np.full(4, 0.3), np.full(4, value), list("aabc"), draws=20)
    assert [found.error.value, found.error.low, found.error.high] == pytest.approx([error] * 3, abs=1e-12)
    assert found.brier.value == pytest.approx(error**2)
    assert found.baseline_brier == 0.0


def test_calibration_intervals_equal_explicit_resampling_of_patients() -> None:
    probability_B, target_B = predicted_sample(3, 200, 50)
    patient_B = np.random.default_rng(4).integers(90, size=200)
    found = calibration(probability_B, target_B, patient_B, bins=8, draws=150, seed=5)
    edges = np.percentile(probability_B[~np.isnan(target_B)], np.linspace(0, 100, 9))
    errors, briers = [], []
    for weight_B in bootstrap_weights(patient_B, draws=150, seed=5):
        rows = np.repeat(np.arange(200), weight_B.astype(int))
        rows = rows[~np.isnan(target_B[rows])]
        bin_B = np.searchsorted(edges[1:-1], probability_B[rows])
        gaps = [
            (bin_B == one).sum() * abs(probability_B[rows][bin_B == one].mean() - target_B[rows][bin_B == one].mean())
            for one in np.unique(bin_B)
        ]
        errors.append(sum(gaps) / len(rows))
        briers.append(brier_score_loss(target_B[rows], probability_B[rows]))
    for estimate, draw_R in ((found.error, errors), (found.brier, briers)):
        # Measured worst error: 1.1e-16.
        assert (estimate.low, estimate.high) == pytest.approx(tuple(np.percentile(draw_R, [2.5, 97.5])), abs=1e-12)
    assert found.error.value == pytest.approx(expected_calibration_error(probability_B, target_B, 8), abs=1e-12)
    assert found.brier.value == pytest.approx(brier_score(probability_B, target_B), abs=1e-12)
    assert found.error.n == int((~np.isnan(target_B)).sum())
    assert found.error.patients == len(set(patient_B[~np.isnan(target_B)].tolist()))


def test_calibration_of_zero_shot_softmax_is_bounded_as_said() -> None:
    """The best that unscaled cosine similarities can do for a rare finding: everything at 0.1192."""
    direction = np.array([[1.0, 0.0]])
    lowest = zero_shot_probability(direction, np.array([[-direction[0], direction[0]]]))[0, 0]
    highest = zero_shot_probability(direction, np.array([[direction[0], -direction[0]]]))[0, 0]
    assert (lowest, highest) == pytest.approx((0.1192, 0.8808), abs=5e-5)
    target_B = np.array([1.0] + [0.0] * 99)
    assert expected_calibration_error(np.full(100, lowest), target_B) == pytest.approx(lowest - 0.01, abs=1e-12)


def test_calibration_without_known_targets_is_undefined_without_warning(recwarn: pytest.WarningsRecorder) -> None:
    nothing = np.full(3, np.nan)
    found = calibration(np.full(3, 0.5), nothing, list("abc"), draws=10)
    assert np.isnan([found.error.value, found.brier.low, found.baseline_brier]).all()
    assert found.bins == ()
    assert np.isnan(brier_score(nothing, nothing))
    assert not recwarn.list


def test_calibration_draws_without_known_samples_are_undefined() -> None:
    statistic = calibration_statistic(np.array([0.5, 0.5]), np.array([1.0, np.nan]))
    np.testing.assert_array_equal(statistic(np.array([[0.0, 2.0], [2.0, 0.0]])), [[np.nan, np.nan], [0.5, 0.25]])


def test_calibration_wrong_arguments_raise() -> None:
    with pytest.raises(ValueError, match=r"probability_B is 1.2 for a sample"):
        brier_score(np.array([1.2, 0.5]), np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"probability_B is nan"):
        brier_score(np.array([np.nan]), np.array([1.0]))
    with pytest.raises(ValueError, match="target is 3"):
        expected_calibration_error(np.array([0.5]), np.array([3.0]))
    with pytest.raises(ValueError, match=r"allowed: \(B,\), \(B,\)"):
        brier_score(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="bins is 0"):
        reliability_bins(np.array([0.5]), np.array([1.0]), bins=0)
    with pytest.raises(ValueError, match="patient_B has shape"):
        calibration(np.array([0.5]), np.array([1.0]), ["a", "b"])
