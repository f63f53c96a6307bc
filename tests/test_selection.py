"""Selection against the reference's arrays, brute force, and invariants of the budget."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chexray.curation.sampling import farthest_points, farthest_points_per_cluster, water_fill
from chexray.curation.selection import (
    Band,
    Selection,
    SelectionRule,
    assign_bands,
    assign_clusters,
    select,
    superbatch_budget,
)

GOLDEN = Path(__file__).parents[2] / "shared" / "data" / "golden" / "curation_reference.npz"
needs_golden = pytest.mark.skipif(not GOLDEN.is_file(), reason=f"needs {GOLDEN.name} in ../shared/data/golden")


def unit_rows(rows: int, width: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def ids(pairs: int, seed: int = 0) -> list[str]:
    """Distinct ids of 32 hex digits, in no order."""
    return [f"{value:032x}" for value in random.Random(seed).sample(range(2**60), pairs)]


def golden_case(name: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN) as arrays:
        keys = ("features", "prototypes", "cluster", "distance", "outlier", "support", "central")
        return {key: torch.from_numpy(arrays[f"{name}_{key}"]) for key in keys}


@needs_golden
@pytest.mark.parametrize("name", ["small", "paper", "wide"])
def test_select_paper_rule_reproduces_every_reference_array(name: str) -> None:
    case = golden_case(name)
    rule = SelectionRule(mode="paper")
    chosen = select(case["features"], case["prototypes"], rule, None, ids(len(case["features"])))
    assert torch.equal(chosen.cluster_B, case["cluster"])
    # Worst 2.4e-7 (small), 3.6e-7 (paper), 3.0e-7 (wide): the reference is a float32 product, ours differences.
    torch.testing.assert_close(chosen.distance_B, case["distance"], rtol=0, atol=5e-7)
    assert torch.equal(chosen.band_B == Band.OUTLIER, case["outlier"])
    assert torch.equal(chosen.band_B == Band.SUPPORT, case["support"])
    assert torch.equal(chosen.keep_B & (chosen.band_B == Band.CENTRAL), case["central"])
    assert torch.equal(chosen.keep_B, case["support"] | case["central"])
    assert (chosen.cluster_B.dtype, chosen.distance_B.dtype) == (torch.int64, torch.float32)
    assert (chosen.band_B.dtype, chosen.keep_B.dtype) == (torch.int8, torch.bool)


@needs_golden
@pytest.mark.parametrize("name", ["small", "paper", "wide"])
def test_select_budget_rule_shares_the_bands_of_the_reference(name: str) -> None:
    case = golden_case(name)
    pairs = len(case["features"])
    budget = superbatch_budget(0.227, 0, pairs)
    chosen = select(case["features"], case["prototypes"], SelectionRule(), budget, ids(pairs))
    assert torch.equal(chosen.band_B == Band.OUTLIER, case["outlier"])
    assert torch.equal(chosen.band_B == Band.SUPPORT, case["support"])
    assert int(chosen.keep_B.sum()) == budget
    assert bool(chosen.keep_B[case["support"]].all())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", ["paper", "budget"])
def test_select_on_a_gpu_equals_the_cpu(mode: Any) -> None:
    feature_BE, prototype_KE = unit_rows(480, 128, 0), unit_rows(6, 128, 1)
    budget = None if mode == "paper" else 109
    rule = SelectionRule(mode=mode)
    on_cpu = select(feature_BE, prototype_KE, rule, budget, ids(480))
    on_gpu = select(feature_BE.cuda(), prototype_KE.cuda(), rule, budget, ids(480))
    assert_same(on_cpu, on_gpu)


def assert_same(one: Selection, other: Selection) -> None:
    assert torch.equal(one.cluster_B, other.cluster_B.to(one.cluster_B.device))
    assert torch.equal(one.distance_B, other.distance_B.to(one.distance_B.device))
    assert torch.equal(one.band_B, other.band_B.to(one.band_B.device))
    assert torch.equal(one.keep_B, other.keep_B.to(one.keep_B.device))


def brute_force_picks(rows: Sequence[Sequence[int]], count: int, start: int) -> list[int]:
    """Whole-number coordinates, so that squared distances, and with them ties, are exact."""
    if not rows:
        return []
    picks = [start]
    while len(picks) < min(count, len(rows)):
        best, best_gap = -1, -1
        for row in range(len(rows)):
            gap = min(sum((a - b) ** 2 for a, b in zip(rows[row], rows[pick], strict=True)) for pick in picks)
            if row not in picks and gap > best_gap:
                best, best_gap = row, gap
        picks.append(best)
    return picks[:count]


@pytest.mark.parametrize("seed", range(200))
def test_farthest_points_random_case_with_ties_equals_brute_force(seed: int) -> None:
    """A coarse lattice gives ties and duplicates; some clusters are empty, some have one member."""
    draw = random.Random(seed)
    clusters, width = draw.randint(1, 6), draw.randint(1, 4)
    cluster = [draw.randrange(clusters) for _ in range(draw.randint(0, 40))]
    rows = [[draw.randint(0, 2) for _ in range(width)] for _ in cluster]
    members = [[row for row, k in enumerate(cluster) if k == wanted] for wanted in range(clusters)]
    quota = [draw.randint(0, len(member)) for member in members]
    start = [draw.choice(member) if member else 0 for member in members]
    feature_NE = torch.tensor(rows, dtype=torch.float32).reshape(len(rows), width)
    pick_KM = farthest_points_per_cluster(
        feature_NE, torch.tensor(cluster, dtype=torch.long), quota, torch.tensor(start)
    )
    for k, member in enumerate(members):
        local = member.index(start[k]) if member else 0
        expected = [member[pick] for pick in brute_force_picks([rows[r] for r in member], quota[k], local)]
        assert [pick for pick in pick_KM[k].tolist() if pick >= 0] == expected
        alone = farthest_points(feature_NE[torch.tensor(member, dtype=torch.long)], quota[k], local)
        assert [member[pick] for pick in alone.tolist()] == expected


def test_farthest_points_line_picks_the_ends_then_the_middle() -> None:
    line_NE = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]])
    assert farthest_points(line_NE, 4, start=0).tolist() == [0, 4, 2, 1]


def test_farthest_points_count_beyond_the_rows_picks_each_once() -> None:
    assert sorted(farthest_points(torch.zeros(4, 2), 9, start=2).tolist()) == [0, 1, 2, 3]


def test_farthest_points_start_outside_the_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="start=3"):
        farthest_points(torch.zeros(3, 2), 1, start=3)


@given(capacity=st.lists(st.integers(0, 30), min_size=1, max_size=8), data=st.data())
def test_water_fill_any_capacities_equals_handing_out_one_at_a_time(capacity: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(capacity)))
    share = [0] * len(capacity)
    for _ in range(total):
        room = [k for k in range(len(capacity)) if share[k] < capacity[k]]
        share[min(room, key=lambda k: (share[k], k))] += 1
    assert water_fill(total, capacity) == share


def test_water_fill_more_than_all_capacities_is_refused() -> None:
    with pytest.raises(ValueError, match="total=4"):
        water_fill(4, [1, 2])


@given(
    pairs=st.integers(1, 300),
    clusters=st.integers(1, 20),
    levels=st.integers(1, 500),
    seed=st.integers(0, 99),
)
def test_assign_bands_distances_with_ties_equal_numpy_quantiles(
    pairs: int, clusters: int, levels: int, seed: int
) -> None:
    """Whole distances from few levels make ties; rounding to 1e-9 undoes NumPy's rounding for them."""
    draw = np.random.default_rng(seed)
    cluster, distance = draw.integers(0, clusters, pairs), draw.integers(0, levels, pairs).astype(np.float32)
    expected = np.full(pairs, Band.CENTRAL, dtype=np.int8)
    for k in np.unique(cluster):
        lower, upper = np.quantile(distance[cluster == k].astype(np.float64), [0.85, 0.95]).round(9)
        expected[(cluster == k) & (distance > lower)] = Band.SUPPORT
        expected[(cluster == k) & (distance > upper)] = Band.OUTLIER
    band_B = assign_bands(torch.from_numpy(cluster), torch.from_numpy(distance))
    np.testing.assert_array_equal(band_B.numpy(), expected)


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        ([], []),
        ([0.3], [Band.CENTRAL]),
        ([0.5] * 5, [Band.CENTRAL] * 5),
        ([0.2, 0.1], [Band.OUTLIER, Band.CENTRAL]),
        # 21 members: ranks 17 and 19 of 20, both whole, so 2 pairs lie above the one and 1 above the other.
        (list(range(21)), [Band.CENTRAL] * 18 + [Band.SUPPORT] * 2 + [Band.OUTLIER]),
    ],
)
def test_assign_bands_small_cluster_equals_the_bands_by_hand(distance: list[float], expected: list[Band]) -> None:
    band_B = assign_bands(torch.zeros(len(distance), dtype=torch.long), torch.tensor(distance).float())
    assert band_B.tolist() == expected


