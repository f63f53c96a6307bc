"""Frontiers against brute force, curves, costs and the worth of a GPU-hour by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_records import plan, trial

from chexray.evals.sweep.cost import Device, run_cost
from chexray.evals.sweep.frontier import designs, distinct_designs, frontier, hour_values, iso_compute, pareto
from chexray.evals.sweep.scaling import ScalingFit, fit_scaling
from chexray.evals.sweep.trials import trial_table
from chexray.platform.sweep.records import TrialRecord

# A thousand FLOPs an hour.
DEVICE = Device(peak_flops=1000 / 3600 * 2, utilisation=0.5, price_per_hour=3.0)


def beaten(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return other[0] <= one[0] and other[1] >= one[1] and other != one


@settings(max_examples=200, deadline=None)
@given(
    points=st.lists(st.tuples(st.integers(0, 5).map(float), st.integers(0, 5).map(float)), max_size=14),
    higher=st.booleans(),
)
def test_pareto_equals_brute_force(points: list[tuple[float, float]], higher: bool) -> None:
    cost_N, value_N = np.array([one[0] for one in points]), np.array([one[1] for one in points])
    expected = [not any(beaten(one, other) for other in points) for one in points]
    assert pareto(cost_N, value_N if higher else -value_N, higher).tolist() == expected


def test_pareto_undefined_points_are_on_no_frontier() -> None:
    assert pareto([1.0, math.nan, 2.0], [math.nan, 9.0, 1.0]).tolist() == [False, False, True]


def test_pareto_shapes_that_disagree_raise() -> None:
    with pytest.raises(ValueError, match=r"allowed: the same \(N,\)"):
        pareto([1.0], [1.0, 2.0])


def swept() -> list[TrialRecord]:
    """At 4 passes: random at a half and all pairs, of two seeds; one more that was stopped; and 1 pass of random."""
    return [
        trial("random", 0.5, 0.80),
        trial("random", 0.5, 0.84, seed=1),
        trial("random", 0.5, 0.99, seed=2, state="stopped"),
        trial("full", 1.0, 0.90, methods=("random", "prototype")),
        trial("full", 1.0, 0.92, seed=1, methods=("random", "prototype")),
        trial("prototype", 0.5, 0.80),
        trial("random", 0.5, 0.70, budget=1.0),
    ]


def test_designs_are_means_over_the_seeds_that_are_done() -> None:
    found = designs(trial_table(plan(swept()), swept())).set_index(["method", "budget", "keep"])
    half = found.loc[("random", 4.0, 0.5)]
    assert half["mean"] == pytest.approx(0.82)
    assert half["spread"] == pytest.approx(0.02 * math.sqrt(2))
    assert (half["seeds"], half["flops"]) == (2, 1_200_000)
    assert half["names"] == ("random-0.5-4x-s0", "random-0.5-4x-s1")
    assert math.isnan(found.loc[("random", 1.0, 0.5)]["spread"])
    assert len(found) == 5


def test_distinct_designs_name_all_pairs_once() -> None:
    found = distinct_designs(trial_table(plan(swept()), swept()))
    assert found["method"].tolist().count("full") == 1
    assert len(found) == 4


def test_frontier_is_cheapest_for_its_mean_with_curation_paid() -> None:
    found = frontier(trial_table(plan(swept()), swept()), True)
    # prototype's half costs 1.3 million for 0.80, random's 1.2 million for 0.82, as all pairs do for 0.91.
    assert list(zip(found["method"], found["budget"], strict=True)) == [("random", 1.0), ("full", 4.0)]
    assert found["flops"].tolist() == [300_000.0, 1_200_000.0]


def test_frontier_of_nothing_done_is_empty() -> None:
    waiting = [trial("random", 0.5, 0.8, state="running")]
    table = trial_table(plan(waiting), waiting)
    assert frontier(table, True).empty
    assert iso_compute(table) == []


def test_iso_compute_curve_goes_over_rising_fractions_of_one_budget() -> None:
    curves = iso_compute(trial_table(plan(swept()), swept()))
    assert [(one.method, one.budget) for one in curves] == [("prototype", 4.0), ("random", 1.0), ("random", 4.0)]
    last = curves[-1]
    assert (last.keep, last.seeds) == ((0.5, 1.0), (2, 2))
    assert last.mean == pytest.approx((0.82, 0.91))


@pytest.mark.parametrize("higher", [True, False])
def test_hour_values_without_a_law_are_differences_of_neighbours(higher: bool) -> None:
    table = trial_table(plan(swept()), swept())
    table["value"] = table["value"] if higher else 1 - table["value"]
    first, last = hour_values(frontier(table, higher), higher, DEVICE, {})
    # 0.91 less 0.70 for 900 more hours; the last one's is that from the one before.
    assert (first.gpu_hours, last.gpu_hours) == (pytest.approx(300), pytest.approx(1200))
    assert first.per_hour == pytest.approx(0.21 / 900)
    assert last.per_hour == pytest.approx(0.21 / 900)
    assert (first.source, last.source) == ("differences", "differences")


def test_hour_values_frontier_of_one_has_none() -> None:
    one = [trial("random", 0.5, 0.8)]
    (found,) = hour_values(frontier(trial_table(plan(one), one), True), True, DEVICE, {})
    assert (found.per_hour, found.source) == (None, None)


def test_hour_values_with_a_law_are_its_slope() -> None:
    compute_N = np.geomspace(1e4, 1e6, 12)
    law = fit_scaling(np.full(12, 5000.0), compute_N, 0.1 + 40 * compute_N**-0.5, draws=5)
    assert isinstance(law, ScalingFit)
    one = [trial("random", 0.5, 0.8, budget=1.0)]
    front = frontier(trial_table(plan(one), one), True)
    (found,) = hour_values(front, True, DEVICE, {("random", "{}"): law})
    # d/dc of 40 c ** -0.5 at 300,000 FLOPs, times 1,000 FLOPs an hour.
    assert found.per_hour == pytest.approx(20 * 300_000**-1.5 * 1000, rel=1e-6)
    assert found.source == "fit"


def test_run_cost_by_hand() -> None:
    # An H100 at 40 % of 989.5 TFLOP/s: 1.42488e18 FLOPs an hour.
    device = Device(989.5e12, 0.4, 2.5)
    found = run_cost(1_000_000, 8, 60e9, 20e9, device)
    assert (found.training_flops, found.curation_flops, found.flops) == (4.8e17, 2e16, 5e17)
    assert found.gpu_hours == pytest.approx(5e17 / 1.42488e18)
    assert found.money == pytest.approx(2.5 * 5e17 / 1.42488e18)


def test_run_cost_without_a_price_has_no_money() -> None:
    assert run_cost(10, 1, 1.0, 0.0, Device(1e12, 1.0)).money is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.0, 0.5, None), "peak_flops is 0.0; allowed: above 0"),
        ((math.nan, 0.5, None), "peak_flops is nan; allowed: above 0"),
        ((1e12, 0.0, None), "utilisation is 0.0; allowed: above 0, 1 at most"),
        ((1e12, 1.5, None), "utilisation is 1.5; allowed: above 0, 1 at most"),
        ((1e12, 0.5, -1.0), "price_per_hour is -1.0; allowed: 0 or more"),
    ],
)
def test_device_values_that_cannot_be_raise(values: tuple[float, float, float | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Device(*values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": 0}, "pairs is 0; allowed: 1 or more"),
        ({"passes": 0.0}, "passes is 0.0; allowed: above 0"),
        ({"train_flops_per_pair": math.inf}, "train_flops_per_pair is inf; allowed: above 0, and finite"),
        ({"curation_flops_per_pair": -1.0}, "curation_flops_per_pair is -1.0; allowed: 0 or more"),
    ],
)
def test_run_cost_values_that_cannot_be_raise(changes: dict[str, float], message: str) -> None:
    given = {"pairs": 1, "passes": 1.0, "train_flops_per_pair": 1.0, "curation_flops_per_pair": 0.0} | changes
    with pytest.raises(ValueError, match=message):
        run_cost(**given, device=DEVICE)  # type: ignore[arg-type]
