"""Prototypes against plain loops, scikit-learn and values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans, kmeans_plusplus

from chexray.curation.prototypes import kmeans, pair_features, sinkhorn, update_prototypes


def unit_rows(rows: int, width: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def themed_rows(rows: int, themes: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit rows around well separated themes, and each row's theme."""
    theme_N = torch.arange(rows) % themes
    noise_NE = 0.05 * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return F.normalize(torch.eye(themes, width)[theme_N] + noise_NE, dim=1), theme_N


def sinkhorn_loop(similarity: np.ndarray, epsilon: float, iterations: int) -> np.ndarray:
    weight = np.exp(similarity.astype(np.float64) / epsilon)
    pairs, prototypes = weight.shape
    for _ in range(iterations):
        for k in range(prototypes):
            weight[:, k] *= (pairs / prototypes) / weight[:, k].sum()
        for b in range(pairs):
            weight[b] *= 1 / weight[b].sum()
    return weight


def test_pair_features_two_unit_embeddings_are_joined_with_equal_weight() -> None:
    feature = pair_features(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]]))
    half = math.sqrt(0.5)
    expected = torch.tensor([[half, 0.0, 0.6 * half, 0.8 * half]])
    torch.testing.assert_close(feature, expected, rtol=0, atol=1e-7)  # worst 3.5e-8


def test_pair_features_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="image_BD"):
        pair_features(torch.ones(2, 3), torch.ones(3, 3))


def test_kmeans_separated_themes_finds_each() -> None:
    feature_NE, theme_N = themed_rows(rows=300, themes=5, width=16, seed=0)
    prototype_KE = kmeans(feature_NE, clusters=5, seed=3)
    nearest_N = (feature_NE @ prototype_KE.T).argmax(dim=1)
    assert len({(int(t), int(k)) for t, k in zip(theme_N, nearest_N, strict=True)}) == 5
    means = torch.stack([F.normalize(feature_NE[theme_N == t].mean(dim=0), dim=0) for t in range(5)])
    found = prototype_KE[[int(nearest_N[t]) for t in range(5)]]
    torch.testing.assert_close(found, means, rtol=0, atol=1e-6)  # worst 2.4e-9


def inertia(feature_NE: torch.Tensor, centre_KE: torch.Tensor) -> float:
    return float(torch.cdist(feature_NE.double(), centre_KE.double()).amin(dim=1).square().sum())


@pytest.mark.parametrize("seed", range(5))
def test_kmeans_from_the_same_start_reaches_the_inertia_of_scikit_learn(seed: int) -> None:
    feature_NE = unit_rows(400, 12, seed)
    start, _ = kmeans_plusplus(feature_NE.numpy(), 6, random_state=seed)
    reference = KMeans(6, init=start, n_init=1, max_iter=100, tol=0.0).fit(feature_NE.numpy())
    centre_KE = F.normalize(torch.as_tensor(reference.cluster_centers_), dim=1)
    ours = inertia(feature_NE, kmeans(feature_NE, 6, seed))
    assert ours == pytest.approx(inertia(feature_NE, centre_KE), rel=1e-6)  # worst 3.1e-8


def test_kmeans_same_seed_gives_the_same_unit_rows() -> None:
    feature_NE = unit_rows(200, 8, 1)
    first_KE, second_KE = kmeans(feature_NE, 4, seed=9), kmeans(feature_NE, 4, seed=9)
    assert torch.equal(first_KE, second_KE)
    # Worst below 6e-8, one step of float32.
    torch.testing.assert_close(first_KE.norm(dim=1), torch.ones(4), rtol=0, atol=1e-6)
    assert not torch.equal(first_KE, kmeans(feature_NE, 4, seed=10))


def test_kmeans_more_clusters_than_features_is_refused() -> None:
    with pytest.raises(ValueError, match="clusters=4 must be from 1 to the number of features, 3"):
        kmeans(unit_rows(3, 8, 0), 4, seed=0)


