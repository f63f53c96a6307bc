"""Paired bootstrap tests and Holm's correction against hand-computed cases, scipy and other libraries' values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from chexray.evals.comparison import bootstrap_p_value, holm, paired_bootstrap
from chexray.evals.delong import delong_test
from chexray.evals.statistics import auroc_differences, auroc_statistic, interval, mean_statistic


@pytest.mark.parametrize(
    ("p_value_M", "adjusted_M"),
    [
        # By hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04 raised to what the smaller one has.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        # statsmodels 0.14 (`multipletests`, method holm): ties, and values that are cut off at 1.
        ([0.2, 0.001, 0.5, 0.013, 0.013, 0.9], [0.6, 0.006, 1.0, 0.065, 0.065, 1.0]),
        # A test that was not made does not count: 2 x 0.01, not 3.
        ([0.01, np.nan, 0.02], [0.02, np.nan, 0.02]),
        ([0.3], [0.3]),
        ([], []),
        ([np.nan], [np.nan]),
    ],
)
def test_holm_known_cases(p_value_M: list[float], adjusted_M: list[float]) -> None:
    # Measured worst error: 1.1e-16.
    np.testing.assert_allclose(holm(p_value_M), adjusted_M, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(p_value_M=st.lists(st.floats(0, 1), min_size=1, max_size=12), level=st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_value_M: list[float], level: float) -> None:
    rejected = set()
    for step, number in enumerate(sorted(range(len(p_value_M)), key=lambda one: p_value_M[one])):
        if p_value_M[number] * (len(p_value_M) - step) > level:
            break
        rejected.add(number)
    assert set(np.flatnonzero(holm(p_value_M) <= level).tolist()) == rejected


@pytest.mark.parametrize("p_value_M", [[0.1, 1.2], [-0.1], [[0.1, 0.2]]])
def test_holm_no_p_values_raises(p_value_M: list[float]) -> None:
    with pytest.raises(ValueError, match=r"allowed: \(M,\), in \[0, 1\]"):
        holm(p_value_M)


def test_bootstrap_p_value_hand_counted_draws() -> None:
    assert bootstrap_p_value(np.array([-1.0, 0.5, 1, 2, 3, 4, 5, 6, 7])) == 2 * 2 / 10
    assert bootstrap_p_value(np.arange(1.0, 2000)) == 2 / 2000
    assert bootstrap_p_value(-np.arange(1.0, 2000)) == 2 / 2000
    assert bootstrap_p_value(np.zeros(50)) == 1.0
    assert bootstrap_p_value(np.array([np.nan, 1.0, 1.0, 1.0])) == 2 / 4
    assert np.isnan(bootstrap_p_value(np.full(3, np.nan)))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-3, 3))
def test_bootstrap_p_value_is_below_the_level_where_the_interval_leaves_zero_out(seed: int, shift: float) -> None:
    draw_R = np.random.default_rng(seed).normal(size=1999) + shift
    p_value = bootstrap_p_value(draw_R)
    for level in (0.5, 0.9, 0.95):
        low, high = interval(draw_R, level)
        if abs(p_value - (1 - level)) > 3 / 2000:  # beyond what rounding to whole draws decides
            assert (p_value < 1 - level) == (not low <= 0 <= high)


def test_paired_bootstrap_means_agree_with_the_paired_t_test() -> None:
    generator = np.random.default_rng(0)
    second_BM = generator.normal(size=(150, 3))
    first_BM = second_BM + generator.normal(size=(150, 3)) + np.array([0.0, 0.12, 0.3])
    compared = paired_bootstrap(mean_statistic(first_BM), mean_statistic(second_BM), np.arange(150), draws=4000, seed=1)
    for one, first_B, second_B in zip(compared, first_BM.T, second_BM.T, strict=True):
        lead_B = first_B - second_B
        error = stats.sem(lead_B)
        # p-values of 0.020, 0.116 and 4e-5; measured worst difference 0.0152.
        assert one.p_value == pytest.approx(2 * stats.t.sf(abs(lead_B.mean()) / error, 149), abs=0.03)
        assert one.difference == pytest.approx(lead_B.mean(), abs=1e-12)
        # Intervals 0.27 to 0.32 wide; measured worst difference 0.0033.
        assert (one.low, one.high) == pytest.approx(stats.t.interval(0.95, 149, lead_B.mean(), error), abs=0.02)


def test_paired_bootstrap_aurocs_agree_with_delong_and_with_the_estimates_of_differences() -> None:
    generator = np.random.default_rng(2)
    target_B = generator.permutation(np.repeat([1.0, 0.0], [60, 140]))
    shared_B = 0.8 * target_B + generator.normal(size=200)
    first_B, second_B = shared_B + generator.normal(size=(2, 200)) * np.array([[0.2], [0.9]])
    columns = [score_B[:, None] for score_B in (first_B, second_B, target_B)]
    statistics = [auroc_statistic(score_BF, columns[2]) for score_BF in columns[:2]]
    compared, mean = paired_bootstrap(*statistics, np.arange(200), draws=4000, seed=3)
    assert compared == mean
    reference = delong_test(first_B, second_B, target_B, np.arange(200))
    # p-values of 0.225 and 0.231.
    assert compared.p_value == pytest.approx(reference.p_value, abs=0.02)
    assert compared.difference == pytest.approx(reference.difference, abs=1e-12)
    own = auroc_differences(*columns, np.arange(200), draws=4000, seed=3).mean
    assert (own.value, own.low, own.high) == (compared.difference, compared.low, compared.high)


def test_paired_bootstrap_absent_class_is_no_comparison() -> None:
    statistic = auroc_statistic(np.zeros((4, 1)), np.zeros((4, 1)))
    for one in paired_bootstrap(statistic, statistic, list("abcd"), draws=10):
        assert np.isnan([one.difference, one.low, one.high, one.p_value]).all()
