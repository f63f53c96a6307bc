"""Selection: from features and prototypes to bands and kept pairs, one super-batch at a time.

Shapes: B pairs of a super-batch, K clusters (one a prototype), E feature width. Bands and the paper's fixed
counts follow arXiv 2602.22843 and its released code; the budget rule keeps an exact number of pairs, so the
kept fraction does not depend on the size of the super-batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from itertools import pairwise
from typing import Literal

import torch

from chexray.curation.sampling import cluster_sizes, keep_farthest, water_fill

SelectionMode = Literal["budget", "paper"]


class Band(IntEnum):
    """Where a pair lies in its cluster, by distance to the prototype."""

    OUTLIER = 0
    """Farthest: noise, such as a report that does not fit its image. Dropped."""
    SUPPORT = 1
    """Next: under-represented. Kept first."""
    CENTRAL = 2
    """The rest: much alike. Sampled."""


@dataclass(frozen=True)
class SelectionRule:
    """How a super-batch is cut into bands, and how many pairs of each are kept.

    `outlier` and `support`: shares of a cluster, in [0, 1). `mode`: "budget" keeps an exact number of pairs,
    "paper" keeps all support pairs and at most `central_per_cluster` central pairs of each cluster.
    """

    outlier: float = 0.05
    support: float = 0.10
    mode: SelectionMode = "budget"
    central_per_cluster: int = 10

    def __post_init__(self) -> None:
        _check_shares(self.outlier, self.support)
        if self.mode not in ("budget", "paper"):
            raise ValueError(f"mode={self.mode!r} must be 'budget' or 'paper'")
        if self.central_per_cluster < 0:
            raise ValueError(f"central_per_cluster={self.central_per_cluster} must be 0 or more")


@dataclass(frozen=True, eq=False)
class Selection:
    """What became of each pair, in the order of the features given to `select`."""

    cluster_B: torch.Tensor
    """int64: the nearest prototype."""
    distance_B: torch.Tensor
    """float32: Euclidean distance to it."""
    band_B: torch.Tensor
    """int8: a `Band`."""
    keep_B: torch.Tensor
    """bool: the pair is in the subset."""


@torch.no_grad()
def select(
    feature_BE: torch.Tensor,
    prototype_KE: torch.Tensor,
    rule: SelectionRule,
    budget: int | None,
    sample_ids: Sequence[str],
) -> Selection:
    """The pairs of one super-batch to keep: exactly `budget` of them, or the paper's counts (`budget` None).

    Under "budget" the result is a function of the set of (id, feature) pairs: ties and starts go by the order
    of ids, so rows may come in any order. Under "paper" they go by the order of rows, as released.
    Raises ValueError where a feature is not finite (naming ids), where shapes, ids or mode do not fit, and
    where the budget is more than the pairs that are not outliers.
    """
    _check_inputs(feature_BE, prototype_KE, sample_ids)
    if rule.mode == "paper":
        if budget is not None:
            raise ValueError(f"budget={budget} must be None where mode='paper'")
        return _select_paper(feature_BE, prototype_KE, rule)
    if budget is None:
        raise ValueError("budget=None must be a number of pairs where mode='budget'")
    rows = sorted(range(len(sample_ids)), key=sample_ids.__getitem__)
    _check_distinct([sample_ids[row] for row in rows])
    row_B = torch.tensor(rows, dtype=torch.long, device=feature_BE.device)
    return _unsort(_select_budget(feature_BE[row_B], prototype_KE, rule, budget), row_B)


def superbatch_budget(keep: float, start: int, size: int) -> int:
    """Pairs to keep of the `size` pairs that follow the first `start` of the corpus.

    The difference of round(keep * seen) at both ends, in exact arithmetic: after every super-batch, of
    whatever size, the pairs kept so far are within 1/2 of keep * seen. `keep` in [0, 1]. At most
    ceil(keep * size), so the pairs that are not outliers suffice wherever keep <= 1 - outlier.
    """
    if not 0 <= keep <= 1:
        raise ValueError(f"keep={keep} must be in [0, 1]")
    if start < 0 or size < 0:
        raise ValueError(f"start={start} and size={size} must be 0 or more")
    return _nearest_count(keep, start + size) - _nearest_count(keep, start)


def assign_clusters(feature_BE: torch.Tensor, prototype_KE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each pair's nearest prototype (int64 [B], the first of equals) and Euclidean distance (float32 [B]).

    In float64 and without the matrix-product shortcut, so that a row's result does not depend on the others.
    """
    distance_BK = torch.cdist(feature_BE.double(), prototype_KE.double(), compute_mode="donot_use_mm_for_euclid_dist")
    cluster_B = distance_BK.argmin(dim=1)
    return cluster_B, distance_BK.gather(1, cluster_B[:, None])[:, 0].float()


def assign_bands(
    cluster_B: torch.Tensor, distance_B: torch.Tensor, outlier: float = 0.05, support: float = 0.10
) -> torch.Tensor:
    """Each pair's `Band`, int8 [B], by the quantiles 1 - outlier and 1 - outlier - support of its cluster.

    Outlier: strictly above the upper quantile; support: strictly above the lower; central: the rest. The
    quantiles interpolate linearly, as released. So a cluster of one, or of equals, is all central, and one of
    2 to 21 members has one outlier.
    """
    _check_shares(outlier, support)
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


