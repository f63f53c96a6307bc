"""Jaccard similarity against counts by hand, exact fractions and simulated draws."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chexray.curation.stability import expected_jaccard, jaccard, pairwise_jaccard
from chexray.platform.model.checkpoint import sample_uids


def test_jaccard_of_ids_equals_the_counts_by_hand() -> None:
    one, other = ["00aa", "00bb", "00cc"], {"00bb", "00cc", "00dd", "00ee"}
    assert jaccard(one, other) == 2 / 5
    assert jaccard(one, one) == 1.0
    assert jaccard(one, []) == 0.0
    assert jaccard([], []) == 1.0


def test_jaccard_of_a_subset_files_uids_equals_that_of_the_ids() -> None:
    one, other = [f"{n:032x}" for n in (1, 2, 2**100)], [f"{n:032x}" for n in (2, 2**100, 2**100 + 1)]
    assert jaccard(sample_uids(one), sample_uids(other)) == jaccard(one, other) == 2 / 4


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_pairwise_jaccard_of_masks_equals_that_of_sets(one: set[int], other: set[int]) -> None:
    keeps = [np.isin(np.arange(31), list(rows)) for rows in (one, other)]
    found = pairwise_jaccard(keeps)
    assert found.jaccard_SS.tolist() == [[1.0, jaccard(one, other)], [jaccard(other, one), 1.0]]
    assert found.mean == jaccard(one, other)


def test_pairwise_jaccard_of_one_subset_has_no_mean() -> None:
    found = pairwise_jaccard([np.array([True, False])])
    assert (found.jaccard_SS.tolist(), found.mean, found.expected_random) == ([[1.0]], None, None)


@pytest.mark.parametrize("other", [np.array([True]), np.array([1, 0]), np.array([[True, False]])])
def test_pairwise_jaccard_of_subsets_that_do_not_match_is_refused(other: np.ndarray) -> None:
    with pytest.raises(ValueError, match="keeps="):
        pairwise_jaccard([np.array([True, False]), other])


@pytest.mark.parametrize(
    ("pairs", "kept_a", "kept_b"), [(5, 2, 3), (100, 20, 20), (100, 90, 70), (7, 0, 3), (4, 4, 2), (500, 113, 200)]
)
def test_expected_jaccard_equals_exact_fractions(pairs: int, kept_a: int, kept_b: int) -> None:
    mean = sum(
        Fraction(comb(kept_a, both) * comb(pairs - kept_a, kept_b - both), comb(pairs, kept_b))
        * Fraction(both, kept_a + kept_b - both)
        for both in range(max(0, kept_a + kept_b - pairs), min(kept_a, kept_b) + 1)
    )
    assert expected_jaccard(pairs, kept_a, kept_b) == pytest.approx(float(mean), rel=1e-10)  # worst 3.7e-16


def test_expected_jaccard_of_the_papers_corpus_is_near_the_quick_formula() -> None:
    assert expected_jaccard(1_235_004, 280_346, 280_346) == pytest.approx(280_346 / (2 * 1_235_004 - 280_346), rel=1e-5)


def test_pairwise_jaccard_random_subsets_are_near_the_expected_mean() -> None:
    rng = np.random.default_rng(0)
    keeps = [np.isin(np.arange(1000), rng.choice(1000, 227, replace=False)) for _ in range(20)]
    found = pairwise_jaccard(keeps)
    assert found.expected_random == expected_jaccard(1000, 227, 227)
    # The standard error of the mean is about 0.001: off by 0.0013.
    assert found.mean == pytest.approx(found.expected_random, abs=0.004)


@pytest.mark.parametrize(("kept_a", "kept_b"), [(-1, 2), (2, 11)])
def test_expected_jaccard_of_impossible_sizes_is_refused(kept_a: int, kept_b: int) -> None:
    with pytest.raises(ValueError, match="from 0 to pairs=10"):
        expected_jaccard(10, kept_a, kept_b)


def test_expected_jaccard_of_two_empty_subsets_is_one() -> None:
    assert expected_jaccard(10, 0, 0) == 1.0
