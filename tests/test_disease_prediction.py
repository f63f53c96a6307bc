"""Disease prediction: results against the statistics used directly, and the linear probe on real images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from dataset_files import list_folder
from sklearn.metrics import roc_auc_score

from chexray.evals.disease_prediction import (
    DiseaseData,
    DiseaseEvaluation,
    LabelledSplit,
    Predicted,
    average_over_seeds,
    evaluate_disease_prediction,
)
from chexray.evals.label_draws import draw_labels
from chexray.evals.linear_probe import linear_probe
from chexray.evals.results import Result
from chexray.evals.statistics import auroc_estimates, bootstrap_weights, weighted_auroc
from chexray.platform.config import ModelConfig, VisionTower
from chexray.platform.corpus.schema import SourcePair
from chexray.platform.corpus.splits import SplitFractions, assign_split
from chexray.platform.evaluate_config import EvaluateConfig
from chexray.platform.model.encoder import build_model
from chexray.platform.model.features import feature_name, image_features
from chexray.platform.model.preprocess import model_pixels

Array = npt.NDArray[np.float64]
CONFIG = EvaluateConfig(bootstrap=100, min_positives=5, rare_below=0.1)
FINDINGS = ["Effusion", "Hernia", "Mass", "Nodule", "No Finding"]
"""Common; rare; with a single positive in the test split; absent from the train split; in no mean."""


def split(name: str, size: int, seed: int) -> LabelledSplit:
    draw = np.random.default_rng(seed)
    target_BF = (draw.random((size, 5)) < [0.4, 0.08, 0.3, 0.3, 0.5]).astype(np.float64)
    target_BF[draw.random(target_BF.shape) < 0.1] = np.nan
    patients = draw.integers(size // 2, size=size)
    return LabelledSplit([f"{name}{i}" for i in range(size)], [f"{name}p{i}" for i in patients], target_BF)


def made() -> DiseaseData:
    train, test = split("train", 300, 0), split("test", 200, 1)
    train.target_BF[:, 3] = np.where(train.target_BF[:, 3] == 1, np.nan, 0.0)
    single = np.flatnonzero(test.target_BF[:, 2] == 1)[1:]
    test.target_BF[single, 2] = 0.0
    return DiseaseData(FINDINGS, np.array([0.4, 0.08, 0.3, 0.3, 0.5]), train, test)


def guess(data: DiseaseData, seed: int = 0) -> Predicted:
    """Probabilities that tell a little; none for the finding that has no positive in train."""
    draw = np.random.default_rng(seed)
    probability_BF = np.nan_to_num(data.test.target_BF, nan=0.5) * 0.2 + draw.random(data.test.target_BF.shape) * 0.8
    probability_BF[:, 3] = np.nan
    reasons = (None, None, None, "no positive in the drawn train labels", None)
    return Predicted(probability_BF, reasons, "feature=x; guessed")


def evaluated(data: DiseaseData, seed: int = 0, config: EvaluateConfig = CONFIG) -> DiseaseEvaluation:
    return evaluate_disease_prediction("linear_probe", lambda rows: guess(data, seed), data, 0.1, seed, config)


def by_metric(results: list[Result]) -> dict[str, Result]:
    return {result.finding or result.metric: result for result in results}


def test_evaluation_results_equal_the_statistics_used_directly() -> None:
    data = made()
    found = by_metric(evaluated(data).results)
    probability_BF, target_BF, patient_B = guess(data).probability_BF, data.test.target_BF, data.test.patient_id
    for f in (0, 1, 2, 4):
        expected = auroc_estimates(probability_BF[:, [f]], target_BF[:, [f]], patient_B, 100, 0).per_finding[0]
        result = found[FINDINGS[f]]
        assert (result.value, result.low, result.high) == tuple(
            round(value, 6) for value in (expected.value, expected.low, expected.high)
        )
        assert (result.n, result.patients) == (expected.n, expected.patients)
        assert result.positives == int((target_BF[:, f] == 1).sum())
    means = {"mean_auroc": [0, 1], "mean_auroc_common": [0], "mean_auroc_rare": [1]}
    for metric, columns in means.items():
        mean = auroc_estimates(probability_BF[:, columns], target_BF[:, columns], patient_B, 100, 0).mean
        assert (found[metric].value, found[metric].low) == (round(mean.value, 6), round(mean.low, 6))
        assert found[metric].variant.endswith(f"; {len(columns)} findings with >= 5 positives")
        assert found[metric].finding is None
    assert {result.method for result in found.values()} == {"linear_probe"}


def test_evaluation_variant_names_protocol_share_and_seed() -> None:
    data = made()
    found = evaluated(data, seed=7)
    drawn = draw_labels(data.train.sample_id, data.train.patient_id, data.train.target_BF, 0.1, 7)
    assert found.draw.sample_id == drawn.sample_id
    assert by_metric(found.results)["Effusion"].variant == (
        f"feature=x; guessed; labels=0.1 of train ({len(drawn.row_D)} of 300 samples); label seed=7"
    )


def test_evaluation_finding_that_could_not_be_learned_has_a_reason_and_no_number() -> None:
    data = made()
    found = evaluated(data)
    result = by_metric(found.results)["Nodule"]
    assert (result.value, result.low, result.high) == (None, None, None)
    assert result.variant.endswith("; undefined: no positive in the drawn train labels")
    assert result.n == int((~np.isnan(data.test.target_BF[:, 3])).sum())
    rows = [row for row in found.predictions.to_pylist() if row["finding"] == "Nodule"]
    assert {row["probability"] for row in rows} == {None}


def test_evaluation_nothing_learned_has_no_means() -> None:
    data = made()
    nothing = Predicted(np.full((200, 5), np.nan), ("why not",) * 5, "x")
    found = evaluate_disease_prediction("fine_tuning", lambda rows: nothing, data, 1.0, 0, CONFIG)
    assert [result.value for result in found.results] == [None] * 8
    assert by_metric(found.results)["mean_auroc"].variant.endswith("0 findings with >= 5 positives")


def test_evaluation_predictions_hold_each_test_sample_and_finding() -> None:
    data = made()
    table = evaluated(data).predictions
    assert table.column_names == ["sample_id", "patient_id", "finding", "probability", "target"]
    rows = {(row["sample_id"], row["finding"]): row for row in table.to_pylist()}
    assert len(rows) == 200 * 5 == table.num_rows
    for b, sample in enumerate(data.test.sample_id):
        target = data.test.target_BF[b, 0]
        row = rows[sample, "Effusion"]
        assert row["target"] == (None if np.isnan(target) else target)
        assert row["probability"] == np.float32(guess(data).probability_BF[b, 0])


def test_evaluation_learner_is_given_the_drawn_rows_alone() -> None:
    data = made()
    given: list[list[int]] = []

    def learner(row_D: npt.NDArray[np.int64]) -> Predicted:
        given.append(row_D.tolist())
        return guess(data)

    found = evaluate_disease_prediction("linear_probe", learner, data, 0.3, 1, CONFIG)
    assert given == [found.draw.row_D.tolist()]
    assert sorted(data.train.sample_id[row] for row in given[0]) == list(found.draw.sample_id)


def test_evaluation_probabilities_of_another_shape_raise() -> None:
    data = made()
    short = replace(guess(data), probability_BF=np.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"probabilities have shape \(3, 5\); allowed: \(200, 5\)"):
        evaluate_disease_prediction("linear_probe", lambda rows: short, data, 1.0, 0, CONFIG)


def test_evaluation_changed_test_labels_change_no_prediction() -> None:
    data = made()
    draw = np.random.default_rng(0)
    feature = {name: draw.normal(size=(size, 4)) for name, size in (("train", 300), ("validation", 80), ("test", 200))}
    checked = split("validation", 80, 2).target_BF

    def learner(row_D: npt.NDArray[np.int64]) -> Predicted:
        train = (feature["train"][row_D], data.train.target_BF[row_D])
        return linear_probe(train, (feature["validation"], checked), feature["test"], "x")

    flipped = replace(data, test=replace(data.test, target_BF=1 - data.test.target_BF))
    one, other = (
        evaluate_disease_prediction("linear_probe", learner, each, 0.3, 0, CONFIG) for each in (data, flipped)
    )
    assert one.predictions["probability"] == other.predictions["probability"]
    assert one.draw.sample_id == other.draw.sample_id
    first, second = by_metric(one.results)["Effusion"].value, by_metric(other.results)["Effusion"].value
    assert first is not None
    assert second == pytest.approx(1 - first, abs=1e-6)


def test_average_over_seeds_is_the_mean_auroc_over_the_same_draws_of_patients() -> None:
    data = made()
    runs = [evaluated(data, seed) for seed in EvaluateConfig().label_seeds]
    predicted = {run.draw.seed: run.predicted for run in runs}
    found = by_metric(average_over_seeds("linear_probe", predicted, 0.1, data, CONFIG))
    weight_RB = bootstrap_weights(data.test.patient_id, 100, CONFIG.seed)

    def drawn_R(f: int) -> Array:
        aurocs = [
            weighted_auroc(run.predicted.probability_BF[:, f], data.test.target_BF[:, f], weight_RB) for run in runs
        ]
        return np.mean(aurocs, axis=0)

    low, high = np.nanquantile(drawn_R(1), [0.025, 0.975])
    assert (found["Hernia"].low, found["Hernia"].high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))
    low, high = np.nanquantile((drawn_R(0) + drawn_R(1)) / 2, [0.025, 0.975])
    mean = found["mean_auroc"]
    assert (mean.low, mean.high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))
    values = [by_metric(run.results)["mean_auroc"].value for run in runs]
    assert mean.value == pytest.approx(np.mean(values), abs=2e-6)  # type: ignore[arg-type]
    middle = sum(value for value in values if value) / 3
    deviation = (sum((value - middle) ** 2 for value in values if value) / 2) ** 0.5
    assert found["mean_auroc_deviation"].value == pytest.approx(deviation, abs=2e-6)
    assert found["Hernia"].n == by_metric(runs[0].results)["Hernia"].n
    assert found["Effusion"].variant == "feature=x; guessed; labels=0.1 of train; mean of label seeds 42,0,1"
    assert found["mean_auroc_deviation"].variant.startswith(
        "feature=x; guessed; labels=0.1 of train; label seeds 42,0,1; 2 findings"
    )
    assert found["Nodule"].value is None


def test_average_over_seeds_of_different_protocols_raises() -> None:
    data = made()
    runs = {0: guess(data), 1: replace(guess(data), protocol="feature=y")}
    with pytest.raises(ValueError, match=r"runs are of the protocols .*'feature=y'.; allowed: one"):
        average_over_seeds("linear_probe", runs, 0.1, data, CONFIG)


@pytest.fixture
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def nih_splits(root: Path) -> tuple[list[str], dict[str, tuple[Array, LabelledSplit]]]:
    """The findings, and by split the images' features of an untrained tower with what is known of them."""
    model = build_model(ModelConfig(vision=VisionTower(timm_model="resnet10t", image_size=96)), 0).eval()
    assert feature_name(model) == "average pool before the projection"
    pairs = [pair for pair in list_folder("nih", root) if isinstance(pair, SourcePair)]
    findings = sorted({name for pair in pairs for name in pair.labels}, key=lambda name: (name == "No Finding", name))
    splits = {}
    for name in ("train", "validation", "test"):
        chosen = [pair for pair in pairs if assign_split(pair.patient, 0, SplitFractions()) == name]
        image_BSS = np.stack([model_pixels((root / pair.image).read_bytes(), 96) for pair in chosen])
        with torch.inference_mode():
            parts = [image_features(model, part) for part in torch.from_numpy(image_BSS).split(64)]
        target_BF = np.array([[pair.labels[finding] for finding in findings] for pair in chosen], dtype=np.float64)
        ids = LabelledSplit([pair.sample_id for pair in chosen], [pair.patient for pair in chosen], target_BF)
        splits[name] = torch.cat(parts).double().numpy(), ids
    return findings, splits


