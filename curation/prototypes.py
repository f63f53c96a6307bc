"""Prototypes: unit vectors that stand for the corpus' themes; pairs are kept by their distance to them.

Shapes: B pairs of a super-batch, N pairs of a sample, K prototypes, D embedding width, E = 2D feature width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def pair_features(image_BD: torch.Tensor, text_BD: torch.Tensor) -> torch.Tensor:
    """What a pair looks like to the curator: normalise(concat(image, text)), float32 unit rows [B, 2D].

    The embeddings are unit rows already, so each tower has half of the weight (arXiv 2602.22843, methods).
    Raises ValueError where the two shapes differ.
    """
    if image_BD.shape != text_BD.shape or image_BD.dim() != 2:
        raise ValueError(f"image_BD {tuple(image_BD.shape)} and text_BD {tuple(text_BD.shape)} must be equal, [B, D]")
    return F.normalize(torch.cat([image_BD, text_BD], dim=1).float(), dim=1)


@torch.no_grad()
def kmeans(feature_NE: torch.Tensor, clusters: int, seed: int, iterations: int = 100) -> torch.Tensor:
    """First prototypes: Lloyd's k-means from a k-means++ start (Arthur and Vassilvitskii 2007), normalised.

    `feature_NE` should be a random sample of the corpus. Returns float32 unit rows [K, E] on its device, the
    same for the same seed. Stops early once no pair changes cluster. Raises ValueError where N < K, where a
    feature is not finite, or where a cluster's mean is the zero vector, which has no direction.
    """
    if not 1 <= clusters <= len(feature_NE):
        raise ValueError(f"clusters={clusters} must be from 1 to the number of features, {len(feature_NE)}")
    if iterations < 1:
        raise ValueError(f"iterations={iterations} must be at least 1")
    from sklearn.cluster import kmeans_plusplus  # 1.5 s to import, in every process that knows of curation

    feature_NE = feature_NE.detach().float()
    if not bool(torch.isfinite(feature_NE).all()):
        raise ValueError("feature_NE holds NaN or infinite values; all must be finite")
    start_KE, _ = kmeans_plusplus(feature_NE.cpu().numpy(), clusters, random_state=seed)
    centre_KE = torch.as_tensor(start_KE, dtype=torch.float32, device=feature_NE.device)
    cluster_N = torch.full((len(feature_NE),), -1, device=feature_NE.device)
    for _ in range(iterations):
        nearest_N = torch.cdist(feature_NE, centre_KE).argmin(dim=1)
        if torch.equal(nearest_N, cluster_N):
            break
        cluster_N = nearest_N
        centre_KE = _cluster_means(feature_NE, cluster_N, centre_KE)
    if bool((torch.linalg.vector_norm(centre_KE, dim=1) < 1e-6).any()):
        raise ValueError(f"clusters={clusters}: a cluster's mean feature is zero and cannot be normalised")
    return F.normalize(centre_KE, dim=1)


def _cluster_means(feature_NE: torch.Tensor, cluster_N: torch.Tensor, centre_KE: torch.Tensor) -> torch.Tensor:
    """Each cluster's mean; an empty cluster keeps its centre. A matrix product, so the same on every run."""
    member_NK = F.one_hot(cluster_N, len(centre_KE)).float()
    size_K1 = member_NK.sum(dim=0)[:, None]
    return torch.where(size_K1 > 0, member_NK.T @ feature_NE / size_K1.clamp_min(1), centre_KE)


@torch.no_grad()
def sinkhorn(similarity_BK: torch.Tensor, epsilon: float = 0.5, iterations: int = 3) -> torch.Tensor:
    """Soft assignment of pairs to prototypes that uses all prototypes alike (Cuturi 2013; SwAV, Caron 2020).

    Scales exp(similarity / epsilon), in the log domain, to columns of B / K and then to rows of 1, in turn:
    rows sum to 1 exactly, columns to B / K approximately. Returns float32 weights [B, K] in [0, 1].
    Raises ValueError where epsilon <= 0 or iterations < 1.
    """
    if epsilon <= 0:
        raise ValueError(f"epsilon={epsilon} must be above 0")
    if iterations < 1:
        raise ValueError(f"iterations={iterations} must be at least 1")
    log_BK = similarity_BK.detach().float() / epsilon
    for _ in range(iterations):
        # The columns' B / K is a constant factor that the rows' scaling removes again.
        log_BK = F.log_softmax(F.log_softmax(log_BK, dim=0), dim=1)
    return log_BK.exp()


@torch.no_grad()
def update_prototypes(
    prototype_KE: torch.Tensor,
    feature_BE: torch.Tensor,
    momentum: float = 0.9,
    epsilon: float = 0.5,
    iterations: int = 3,
) -> torch.Tensor:
    """New prototypes [K, E]: normalise(momentum * old + (1 - momentum) * Sinkhorn-weighted mean feature).

    `feature_BE` are the kept pairs of one super-batch; with none, the prototypes are returned as they are.
    The mean uses the Sinkhorn weights themselves; the released code draws a hard assignment from them with
    Gumbel noise, which makes a run depend on its generator. Raises ValueError where momentum is outside
    [0, 1].
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum={momentum} must be in [0, 1]")
    if len(feature_BE) == 0:
        return prototype_KE.clone()
    feature_BE = feature_BE.detach().to(prototype_KE)
    weight_BK = sinkhorn(feature_BE @ prototype_KE.T, epsilon, iterations).to(prototype_KE)
    mean_KE = weight_BK.T @ feature_BE / weight_BK.sum(dim=0).clamp_min(1e-8)[:, None]
    return F.normalize(momentum * prototype_KE + (1 - momentum) * mean_KE, dim=1)
