"""Sampling for coverage: farthest-point picks within clusters, many clusters at once, and each the exact one.

Products of features, first in float32 and then in float64, name the picks; a cluster in which two rows are closer
than their rounding is done again by differences, the first of equals. So no pick depends on the device.

Shapes: B pairs of a super-batch, N pairs of some part of it, K clusters, E feature width, M picks, G clusters that
are sampled together, n rows of the largest of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import torch

from chexray.curation.farthest import Group, Picks, by_candidates, by_differences, by_products
from chexray.curation.quota import water_fill

__all__ = ["cluster_sizes", "farthest_points", "farthest_points_per_cluster", "keep_farthest", "water_fill"]

CPU_BYTES, GPU_BYTES = 6 * 2**20, 2**29
"""Features that are sampled together: what stays in a processor's cache. Larger clusters are sampled one by one."""

FLOAT32_PICKS = 128
"""Of a cluster with more picks than this, float32 nearly always leaves one open."""

WAYS = (torch.float32, torch.float64, None)
"""Types of products, in turn; last, differences."""


@dataclass(frozen=True, eq=False)
class _Members:
    """Rows of the features, cluster after cluster, in the order that decides between equals."""

    row_N: torch.Tensor
    size_K: list[int]
    first_K: torch.Tensor

    @classmethod
    def of(cls, row_N: torch.Tensor, cluster_N: torch.Tensor, clusters: int) -> _Members:
        """From rows in order, and the cluster of each."""
        size_K = cluster_sizes(cluster_N, clusters)
        first_K = torch.tensor([0, *accumulate(size_K)][:-1], dtype=torch.long, device=row_N.device)
        return cls(row_N[cluster_N.argsort(stable=True)], size_K, first_K)

    def rows(self, place_KM: torch.Tensor) -> torch.Tensor:
        """The features' rows at places within each cluster; any row for a place outside."""
        return self.row_N[(self.first_K[:, None] + place_KM).clamp_(0, len(self.row_N) - 1)]


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
    """`farthest_points` within every cluster: int64 [K, max quota], -1 after a cluster's last pick.

    `quota_K`: picks of each cluster, at most its members. `start_K`: int64, each cluster's first pick (a row
    of `feature_NE`; any value for a cluster without picks).
    """
    if not len(feature_NE):
        return start_K.new_full((len(quota_K), max(quota_K, default=0)), -1)
    row_N = torch.arange(len(feature_NE), device=feature_NE.device)
    members = _Members.of(row_N, cluster_N, len(quota_K))
    picking_K = torch.tensor(quota_K, device=row_N.device) > 0
    start_K = start_K.masked_fill(~picking_K, 0)
    place_N = members.row_N.argsort()
    pick_KM = _farthest_members(feature_NE, members, quota_K, place_N[start_K] - members.first_K)
    return members.rows(pick_KM).masked_fill(pick_KM < 0, -1)


def keep_farthest(
    feature_BE: torch.Tensor,
    cluster_B: torch.Tensor,
    member_B: torch.Tensor,
    quota_K: Sequence[int],
    order_B: torch.Tensor | None = None,
) -> torch.Tensor:
    """bool [B]: `quota_K` members of each cluster by farthest-point sampling.

    It starts at the member at position n // 2 of the cluster's n members, in the order of rows or, where given,
    of `order_B` (int64, all rows), which also decides between equals.
    """
    size_K = cluster_sizes(cluster_B[member_B], len(quota_K))
    whole_K = [quota == size for quota, size in zip(quota_K, size_K, strict=True)]
    sampled_K = [0 if whole else quota for quota, whole in zip(quota_K, whole_K, strict=True)]
    keep_B = member_B & torch.tensor(whole_K, device=cluster_B.device)[cluster_B]
    if not any(sampled_K):
        return keep_B
    row_N = member_B.nonzero()[:, 0] if order_B is None else order_B[member_B[order_B]]
    members = _Members.of(row_N, cluster_B[row_N], len(quota_K))
    middle_K = torch.tensor([size // 2 for size in size_K], device=cluster_B.device)
    pick_KM = _farthest_members(feature_BE, members, sampled_K, middle_K)
    keep_B[members.rows(pick_KM)[pick_KM >= 0]] = True
    return keep_B


def cluster_sizes(cluster_N: torch.Tensor, clusters: int) -> list[int]:
    return [int(n) for n in torch.bincount(cluster_N, minlength=clusters).tolist()]


def _farthest_members(
    feature_BE: torch.Tensor, members: _Members, quota_K: Sequence[int], start_K: torch.Tensor
) -> torch.Tensor:
    """Places within the clusters: int64 [K, max quota], -1 after a cluster's last pick."""
    feature_BE = feature_BE.float()
    size = CPU_BYTES if feature_BE.device.type == "cpu" else GPU_BYTES
    rows = size // (4 * max(feature_BE.shape[1], 1))
    pick_KM = start_K.new_full((len(quota_K), max(quota_K, default=0)), -1)
    open_clusters = [k for k, quota in enumerate(quota_K) if quota > 0]
    with torch.autocast(feature_BE.device.type, enabled=False):
        for dtype in WAYS:
            waiting = [k for k in open_clusters if dtype == torch.float32 and quota_K[k] > FLOAT32_PICKS]
            groups = _groups(sorted(set(open_clusters) - set(waiting)), members.size_K, rows)
            doubts = []
            for clusters in groups:
                group = _group(clusters, members, quota_K, start_K)
                place_GM, doubt_G = pick_group(feature_BE, group, dtype, rows)
                pick_KM[torch.tensor(clusters, device=pick_KM.device), : group.steps] = place_GM
                doubts.append(doubt_G)
            doubt = torch.cat(doubts).tolist() if doubts else []
            open_clusters = waiting + [k for k, left in zip(chain(*groups), doubt, strict=True) if left]
    picks_K1 = torch.tensor(quota_K, device=pick_KM.device)[:, None]
    return pick_KM.masked_fill_(torch.arange(pick_KM.shape[1], device=pick_KM.device) >= picks_K1, -1)


def pick_group(feature_BE: torch.Tensor, group: Group, dtype: torch.dtype | None, rows: int) -> Picks:
    """Picks by differences (dtype None) or by products, depending on whether `rows` hold the group's."""
    if dtype is None:
        return by_differences(feature_BE, group)
    return (by_products if group.sizes[0] <= rows else by_candidates)(feature_BE, group, dtype)


def _groups(clusters: Sequence[int], size_K: Sequence[int], rows: int) -> list[list[int]]:
    """Clusters to sample together, largest first: up to `rows` rows, and those of at least half of the largest's."""
    groups: list[list[int]] = []
    for k in sorted(clusters, key=lambda k: (-size_K[k], k)):
        longest = size_K[groups[-1][0]] if groups else 0
        if groups and size_K[k] * 2 >= longest and (len(groups[-1]) + 1) * longest <= rows:
            groups[-1].append(k)
        else:
            groups.append([k])
    return groups


def _group(clusters: Sequence[int], members: _Members, quota_K: Sequence[int], start_K: torch.Tensor) -> Group:
    device = members.row_N.device
    cluster_G = torch.tensor(clusters, device=device)
    place_GN = torch.arange(members.size_K[clusters[0]], device=device).expand(len(clusters), -1)
    row_GN = members.row_N[(members.first_K[cluster_G, None] + place_GN).clamp_(max=len(members.row_N) - 1)]
    sizes, quotas = [members.size_K[k] for k in clusters], [quota_K[k] for k in clusters]
    return Group(row_GN, start_K[cluster_G], sizes, quotas)
