"""Sampling for coverage: farthest-point picks within clusters, and equal shares of a budget among clusters.

Shapes: B pairs of a super-batch, N pairs of some part of it, K clusters, E feature width, M picks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def water_fill(total: int, capacity_K: Sequence[int]) -> list[int]:
    """Equal whole shares of `total`, each capped by its capacity; what a cap leaves over goes to the others.

    Where the last round does not divide, the clusters of lowest index with room get one more. Raises
    ValueError where `total` is more than all capacities together.
    """
    if not 0 <= total <= sum(capacity_K):
        raise ValueError(f"total={total} must be from 0 to the capacities' sum, {sum(capacity_K)}")
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


def farthest_points(feature_NE: torch.Tensor, count: int, start: int) -> torch.Tensor:
    """Indices of min(count, N) rows, in order: `start`, then always the row farthest from all picks so far.

    Gonzalez 1985: at most twice the smallest possible covering radius. Of equals, the first row. int64 [M].
    """
    if count < 0 or not 0 <= start < max(len(feature_NE), 1):
        raise ValueError(f"count={count} must be 0 or more and start={start} a row of {len(feature_NE)}")
    cluster_N = torch.zeros(len(feature_NE), dtype=torch.long, device=feature_NE.device)
    start_K = torch.tensor([start], device=feature_NE.device)
    return farthest_points_per_cluster(feature_NE, cluster_N, [min(count, len(feature_NE))], start_K)[0]


def farthest_points_per_cluster(
    feature_NE: torch.Tensor, cluster_N: torch.Tensor, quota_K: Sequence[int], start_K: torch.Tensor
) -> torch.Tensor:
    """`farthest_points` within every cluster at once: int64 [K, max quota], -1 after a cluster's last pick.

    `quota_K`: picks of each cluster, at most its members. `start_K`: int64, each cluster's first pick (a row
    of `feature_NE`; any value for a cluster without members). One pass over the features a pick, no device
    sync.
    """
    feature_NE = feature_NE.float()
    row_N = torch.arange(len(feature_NE), device=feature_NE.device)
    gap_N = torch.full_like(row_N, torch.inf, dtype=torch.float32)
    pick_K, steps = start_K, max(quota_K, default=0)
    pick_KM = row_N.new_full((len(quota_K), steps), -1)
    for step in range(steps):
        if step > 0:
            pick_K = _first_largest(gap_N, cluster_N, len(quota_K))
        pick_KM[:, step] = pick_K
        pick_N = pick_K[cluster_N]
        # The difference itself, not norms and a product: duplicates are then at exactly 0.
        gap_N = torch.minimum(gap_N, (feature_NE - feature_NE[pick_N]).square().sum(dim=1))
        gap_N = gap_N.masked_fill(row_N == pick_N, -1.0)
    taken_K1 = torch.tensor(quota_K, device=row_N.device)[:, None]
    return pick_KM.masked_fill(torch.arange(steps, device=row_N.device) >= taken_K1, -1)


def keep_farthest(
    feature_BE: torch.Tensor, cluster_B: torch.Tensor, member_B: torch.Tensor, quota_K: Sequence[int]
) -> torch.Tensor:
    """bool [B]: `quota_K` members of each cluster by farthest-point sampling.

    It starts at the member at position n // 2 of the cluster's n members, in the order of rows.
    """
    size_K = cluster_sizes(cluster_B[member_B], len(quota_K))
    whole_K = [quota == size for quota, size in zip(quota_K, size_K, strict=True)]
    sampled_K = [0 if whole else quota for quota, whole in zip(quota_K, whole_K, strict=True)]
    keep_B = member_B & torch.tensor(whole_K, device=cluster_B.device)[cluster_B]
    row_N = (member_B & (torch.tensor(sampled_K, device=cluster_B.device) > 0)[cluster_B]).nonzero()[:, 0]
    cluster_N = cluster_B[row_N]
    start_K = _middle_members(cluster_N, len(quota_K))
    pick_KM = farthest_points_per_cluster(feature_BE[row_N], cluster_N, sampled_K, start_K)
    keep_B[row_N[pick_KM[pick_KM >= 0]]] = True
    return keep_B


def cluster_sizes(cluster_N: torch.Tensor, clusters: int) -> list[int]:
    return [int(n) for n in torch.bincount(cluster_N, minlength=clusters).tolist()]


def _middle_members(cluster_N: torch.Tensor, clusters: int) -> torch.Tensor:
    """int64 [K]: the row at position n // 2 of each cluster's n rows."""
    size_K = torch.bincount(cluster_N, minlength=clusters)
    position_K = size_K.cumsum(0) - size_K + size_K // 2
    padded = torch.cat([cluster_N.argsort(stable=True), cluster_N.new_zeros(1)])
    return padded[position_K]


def _first_largest(value_N: torch.Tensor, cluster_N: torch.Tensor, clusters: int) -> torch.Tensor:
    """int64 [K]: the first row of each cluster's largest value; N for a cluster without rows."""
    row_N = torch.arange(len(value_N), device=value_N.device)
    largest_K = value_N.new_full((clusters,), -torch.inf).scatter_reduce(0, cluster_N, value_N, "amax")
    candidate_N = row_N.masked_fill(value_N < largest_K[cluster_N], len(value_N))
    return row_N.new_full((clusters,), len(value_N)).scatter_reduce(0, cluster_N, candidate_N, "amin")
