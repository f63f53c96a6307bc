"""Selection: from features and prototypes to bands and kept pairs, one super-batch at a time.

Shapes: B pairs of a super-batch, K clusters (one a prototype), E feature width. Bands and the paper's fixed
counts follow arXiv 2602.22843 and its released code; the budget rule keeps an exact number of pairs, so the
kept fraction does not depend on the size of the super-batch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import torch

from chexray.curation.assignment import assign_clusters
from chexray.curation.bands import Band, assign_bands, check_shares
from chexray.curation.quota import proportional_shares, water_fill
from chexray.curation.sampling import cluster_sizes, keep_farthest

__all__ = ["Band", "Selection", "SelectionRule", "assign_bands", "assign_clusters", "select", "superbatch_budget"]

SelectionMode = Literal["budget", "paper"]
CentralQuota = Literal["equal", "proportional"]

HASH_DIGITS = 32
"""A sample id of a corpus: 128 bits in hexadecimal."""


@dataclass(frozen=True)
class SelectionRule:
    """How a super-batch is cut into bands, and how many pairs of each are kept.

    `outlier` and `support`: shares of a cluster, in [0, 1). `mode`: "budget" keeps an exact number of pairs,
    "paper" keeps all support pairs and at most `central_per_cluster` central pairs of each cluster.
    `central_quota`: how "budget" shares a band that it does not cover among the clusters, which is nearly always
    the central one: "equal" or "proportional" to their sizes.
    """

    outlier: float = 0.05
    support: float = 0.10
    mode: SelectionMode = "budget"
    central_per_cluster: int = 10
    central_quota: CentralQuota = "equal"

    def __post_init__(self) -> None:
        check_shares(self.outlier, self.support)
        if self.mode not in ("budget", "paper"):
            raise ValueError(f"mode={self.mode!r} must be 'budget' or 'paper'")
        if self.central_per_cluster < 0:
            raise ValueError(f"central_per_cluster={self.central_per_cluster} must be 0 or more")
        if self.central_quota not in ("equal", "proportional"):
            raise ValueError(f"central_quota={self.central_quota!r} must be 'equal' or 'proportional'")


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
    feature_BE, prototype_KE = feature_BE.float(), prototype_KE.float()
    cluster_B, distance_B = assign_clusters(feature_BE, prototype_KE)
    _check_finite(feature_BE, distance_B, sample_ids)
    if (budget is None) != (rule.mode == "paper"):
        wanted = "None where mode='paper'" if rule.mode == "paper" else "a number of pairs where mode='budget'"
        raise ValueError(f"budget={budget} must be {wanted}")
    band_B = assign_bands(cluster_B, distance_B, rule.outlier, rule.support)
    if budget is None:
        keep_B = _keep_paper(feature_BE, cluster_B, band_B, len(prototype_KE), rule)
        return Selection(cluster_B, distance_B, band_B, keep_B)
    order_B = _id_order(sample_ids).to(feature_BE.device)
    band_B = _readmit_outliers(band_B, distance_B, order_B, rule, budget)
    keep_B = _keep_budget(feature_BE, cluster_B, band_B, order_B, len(prototype_KE), rule, budget)
    return Selection(cluster_B, distance_B, band_B, keep_B)


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


def _keep_paper(
    feature_BE: torch.Tensor, cluster_B: torch.Tensor, band_B: torch.Tensor, clusters: int, rule: SelectionRule
) -> torch.Tensor:
    central_B = band_B == Band.CENTRAL
    quota_K = [min(n, rule.central_per_cluster) for n in cluster_sizes(cluster_B[central_B], clusters)]
    return (band_B == Band.SUPPORT) | keep_farthest(feature_BE, cluster_B, central_B, quota_K)


def _keep_budget(
    feature_BE: torch.Tensor,
    cluster_B: torch.Tensor,
    band_B: torch.Tensor,
    order_B: torch.Tensor,
    clusters: int,
    rule: SelectionRule,
    budget: int,
) -> torch.Tensor:
    """Support first, then central; a band that the budget does not cover is sampled, in shares by the rule."""
    share = water_fill if rule.central_quota == "equal" else proportional_shares
    keep_B = torch.zeros_like(band_B, dtype=torch.bool)
    for band in (Band.SUPPORT, Band.CENTRAL):
        member_B = band_B == band
        size_K = cluster_sizes(cluster_B[member_B], clusters)
        quota_K = share(min(budget, sum(size_K)), size_K)
        keep_B |= keep_farthest(feature_BE, cluster_B, member_B, quota_K, order_B)
        budget -= sum(quota_K)
    return keep_B


def _readmit_outliers(
    band_B: torch.Tensor, distance_B: torch.Tensor, order_B: torch.Tensor, rule: SelectionRule, budget: int
) -> torch.Tensor:
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
    reach_B = distance_B.masked_fill(band_B != Band.OUTLIER, torch.inf)[order_B]
    return band_B.index_fill(0, order_B[reach_B.argsort(stable=True)[:missing]], Band.SUPPORT)


def _decimal(share: float) -> Fraction:
    """The decimal number that was written: 0.29 of 100 is 29, where floating point says less."""
    return Fraction(str(share))


def _nearest_count(keep: float, seen: int) -> int:
    return math.floor(_decimal(keep) * seen + Fraction(1, 2))


def _id_order(sample_ids: Sequence[str]) -> torch.Tensor:
    """int64 [B]: rows in the order of their ids, which must be distinct."""
    order_B = _hash_order(sample_ids)
    if order_B is not None:
        return order_B
    if len(set(sample_ids)) < len(sample_ids):
        twice = sorted(one for one, count in Counter(sample_ids).items() if count > 1)
        raise ValueError(f"sample_ids must be distinct; {len(twice)} come more than once: {', '.join(twice[:5])}")
    return torch.tensor(sorted(range(len(sample_ids)), key=sample_ids.__getitem__), dtype=torch.long)


def _hash_order(sample_ids: Sequence[str]) -> torch.Tensor | None:
    """The order where ids are hashes, as a corpus's are, three times as fast; None where their halves do not tell."""
    joined = "".join(sample_ids)
    try:
        hashes = bytes.fromhex(joined)
    except ValueError:  # not hexadecimal
        return None
    # The way back tells lower case, whose order is that of the numbers, and no white space.
    if hashes.hex() != joined or {len(one) for one in sample_ids} != {HASH_DIGITS}:
        return None
    high_B = np.frombuffer(hashes, dtype=">u8")[::2].astype(np.uint64)
    order_B = high_B.argsort()
    sorted_B = high_B[order_B]
    return None if (sorted_B[1:] == sorted_B[:-1]).any() else torch.from_numpy(order_B)


