"""Subgroups against AUROCs computed of each group's own rows, and explicit resampling of the gap."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import roc_auc_score

from chexray.evals.statistics import FloatArray, bootstrap_weights, mean_statistic
from chexray.evals.subgroups import age_bands, auroc_subgroups, compare_groups

Names = npt.NDArray[np.object_]


def grouped_sample(seed: int = 0, size: int = 400) -> tuple[FloatArray, FloatArray, Names, npt.NDArray[np.int64]]:
    """Two findings scored better in group F than in M, a small group X, some of no group, patients of 1 to 6."""
    generator = np.random.default_rng(seed)
    patient_B = generator.integers(size // 2, size=size)
    group_P = generator.choice(np.array(["F", "M", "X", None], dtype=object), size=size // 2, p=[0.45, 0.4, 0.05, 0.1])
    group_B = group_P[patient_B]
    target_BF = generator.choice([0.0, 1.0, np.nan], p=[0.6, 0.3, 0.1], size=(size, 2))
    told = np.where(group_B == "F", 1.5, 0.5)[:, None]
    score_BF = np.round(generator.normal(size=(size, 2)) + told * np.nan_to_num(target_BF), 1)
    return score_BF, target_BF, group_B, patient_B


def auroc_of(rows: npt.NDArray[np.int64], score_B: FloatArray, target_B: FloatArray) -> float:
    rows = rows[~np.isnan(target_B[rows])]
    return float(roc_auc_score(target_B[rows], score_B[rows]))


def test_auroc_subgroups_equal_each_groups_own_rows_and_resampled_gaps() -> None:
    score_BF, target_BF, group_B, patient_B = grouped_sample()
    found = auroc_subgroups(score_BF, target_BF, group_B, patient_B, draws=25, seed=3)
    weight_RB = bootstrap_weights(patient_B, draws=25, seed=3)
    assert found.mean_over == (0, 1)
    for finding, subgroups in enumerate((*found.per_finding, found.mean)):
        columns = [finding] if finding < 2 else [0, 1]

        def score_of(name: str, weight_B: FloatArray, columns: list[int] = columns) -> float:
            rows = np.repeat(np.arange(len(group_B)), (weight_B * (group_B == name)).astype(int))
            return float(np.mean([auroc_of(rows, score_BF[:, one], target_BF[:, one]) for one in columns]))

        draws = {name: np.array([score_of(name, weight_B) for weight_B in weight_RB]) for name in "FM"}
        female, male, other = subgroups.groups
        for group in (female, male):
            assert group.estimate is not None
            # Measured worst error: 1.1e-16.
            assert group.estimate.value == pytest.approx(score_of(group.name, np.ones(len(group_B))), abs=1e-12)
            low, high = np.percentile(draws[group.name], [2.5, 97.5])
            assert (group.estimate.low, group.estimate.high) == pytest.approx((low, high), abs=1e-12)
            inside_B = (group_B == group.name) & ~np.isnan(target_BF[:, columns]).all(axis=1)
            assert (group.n, group.patients) == (inside_B.sum(), len(set(patient_B[inside_B])))
        assert other.estimate is None
        assert other.left_out is not None
        assert "patients, fewer than 20" in other.left_out
        gap = subgroups.gap
        assert gap is not None
        assert (gap.best, gap.worst) == ("F", "M")
        low, high = np.percentile(draws["F"] - draws["M"], [2.5, 97.5])
        assert (gap.low, gap.high) == pytest.approx((low, high), abs=1e-12)
        assert gap.value == pytest.approx(female.estimate.value - male.estimate.value, abs=1e-12)  # type: ignore[union-attr]
        assert gap.value > 0.1
    known_B = ~np.isnan(target_BF[:, 0])
    assert found.per_finding[0].unknown == sum(name is None for name in group_B[known_B])


def test_auroc_subgroups_finding_that_one_group_lacks_is_left_out_of_it_and_of_the_mean() -> None:
    score_BF, target_BF, group_B, patient_B = grouped_sample(seed=1)
    target_BF[(group_B == "M") & (target_BF[:, 1] == 1), 1] = 0
    found = auroc_subgroups(score_BF, target_BF, group_B, patient_B, draws=20)
    male = found.per_finding[1].groups[1]
    assert male.estimate is None
    assert male.left_out is not None
    assert male.left_out.startswith("0 positives and ")
    assert found.per_finding[1].gap is None
    assert found.mean_over == (0,)
    assert found.mean.groups[0].estimate == found.per_finding[0].groups[0].estimate
    assert found.mean.gap == found.per_finding[0].gap


def test_auroc_subgroups_no_shared_finding_says_so() -> None:
    score_BF, target_BF, group_B, patient_B = grouped_sample(seed=2)
    target_BF[group_B == "M", 1] = 0
    target_BF[group_B == "F", 0] = 0
    found = auroc_subgroups(score_BF, target_BF, group_B, patient_B, draws=20)
    assert found.mean_over == ()
    assert found.mean.gap is None
    reasons = [group.left_out for group in found.mean.groups[:2]]
    assert reasons == ["no finding has enough positives and negatives in every group"] * 2


def test_auroc_subgroups_same_scores_in_two_copies_of_patients_have_no_gap() -> None:
    generator = np.random.default_rng(3)
    target_B = generator.integers(2, size=(80, 1)).astype(float)
    score_B = generator.normal(size=(80, 1)) + target_B
    # Each patient has one view of either kind, with the same score.
    found = auroc_subgroups(
        np.concatenate([score_B] * 2),
        np.concatenate([target_B] * 2),
        np.repeat(["frontal", "lateral"], 80),
        np.tile(np.arange(80), 2),
        draws=50,
    )
    gap = found.per_finding[0].gap
    assert gap is not None
    # Drawn apart, the interval would be as wide as a group's own.
    assert (gap.value, gap.low, gap.high) == (0.0, 0.0, 0.0)


def test_compare_groups_means_where_lower_is_better_turn_the_gap_round() -> None:
    value_B = np.array([1.0] * 30 + [4.0] * 30 + [2.0] * 30 + [np.nan] * 5)
    group_B = ["a"] * 30 + ["b"] * 30 + ["c"] * 30 + ["a"] * 5
    known_B = ~np.isnan(value_B)
    for higher_is_better, best, worst in ((True, "b", "a"), (False, "a", "b")):
        found = compare_groups(
            mean_statistic(value_B[:, None]),
            known_B,
            group_B,
            np.arange(95),
            draws=50,
            higher_is_better=higher_is_better,
        )
        assert [(group.n, group.estimate.value) for group in found.groups if group.estimate] == [
            (30, 1.0),
            (30, 4.0),
            (30, 2.0),
        ]
        assert found.gap is not None
        assert (found.gap.best, found.gap.worst, found.gap.value) == (best, worst, 3.0)
        assert (found.gap.low, found.gap.high) == (3.0, 3.0)


def test_compare_groups_size_counts_patients_not_images() -> None:
    value_BM = np.arange(60.0)[:, None]
    found = compare_groups(
        mean_statistic(value_BM),
        np.ones(60, dtype=bool),
        ["one"] * 30 + ["many"] * 30,
        [*([0] * 30), *range(1, 31)],
        draws=20,
        min_patients=2,
    )
    many, one = found.groups
    assert (many.left_out, many.patients) == (None, 30)
    assert one.left_out == "1 patients, fewer than 2"
    assert found.gap is None


def test_compare_groups_without_any_label_has_no_groups() -> None:
    found = compare_groups(mean_statistic(np.ones((3, 1))), np.ones(3, dtype=bool), [None] * 3, list("abc"), draws=5)
    assert (found.groups, found.gap, found.unknown) == ((), None, 3)


def test_compare_groups_shapes_that_disagree_raise() -> None:
    with pytest.raises(ValueError, match="known_B, group_B, patient_B have shapes"):
        compare_groups(mean_statistic(np.ones((3, 1))), np.ones(3, dtype=bool), ["a", "b"], list("abc"))


def test_age_bands_edges_and_unknown_ages() -> None:
    ages = [0, 19.9, 20, 39, 40, 60, 79.99, 80, 101, None, np.nan]
    bands = ["0-19", "0-19", "20-39", "20-39", "40-59", "60-79", "60-79", "80+", "80+", None, None]
    assert age_bands(ages) == bands  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="age_years_B is -1"):
        age_bands([3.0, -1.0])
