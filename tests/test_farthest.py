"""Farthest points by each way, against brute force in float64 or whole numbers."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.curation import sampling
from chexray.curation.farthest import Group, Picks, by_candidates, by_differences, by_products
from chexray.curation.sampling import farthest_points, farthest_points_per_cluster, keep_farthest

Way = Callable[[torch.Tensor, Group, torch.dtype], Picks]
ways = pytest.mark.parametrize("way", [by_products, by_candidates])


def unit_rows(rows: int, width: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def lattice_rows(rows: int, width: int, seed: int) -> torch.Tensor:
    """Few distinct rows: duplicates and ties."""
    return torch.randint(0, 3, (rows, width), generator=torch.Generator().manual_seed(seed)).float()


def brute_force_picks(row_NE: torch.Tensor, count: int, start: int) -> list[int]:
    """Of equals the first. Squares in float64: exact for whole numbers."""
    square_NN = (row_NE.double()[:, None] - row_NE.double()[None]).square().sum(dim=2)
    picks = [start]
    while len(picks) < count:
        gap_N = square_NN[picks].amin(dim=0)
        gap_N[picks] = -1
        picks.append(min(range(len(row_NE)), key=lambda row: (-float(gap_N[row]), row)))
    return picks[:count]


def group_of(sizes: list[int], quotas: list[int], seed: int) -> Group:
    """Clusters of rows one after the other, padded with the last row."""
    draw = random.Random(seed)
    first = [sum(sizes[:k]) for k in range(len(sizes))]
    row_GN = torch.tensor(first)[:, None] + torch.arange(max(sizes))
    start_G = torch.tensor([draw.randrange(size) for size in sizes])
    return Group(row_GN.clamp_max(sum(sizes) - 1), start_G, sizes, quotas)


def expected_picks(feature_BE: torch.Tensor, group: Group) -> list[list[int]]:
    clusters = zip(group.row_GN, group.sizes, group.quotas, group.start_G.tolist(), strict=True)
    return [brute_force_picks(feature_BE[row_N[:size]], quota, start) for row_N, size, quota, start in clusters]


def picks_of(pick_GM: torch.Tensor, group: Group) -> list[list[int]]:
    return [picks[:quota] for picks, quota in zip(pick_GM.tolist(), group.quotas, strict=True)]


@ways
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_farthest_points_by_products_of_random_rows_equal_brute_force(way: Way, dtype: torch.dtype) -> None:
    group = group_of([90, 90, 61, 60, 50], [90, 12, 30, 1, 49], seed=0)
    feature_BE = unit_rows(351, 256, 1)
    pick_GM, doubt_G = way(feature_BE, group, dtype)
    expected = expected_picks(feature_BE, group)
    decided = [k for k, doubt in enumerate(doubt_G.tolist()) if not doubt]
    assert [picks_of(pick_GM, group)[k] for k in decided] == [expected[k] for k in decided]
    assert dtype == torch.float32 or len(decided) == 5


@ways
@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 25), min_size=1, max_size=5), lattice=st.booleans(), data=st.data())
def test_farthest_points_by_products_are_brute_force_or_in_doubt(
    way: Way, sizes: list[int], lattice: bool, data: st.DataObject
) -> None:
    sizes = sorted(sizes, reverse=True)
    quotas = [data.draw(st.integers(1, size)) for size in sizes]
    seed = data.draw(st.integers(0, 10**6))
    group = group_of(sizes, quotas, seed)
    feature_BE = (lattice_rows if lattice else unit_rows)(sum(sizes), 3, seed)
    pick_GM, doubt_G = way(feature_BE, group, torch.float32)
    expected = expected_picks(feature_BE, group)
    for k, doubt in enumerate(doubt_G.tolist()):
        assert doubt or picks_of(pick_GM, group)[k] == expected[k]
        assert len(set(picks_of(pick_GM, group)[k])) == quotas[k]


@ways
def test_farthest_points_by_products_of_a_tie_are_in_doubt(way: Way) -> None:
    """The ends of a line are as far from its middle; of the second cluster, one is farther."""
    feature_BE = torch.tensor([[-1.0], [0.0], [1.0], [-1.0], [0.0], [1.1]])
    group = Group(torch.tensor([[0, 1, 2], [3, 4, 5]]), torch.tensor([1, 1]), [3, 3], [2, 2])
    pick_GM, doubt_G = way(feature_BE, group, torch.float32)
    assert doubt_G.tolist() == [True, False]
    assert pick_GM[1].tolist() == [1, 2]
    assert by_differences(feature_BE, group)[0].tolist() == [[1, 0], [1, 2]]


@ways
@pytest.mark.parametrize("width", [255, 1000])
def test_farthest_points_by_products_of_rows_of_equal_numbers_are_brute_force_or_in_doubt(way: Way, width: int) -> None:
    """Rounding errors of equal numbers add up: by 64 units of a product at E = 1,024 where others have at most 10."""
    draw = torch.Generator().manual_seed(2)
    level_N1 = 1 + 3e-4 * torch.rand(200, 1, generator=draw)
    feature_BE = torch.cat([level_N1, torch.rand(200, 1, generator=draw)]).expand(-1, width).contiguous()
    group = group_of([200, 200], [9, 9], seed=2)
    pick_GM, doubt_G = way(feature_BE, group, torch.float32)
    expected = expected_picks(feature_BE, group)
    for k, doubt in enumerate(doubt_G.tolist()):
        assert doubt or picks_of(pick_GM, group)[k] == expected[k]
    assert bool(doubt_G[0])


def test_farthest_points_by_differences_of_padded_lattice_clusters_equal_brute_force() -> None:
    group = group_of([40, 30, 1], [40, 7, 1], seed=3)
    feature_BE = lattice_rows(71, 3, 4)
    pick_GM, doubt_G = by_differences(feature_BE, group)
    assert picks_of(pick_GM, group) == expected_picks(feature_BE, group)
    assert not bool(doubt_G.any())


@pytest.mark.parametrize(("rows", "picks"), [(64, 64), (16, 4), (4, 128)])
@pytest.mark.parametrize("lattice", [False, True])
def test_farthest_points_small_caches_and_skipped_float32_give_the_same(
    monkeypatch: pytest.MonkeyPatch, rows: int, picks: int, lattice: bool
) -> None:
    """With little room clusters are sampled one by one, by candidates."""
    monkeypatch.setattr(sampling, "CPU_BYTES", rows * 4 * 16)
    monkeypatch.setattr(sampling, "FLOAT32_PICKS", picks)
    sizes, quota_K = [50, 3, 0, 17, 30], [33, 2, 0, 17, 6]
    cluster_N = torch.repeat_interleave(torch.arange(5), torch.tensor(sizes))
    cluster_N = cluster_N[torch.randperm(100, generator=torch.Generator().manual_seed(5))]
    feature_NE = (lattice_rows if lattice else unit_rows)(100, 16, 6)
    members = [(cluster_N == k).nonzero()[:, 0] for k in range(5)]
    start_K = torch.tensor([int(member[-1]) if len(member) else 0 for member in members])
    pick_KM = farthest_points_per_cluster(feature_NE, cluster_N, quota_K, start_K)
    for k, member in enumerate(members):
        expected = brute_force_picks(feature_NE[member], quota_K[k], len(member) - 1) if len(member) else []
        assert [pick for pick in pick_KM[k].tolist() if pick >= 0] == member[expected].tolist()


@pytest.mark.parametrize("threads", [1, 2])
def test_farthest_points_near_ties_do_not_depend_on_threads(threads: int) -> None:
    """Rows differ by 1e-6 from one another, so that float32 products leave most picks open."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    feature_NE = unit_rows(1, 512, 7) + 1e-6 * torch.randn(60, 512, generator=torch.Generator().manual_seed(8))
    picks = farthest_points(feature_NE, 20, start=3).tolist()
    torch.set_num_threads(before)
    assert picks == brute_force_picks(feature_NE, 20, 3)


def test_keep_farthest_order_decides_the_start_and_between_equals() -> None:
    """A square: from any corner the opposite one is next, then one of two as far."""
    feature_BE = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    cluster_B, member_B = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.bool)
    in_rows_B = keep_farthest(feature_BE, cluster_B, member_B, [3])
    assert in_rows_B.tolist() == [True, True, True, False]  # starts at 2, then 0, then the first of 1 and 3
    order_B = torch.tensor([3, 2, 1, 0])
    assert keep_farthest(feature_BE, cluster_B, member_B, [3], order_B).tolist() == [False, True, True, True]
