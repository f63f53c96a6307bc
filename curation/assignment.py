"""Assignment of pairs to their nearest prototypes.

Shapes: B pairs of a super-batch, K clusters (one a prototype), E feature width, R rows of a block, P pairs of a row
and a prototype.
"""

from __future__ import annotations

import torch

from chexray.curation.distance import exact_squares, product_error, squares_to

CPU_BLOCK, GPU_BLOCK = 2**22, 2**27
"""Numbers of a block of features or of products."""


@torch.no_grad()
def assign_clusters(feature_BE: torch.Tensor, prototype_KE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each pair's nearest prototype (int64 [B], the first of equals) and Euclidean distance to it (float32 [B]).

    A row's result depends neither on the other rows nor on the device. One float32 matrix product finds the nearest;
    a row whose runner-up is within its rounding error is decided by float64 differences (`exact_squares`). The
    distance is that of `squares_to`. Features are taken as float32; that of one not finite is not finite either.
    """
    feature_BE, prototype_KE = feature_BE.float(), prototype_KE.float()
    cluster_B = torch.empty(len(feature_BE), dtype=torch.long, device=feature_BE.device)
    margin_B = torch.empty(len(feature_BE), device=feature_BE.device)
    half_K, step = _half_norms(prototype_KE), _block_rows(prototype_KE)
    with torch.autocast(feature_BE.device.type, enabled=False):
        for start in range(0, len(feature_BE), step):
            rows = slice(start, start + step)
            cluster_B[rows], margin_B[rows] = _nearest(_scores(feature_BE[rows], prototype_KE, half_K))
        square_B = squares_to(feature_BE, prototype_KE, cluster_B)
        error_B = _score_errors(square_B, half_K, prototype_KE)
        # Not `margin <= error`, which is false where one of them overflowed.
        open_B = ~(margin_B > 2 * error_B) & square_B.isfinite()
        for row_R in torch.split(open_B.nonzero()[:, 0], step):
            score_RK = _scores(feature_BE[row_R], prototype_KE, half_K)
            near_RK = ~(score_RK > (score_RK.amin(dim=1) + 2 * error_B[row_R])[:, None])
            cluster_B[row_R] = _nearest_by_differences(feature_BE[row_R], prototype_KE, near_RK)
            square_B[row_R] = squares_to(feature_BE[row_R], prototype_KE, cluster_B[row_R])
    return cluster_B, square_B.sqrt().float()


def _half_norms(prototype_KE: torch.Tensor) -> torch.Tensor:
    return prototype_KE.double().square().sum(dim=1).float() / 2


def _block_rows(prototype_KE: torch.Tensor) -> int:
    block = CPU_BLOCK if prototype_KE.device.type == "cpu" else GPU_BLOCK
    return max(64, block // max(1, len(prototype_KE), int(prototype_KE.shape[1])))


def _scores(feature_RE: torch.Tensor, prototype_KE: torch.Tensor, half_K: torch.Tensor) -> torch.Tensor:
    """[R, K]: (squared distance - |feature|^2) / 2, so that the nearest prototype has the least."""
    return torch.addmm(half_K, feature_RE, prototype_KE.T, alpha=-1)


def _nearest(score_RK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The prototype of the least score, and how far the second least is above it (inf where there is none)."""
    least_R, cluster_R = score_RK.min(dim=1)
    rest_RK = score_RK.scatter_(1, cluster_R[:, None], torch.inf)
    return cluster_R, rest_RK.amin(dim=1) - least_R


def _score_errors(square_B: torch.Tensor, half_K: torch.Tensor, prototype_KE: torch.Tensor) -> torch.Tensor:
    """[B] float32: how far a row's scores may be off, from |feature| <= distance + |prototype|."""
    longest = half_K.max().mul(2).sqrt()
    error = product_error(prototype_KE.shape[1], torch.float32, prototype_KE.device)
    return error * longest * (square_B.sqrt().float() + 2 * longest)


def _nearest_by_differences(
    feature_RE: torch.Tensor, prototype_KE: torch.Tensor, near_RK: torch.Tensor
) -> torch.Tensor:
    """The nearest of each row's `near_RK` prototypes (int64 [R]), the first of equals."""
    row_P, cluster_P = near_RK.nonzero().unbind(dim=1)
    step = _block_rows(prototype_KE)
    square_P = torch.cat(
        [
            exact_squares(feature_RE[rows], prototype_KE[clusters])
            for rows, clusters in zip(torch.split(row_P, step), torch.split(cluster_P, step), strict=True)
        ]
    )
    least_R = square_P.new_full((len(feature_RE),), torch.inf).scatter_reduce(0, row_P, square_P, "amin")
    candidate_P = cluster_P.masked_fill(square_P > least_R[row_P], len(prototype_KE) - 1)
    first_R = cluster_P.new_full((len(feature_RE),), len(prototype_KE) - 1)
    return first_R.scatter_reduce(0, row_P, candidate_P, "amin")
