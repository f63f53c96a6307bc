"""Quotas by hand, and what a selection does with them."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from chexray.curation.quota import proportional_shares
from chexray.curation.selection import Band, SelectionRule, select


@pytest.mark.parametrize(
    ("total", "size_K", "expected"),
    [
        (0, [3, 4], [0, 0]),
        (0, [], []),
        (10, [5, 3, 2], [5, 3, 2]),
        (5, [50, 30, 20], [3, 1, 1]),  # 2.5, 1.5 and 1: of equal remainders, the first
        (4, [50, 30, 20], [2, 1, 1]),  # 2, 1.2 and 0.8
        (1, [1, 1, 1], [1, 0, 0]),
        (3, [0, 7, 0, 2], [0, 2, 0, 1]),  # 2.33 and 0.67
        (7, [10, 1, 1], [6, 1, 0]),  # 5.83, 0.58 and 0.58
    ],
)
def test_proportional_shares_small_case_equals_the_shares_by_hand(
    total: int, size_K: list[int], expected: list[int]
) -> None:
    assert proportional_shares(total, size_K) == expected


@given(size_K=st.lists(st.integers(0, 50), max_size=10), data=st.data())
def test_proportional_shares_sum_to_the_total_within_one_of_the_proportion(
    size_K: list[int], data: st.DataObject
) -> None:
    total = data.draw(st.integers(0, sum(size_K)))
    share_K = proportional_shares(total, size_K)
    assert sum(share_K) == total
    for share, size in zip(share_K, size_K, strict=True):
        assert 0 <= share <= size
        assert abs(share * sum(size_K) - total * size) < max(sum(size_K), 1)


def test_proportional_shares_more_than_all_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match="total=4"):
        proportional_shares(4, [1, 2])


def line_case(prefix: str = "") -> dict[str, Any]:
    """Clusters of 60 and 21 pairs around 0 and 100, each pair 0.001 farther out than the one before."""
    offset = [0.001 * n for n in range(60)] + [100 + 0.001 * n for n in range(21)]
    draw = random.Random(0)
    return {
        "feature_BE": torch.tensor(offset)[:, None],
        "prototype_KE": torch.tensor([[0.0], [100.0]]),
        "sample_ids": [f"{prefix}{draw.getrandbits(128):032x}" for _ in offset],
    }


@pytest.mark.parametrize(
    ("quota", "budget", "support", "central"),
    [
        # Of 60, ranks 56 and 50 leave 3 and 9 above: 6 support and 51 central pairs. Of 21, 2 and 18.
        ("equal", 28, [6, 2], [10, 10]),
        ("proportional", 28, [6, 2], [15, 5]),  # 20 of 51 + 18: 14.78 and 5.22
        ("equal", 4, [2, 2], [0, 0]),
        ("proportional", 4, [3, 1], [0, 0]),
        ("proportional", 70, [6, 2], [46, 16]),  # 62 of 69: 45.83 and 16.17
    ],
)
def test_select_quota_shares_each_band_as_by_hand(
    quota: Any, budget: int, support: list[int], central: list[int]
) -> None:
    chosen = select(rule=SelectionRule(central_quota=quota), budget=budget, **line_case())
    for band, expected in ((Band.SUPPORT, support), (Band.CENTRAL, central)):
        kept = chosen.cluster_B[chosen.keep_B & (chosen.band_B == band)]
        assert torch.bincount(kept, minlength=2).tolist() == expected


def test_selection_rule_unknown_quota_is_refused() -> None:
    with pytest.raises(ValueError, match="central_quota='fair' must be 'equal' or 'proportional'"):
        SelectionRule(central_quota="fair")  # type: ignore[arg-type]


@pytest.mark.parametrize("shared", [False, True])
def test_select_ids_that_are_hashes_are_ordered_like_other_text(shared: bool) -> None:
    """A letter before each id keeps their order, and lower halves decide where upper halves are shared."""
    draw = torch.Generator().manual_seed(1)
    feature_BE = torch.randint(0, 3, (90, 3), generator=draw).float()
    prototype_KE = F.normalize(torch.randn(4, 3, generator=draw), dim=1)
    numbers = random.Random(2).sample(range(2**60), 90)
    names = [f"{('f0' * 8 if shared else f'{number:016x}')}{number:016x}" for number in numbers]
    plain = select(feature_BE, prototype_KE, SelectionRule(), 30, names)
    prefixed = select(feature_BE, prototype_KE, SelectionRule(), 30, ["x" + name for name in names])
    assert torch.equal(plain.keep_B, prefixed.keep_B)


def test_select_hash_ids_that_repeat_are_refused() -> None:
    names = [f"{number:032x}" for number in (1, 2, 1)]
    with pytest.raises(ValueError, match=r"distinct; 1 come more than once: 0+1$"):
        select(torch.eye(3), torch.eye(3), SelectionRule(), 1, names)