@pytest.mark.slow
@pytest.mark.usefixtures("_one_thread")
def test_linear_probe_on_nih_finds_more_with_more_labels(real_data: Path) -> None:
    findings, splits = nih_splits(real_data / "nih")
    (train_BE, train), (validation_BE, validation), (test_BE, test) = (
        splits[name] for name in ("train", "validation", "test")
    )
    assert sum(len(ids.sample_id) for _, ids in splits.values()) == 790
    assert not set(train.patient_id) & set(test.patient_id)
    every_BF = np.concatenate([ids.target_BF for _, ids in splits.values()])
    data = DiseaseData(findings, every_BF.mean(axis=0), train, test)
    config = EvaluateConfig(bootstrap=1000)

    def learner(row_D: npt.NDArray[np.int64]) -> Predicted:
        known = (train_BE[row_D], train.target_BF[row_D])
        return linear_probe(known, (validation_BE, validation.target_BF), test_BE, "average pool")

    means = []
    for share in EvaluateConfig().label_shares:
        runs = [
            evaluate_disease_prediction("linear_probe", learner, data, share, seed, config)
            for seed in EvaluateConfig().label_seeds
        ]
        predicted = {run.draw.seed: run.predicted for run in runs}
        found = by_metric(average_over_seeds("linear_probe", predicted, share, data, config))
        mean, healthy = found["mean_auroc"], found["No Finding"]
        print(share, [len(run.draw.row_D) for run in runs], mean, healthy, sep="\n  ")
        assert mean.value is not None
        assert mean.low is not None
        assert mean.high is not None
        assert mean.low < mean.value < mean.high
        means.append(mean.value)
        direct = [roc_auc_score(test.target_BF[:, -1], run.predicted.probability_BF[:, -1]) for run in runs]
        assert healthy.value == pytest.approx(np.mean(direct), abs=1e-6)
    assert means[-1] > means[0]
    # Untrained features, but of real images, tell more than chance where all labels are there.
    assert healthy.low is not None
    assert healthy.low > 0.5