def test_kmeans_feature_that_is_not_finite_is_refused() -> None:
    feature_NE = unit_rows(8, 4, 0)
    feature_NE[2, 1] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        kmeans(feature_NE, 2, seed=0)


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.integers(1, 60),
    prototypes=st.integers(1, 12),
    epsilon=st.sampled_from([0.05, 0.5, 2.0]),
    iterations=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_sinkhorn_any_similarities_equals_a_plain_loop(
    pairs: int, prototypes: int, epsilon: float, iterations: int, seed: int
) -> None:
    similarity_BK = 2 * torch.rand(pairs, prototypes, generator=torch.Generator().manual_seed(seed)) - 1
    weight_BK = sinkhorn(similarity_BK, epsilon, iterations).double().numpy()
    expected = sinkhorn_loop(similarity_BK.numpy(), epsilon, iterations)
    np.testing.assert_allclose(weight_BK, expected, rtol=0, atol=1e-5)  # worst 9e-7
    np.testing.assert_allclose(weight_BK.sum(axis=1), 1.0, rtol=0, atol=1e-5)


def test_sinkhorn_many_iterations_uses_every_prototype_alike() -> None:
    similarity_BK = unit_rows(90, 6, 4)
    weight_BK = sinkhorn(similarity_BK, epsilon=0.5, iterations=100)
    torch.testing.assert_close(weight_BK.sum(dim=0), torch.full((6,), 15.0), rtol=0, atol=1e-4)  # worst 3.9e-6


def test_sinkhorn_tiny_epsilon_stays_finite() -> None:
    assert bool(torch.isfinite(sinkhorn(unit_rows(20, 5, 0), epsilon=1e-4)).all())


@pytest.mark.parametrize(("epsilon", "iterations"), [(0.0, 3), (-1.0, 3), (0.5, 0)])
def test_sinkhorn_settings_out_of_range_are_refused(epsilon: float, iterations: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        sinkhorn(torch.zeros(2, 2), epsilon, iterations)


def test_update_prototypes_symmetric_case_equals_the_values_by_hand() -> None:
    """Similarities 1 and 0, epsilon 1/2: by symmetry the weights are 1 / (1 + e^-2) and the rest at once."""
    near = 1 / (1 + math.exp(-2))
    moved = (0.9 + 0.1 * near, 0.1 * (1 - near))
    length = math.hypot(*moved)
    updated_KE = update_prototypes(torch.eye(2), torch.eye(2))
    expected = torch.tensor([[moved[0], moved[1]], [moved[1], moved[0]]]) / length
    torch.testing.assert_close(updated_KE, expected, rtol=0, atol=1e-6)  # worst 4.6e-8


def test_update_prototypes_random_case_equals_a_plain_loop() -> None:
    prototype_KE, feature_BE = unit_rows(4, 10, 0), unit_rows(33, 10, 1)
    similarity = (feature_BE.double() @ prototype_KE.double().T).numpy()
    weight = sinkhorn_loop(similarity, 0.5, 3)
    for k, updated in enumerate(update_prototypes(prototype_KE, feature_BE).double().numpy()):
        mean = (weight[:, k, None] * feature_BE.double().numpy()).sum(axis=0) / weight[:, k].sum()
        expected = 0.9 * prototype_KE[k].double().numpy() + 0.1 * mean
        np.testing.assert_allclose(updated, expected / np.linalg.norm(expected), rtol=0, atol=1e-6)  # 9.4e-8


def test_update_prototypes_one_prototype_moves_to_the_mean_feature() -> None:
    feature_BE = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    updated_KE = update_prototypes(torch.tensor([[1.0, 0.0]]), feature_BE, momentum=0.0)
    torch.testing.assert_close(updated_KE, torch.full((1, 2), math.sqrt(0.5)), rtol=0, atol=1e-6)  # 6e-8


def test_update_prototypes_no_kept_pair_leaves_them_unchanged() -> None:
    prototype_KE = unit_rows(3, 6, 2)
    assert torch.equal(update_prototypes(prototype_KE, torch.empty(0, 6)), prototype_KE)


def test_update_prototypes_momentum_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"momentum=1\.5"):
        update_prototypes(torch.eye(2), torch.eye(2), momentum=1.5)