def _select_paper(feature_BE: torch.Tensor, prototype_KE: torch.Tensor, rule: SelectionRule) -> Selection:
    cluster_B, distance_B = assign_clusters(feature_BE, prototype_KE)
    band_B = assign_bands(cluster_B, distance_B, rule.outlier, rule.support)
    central_B = band_B == Band.CENTRAL
    quota_K = [min(n, rule.central_per_cluster) for n in cluster_sizes(cluster_B[central_B], len(prototype_KE))]
    keep_B = (band_B == Band.SUPPORT) | keep_farthest(feature_BE, cluster_B, central_B, quota_K)
    return Selection(cluster_B, distance_B, band_B, keep_B)


def _select_budget(feature_BE: torch.Tensor, prototype_KE: torch.Tensor, rule: SelectionRule, budget: int) -> Selection:
    """Support first, then central; a band that the budget does not cover is sampled, in equal shares."""
    cluster_B, distance_B = assign_clusters(feature_BE, prototype_KE)
    band_B = assign_bands(cluster_B, distance_B, rule.outlier, rule.support)
    band_B = _readmit_outliers(band_B, distance_B, rule, budget)
    keep_B = torch.zeros_like(band_B, dtype=torch.bool)
    for band in (Band.SUPPORT, Band.CENTRAL):
        member_B = band_B == band
        size_K = cluster_sizes(cluster_B[member_B], len(prototype_KE))
        quota_K = water_fill(min(budget, sum(size_K)), size_K)
        keep_B |= keep_farthest(feature_BE, cluster_B, member_B, quota_K)
        budget -= sum(quota_K)
    return Selection(cluster_B, distance_B, band_B, keep_B)


def _readmit_outliers(band_B: torch.Tensor, distance_B: torch.Tensor, rule: SelectionRule, budget: int) -> torch.Tensor:
    """Bands in which at least `budget` pairs are not outliers.

    A quantile names an outlier in every cluster of 2 or more, which in a small super-batch is more than the
    outlier share. Where the budget needs them, and they are beyond that share of the super-batch, the
    outliers nearest to their prototypes count as support.
    """
    pairs, outliers = len(band_B), int((band_B == Band.OUTLIER).sum())
    missing = budget - (pairs - outliers)
    if not 0 <= budget <= max(pairs - math.floor(_decimal(rule.outlier) * pairs), pairs - outliers):
        raise ValueError(
            f"budget={budget} of {pairs} pairs (keep={budget / max(pairs, 1):.4g}) must be 0 or more and "
            f"leave out the outliers (outlier={rule.outlier}): keep must be at most {1 - rule.outlier:.4g}"
        )
    if missing <= 0:
        return band_B
    reach_B = distance_B.masked_fill(band_B != Band.OUTLIER, torch.inf)
    return band_B.index_fill(0, reach_B.argsort(stable=True)[:missing], Band.SUPPORT)


def _lower_neighbour(
    sorted_B: torch.Tensor, first_K: torch.Tensor, size_K: torch.Tensor, quantile: float
) -> torch.Tensor:
    """The member at or below each cluster's quantile, at rank floor(quantile * (n - 1)).

    A member lies strictly above the interpolated quantile exactly where it lies strictly above this one, and
    no rounding of an interpolation can then move it. 1e-9 keeps ranks whole that floating point makes 75.999.
    """
    rank_K = torch.floor(quantile * (size_K - 1).double() + 1e-9).long().clamp_min(0)
    return sorted_B[(first_K + rank_K).clamp_max(len(sorted_B) - 1)]


def _unsort(selection: Selection, row_B: torch.Tensor) -> Selection:
    place_B = row_B.argsort()
    return Selection(
        selection.cluster_B[place_B],
        selection.distance_B[place_B],
        selection.band_B[place_B],
        selection.keep_B[place_B],
    )


def _decimal(share: float) -> Fraction:
    """The decimal number that was written: 0.29 of 100 is 29, where floating point says less."""
    return Fraction(str(share))


def _nearest_count(keep: float, seen: int) -> int:
    return math.floor(_decimal(keep) * seen + Fraction(1, 2))


def _check_shares(outlier: float, support: float) -> None:
    if not (0 <= outlier < 1 and 0 <= support < 1 and outlier + support < 1):
        raise ValueError(f"outlier={outlier} and support={support} must be in [0, 1) and together below 1")


def _check_distinct(sorted_ids: Sequence[str]) -> None:
    twice = sorted({one for one, other in pairwise(sorted_ids) if one == other})
    if twice:
        raise ValueError(f"sample_ids must be distinct; {len(twice)} come more than once: {', '.join(twice[:5])}")


def _check_inputs(feature_BE: torch.Tensor, prototype_KE: torch.Tensor, sample_ids: Sequence[str]) -> None:
    shapes = f"feature_BE {tuple(feature_BE.shape)} and prototype_KE {tuple(prototype_KE.shape)}"
    if feature_BE.dim() != 2 or prototype_KE.dim() != 2 or feature_BE.shape[1] != prototype_KE.shape[1]:
        raise ValueError(f"{shapes} must be [B, E] and [K, E] with the same E")
    if len(prototype_KE) == 0 or not bool(torch.isfinite(prototype_KE).all()):
        raise ValueError(f"{shapes}: there must be one prototype or more, all finite")
    if len(sample_ids) != len(feature_BE):
        raise ValueError(f"sample_ids has {len(sample_ids)} ids; there must be one a feature, {len(feature_BE)}")
    bad = (~torch.isfinite(feature_BE).all(dim=1)).nonzero()[:, 0].tolist()
    if bad:
        named = ", ".join(sample_ids[row] for row in bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise ValueError(f"feature_BE must be finite; it is NaN or infinite for {len(bad)} sample ids: {named}")
