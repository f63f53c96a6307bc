"""Baselines that compare pairs with each other: local density, semantic duplicates, greedy k-center.

A pair is its `chexray.curation.prototypes.pair_features`, on the grid of `chexray.curation.baselines.to_grid`, so that
distances are exact: equal pairs are at 0, ties are ties, and neither the order of rows nor the size of blocks decides.
Between unit rows the squared Euclidean distance is twice the cosine distance, so both rank alike.

Shapes: N pairs, D embedding width, E = 2D feature width, K clusters, M pairs of a cluster, R rows against C columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from chexray.curation.baselines import KeepMask, id_array, keep_lowest, seeded_draws, to_grid
from chexray.curation.prototypes import kmeans, pair_features
from chexray.curation.sampling import farthest_points


def keep_sparse(
    feature_NE: torch.Tensor, sample_id: Sequence[str], count: int, neighbours: int, block: int
) -> KeepMask:
    """The `count` pairs where the corpus is thinnest: those farthest from their k-th nearest neighbour.

    The density at a pair is estimated as k / (N * volume of the ball that reaches its k-th neighbour) (Loftsgaarden
    and Quesenberry 1965), so the longest distance is the lowest density. That under-represented regions should gain
    is the idea of density sampling (Sachdeva et al. 2024, arXiv 2402.09668), which draws with weights of the inverse
    of a kernel estimate; this keeps the lowest density outright, and with it outliers. N * N * E operations.
    Raises ValueError where there are not more pairs than `neighbours`.
    """
    if neighbours >= len(sample_id):
        raise ValueError(f"neighbours={neighbours} must be less than the number of pairs, {len(sample_id)}")
    return keep_lowest(-_kth_distances(feature_NE, neighbours, block).cpu().numpy(), sample_id, count)


def keep_dissimilar(
    feature_NE: torch.Tensor,
    sample_id: Sequence[str],
    count: int,
    clusters: int,
    kmeans_sample: int,
    seed: int,
    block: int,
) -> KeepMask:
    """SemDeDup (Abbas et al. 2023, arXiv 2303.09540) with an exact count in place of its threshold epsilon.

    K-means (on `kmeans_sample` random pairs) cuts the corpus into clusters. In a cluster, pairs are in the order of
    falling distance to the centroid, as in the released code's default (`keep_hard`, `which_to_keep: hard`): of
    duplicates, the one least like the centroid stays. A pair's score is its highest cosine similarity to an earlier
    pair of its cluster, itself a duplicate or not, as released. Removed there is what is above 1 - epsilon; here the
    `count` lowest stay, which is the same for the epsilon that leaves so many. The first pair of a cluster has no
    earlier one and stays first of all. About N * N * E / K operations. Distances are exact, but k-means works in
    float32, so other hardware may cut other clusters.
    Raises ValueError where there are fewer pairs than `clusters`.
    """
    if clusters > min(kmeans_sample, len(sample_id)):
        raise ValueError(
            f"clusters={clusters} must be at most kmeans_sample={kmeans_sample} and the number of pairs, "
            f"{len(sample_id)}"
        )
    ids, device = id_array(sample_id), feature_NE.device
    sampled = np.lexsort((ids, seeded_draws(sample_id, seed)))[:kmeans_sample]
    centre_KE = to_grid(kmeans(feature_NE[torch.from_numpy(sampled).to(device)], clusters, seed))
    cluster_N, distance_N = _nearest_centres(feature_NE, centre_KE, block)
    order_N = np.lexsort((ids, -distance_N.cpu().numpy(), cluster_N.cpu().numpy()))
    nearest_N = np.empty(len(ids))
    sizes = torch.bincount(cluster_N, minlength=clusters).tolist()
    for row_M in np.split(order_N, np.cumsum(sizes)[:-1]):
        feature_ME = feature_NE[torch.from_numpy(row_M).to(device)]
        nearest_N[row_M] = _nearest_earlier_distances(feature_ME, block).cpu().numpy()
    return keep_lowest(-nearest_N, sample_id, count)


def keep_centers(feature_NE: torch.Tensor, sample_id: Sequence[str], count: int) -> KeepMask:
    """Greedy k-center (Gonzalez 1985): from the pair nearest the mean feature, always the pair farthest from all picks.

    Its covering radius is at most twice the smallest that `count` pairs can have. Sener and Savarese 2018 (arXiv
    1708.00489) choose core-sets so. One pass over all features a pick: N * count * E operations, 8 * N * E bytes.
    """
    rows = np.argsort(id_array(sample_id))
    keep_N = np.zeros(len(rows), dtype=np.bool_)
    if count > 0:
        sorted_NE = feature_NE[torch.from_numpy(rows).to(feature_NE.device)]
        mean_1E = to_grid(sorted_NE.double().sum(dim=0, keepdim=True) / len(rows))
        start = int(_squared_distances(sorted_NE, mean_1E)[:, 0].argmin())
        keep_N[rows[farthest_points(sorted_NE, count, start).cpu().numpy()]] = True
    return keep_N


def grid_features(image_ND: torch.Tensor, text_ND: torch.Tensor, block: int) -> torch.Tensor:
    """float32 [N, 2D]: `pair_features` on the grid, computed in blocks."""
    blocks = zip(torch.split(image_ND, block), torch.split(text_ND, block), strict=True)
    return torch.cat([to_grid(pair_features(image, text)) for image, text in blocks])


def _squared_distances(row_RE: torch.Tensor, column_CE: torch.Tensor) -> torch.Tensor:
    """float64 [R, C], exact for rows on the grid (see `to_grid`)."""
    row_RE, column_CE = row_RE.double(), column_CE.double()
    norm_R1, norm_C = row_RE.square().sum(dim=1, keepdim=True), column_CE.square().sum(dim=1)
    return torch.addmm(norm_R1 + norm_C, row_RE, column_CE.T, alpha=-2)


def _kth_distances(feature_NE: torch.Tensor, neighbours: int, block: int) -> torch.Tensor:
    """float64 [N]: squared distance to the k-th nearest other row."""
    kth = []
    for row, row_RE in enumerate(torch.split(feature_NE, block)):
        nearest_RC = row_RE.new_empty((len(row_RE), 0), dtype=torch.float64)
        for column, column_CE in enumerate(torch.split(feature_NE, block)):
            distance_RC = _squared_distances(row_RE, column_CE)
            if row == column:
                distance_RC.fill_diagonal_(torch.inf)
            nearest_RC = torch.cat([nearest_RC, distance_RC], dim=1)
            nearest_RC = nearest_RC.topk(min(neighbours, nearest_RC.shape[1]), largest=False).values
        kth.append(nearest_RC.amax(dim=1))
    return torch.cat(kth)


def _nearest_centres(
    feature_NE: torch.Tensor, centre_KE: torch.Tensor, block: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's nearest centre (int64 [N], the first of equals) and its squared distance (float64 [N])."""
    distance_NK = [_squared_distances(row_RE, centre_KE) for row_RE in torch.split(feature_NE, block)]
    return torch.cat([d.argmin(dim=1) for d in distance_NK]), torch.cat([d.amin(dim=1) for d in distance_NK])


def _nearest_earlier_distances(feature_ME: torch.Tensor, block: int) -> torch.Tensor:
    """float64 [M]: squared distance to the nearest of the rows before; infinite for the first."""
    nearest_M = feature_ME.new_full((len(feature_ME),), torch.inf, dtype=torch.float64)
    if len(nearest_M) == 0:
        return nearest_M
    parts = torch.split(feature_ME, block)
    for row, (row_RE, nearest_R) in enumerate(zip(parts, torch.split(nearest_M, block), strict=True)):
        for column in range(row + 1):
            distance_RC = _squared_distances(row_RE, parts[column])
            if row == column:
                later_RC = torch.ones_like(distance_RC, dtype=torch.bool).triu()
                distance_RC.masked_fill_(later_RC, torch.inf)
            torch.minimum(nearest_R, distance_RC.amin(dim=1), out=nearest_R)
    return nearest_M
