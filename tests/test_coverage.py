"""Coverage and kept copies against SciPy's distances, counts by hand, and every possible draw."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from chexray.curation.coverage import (
    Copies,
    coverage,
    coverage_of_random,
    near_features,
    near_images,
    random_keep_like,
    same_pixels,
)


def unit_rows(rows: int, width: int, seed: int) -> torch.Tensor:
    """Clusters of rows, some of which come twice."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(5, width, generator=generator)
    which = torch.randint(0, 5, (rows,), generator=generator)
    row_NE = F.normalize(centre[which] + 0.5 * torch.randn(rows, width, generator=generator), dim=1)
    return torch.cat([row_NE[: rows - rows // 10], row_NE[: rows // 10]])


def keep_some(rows: int, kept: int, seed: int) -> torch.Tensor:
    keep_N = torch.zeros(rows, dtype=torch.bool)
    keep_N[torch.randperm(rows, generator=torch.Generator().manual_seed(seed))[:kept]] = True
    return keep_N


def brute_force(feature_NE: torch.Tensor, keep_N: torch.Tensor) -> np.ndarray:
    unit_NE = feature_NE.double().numpy()
    unit_NE = unit_NE / np.linalg.norm(unit_NE, axis=1, keepdims=True)
    distance_N: np.ndarray = cdist(unit_NE, unit_NE[keep_N.numpy()]).min(axis=1)
    return distance_N


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize(("rows", "kept", "block"), [(1, 1, 4096), (300, 1, 7), (300, 60, 64), (900, 300, 4096)])
def test_coverage_equals_scipys_distances(dtype: torch.dtype, rows: int, kept: int, block: int) -> None:
    feature_NE, keep_N = unit_rows(rows, 32, rows).to(dtype), keep_some(rows, kept, 1)
    expected = brute_force(feature_NE, keep_N)
    found = coverage(feature_NE, keep_N, block=block)
    # Worst 4.6e-8.
    assert found.largest == pytest.approx(expected.max(), abs=1e-6)
    assert found.mean == pytest.approx(expected.mean(), abs=1e-6)
    assert found.p95 == pytest.approx(np.quantile(expected, 0.95), abs=1e-6)
    assert (found.pairs, found.kept, found.sampled) == (rows, kept, None)


def test_coverage_copy_of_a_kept_pair_is_at_distance_zero() -> None:
    """In float32, 2 - 2 * cosine of a row and its copy gives up to 5e-4."""
    half_NE = F.normalize(torch.randn(200, 1024, generator=torch.Generator().manual_seed(0)), dim=1)
    keep_N = torch.arange(400) < 200
    assert coverage(torch.cat([half_NE, half_NE]), keep_N).largest == 0.0


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(2, 60), kept=st.integers(1, 60), seed=st.integers(0, 50), block=st.integers(1, 70))
def test_coverage_one_more_kept_pair_never_lies_farther(rows: int, kept: int, seed: int, block: int) -> None:
    feature_NE, keep_N = unit_rows(rows, 4, seed), keep_some(rows, min(kept, rows - 1), seed)
    more_N = keep_N.clone()
    more_N[int((~keep_N).nonzero()[0])] = True
    few, more = coverage(feature_NE, keep_N, block=block), coverage(feature_NE, more_N, block=block)
    assert more.largest <= few.largest + 1e-6
    assert more.mean <= few.mean + 1e-6
    assert more.p95 <= few.p95 + 1e-6


def test_coverage_beyond_the_stated_products_is_of_a_seeded_sample() -> None:
    feature_NE, keep_N = unit_rows(2000, 16, 0), keep_some(2000, 100, 0)
    exact = coverage(feature_NE, keep_N)
    sample = coverage(feature_NE, keep_N, seed=3, max_products=100 * 500 + 99)
    assert sample.sampled == 500
    assert sample.largest <= exact.largest
    # The standard error of the mean is 0.006; this seed is off by 0.007.
    assert sample.mean == pytest.approx(exact.mean, abs=0.03)
    assert sample == coverage(feature_NE, keep_N, seed=3, max_products=100 * 500)
    assert sample != coverage(feature_NE, keep_N, seed=4, max_products=100 * 500)
    assert coverage(feature_NE, keep_N, max_products=2000 * 100) == exact


def test_coverage_of_random_has_the_same_size_and_one_seed_one_draw() -> None:
    feature_NE, keep_N = unit_rows(500, 16, 0), torch.arange(500) < 50
    found = coverage_of_random(feature_NE, keep_N, seed=1)
    drawn_N = random_keep_like(keep_N, 1)
    assert int(drawn_N.sum()) == found.kept == 50
    assert found.mean == pytest.approx(brute_force(feature_NE, drawn_N).mean(), abs=1e-6)
    assert not torch.equal(drawn_N, random_keep_like(keep_N, 2))


def test_random_keep_like_keeps_each_pair_equally_often() -> None:
    keep_N = torch.arange(40) < 10
    times_N = sum(random_keep_like(keep_N, seed).int() for seed in range(2000))
    assert isinstance(times_N, torch.Tensor)
    # Of 2,000 draws 500 on average, with a standard deviation of 19: worst 56.
    assert int((times_N - 500).abs().max()) < 90


@pytest.mark.parametrize(
    ("feature_NE", "keep_N", "message"),
    [
        (torch.eye(3), torch.zeros(3, dtype=torch.bool), "keeps no pair"),
        (torch.eye(3), torch.ones(2, dtype=torch.bool), "keep_N is"),
        (torch.eye(3), torch.ones(3), "keep_N is"),
        (torch.eye(3).int(), torch.ones(3, dtype=torch.bool), "must be floating point"),
        (torch.diag(torch.tensor([1.0, 0.0, 1.0])), torch.arange(3) < 1, "1 rows of a block"),
        (torch.diag(torch.tensor([1.0, torch.nan, 1.0])), torch.arange(3) < 1, "finite and not zero"),
    ],
)
def test_coverage_of_bad_inputs_is_refused(feature_NE: torch.Tensor, keep_N: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coverage(feature_NE, keep_N)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("block", [30, 4096])
def test_near_features_equal_all_cosines(dtype: torch.dtype, block: int) -> None:
    feature_NE, keep_N = unit_rows(400, 8, 2).to(dtype), keep_some(400, 150, 2)
    unit_KE = F.normalize(feature_NE[keep_N].double(), dim=1)
    cosine_KK = (unit_KE @ unit_KE.T).fill_diagonal_(-1)
    for least in (0.99, 0.8, 1 - 1e-6):
        found = near_features(feature_NE, keep_N, least, block=block)
        assert found.near == int((cosine_KK.max(dim=1).values >= least).sum())
        assert (found.kept, found.measured, found.sampled) == (150, 150, None)
    assert found.near > 0


def test_near_features_one_kept_pair_has_no_other() -> None:
    assert near_features(torch.eye(3), torch.arange(3) < 1).near == 0


def test_near_features_beyond_the_stated_products_are_of_a_sample() -> None:
    found = near_features(torch.ones(100, 4), torch.arange(100) < 50, max_products=50 * 20)
    assert (found.near, found.measured, found.sampled) == (20, 20, 20)


def every_draw(copies_of: list[list[int]], kept: int) -> float:
    """The mean, over all subsets of that size, of the pairs that have a copy in the subset."""
    pairs = len(copies_of)
    counts = [sum(bool(set(copies_of[row]) & set(draw)) for row in draw) for draw in combinations(range(pairs), kept)]
    return sum(counts) / len(counts)


@pytest.mark.parametrize("kept", [1, 2, 4, 7, 8])
def test_same_pixels_equal_every_draw_of_that_size(kept: int) -> None:
    names = list("aaabbcde")
    keep_N = np.arange(8) < kept
    copies_of = [[other for other in range(8) if other != row and names[other] == names[row]] for row in range(8)]
    found = same_pixels(pa.chunked_array([names[:3], names[3:]]), keep_N)
    with_copy = sum(any(keep_N[other] for other in copies_of[row]) for row in range(kept))
    assert (found.corpus, found.kept) == (5, with_copy)
    assert found.kept_if_random == pytest.approx(every_draw(copies_of, kept), rel=1e-12)  # worst 3.0e-16


def test_near_images_of_a_chain_count_neighbours_not_groups() -> None:
    """0 is near 1 and 1 near 2, but 0 not near 2: without 1, neither has a kept copy."""
    bits = np.zeros((5, 256), np.uint8)
    bits[1, :10] = bits[2, :20] = 1
    bits[3:, 100:200] = 1
    hashes = pa.chunked_array([pa.array([row.tobytes() for row in np.packbits(bits, axis=1)], pa.binary(32))])
    keep_N = np.array([True, False, True, True, True])
    found = near_images(hashes, keep_N)
    assert (found.corpus, found.kept) == (5, 2)
    copies_of = [[1], [0, 2], [1], [4], [3]]
    assert found.kept_if_random == pytest.approx(every_draw(copies_of, 4), rel=1e-12)


def test_copies_of_a_corpus_without_any_are_none() -> None:
    assert same_pixels(pa.chunked_array([list("abc")]), np.array([True, True, False])) == Copies(0, 0, 0.0)
    assert same_pixels(pa.chunked_array([list("aab")]), np.zeros(3, bool)) == Copies(2, 0, 0.0)
    empty = pa.chunked_array([pa.array([], pa.binary(32))])
    assert near_images(empty, np.zeros(0, bool)) == Copies(0, 0, 0.0)


def test_same_pixels_null_hash_is_refused() -> None:
    with pytest.raises(ValueError, match="pixel_hash is null for 1"):
        same_pixels(pa.chunked_array([["a", None]]), np.array([True, False]))
