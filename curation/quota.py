"""Quotas: how a budget of pairs is shared among clusters. K clusters."""

from __future__ import annotations

from collections.abc import Sequence


def water_fill(total: int, capacity_K: Sequence[int]) -> list[int]:
    """Equal whole shares of `total`, each capped by its capacity; what a cap leaves over goes to the others.

    Where the last round does not divide, the clusters of lowest index with room get one more. Raises
    ValueError where `total` is more than all capacities together.
    """
    _check_total(total, capacity_K)
    share_K = [0] * len(capacity_K)
    while total > 0:
        room = [k for k, capacity in enumerate(capacity_K) if share_K[k] < capacity]
        level = min(total // len(room), min(capacity_K[k] - share_K[k] for k in room))
        # Below one each, the first `total` clusters with room take the remainder.
        gaining, gain = (room, level) if level > 0 else (room[:total], 1)
        for k in gaining:
            share_K[k] += gain
        total -= gain * len(gaining)
    return share_K


def proportional_shares(total: int, size_K: Sequence[int]) -> list[int]:
    """Whole shares of `total` in proportion to sizes: largest remainder first, of equals the lowest index.

    No share is more than its size. Raises ValueError where `total` is more than all sizes together.
    """
    _check_total(total, size_K)
    whole = max(sum(size_K), 1)
    share_K = [total * size // whole for size in size_K]
    by_remainder = sorted(range(len(size_K)), key=lambda k: (-(total * size_K[k] % whole), k))
    for k in by_remainder[: total - sum(share_K)]:
        share_K[k] += 1
    return share_K


def _check_total(total: int, capacity_K: Sequence[int]) -> None:
    if not 0 <= total <= sum(capacity_K):
        raise ValueError(f"total={total} must be from 0 to the capacities' sum, {sum(capacity_K)}")
