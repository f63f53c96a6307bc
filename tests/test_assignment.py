"""Assignment to prototypes against whole-number arithmetic and float64, and that nothing but the rows decides."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.curation.assignment import assign_clusters
from chexray.curation.distance import exact_squares, product_error, random_product_error, squares_to


def unit_rows(rows: int, width: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.fixture
def bfloat16_products() -> Iterator[None]:
    """PyTorch as someone may have set it for training."""
    backend = torch.backends.mkldnn.matmul
    before = backend.fp32_precision
    backend.fp32_precision = "bf16"
    yield
    backend.fp32_precision = before


def test_assign_clusters_random_rows_equal_float64_brute_force() -> None:
    feature_BE, prototype_KE = unit_rows(700, 1024, 0), unit_rows(40, 1024, 1)
    wide_BE, wide_KE = feature_BE.double().numpy(), prototype_KE.double().numpy()
    expected_BK = np.array([[np.sqrt(((row - one) ** 2).sum()) for one in wide_KE] for row in wide_BE])
    cluster_B, distance_B = assign_clusters(feature_BE, prototype_KE)
    np.testing.assert_array_equal(cluster_B.numpy(), expected_BK.argmin(axis=1))
    # Worst 5.2e-8 of a distance: half of float32's last place.
    np.testing.assert_allclose(distance_B.numpy(), expected_BK.min(axis=1), rtol=1.2e-7, atol=0)


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.integers(1, 40),
    clusters=st.integers(1, 12),
    width=st.sampled_from([1, 3, 64, 100]),
    seed=st.integers(0, 10**6),
)
def test_assign_clusters_nearly_equal_prototypes_equal_whole_number_arithmetic(
    pairs: int, clusters: int, width: int, seed: int
) -> None:
    """Prototypes differ by a few millionths, which float32 products do not see, or not at all: the first counts."""
    draw = np.random.default_rng(seed)
    feature = draw.integers(-(2**20), 2**20, (pairs, width))
    prototype = draw.integers(-(2**20), 2**20, (1, width)) + draw.integers(-1, 2, (clusters, width))
    square = ((feature[:, None] - prototype[None]) ** 2).sum(axis=2)
    scale = 2.0**-20
    cluster_B, _ = assign_clusters(
        torch.from_numpy(feature * scale).float(), torch.from_numpy(prototype * scale).float()
    )
    np.testing.assert_array_equal(cluster_B.numpy(), square.argmin(axis=1))


@pytest.mark.parametrize("factor", [1e25, 1e-30])
def test_assign_clusters_huge_and_tiny_features_equal_those_of_ordinary_size(factor: float) -> None:
    feature_BE, prototype_KE = unit_rows(50, 128, 2), unit_rows(5, 128, 3)
    expected_B, distance_B = assign_clusters(feature_BE, prototype_KE)
    cluster_B, scaled_B = assign_clusters(feature_BE * factor, prototype_KE * factor)
    assert torch.equal(cluster_B, expected_B)
    # Worst 1.2e-7: rows are rounded once more.
    torch.testing.assert_close(scaled_B.double() / factor, distance_B.double(), rtol=1e-6, atol=0)


@settings(max_examples=20, deadline=None)
@given(pairs=st.integers(1, 300), seed=st.integers(0, 10**6))
def test_assign_clusters_rows_in_other_batches_have_the_same_bits(pairs: int, seed: int) -> None:
    feature_BE, prototype_KE = unit_rows(pairs, 1024, seed), unit_rows(9, 1024, seed + 1)
    cluster_B, distance_B = assign_clusters(feature_BE, prototype_KE)
    order_B = torch.randperm(pairs, generator=torch.Generator().manual_seed(seed))
    pieces = [assign_clusters(part, prototype_KE) for part in feature_BE[order_B].split(7)]
    assert torch.equal(torch.cat([cluster for cluster, _ in pieces]), cluster_B[order_B])
    assert torch.equal(torch.cat([distance for _, distance in pieces]), distance_B[order_B])


def test_assign_clusters_under_autocast_equals_without() -> None:
    feature_BE, prototype_KE = unit_rows(200, 256, 4), unit_rows(30, 256, 5)
    cluster_B, distance_B = assign_clusters(feature_BE, prototype_KE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        other_B, other_distance_B = assign_clusters(feature_BE, prototype_KE)
    assert torch.equal(other_B, cluster_B)
    assert torch.equal(other_distance_B, distance_B)


@pytest.mark.usefixtures("bfloat16_products")
def test_assign_clusters_with_reduced_products_decides_more_by_differences_and_the_same() -> None:
    feature_BE, prototype_KE = unit_rows(300, 512, 6), unit_rows(20, 512, 7)
    assert product_error(512, torch.float32, feature_BE.device) > 2.0**-7
    cluster_B, _ = assign_clusters(feature_BE, prototype_KE)
    square_BK = (feature_BE.double()[:, None] - prototype_KE.double()[None]).square().sum(dim=2)
    assert torch.equal(cluster_B, square_BK.argmin(dim=1))


def test_assign_clusters_feature_not_finite_has_a_distance_that_is_not() -> None:
    feature_BE = unit_rows(4, 100, 8)
    feature_BE[1, 5], feature_BE[2, 7] = torch.nan, torch.inf
    cluster_B, distance_B = assign_clusters(feature_BE, unit_rows(3, 100, 9))
    assert torch.isfinite(distance_B).tolist() == [True, False, False, True]
    assert int(cluster_B.min()) >= 0
    assert int(cluster_B.max()) < 3


@pytest.mark.parametrize("width", [0, 1, 2, 63, 64, 65, 127, 1000, 1024])
def test_squares_any_width_equal_numpy(width: int) -> None:
    left_NE, right_NE = unit_rows(30, width, 10) * 3, unit_rows(4, width, 11)
    cluster_N = torch.arange(30) % 4
    expected = ((left_NE.double().numpy() - right_NE[cluster_N].double().numpy()) ** 2).sum(axis=1)
    # Worst 4.5e-16: another order of sums.
    np.testing.assert_allclose(exact_squares(left_NE, right_NE[cluster_N]).numpy(), expected, rtol=4e-15, atol=0)
    # Worst 3.5e-8 at width 65; half of it in the distance.
    np.testing.assert_allclose(squares_to(left_NE, right_NE, cluster_N).numpy(), expected, rtol=2.4e-7, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", ["random", "positive", "alike", "few large", "equal"])
def test_product_error_measured_products_stay_within_it(dtype: torch.dtype, shape: str) -> None:
    draw = torch.Generator().manual_seed(0)
    row_NE = torch.randn(500, 1024, generator=draw, dtype=torch.float64)
    shapes = {
        "positive": row_NE.abs(),
        "alike": 20 + row_NE,
        "few large": row_NE**5,
        "equal": row_NE[:, :1].expand(-1, 1024),
    }
    row_NE = shapes.get(shape, row_NE).to(dtype)
    # Extended precision, since the true products of float64 rows are not float64 numbers.
    long_NE = row_NE.numpy().astype(np.longdouble)
    norm_N = np.sqrt((long_NE**2).sum(axis=1))
    error_NN = np.abs((row_NE[:40] @ row_NE.T).numpy() - long_NE[:40] @ long_NE.T) / np.outer(norm_N[:40], norm_N)
    # Worst 0.25 of it (equal, float64): equal numbers make rounding errors add up.
    assert float(error_NN.max()) < product_error(1024, dtype, row_NE.device) / 2
    if dtype == torch.float32 and shape != "equal":
        # Worst 0.18 of it (alike).
        assert float(error_NN.max()) < random_product_error(1024, dtype, row_NE.device) / 2
