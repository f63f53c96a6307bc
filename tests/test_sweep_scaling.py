"""Scaling laws: truths that were made with noise are found within their intervals; what cannot be told is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from chexray.evals.statistics import FloatArray
from chexray.evals.sweep.fits import fit_methods
from chexray.evals.sweep.power_law import gradient, log_error
from chexray.evals.sweep.scaling import NoFit, ScalingFit, fit_scaling, levels


@dataclass(frozen=True)
class Truth:
    """Runs of a law that is known, with normal noise in the log error."""

    pairs_N: FloatArray
    compute_N: FloatArray
    error_N: FloatArray
    parameters: dict[str, float]


def made_runs(seed: int, axes: int = 1, levels: int = 7, seeds: int = 3, noise: float = 0.01) -> Truth:
    """Two decades of each axis, over which its term falls to a tenth or less: a law that the runs can tell."""
    generator = np.random.default_rng(seed)
    truth = {"e_inf": generator.uniform(0.1, 0.3), "alpha": generator.uniform(0.5, 0.8)}
    truth["a"] = generator.uniform(0.3, 0.6) * 1e3 ** truth["alpha"]
    pairs_N = np.repeat(np.geomspace(1e3, 1e5, levels), seeds * (levels if axes == 2 else 1))
    compute_N = np.full(len(pairs_N), 1e16)
    error_N = truth["e_inf"] + truth["a"] * pairs_N ** -truth["alpha"]
    if axes == 2:
        compute_N = np.tile(np.repeat(np.geomspace(1e15, 1e17, levels), seeds), levels)
        truth["beta"] = generator.uniform(0.5, 0.8)
        truth["b"] = generator.uniform(0.3, 0.6) * 1e15 ** truth["beta"]
        error_N = error_N + truth["b"] * compute_N ** -truth["beta"]
    noise_N = np.exp(noise * generator.standard_normal(len(pairs_N)))
    return Truth(pairs_N, compute_N, error_N * noise_N, truth)


def fitted(truth: Truth, draws: int = 20) -> ScalingFit:
    found = fit_scaling(truth.pairs_N, truth.compute_N, truth.error_N, draws)
    assert isinstance(found, ScalingFit), found
    return found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), axes=st.sampled_from([1, 2]))
def test_fit_scaling_without_noise_recovers_the_parameters(seed: int, axes: int) -> None:
    truth = made_runs(seed, axes, noise=0.0, seeds=1)
    found = fitted(truth, draws=1)
    for name, value in truth.parameters.items():
        # Measured worst relative error over 600 truths: 2e-14.
        assert found.parameters[name].value == pytest.approx(value, rel=1e-6)
    assert found.rmse < 1e-5


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), axes=st.sampled_from([1, 2]), noise=st.floats(0.001, 0.02))
def test_fit_scaling_with_noise_has_the_truth_within_three_widths_of_its_intervals(
    seed: int, axes: int, noise: float
) -> None:
    truth = made_runs(seed, axes, noise=noise)
    found = fitted(truth, draws=100)
    for name, value in truth.parameters.items():
        one = found.parameters[name]
        low, middle, high = (math.log(number) for number in (one.low, one.value, one.high))
        assert middle - 3 * (middle - low) - 0.01 <= math.log(value) <= middle + 3 * (high - middle) + 0.01
    assert found.rmse == pytest.approx(noise, rel=0.6)


@pytest.mark.parametrize(("axes", "seeds"), [(1, 3), (2, 1)])
def test_fit_scaling_intervals_cover_the_truth_at_about_their_rate(axes: int, seeds: int) -> None:
    covered: dict[str, int] = {}
    for case in range(100):
        truth = made_runs(case, axes, seeds=seeds)
        found = fit_scaling(truth.pairs_N, truth.compute_N, truth.error_N, draws=200)
        assert isinstance(found, ScalingFit), found
        for name, value in truth.parameters.items():
            covered[name] = covered.get(name, 0) + (found.parameters[name].low <= value <= found.parameters[name].high)
    # Nominal 95 of 100; standard error 2.2. Measured 95 of each parameter along one axis, 91 to 95 along two.
    assert min(covered.values()) >= 87, covered


def test_fit_scaling_is_as_good_as_a_global_search() -> None:
    truth = made_runs(3, axes=1, noise=0.01)
    found = fitted(truth)
    log_error_N = np.log(truth.error_N)

    def squares(theta: FloatArray) -> float:
        floor, factor, power = np.exp(theta[0]), np.exp(theta[1]), theta[2]
        law_N = floor + factor * (truth.pairs_N / 1e4) ** -power
        return float(((log_error_N - np.log(law_N)) ** 2).sum())

    best = optimize.differential_evolution(squares, [(-6, 0), (-6, 2), (0.02, 4)], rng=1, tol=1e-10, maxiter=500)
    ours = float(((log_error_N - np.log([found.error(pairs, 1.0).value for pairs in truth.pairs_N])) ** 2).sum())
    # A Huber loss gives up a little of the squares.
    assert ours == pytest.approx(best.fun, rel=0.05)
    assert ours >= best.fun * (1 - 1e-6)


def test_fit_scaling_one_wild_run_hardly_moves_it() -> None:
    truth = made_runs(5, axes=1, noise=0.005)
    wild_N = truth.error_N.copy()
    wild_N[10] *= 1.3
    moved = fitted(Truth(truth.pairs_N, truth.compute_N, wild_N, truth.parameters))
    # A run that is 30 % off, 60 deviations; least squares moves alpha by 0.035.
    assert moved.parameters["alpha"].value == pytest.approx(fitted(truth).parameters["alpha"].value, abs=0.02)


def test_fit_scaling_units_of_the_axes_do_not_matter() -> None:
    truth = made_runs(6, axes=2, seeds=1)
    here = fitted(truth)
    there = fitted(Truth(truth.pairs_N / 1e3, truth.compute_N * 1e6, truth.error_N, truth.parameters))
    for name in ("e_inf", "alpha", "beta"):
        assert there.parameters[name].value == pytest.approx(here.parameters[name].value, rel=1e-9)
    expected = here.parameters["b"].value * 1e6 ** here.parameters["beta"].value
    assert there.parameters["b"].value == pytest.approx(expected, rel=1e-6)


def test_fit_scaling_along_compute_alone_has_no_pairs() -> None:
    truth = made_runs(7)
    found = fit_scaling(np.full(21, 5000.0), truth.pairs_N * 1e12, truth.error_N, 50)
    assert isinstance(found, ScalingFit)
    assert set(found.parameters) == {"e_inf", "b", "beta"}
    assert found.parameters["beta"].value == pytest.approx(truth.parameters["alpha"], rel=0.2)
    # The slope, by a difference of two near points.
    ahead, behind = (found.error(5000.0, compute).value for compute in (1.0001e16, 0.9999e16))
    assert found.fall_with_compute(1e16) == pytest.approx((behind - ahead) / 2e12, rel=1e-5)


def test_fit_scaling_predicts_within_an_interval() -> None:
    truth = made_runs(8)
    one = fitted(truth, 200).error(1e6, 1.0)
    law = truth.parameters["e_inf"] + truth.parameters["a"] * 1e6 ** -truth.parameters["alpha"]
    assert one.low <= one.value <= one.high
    assert one.low <= law <= one.high


def test_fit_scaling_same_seed_gives_the_same_interval() -> None:
    truth = made_runs(9)
    assert fitted(truth).as_dict() == fitted(truth).as_dict()


@pytest.mark.parametrize("compute", [[1.0, 1.0, 1.0], [1.0, 10.0, 100.0]])
def test_fit_scaling_three_points_are_always_refused(compute: list[float]) -> None:
    for pairs in ([100.0, 1000.0, 10_000.0], [100.0, 100.0, 100.0]):
        found = fit_scaling(pairs, compute, [0.5, 0.3, 0.25])
        assert isinstance(found, NoFit)


@pytest.mark.parametrize(
    ("pairs", "error", "reason"),
    [
        ([1, 10, 100, 1000], [0.5, 0.4, 0.3, 0.25], "4 runs; along kept pairs the law has 3 parameters and needs 5"),
        ([1, 10, 100] * 3, [0.5, 0.4, 0.3] * 3, "kept pairs: 3 distinct values; a curve that flattens needs 4 or more"),
        ([10, 15, 20, 25, 30], [0.5, 0.4, 0.3, 0.25, 0.2], "the largest is 3 times the smallest; 4 times or more"),
        ([5] * 9, [0.5, 0.4, 0.3] * 3, "neither kept pairs nor compute varies"),
        ([1, 10, 100, 1000, 9999], [0.5, 0.4, 0.3, 0.2, 0.0], "an error of 0; the law is of errors above 0"),
        ([0, 10, 100, 1000, 9999], [0.5, 0.4, 0.3, 0.2, 0.1], "kept pairs: a run has 0"),
        ([1, 10, 100, 1000] * 2, [0.3, 0.31, 0.29, 0.3, 0.29, 0.3, 0.31, 0.29], "the noise between runs"),
        ([1, 10, 100, 1000] * 2, [0.3] * 8, "the noise between runs"),
    ],
)
def test_fit_scaling_too_little_to_tell_is_refused_with_its_reason(
    pairs: list[float], error: list[float], reason: str
) -> None:
    found = fit_scaling(pairs, np.ones(len(pairs)), error)
    assert isinstance(found, NoFit)
    assert reason in found.reason


def test_fit_scaling_axes_that_go_together_are_refused() -> None:
    truth = made_runs(1)
    found = fit_scaling(truth.pairs_N, truth.pairs_N * 1e10, truth.error_N)
    assert isinstance(found, NoFit)
    assert "cannot be told apart" in found.reason


def test_fit_scaling_curve_that_does_not_flatten_is_warned_of() -> None:
    pairs_N = np.repeat(np.geomspace(1e3, 8e3, 5), 2)
    noise_N = np.exp(0.01 * np.random.default_rng(0).standard_normal(10))
    found = fit_scaling(pairs_N, np.ones(10), 5 * pairs_N**-0.2 * noise_N)
    assert isinstance(found, ScalingFit)
    assert any("e_inf" in one for one in found.warnings)


def test_fit_scaling_axis_that_does_nothing_is_warned_of() -> None:
    truth = made_runs(2, axes=2, seeds=1)
    pairs_only_N = truth.parameters["e_inf"] + truth.parameters["a"] * truth.pairs_N ** -truth.parameters["alpha"]
    noise_N = np.exp(0.01 * np.random.default_rng(1).standard_normal(len(pairs_only_N)))
    found = fit_scaling(truth.pairs_N, truth.compute_N, pairs_only_N * noise_N, 100)
    assert isinstance(found, ScalingFit)
    assert "compute: what it changes over its range does not stand out from the noise" in found.warnings
    assert not any(one.startswith("kept pairs") for one in found.warnings)


def test_fit_scaling_law_that_is_not_the_runs_is_warned_of_and_the_right_one_is_not() -> None:
    warned = [0, 0]
    for case in range(60):
        truth = made_runs(case)
        # A last level far below the law, as of a run on all pairs that a worse method's curve is joined to.
        bent_N = np.where(truth.pairs_N > 9e4, 0.85, 1.0) * truth.error_N
        for place, error_N in enumerate((truth.error_N, bent_N)):
            found = fit_scaling(truth.pairs_N, truth.compute_N, error_N, 1)
            assert isinstance(found, ScalingFit)
            warned[place] += any("bend otherwise" in one for one in found.warnings)
    # Nominal 1 % of 60. Measured 0, and 60 of the bent ones.
    assert warned[0] <= 3
    assert warned[1] >= 55


@pytest.mark.parametrize(
    ("pairs", "error", "draws", "message"),
    [
        ([1.0, 2.0], [1.0], 5, r"pairs has shape \(2,\)"),
        ([1.0, math.nan], [1.0, 1.0], 5, "pairs is not finite"),
        ([1.0, 2.0], [1.0, 1.0], 0, "draws is 0; allowed: 1 or more"),
    ],
)
def test_fit_scaling_arrays_that_cannot_be_raise(
    pairs: list[float], error: list[float], draws: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_scaling(pairs, np.ones(len(error)), error, draws)


def test_levels_nearly_equal_compute_is_one_level_and_pairs_are_not() -> None:
    # Whole epochs of 3,400 to 10,000 pairs that come nearest to 10,000 seen.
    seen_N = np.array([10_000.0, 10_200.0, 11_000.0, 39_000.0, 40_000.0])
    assert levels("compute", seen_N) == 2
    assert levels("pairs", seen_N) == 5


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), axes=st.sampled_from([1, 2]))
def test_gradient_equals_differences_of_log_error(seed: int, axes: int) -> None:
    generator = np.random.default_rng(seed)
    theta_RP, axis_AN = generator.normal(size=(3, 1 + 2 * axes)), generator.normal(size=(axes, 6))
    found_RNP = gradient(theta_RP, axis_AN)
    for p in range(theta_RP.shape[1]):
        step_P = 1e-6 * np.eye(theta_RP.shape[1])[p]
        expected_RN = (log_error(theta_RP + step_P, axis_AN) - log_error(theta_RP - step_P, axis_AN)) / 2e-6
        # Values up to 200; measured worst error: 1e-8 of them.
        np.testing.assert_allclose(found_RNP[..., p], expected_RN, rtol=1e-5, atol=1e-7)


def rows(
    truth: Truth, method: str, keep_N: FloatArray, budget_N: FloatArray | float, state: str = "done"
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "method": method,
            "settings": "{}",
            "keep": keep_N,
            "budget": budget_N,
            "pairs_kept": truth.pairs_N,
            "training_flops": truth.compute_N,
            "name": "",
            "value": 1 - truth.error_N,
            "state": state,
        }
    )


def test_fit_methods_fits_each_alone_and_leaves_out_what_is_not_done() -> None:
    first, second = made_runs(11, axes=2, seeds=1), made_runs(12, axes=2, seeds=1)
    parts = [rows(one, name, one.pairs_N / 1e6, 4.0) for one, name in ((first, "prototype"), (second, "random"))]
    broken = Truth(first.pairs_N, first.compute_N, np.full(49, 0.9), {})
    table = pd.concat([*parts, rows(broken, "random", first.pairs_N / 1e6, 4.0, "stopped")])
    found = fit_methods(table, higher_is_better=True, draws=20)
    assert [(one.method, one.budget) for one in found] == [("prototype", None), ("random", None)]
    for one, truth in zip(found, (first, second), strict=True):
        assert isinstance(one.result, ScalingFit)
        assert one.result.runs == 49
        # The error is 1 less the metric, so it has lost its last digit.
        assert one.result.parameters["alpha"].low == pytest.approx(fitted(truth).parameters["alpha"].low, rel=1e-9)


def test_fit_methods_two_budgets_are_fitted_by_pairs_at_each() -> None:
    small, large = made_runs(13), made_runs(14)
    parts = []
    for budget, one in ((1.0, small), (4.0, large)):
        jitter_N = 1 + 0.1 * np.random.default_rng(0).random(21)
        seen = Truth(one.pairs_N, budget * 1e10 * jitter_N, one.error_N, {})
        parts.append(rows(seen, "prototype", one.pairs_N / 1e5, budget))
    joint, *alone = fit_methods(pd.concat(parts), higher_is_better=True, draws=20)
    assert isinstance(joint.result, NoFit)
    assert "compute: 2 distinct values" in joint.result.reason
    assert [one.budget for one in alone] == [1.0, 4.0]
    assert [one.result.axes for one in alone if isinstance(one.result, ScalingFit)] == [("pairs",), ("pairs",)]


def test_fit_methods_method_of_full_runs_alone_has_no_law() -> None:
    truth = made_runs(15)
    truth = Truth(np.full(21, 1e5), truth.compute_N, truth.error_N, {})
    alone = rows(truth, "prototype", np.ones(21), 4.0).assign(name=[str(number) for number in range(21)])
    assert fit_methods(alone, True, draws=5) == ()


def test_fit_methods_full_runs_of_many_budgets_have_a_law_by_compute() -> None:
    truth = made_runs(16)
    swept = Truth(np.full(21, 1e5), truth.pairs_N * 1e10, truth.error_N, {})
    names = [str(number) for number in range(21)]
    parts = [rows(swept, name, np.ones(21), truth.pairs_N).assign(name=names) for name in ("prototype", "random")]
    (one,) = fit_methods(pd.concat(parts), higher_is_better=True, draws=5)
    assert isinstance(one.result, ScalingFit)
    assert (one.method, one.result.axes, one.result.runs) == ("full", ("compute",), 21)
