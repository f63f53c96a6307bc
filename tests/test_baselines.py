"""Selectors against plain loops, values worked out by hand, and invariants of order, block and count."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_candidates import (
    FEATURE_SELECTORS,
    SMALL,
    brute_centers,
    brute_sparse,
    candidates,
    feature_rows,
    ids,
    kept,
    lowest,
    nearest_to_mean,
    reorder,
    signed_axes,
    unit_rows,
)

from chexray.curation.baselines import rarest_finding, to_grid
from chexray.curation.neighbours import grid_features
from chexray.curation.prototypes import kmeans
from chexray.curation.selectors import SELECTORS, Candidates, SelectorSettings, select_whole

# Every selector: counts, order, blocks, types


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from([name for name in SELECTORS if name != "full"]),
    pairs=st.integers(3, 40),
    share=st.floats(0, 1),
    tied=st.booleans(),
    seed=st.integers(0, 500),
    block=st.integers(1, 50),
)
def test_select_whole_any_order_and_block_keeps_the_same_exact_count(
    name: str, pairs: int, share: float, tied: bool, seed: int, block: int
) -> None:
    given = candidates(pairs, seed, tied=tied)
    count = round(share * pairs)
    keep_N = select_whole(name, given, count, SMALL)
    assert (keep_N.dtype.name, keep_N.shape, int(keep_N.sum())) == ("bool", (pairs,), count)
    order = random.Random(seed).sample(range(pairs), pairs)
    moved_N = select_whole(name, reorder(given, order), count, replace(SMALL, block=block))
    np.testing.assert_array_equal(moved_N, keep_N[order])


@pytest.mark.parametrize("name", FEATURE_SELECTORS)
def test_select_whole_half_precision_features_in_any_block_give_one_choice(name: str) -> None:
    given = candidates(60, 4, width=16)
    assert given.image_ND is not None
    assert given.text_ND is not None
    half = replace(given, image_ND=given.image_ND.half(), text_ND=given.text_ND.half())
    choices = {tuple(kept(name, half, 23, replace(SMALL, block=block))) for block in (1, 2, 13, 60, 4096)}
    assert len(choices) == 1


@pytest.mark.parametrize("name", [name for name in SELECTORS if name != "full"])
def test_select_whole_nothing_and_everything_are_counts_too(name: str) -> None:
    given = candidates(9, 1)
    assert kept(name, given, 0) == []
    assert kept(name, given, 9) == list(range(9))


def test_selectors_each_have_a_description_and_known_needs() -> None:
    assert list(SELECTORS) == [
        "full", "random", "stratified", "similarity", "density", "semdedup", "k_center", "learnability",
        "term_coverage",
    ]  # fmt: skip
    needs = {name: selector.needs for name, selector in SELECTORS.items()}
    assert [name for name, need in needs.items() if need == "features"] == list(FEATURE_SELECTORS)
    assert (needs["full"], needs["random"], needs["stratified"], needs["learnability"]) == (
        None, None, "stratum", "losses",
    )  # fmt: skip
    assert all(selector.description for selector in SELECTORS.values())


# The grid on which distances are exact


@given(seed=st.integers(0, 10_000), width=st.integers(1, 300))
@settings(max_examples=25, deadline=None)
def test_to_grid_inner_products_in_any_order_equal_whole_number_arithmetic(seed: int, width: int) -> None:
    unit_NE = unit_rows(6, width, seed)
    grid_NE = to_grid(unit_NE)
    assert float((grid_NE.double() - unit_NE.double()).abs().max()) <= 2**-25
    whole = [[int(value * 2**24) for value in row] for row in grid_NE.tolist()]
    assert (grid_NE.double() * 2**24).tolist() == whole
    exact = [[sum(x * y for x, y in zip(a, b, strict=True)) / 2**48 for b in whole] for a in whole]
    assert (grid_NE.double() @ grid_NE.double().T).tolist() == exact


# full, random, stratified


def test_full_another_count_than_all_is_refused() -> None:
    given = Candidates(ids(4))
    assert kept("full", given, 4) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="count=3 must be the number of pairs, 4, for the selector full"):
        select_whole("full", given, 3, SMALL)


@pytest.mark.parametrize("seed", [0, 7])
def test_random_keeps_the_lowest_hashes_and_more_of_them_for_a_larger_count(seed: int) -> None:
    given = Candidates(ids(50))
    digest = [hashlib.sha256(f"{seed}\0random-subset\0{sample}".encode()).hexdigest() for sample in given.sample_id]
    rows = sorted(range(50), key=lambda row: digest[row])
    for count in (1, 12, 49):
        assert kept("random", given, count, SelectorSettings(seed=seed)) == sorted(rows[:count])


@settings(max_examples=60, deadline=None)
@given(strata=st.lists(st.sampled_from(["a", "b", "c", "a finding"]), min_size=1, max_size=40), data=st.data())
def test_stratified_equals_dealing_to_the_stratum_that_has_least(strata: list[str], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(strata)))
    given = Candidates(ids(len(strata)), stratum_N=strata)
    digest = [hashlib.sha256(f"3\0random-subset\0{sample}".encode()).hexdigest() for sample in given.sample_id]
    queue = {name: [row for row in range(len(strata)) if strata[row] == name] for name in set(strata)}
    dealt: dict[str, list[int]] = {name: [] for name in queue}
    for _ in range(count):
        name = min((name for name in queue if queue[name]), key=lambda name: (len(dealt[name]), name))
        dealt[name].append(min(queue[name], key=lambda row: digest[row]))
        queue[name].remove(dealt[name][-1])
    assert kept("stratified", given, count) == sorted(row for rows in dealt.values() for row in rows)


def test_rarest_finding_counts_positives_and_leaves_no_finding_out() -> None:
    labels: list[dict[str, int | None]] = [
        {"Effusion": 1, "Hernia": 1},
        {"Effusion": 1, "Hernia": 0, "Mass": 1},
        {"Effusion": 1, "Hernia": None, "Nodule": 1, "Mass": 0},
        {"Effusion": 0, "No Finding": 1},
        {"Effusion": None},
        {},
        {"Effusion": 1, "No Finding": 1, "Mass": None},
        # Mass and Nodule are positive twice each, so the name decides.
        {"Nodule": 1, "Mass": 1},
    ]
    assert rarest_finding(labels) == ["Hernia", "Mass", "Nodule", "none", "none", "none", "Effusion", "Mass"]
    assert rarest_finding([]) == []


def test_rarest_finding_value_that_is_no_label_is_refused() -> None:
    with pytest.raises(ValueError, match="labels=-1 must be 1, 0 or None"):
        rarest_finding([{"Mass": -1}])


# similarity


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_similarity_equals_a_plain_loop(seed: int, tied: bool) -> None:
    given = candidates(45, seed, tied=tied)
    assert given.image_ND is not None
    assert given.text_ND is not None
    rows = zip(given.image_ND.double().tolist(), given.text_ND.double().tolist(), strict=True)
    score = [-sum(x * y for x, y in zip(image, text, strict=True)) for image, text in rows]
    for count in (1, 10, 44):
        assert kept("similarity", given, count) == lowest(score, given.sample_id, count)


# density


@pytest.mark.parametrize("neighbours", [1, 3, 24])
@pytest.mark.parametrize("seed", range(3))
def test_density_equals_a_plain_loop(seed: int, neighbours: int) -> None:
    given = candidates(25, seed)
    expected = brute_sparse(feature_rows(given), given.sample_id, 9, neighbours)
    assert kept("density", given, 9, replace(SMALL, neighbours=neighbours)) == expected


@pytest.mark.parametrize("seed", range(10))
def test_density_copies_and_ties_equal_whole_number_arithmetic(seed: int) -> None:
    given = candidates(30, seed, tied=True)
    rows = [a + b for a, b in zip(signed_axes(30, 3, seed), signed_axes(30, 3, seed + 1), strict=True)]
    for neighbours in (1, 4):
        expected = brute_sparse(rows, given.sample_id, 11, neighbours)
        assert kept("density", given, 11, replace(SMALL, neighbours=neighbours)) == expected


def test_density_not_more_pairs_than_neighbours_is_refused() -> None:
    with pytest.raises(ValueError, match="neighbours=5 must be less than the number of pairs, 5"):
        select_whole("density", candidates(5, 0), 2, replace(SMALL, neighbours=5))


# semdedup


def fan(degrees: Sequence[float]) -> Candidates:
    """Image and text alike at an angle in the plane: the cosine of two pairs is that of the angle between them."""
    turn_ND = torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])
    return Candidates([f"{row:032x}" for row in range(len(degrees))], turn_ND, turn_ND)


def test_semdedup_one_cluster_by_hand_keeps_the_far_one_of_duplicates() -> None:
    """The mean points to 25 degrees: by falling distance 52 (27), 50 (25), 0 (25), 10 (15), 13 (12 degrees away).

    To the nearest earlier pair: none, 2, 50, 10 and 3 degrees. So they go in the order 50, 13, 10, 0, and 52 stays.
    """
    given = fan([0, 10, 13, 50, 52])
    chosen = SelectorSettings(clusters=1, kmeans_sample=5, block=2)
    assert kept("semdedup", given, 4, chosen) == [0, 1, 2, 4]
    assert kept("semdedup", given, 3, chosen) == [0, 1, 4]
    assert kept("semdedup", given, 2, chosen) == [0, 4]
    assert kept("semdedup", given, 1, chosen) == [4]


def test_semdedup_copies_in_all_but_one_of_each_go_first() -> None:
    given = fan([0, 0, 0, 90, 90, 200])
    keep = kept("semdedup", given, 3, SelectorSettings(clusters=2, kmeans_sample=6))
    assert keep == [0, 3, 5]


def test_semdedup_cluster_without_members_is_passed_over() -> None:
    """Two distinct features cannot fill four clusters."""
    given = fan([0, 0, 0, 90, 90])
    assert kept("semdedup", given, 2, SelectorSettings(clusters=4, kmeans_sample=5)) == [0, 3]


@pytest.mark.parametrize("clusters", [1, 4])
@pytest.mark.parametrize("seed", range(4))
def test_semdedup_equals_the_threshold_that_leaves_as_many(seed: int, clusters: int) -> None:
    """The released algorithm on every pair of a cluster, with each epsilon in turn."""
    given, pairs = candidates(40, seed), 40
    chosen = replace(SMALL, clusters=clusters, kmeans_sample=20)
    assert given.image_ND is not None
    assert given.text_ND is not None
    digest = [hashlib.sha256(f"3\0random-subset\0{sample}".encode()).hexdigest() for sample in given.sample_id]
    sampled = sorted(range(pairs), key=lambda row: digest[row])[:20]
    centre = kmeans(grid_features(given.image_ND, given.text_ND, 64)[sampled], clusters, 3).double().numpy()
    feature = np.array(feature_rows(given))
    nearest = (feature @ centre.T).argmax(axis=1)
    most = np.full(pairs, -np.inf)
    for k in range(clusters):
        member = [row for row in range(pairs) if nearest[row] == k]
        member.sort(key=lambda row: feature[row] @ centre[k])
        for place, row in enumerate(member):
            most[row] = max((feature[row] @ feature[other] for other in member[:place]), default=-np.inf)
    for threshold in np.sort(most[np.isfinite(most)]) + 1e-9:
        stays = np.flatnonzero(most <= threshold)
        assert kept("semdedup", given, len(stays), chosen) == stays.tolist()


def test_semdedup_more_clusters_than_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="clusters=64 must be at most kmeans_sample=4096 and the number of pairs, 10"):
        select_whole("semdedup", candidates(10, 0), 2, SelectorSettings())


# k_center


def test_k_center_line_by_hand_starts_in_the_middle_and_takes_the_ends() -> None:
    """Nearest the mean is 40 degrees; then 90 (50 away), 0 (40 away), 65 (25 from 40 and 90), 20."""
    given = fan([0, 20, 40, 65, 90])
    for count, expected in enumerate([[2], [2, 4], [0, 2, 4], [0, 2, 3, 4], [0, 1, 2, 3, 4]], start=1):
        assert kept("k_center", given, count) == expected


@pytest.mark.parametrize("seed", range(4))
def test_k_center_equals_a_plain_loop(seed: int) -> None:
    given = candidates(30, seed)
    rows = feature_rows(given)
    from_mean = nearest_to_mean(rows)
    for count in (1, 8, 29):
        expected = brute_centers(rows, given.sample_id, count, from_mean.index(min(from_mean)))
        assert kept("k_center", given, count) == expected


@pytest.mark.parametrize("seed", range(10))
def test_k_center_copies_and_ties_equal_whole_number_arithmetic(seed: int) -> None:
    """The mean is rounded to the grid, so of starts that tie in whole numbers any may be taken."""
    given = candidates(30, seed, tied=True)
    rows = [a + b for a, b in zip(signed_axes(30, 3, seed), signed_axes(30, 3, seed + 1), strict=True)]
    total = [sum(column) for column in zip(*rows, strict=True)]
    along = [sum(x * y for x, y in zip(row, total, strict=True)) for row in rows]
    starts = [row for row in range(30) if along[row] == max(along)]
    expected = [brute_centers(rows, given.sample_id, 17, start) for start in starts]
    assert kept("k_center", given, 17) in expected


def test_k_center_copies_only_left_takes_each_once_by_id() -> None:
    given = fan([30, 0, 60, 0, 0, 60])
    for count, expected in [(3, [0, 1, 2]), (4, [0, 1, 2, 3]), (5, [0, 1, 2, 3, 4]), (6, [0, 1, 2, 3, 4, 5])]:
        assert kept("k_center", given, count) == expected


# Refusals


def test_select_whole_name_that_is_not_known_is_refused_with_the_names() -> None:
    with pytest.raises(ValueError, match="selector='best' must be one of full, random, stratified"):
        select_whole("best", Candidates(ids(3)), 1, SMALL)


def test_select_whole_repeated_id_is_refused_and_named() -> None:
    with pytest.raises(ValueError, match=r"sample_id must be distinct; 1 sample id \(b\) is more than once"):
        select_whole("random", Candidates(["a", "b", "b"]), 1, SMALL)


@pytest.mark.parametrize("count", [-1, 4])
def test_select_whole_count_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"count={count} must be from 0 to the number of pairs, 3"):
        select_whole("random", Candidates(ids(3)), count, SMALL)


@pytest.mark.parametrize(
    ("name", "missing", "message"),
    [
        ("density", {"image_ND": None}, "image_ND and text_ND must be given for the selector density"),
        ("similarity", {"text_ND": None}, "image_ND and text_ND must be given for the selector similarity"),
        ("stratified", {"stratum_N": None}, "stratum_N must be given for the selector stratified"),
        ("learnability", {"learner_loss_N": None}, "learner_loss_N must be given for the selector learnability"),
        ("learnability", {"reference_loss_N": None}, "reference_loss_N must be given"),
        ("k_center", {"text_ND": torch.ones(3, 6)}, r"text_ND \(3, 6\) must be equal, \[N, D\], .* 3 sample ids"),
        ("k_center", {"image_ND": torch.ones(2, 5), "text_ND": torch.ones(2, 5)}, "a row for each of 3 sample ids"),
        ("stratified", {"stratum_N": ["a"]}, "stratum_N has 1 entries; there must be one for each of 3 sample ids"),
        ("term_coverage", {"report_N": None}, "report_N must be given for the selector term_coverage"),
        (
            "term_coverage",
            {"report_N": ["a", "b"]},
            "report_N has 2 entries; there must be one for each of 3",
        ),
        ("stratified", {"stratum_N": ["a", None, "b"]}, r"stratum_N must be strings; 1 sample id \(y\) is not so"),
        ("learnability", {"learner_loss_N": torch.ones(3, 1)}, r"learner_loss_N \(3, 1\) must be \[N\]"),
        (
            "learnability",
            {"reference_loss_N": torch.tensor([0.0, torch.nan, torch.inf])},
            r"reference_loss_N must be finite; 2 sample ids \(y, z\) are not so",
        ),
        ("semdedup", {"text_ND": 2 * torch.eye(3, 5)}, r"text_ND must have unit rows; 3 sample ids \(x, y, z\)"),
    ],
)
def test_select_whole_field_that_is_missing_or_does_not_fit_is_refused(
    name: str, missing: dict[str, Any], message: str
) -> None:
    given = replace(candidates(3, 0), sample_id=["x", "y", "z"], **missing)
    with pytest.raises(ValueError, match=message):
        select_whole(name, given, 1, SMALL)


@pytest.mark.parametrize("name", FEATURE_SELECTORS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_select_whole_feature_that_is_not_finite_is_refused_with_its_id(name: str, value: float) -> None:
    given = replace(candidates(4, 0), sample_id=["a", "b", "c", "d"])
    assert given.image_ND is not None
    given.image_ND[2, 1] = value
    with pytest.raises(ValueError, match=r"image_ND must be finite; 1 sample id \(c\) is not so"):
        select_whole(name, given, 1, SMALL)


def test_select_whole_unneeded_fields_are_not_looked_at() -> None:
    given = Candidates(ids(3), torch.full((3, 2), torch.nan), None, ["a"])
    assert len(kept("random", given, 2)) == 2


@pytest.mark.parametrize(
    "setting", [{"seed": -1}, {"neighbours": 0}, {"clusters": 0}, {"block": 0}, {"kmeans_sample": 63}]
)
def test_selector_settings_out_of_range_are_refused(setting: dict[str, int]) -> None:
    (name,) = setting
    with pytest.raises(ValueError, match=f"{name}={setting[name]} must be"):
        SelectorSettings(**setting)