def test_assign_clusters_equal_prototypes_take_the_first() -> None:
    cluster_B, distance_B = assign_clusters(torch.eye(2), torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]))
    assert cluster_B.tolist() == [2, 0]
    assert distance_B.tolist() == [0.0, 0.0]


def lattice_rows(pairs: int, seed: int) -> torch.Tensor:
    """Few distinct rows: duplicates, ties and empty clusters."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 3, (pairs, 3), generator=draw).float()


@settings(max_examples=150, deadline=None)
@given(
    keep=st.floats(0.0005, 0.95),
    start=st.integers(0, 10**6),
    pairs=st.integers(8, 600),
    clusters=st.integers(2, 40),
    repeated=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_select_budget_rule_keeps_exactly_the_budget(
    keep: float, start: int, pairs: int, clusters: int, repeated: bool, seed: int
) -> None:
    feature_BE = lattice_rows(pairs, seed) if repeated else unit_rows(pairs, 3, seed)
    budget = superbatch_budget(keep, start, pairs)
    chosen = select(feature_BE, unit_rows(clusters, 3, seed + 1), SelectionRule(), budget, ids(pairs, seed))
    support_B, central_B = chosen.band_B == Band.SUPPORT, chosen.band_B == Band.CENTRAL
    assert int(chosen.keep_B.sum()) == budget
    assert not bool((chosen.keep_B & (chosen.band_B == Band.OUTLIER)).any())
    # Central pairs only once no support pair is left out.
    assert bool(chosen.keep_B[support_B].all()) or not bool(chosen.keep_B[central_B].any())
    for band_B in (support_B, central_B):
        assert_equal_shares(chosen.cluster_B[band_B], chosen.keep_B[band_B], clusters)


def assert_equal_shares(cluster_N: torch.Tensor, keep_N: torch.Tensor, clusters: int) -> None:
    """Clusters that could have given more keep alike, to within one pair, and no fewer than the others."""
    size_K = torch.bincount(cluster_N, minlength=clusters)
    kept_K = torch.bincount(cluster_N[keep_N], minlength=clusters)
    capped_K = kept_K == size_K
    if not bool(capped_K.all()):
        most, least = int(kept_K[~capped_K].max()), int(kept_K[~capped_K].min())
        assert most - least <= 1
        assert int(kept_K.max()) <= least + 1


@settings(max_examples=40, deadline=None)
@given(keep=st.floats(0.01, 0.95), pairs=st.integers(8, 200), repeated=st.booleans(), seed=st.integers(0, 1000))
def test_select_budget_rule_rows_in_another_order_give_the_same_pairs(
    keep: float, pairs: int, repeated: bool, seed: int
) -> None:
    feature_BE = lattice_rows(pairs, seed) if repeated else unit_rows(pairs, 3, seed)
    prototype_KE, names = unit_rows(5, 3, seed + 1), ids(pairs, seed)
    budget = superbatch_budget(keep, 0, pairs)
    order_B = torch.randperm(pairs, generator=torch.Generator().manual_seed(seed))
    chosen = select(feature_BE, prototype_KE, SelectionRule(), budget, names)
    moved = select(feature_BE[order_B], prototype_KE, SelectionRule(), budget, [names[row] for row in order_B.tolist()])
    reordered = (field[order_B] for field in (chosen.cluster_B, chosen.distance_B, chosen.band_B, chosen.keep_B))
    assert_same(Selection(*reordered), moved)


def test_select_budget_rule_central_picks_equal_brute_force() -> None:
    """One prototype at the origin and whole coordinates, so that all distances are exact."""
    draw = random.Random(5)
    rows = [[draw.randint(-4, 4) for _ in range(3)] for _ in range(40)]
    names = sorted(ids(40))
    chosen = select(torch.tensor(rows).float(), torch.zeros(1, 3), SelectionRule(), 20, names)
    central = [row for row, band in enumerate(chosen.band_B.tolist()) if band == Band.CENTRAL]
    support = [row for row, band in enumerate(chosen.band_B.tolist()) if band == Band.SUPPORT]
    assert 0 < len(support) < 20
    picks = brute_force_picks([rows[row] for row in central], 20 - len(support), len(central) // 2)
    assert chosen.keep_B.nonzero()[:, 0].tolist() == sorted(support + [central[pick] for pick in picks])


def test_select_tiny_superbatch_readmits_the_nearest_outlier() -> None:
    """Two clusters of two have one outlier each by quantile; 3 of 4 pairs leave room for one of them."""
    prototype_KE = torch.tensor([[0.0], [10.0]])
    feature_BE = torch.tensor([[0.1], [0.4], [10.1], [10.3]])
    chosen = select(feature_BE, prototype_KE, SelectionRule(), 3, ["a", "b", "c", "d"])
    assert chosen.band_B.tolist() == [Band.CENTRAL, Band.OUTLIER, Band.CENTRAL, Band.SUPPORT]
    assert chosen.keep_B.tolist() == [True, False, True, True]
    fewer = select(feature_BE, prototype_KE, SelectionRule(), 2, ["a", "b", "c", "d"])
    assert fewer.band_B.tolist() == [Band.CENTRAL, Band.OUTLIER, Band.CENTRAL, Band.OUTLIER]


def test_select_empty_superbatch_keeps_nothing() -> None:
    chosen = select(torch.empty(0, 4), unit_rows(3, 4, 0), SelectionRule(), 0, [])
    assert (len(chosen.keep_B), len(chosen.band_B)) == (0, 0)
    paper = select(torch.empty(0, 4), unit_rows(3, 4, 0), SelectionRule(mode="paper"), None, [])
    assert len(paper.keep_B) == 0


def test_select_budget_beyond_the_outlier_share_is_refused_and_names_both_shares() -> None:
    with pytest.raises(ValueError, match=r"budget=97 of 100 .*keep=0\.97.*outlier=0\.05"):
        select(unit_rows(100, 4, 0), unit_rows(3, 4, 1), SelectionRule(), 97, ids(100))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("mode", ["paper", "budget"])
def test_select_feature_that_is_not_finite_is_refused_with_its_id(value: float, mode: Any) -> None:
    feature_BE = unit_rows(10, 4, 0)
    feature_BE[3, 1] = value
    feature_BE[7] = value
    names = [f"pair-{row}" for row in range(10)]
    with pytest.raises(ValueError, match="2 sample ids: pair-3, pair-7"):
        select(feature_BE, unit_rows(2, 4, 1), SelectionRule(mode=mode), None, names)


@pytest.mark.parametrize(
    ("rule", "budget", "names", "message"),
    [
        (SelectionRule(mode="paper"), 2, ["a", "b", "c"], "budget=2 must be None"),
        (SelectionRule(), None, ["a", "b", "c"], "budget=None"),
        (SelectionRule(), 2, ["a", "b"], "sample_ids has 2 ids"),
        (SelectionRule(), 2, ["a", "b", "a"], "distinct; 1 come more than once: a"),
        (SelectionRule(), -1, ["a", "b", "c"], "budget=-1"),
    ],
)
def test_select_arguments_that_do_not_fit_are_refused(
    rule: SelectionRule, budget: int | None, names: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        select(unit_rows(3, 4, 0), unit_rows(2, 4, 1), rule, budget, names)


def test_select_prototypes_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="the same E"):
        select(unit_rows(3, 4, 0), unit_rows(2, 5, 1), SelectionRule(), 1, ["a", "b", "c"])


@pytest.mark.parametrize(
    "settings_given",
    [{"outlier": -0.1}, {"outlier": 0.6, "support": 0.4}, {"mode": "best"}, {"central_per_cluster": -1}],
)
def test_selection_rule_setting_out_of_range_is_refused(settings_given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings_given))):
        SelectionRule(**settings_given)


@given(keep=st.floats(0.0, 1.0), sizes=st.lists(st.integers(0, 5000), min_size=1, max_size=30))
def test_superbatch_budget_any_sizes_stays_within_one_pair_of_the_fraction(keep: float, sizes: list[int]) -> None:
    seen = kept = 0
    for size in sizes:
        budget = superbatch_budget(keep, seen, size)
        assert 0 <= budget <= size
        seen, kept = seen + size, kept + budget
        assert abs(kept - keep * seen) <= 0.5 + 1e-9


@given(keep=st.floats(0.0, 1.0), cuts=st.lists(st.integers(0, 10_000), max_size=20))
def test_superbatch_budget_total_does_not_depend_on_the_superbatches(keep: float, cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), 10_000]
    pieces = sum(superbatch_budget(keep, a, b - a) for a, b in pairwise(bounds))
    assert pieces == superbatch_budget(keep, 0, 10_000)


@given(outlier=st.integers(0, 99), start=st.integers(0, 10**7), size=st.integers(1, 10_000))
def test_superbatch_budget_whole_percentages_never_ask_for_the_outliers(outlier: int, start: int, size: int) -> None:
    """The largest allowed keep leaves floor(outlier * size) pairs out, which is what a rule may drop."""
    assume(outlier > 0)
    assert superbatch_budget((100 - outlier) / 100, start, size) <= size - outlier * size // 100


@pytest.mark.parametrize(("keep", "start", "size"), [(1.1, 0, 1), (-0.1, 0, 1), (0.5, -1, 1), (0.5, 0, -1)])
def test_superbatch_budget_argument_out_of_range_is_refused(keep: float, start: int, size: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        superbatch_budget(keep, start, size)
