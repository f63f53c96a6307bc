"""Bands: how far out in its cluster a pair lies, by the cluster's quantiles of distance.

Shapes: B pairs of a super-batch, K clusters. Bands follow arXiv 2602.22843 and its released code.
"""

from __future__ import annotations

from enum import IntEnum

import torch


class Band(IntEnum):
    """Where a pair lies in its cluster, by distance to the prototype."""

    OUTLIER = 0
    """Farthest: noise, such as a report that does not fit its image. Dropped."""
    SUPPORT = 1
    """Next: under-represented. Kept first."""
    CENTRAL = 2
    """The rest: much alike. Sampled."""


def assign_bands(
    cluster_B: torch.Tensor, distance_B: torch.Tensor, outlier: float = 0.05, support: float = 0.10
) -> torch.Tensor:
    """Each pair's `Band`, int8 [B], by the quantiles 1 - outlier and 1 - outlier - support of its cluster.

    Outlier: strictly above the upper quantile; support: strictly above the lower; central: the rest. The
    quantiles interpolate linearly, as released. So a cluster of one, or of equals, is all central, and one of
    2 to 21 members has one outlier.
    """
    check_shares(outlier, support)
    if len(cluster_B) == 0:
        return torch.empty(0, dtype=torch.int8, device=cluster_B.device)
    member_B = distance_B.argsort(stable=True)
    member_B = member_B[cluster_B[member_B].argsort(stable=True)]
    size_K = torch.bincount(cluster_B)
    sorted_B, first_K = distance_B[member_B], size_K.cumsum(0) - size_K
    upper_K = _lower_neighbour(sorted_B, first_K, size_K, 1 - outlier)
    lower_K = _lower_neighbour(sorted_B, first_K, size_K, 1 - (outlier + support))
    band_B = torch.full_like(cluster_B, Band.CENTRAL, dtype=torch.int8)
    band_B[distance_B > lower_K[cluster_B]] = Band.SUPPORT
    band_B[distance_B > upper_K[cluster_B]] = Band.OUTLIER
    return band_B


def check_shares(outlier: float, support: float) -> None:
    if not (0 <= outlier < 1 and 0 <= support < 1 and outlier + support < 1):
        raise ValueError(f"outlier={outlier} and support={support} must be in [0, 1) and together below 1")


def _lower_neighbour(
    sorted_B: torch.Tensor, first_K: torch.Tensor, size_K: torch.Tensor, quantile: float
) -> torch.Tensor:
    """The member at or below each cluster's quantile, at rank floor(quantile * (n - 1)).

    A member lies strictly above the interpolated quantile exactly where it lies strictly above this one, and
    no rounding of an interpolation can then move it. 1e-9 keeps ranks whole that floating point makes 75.999.
    """
    rank_K = torch.floor(quantile * (size_K - 1).double() + 1e-9).long().clamp_min(0)
    return sorted_B[(first_K + rank_K).clamp_max(len(sorted_B) - 1)]
