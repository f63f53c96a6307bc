"""Checkpoints against a baseline on the same samples: numbers by hand, by DeLong's own test and by other libraries."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from score_folders import cell, drawn_predictions, ids, predictions, score_row, write_scores
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from chexray.evals.board.curves import GRID, curves
from chexray.evals.board.sample_scores import NotCompared, read_predictions, read_values
from chexray.evals.board.score_files import read_scores
from chexray.evals.board.significance import Contender, Outcome, compare, compare_findings, correct
from chexray.evals.comparison import Comparison
from chexray.evals.delong import delong_test

FINDINGS = ["Pneumonia", "Edema"]
DRAWS = 200


def contender(folder: Path, row: dict[str, Any], *files: dict[str, Any]) -> Contender:
    """One cell for each of `files`."""
    cells = [cell(row["checkpoint"], row["benchmark"], seed=n, path=f"c{n}") for n in range(len(files))]
    content = {f"c{n}/{name}": table for n, some in enumerate(files) for name, table in some.items()}
    found = read_scores(write_scores(folder, [row], cells, content))
    return Contender(found.rows[0], found.cells)


def zero_shot(folder: Path, table: pa.Table, **changes: Any) -> Contender:
    return contender(folder, score_row(folder.name, **changes), {"predictions.parquet": table})


def made(p_value: float) -> Outcome:
    return Outcome(Comparison(0.1, 0.0, 0.2, p_value, "paired bootstrap"))


def test_correct_follows_holm_by_hand_and_leaves_out_what_was_not_compared() -> None:
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1, and never below the one before: 0.03, 0.06, 0.06.
    found = correct([made(0.04), Outcome(None, reason="none"), made(0.01), made(0.03)])
    assert [one.p_holm for one in found if one.comparison] == pytest.approx([0.06, 0.03, 0.06])
    assert math.isnan(found[1].p_holm)
    assert [one.verdict(True) for one in found] == [
        "no difference shown",
        "not compared",
        "better",
        "no difference shown",
    ]
    assert found[2].verdict(higher_is_better=False) == "worse"


def test_compare_zero_shot_is_the_difference_of_mean_aurocs(tmp_path: Path) -> None:
    strong, strong_BF, target_BF = drawn_predictions(2.5, FINDINGS, 120, noise=1)
    weak, weak_BF, _ = drawn_predictions(0.5, FINDINGS, 120, noise=2)
    means = [np.mean([roc_auc_score(target_BF[:, f], one[:, f]) for f in range(2)]) for one in (strong_BF, weak_BF)]
    found = compare(
        zero_shot(tmp_path / "a", strong, value=float(means[0])),
        zero_shot(tmp_path / "b", weak, value=float(means[1])),
        DRAWS,
    )
    assert found.comparison is not None
    assert found.comparison.difference == pytest.approx(means[0] - means[1], abs=1e-12)
    assert found.comparison.low > 0
    assert found.comparison.p_value == pytest.approx(2 / (DRAWS + 1))
    assert (found.samples, found.notes) == (120, ())


def test_compare_uses_the_common_samples_and_says_how_many(tmp_path: Path) -> None:
    table, score_BF, target_BF = drawn_predictions(1.0, FINDINGS, 60)
    shifted = predictions(score_BF[20:], target_BF[20:], FINDINGS, first=20)
    found = compare(zero_shot(tmp_path / "a", table), zero_shot(tmp_path / "b", shifted), DRAWS)
    assert found.samples == 40
    assert found.comparison is not None
    assert found.comparison.difference == 0
    assert found.notes == ("on the 40 samples in common, of 60 and the baseline's 40",)


def test_compare_notes_files_that_do_not_give_the_headline(tmp_path: Path) -> None:
    table, _, _ = drawn_predictions(1.0, FINDINGS, 60)
    found = compare(zero_shot(tmp_path / "a", table, value=0.1), zero_shot(tmp_path / "b", table, value=0.1), DRAWS)
    assert len(found.notes) == 2
    assert "its headline says 0.1000" in found.notes[0]


def test_compare_leaves_out_no_finding_and_findings_with_few_positives(tmp_path: Path) -> None:
    findings = ["Pneumonia", "No Finding", "Hernia"]
    target_BF = np.tile([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], (20, 1))
    target_BF[0, 2] = 1.0
    right_BF, wrong_BF = target_BF.copy(), target_BF.copy()
    wrong_BF[:, 1:] = 1 - wrong_BF[:, 1:]
    row = {"variant": "prompts=presence; 1 findings with >= 2 positives", "value": 1.0}
    tables = [predictions(one, target_BF, findings) for one in (right_BF, wrong_BF)]
    found = compare(*(zero_shot(tmp_path / n, one, **row) for n, one in zip("ab", tables, strict=True)), DRAWS)
    assert found.comparison is not None
    assert found.comparison.difference == 0
    assert found.notes == ()


def test_compare_disease_prediction_is_of_the_largest_share_and_the_mean_over_seeds(tmp_path: Path) -> None:
    row = {"task": "disease_prediction", "method": "linear_probe"}
    contenders, means = [], []
    for name, strength in (("a", 2.0), ("b", 1.0)):
        files, aurocs = [], []
        for seed in (3, 4):
            options = {"method": "linear_probe", "share": 1.0}
            noise = seed + 10 * int(strength)
            table, score_BF, target_BF = drawn_predictions(strength, FINDINGS, 100, noise=noise, **options)
            aurocs += [roc_auc_score(target_BF[:, f], score_BF[:, f]) for f in range(2)]
            other, _, _ = drawn_predictions(-2.0, FINDINGS, 100, method="fine_tuning", share=1.0)
            small, _, _ = drawn_predictions(-2.0, FINDINGS, 100, method="linear_probe", share=0.01)
            files.append({"predictions.parquet": pa.concat_tables([small, other, table])})
        means.append(float(np.mean(aurocs)))
        contenders.append(contender(tmp_path / name, score_row(name, value=means[-1], **row), *files))
    found = compare(contenders[0], contenders[1], DRAWS)
    assert found.comparison is not None
    assert found.comparison.difference == pytest.approx(means[0] - means[1], abs=1e-12)
    assert found.notes == ()


def test_compare_findings_is_delongs_test_and_corrected(tmp_path: Path) -> None:
    first, first_BF, target_BF = drawn_predictions(2.0, FINDINGS, 80, noise=1)
    second, second_BF, _ = drawn_predictions(1.0, FINDINGS, 80, noise=2)
    tests = compare_findings(zero_shot(tmp_path / "a", first), zero_shot(tmp_path / "b", second))
    assert [test.finding for test in tests] == FINDINGS
    for f, test in enumerate(tests):
        expected = delong_test(first_BF[:, f], second_BF[:, f], target_BF[:, f], np.arange(80))
        assert test.comparison.p_value == pytest.approx(expected.p_value)
        assert test.comparison.difference == pytest.approx(expected.difference)
        assert test.positives == int(target_BF[:, f].sum())
    p_values = sorted(test.comparison.p_value for test in tests)
    assert sorted(test.p_holm for test in tests)[0] == pytest.approx(2 * p_values[0])


def test_compare_findings_of_two_equal_seeds_equals_that_of_one(tmp_path: Path) -> None:
    options = {"method": "linear_probe", "share": 1.0}
    first, second = (drawn_predictions(x, FINDINGS, 80, noise=n, **options)[0] for x, n in ((2.0, 1), (1.0, 2)))
    row = {"task": "disease_prediction", "method": "linear_probe"}
    one, two = [
        compare_findings(
            *(
                contender(tmp_path / f"{seeds}{n}", score_row(**row), *[{"predictions.parquet": table}] * seeds)
                for n, table in enumerate((first, second))
            )
        )
        for seeds in (1, 2)
    ]
    for single, double in zip(one, two, strict=True):
        assert double.comparison.difference == pytest.approx(single.comparison.difference)
        assert double.comparison.p_value == pytest.approx(single.comparison.p_value)
        assert (double.comparison.low, double.comparison.high) == pytest.approx(
            (single.comparison.low, single.comparison.high)
        )


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("image_to_text_recall@5", [1, 1, 0, 0]),
        ("text_to_image_mean_rank", [4, 3, 2, 1]),
        ("mean_recall@1", [0.5, 0, 0, 0.5]),
    ],
)
def test_read_values_of_ranks_are_hits_or_ranks(tmp_path: Path, metric: str, values: list[float]) -> None:
    table = pa.table(ids(4) | {"image_to_text_rank": [1.0, 5.0, 5.5, 9.0], "text_to_image_rank": [4.0, 3.0, 2.0, 1.0]})
    row = score_row(task="retrieval", metric=metric)
    one = contender(tmp_path / "a", row, {"ranks.parquet": table.take([3, 1, 2, 0])})
    found = read_values(one.row, one.cells)
    assert found.value_B.tolist() == values
    assert found.sample_B.tolist() == ids(4)["sample_id"]


def test_read_values_of_masks_are_means_over_an_images_defined_classes(tmp_path: Path) -> None:
    rows = [("s1", "lung", 0.5), ("s1", "heart", 0.9), ("s0", "lung", 0.4), ("s0", "heart", None)]
    table = pa.Table.from_pylist(
        [{"sample_id": s, "patient_id": "p", "class": c, "dice": dice, "iou": dice} for s, c, dice in rows]
    )
    files = {"masks.parquet": table}
    mean = contender(tmp_path / "a", score_row(task="segmentation", metric="mean_dice"), files)
    assert read_values(mean.row, mean.cells).value_B.tolist() == pytest.approx([0.4, 0.7])
    heart = contender(tmp_path / "b", score_row(task="segmentation", metric="iou", finding="heart"), files)
    np.testing.assert_array_equal(read_values(heart.row, heart.cells).value_B, [math.nan, 0.9])


def test_read_values_of_reports_are_of_the_rows_variant_and_decoding(tmp_path: Path) -> None:
    column = "rouge_l (rouge_score 0.1.2: mean F1, Porter stemmer)"
    other = "rouge_l (rouge_score 0.1.2: mean F1, no stemmer)"
    files = {
        "reports-greedy.parquet": pa.table(ids(2) | {column: [0.1, 0.2], other: [9.0, 9.0]}),
        "reports-beam-4.parquet": pa.table(ids(2) | {column: [0.3, 0.4], other: [9.0, 9.0]}),
    }
    row = score_row(
        task="report_generation", metric="rouge_l", variant="beam 4; rouge_score 0.1.2: mean F1, Porter stemmer"
    )
    one = contender(tmp_path / "a", row, files)
    assert read_values(one.row, one.cells).value_B.tolist() == [0.3, 0.4]


def test_compare_means_is_the_mean_paired_difference(tmp_path: Path) -> None:
    contenders = []
    for name, values in (("a", [1.0, 6.0, 1.0]), ("b", [2.0, 1.0, 9.0])):
        table = pa.table(ids(3) | {"image_to_text_rank": values, "text_to_image_rank": values})
        row = score_row(name, task="retrieval", metric="image_to_text_mean_rank", value=float(np.mean(values)))
        contenders.append(contender(tmp_path / name, row, {"ranks.parquet": table}))
    found = compare(contenders[0], contenders[1], DRAWS)
    assert found.comparison is not None
    assert found.comparison.difference == pytest.approx((8 - 12) / 3)


REASONS = [
    ({"metric": "mean_auroc_rare"}, {"metric": "mean_auroc_rare"}, "which findings"),
    ({"version": "1"}, {"version": "2"}, "the baseline's version is 2, its own 1"),
    ({"metric": "mean_auroc"}, {"metric": "auroc"}, "the baseline's metric is auroc"),
    ({}, {"value": None}, "the baseline's value is undefined"),
    ({"task": "report_generation", "metric": "bleu_4"}, {"task": "report_generation", "metric": "bleu_4"}, "BLEU"),
    ({"task": "retrieval", "metric": "recall@5"}, {"task": "retrieval", "metric": "recall@5"}, "ranks.parquet is not"),
]


@pytest.mark.parametrize(("own", "others", "said"), REASONS, ids=[said for _, _, said in REASONS])
def test_compare_says_why_two_numbers_are_not_compared(
    tmp_path: Path, own: dict[str, Any], others: dict[str, Any], said: str
) -> None:
    table, _, _ = drawn_predictions(1.0, FINDINGS)
    found = compare(zero_shot(tmp_path / "a", table, **own), zero_shot(tmp_path / "b", table, **others), DRAWS)
    assert found.comparison is None
    assert said in str(found.reason)


def test_compare_of_other_labels_or_samples_is_refused(tmp_path: Path) -> None:
    table, score_BF, target_BF = drawn_predictions(1.0, FINDINGS)
    relabelled, elsewhere = (
        predictions(score_BF, 1 - target_BF, FINDINGS),
        predictions(score_BF, target_BF, FINDINGS, 900),
    )
    base = zero_shot(tmp_path / "a", table)
    assert "other labels" not in str(compare(base, base, DRAWS).reason)
    assert "different labels" in str(compare(base, zero_shot(tmp_path / "b", relabelled), DRAWS).reason)
    assert "no sample in common" in str(compare(base, zero_shot(tmp_path / "c", elsewhere), DRAWS).reason)


def test_read_predictions_without_a_file_says_so(tmp_path: Path) -> None:
    one = contender(tmp_path / "a", score_row(), {})
    with pytest.raises(NotCompared, match=r"predictions\.parquet is not there"):
        read_predictions(one.row, one.cells)


@pytest.mark.parametrize("levels", [4, 1000])
def test_curves_are_scikit_learns(levels: int) -> None:
    random = np.random.default_rng(levels)
    target_B = (random.random(500) < 0.2).astype(float)
    score_B = np.round((target_B + random.normal(size=500)) * levels) / levels
    unknown_B = np.append(target_B, math.nan)
    found = curves(np.append(score_B, 0.0), unknown_B, grid=None)
    assert found is not None
    false, true, _ = roc_curve(target_B, score_B, drop_intermediate=False)
    np.testing.assert_allclose(found.roc.x_P, false, atol=1e-15)
    np.testing.assert_allclose(found.roc.y_P, true, atol=1e-15)
    precision, recall, _ = precision_recall_curve(target_B, score_B)
    np.testing.assert_allclose(found.precision_recall.x_P, recall[::-1], atol=1e-15)
    np.testing.assert_allclose(found.precision_recall.y_P, precision[::-1], atol=1e-15)
    assert found.average_precision == pytest.approx(average_precision_score(target_B, score_B))
    assert found.prevalence == pytest.approx(target_B.mean())


def test_curves_thinned_are_few_points_within_a_grid_step() -> None:
    random = np.random.default_rng(0)
    target_B = (random.random(50_000) < 0.3).astype(float)
    score_B = target_B + random.normal(size=50_000)
    thin, whole = curves(score_B, target_B), curves(score_B, target_B, grid=None)
    assert thin is not None
    assert whole is not None
    assert len(thin.roc.x_P) <= 2 * GRID + 2 < len(whole.roc.x_P)
    assert (thin.roc.x_P[-1], thin.roc.y_P[-1]) == (1.0, 1.0)
    between_P = np.interp(whole.roc.x_P, thin.roc.x_P, thin.roc.y_P)
    assert np.abs(between_P - whole.roc.y_P).max() <= 1 / GRID
    assert auc(thin.roc.x_P, thin.roc.y_P) == pytest.approx(roc_auc_score(target_B, score_B), abs=1 / GRID)


@pytest.mark.parametrize("target", [[1.0, 1.0], [0.0, math.nan]])
def test_curves_without_both_classes_are_none(target: list[float]) -> None:
    assert curves(np.array([0.1, 0.2]), np.array(target)) is None