def _check_inputs(feature_BE: torch.Tensor, prototype_KE: torch.Tensor, sample_ids: Sequence[str]) -> None:
    shapes = f"feature_BE {tuple(feature_BE.shape)} and prototype_KE {tuple(prototype_KE.shape)}"
    if feature_BE.dim() != 2 or prototype_KE.dim() != 2 or feature_BE.shape[1] != prototype_KE.shape[1]:
        raise ValueError(f"{shapes} must be [B, E] and [K, E] with the same E")
    # A sum tells in one pass, except where finite values overflow it.
    finite = bool(torch.isfinite(prototype_KE.sum())) or bool(torch.isfinite(prototype_KE).all())
    if len(prototype_KE) == 0 or not finite:
        raise ValueError(f"{shapes}: there must be one prototype or more, all finite")
    if len(sample_ids) != len(feature_BE):
        raise ValueError(f"sample_ids has {len(sample_ids)} ids; there must be one a feature, {len(feature_BE)}")


def _check_finite(feature_BE: torch.Tensor, distance_B: torch.Tensor, sample_ids: Sequence[str]) -> None:
    """A feature that is not finite has a distance that is not finite either, so only those rows are read again."""
    row_N = (~torch.isfinite(distance_B)).nonzero()[:, 0]
    bad = row_N[~torch.isfinite(feature_BE[row_N]).all(dim=1)].tolist()
    if bad:
        named = ", ".join(sample_ids[row] for row in bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise ValueError(f"feature_BE must be finite; it is NaN or infinite for {len(bad)} sample ids: {named}")
