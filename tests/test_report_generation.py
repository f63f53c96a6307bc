"""Report generation: it learns to look at the image, only the validation split chooses, and the seed decides the rest.

P: image tokens; C: width of the image features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from language_models import REPORTS, one_thread, save_language_model

from chexray.evals.report_generation import (
    Epoch,
    ReportPairs,
    best_epoch,
    evaluate_report_generation,
    generate_reports,
    mean_loss,
    train_reporter,
)
from chexray.platform.errors import UsageError
from chexray.platform.evaluate_config import ReportConfig

IMAGES = torch.randn(len(REPORTS), 3, 2, 2, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def pairs(name: str, reports: Sequence[str] = REPORTS, image: torch.Tensor = IMAGES) -> ReportPairs:
    ids = [f"{name}-{row}" for row in range(len(reports))]
    return ReportPairs(ids, ids, reports, lambda rows: image[list(rows)])


def config(name: str, **settings: Any) -> ReportConfig:
    quick = {"tune": "full", "epochs": 60, "batch": 6, "report_tokens": 40, "beams": (1, 3)}
    rates = {"learning_rate": 5e-3, "language_learning_rate": 5e-3}
    return ReportConfig(language_model=name, **(quick | rates | settings))


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("gpt2", {"tune": "full"}),
        ("llama", {"tune": "lora", "lora": {"dropout": 0.0}, "language_learning_rate": 1e-2}),
    ],
)
def test_training_on_few_pairs_writes_their_reports_and_swapped_images_swap_them(
    tmp_path: Path, family: str, settings: dict[str, Any]
) -> None:
    name = save_language_model(tmp_path, family, pad=family == "llama", padding_side="left")
    reporter = train_reporter(pairs("train"), pairs("validation"), config(name, **settings))
    order = [3, 0, 5, 1, 2, 4]
    swapped = pairs("test", image=IMAGES[order])
    for beams in (1, 3):
        assert generate_reports(reporter.model, pairs("test"), beams) == list(REPORTS)
        assert generate_reports(reporter.model, swapped, beams) == [REPORTS[row] for row in order]


def test_evaluation_of_what_was_learned_scores_one_in_both_decodings(tmp_path: Path) -> None:
    name = save_language_model(tmp_path, "gpt2")
    seen: list[int] = []
    result = evaluate_report_generation(
        pairs("train"),
        pairs("validation"),
        pairs("test"),
        config(name),
        draws=20,
        on_epoch=lambda number, epoch: seen.append(number),
    )
    values = {(one.metric, one.variant.split(";")[0]): one for one in result.results}
    for decoding in ("greedy", "beam search of 3"):
        for metric in ("bleu_1", "bleu_4", "rouge_l"):
            one = values[metric, decoding]
            assert (one.value, one.low, one.high, one.n, one.patients) == (1, 1, 1, 6, 6)
        assert result.texts[decoding]["generated"].to_pylist() == list(REPORTS)
        assert result.texts[decoding]["sample_id"].to_pylist() == [f"test-{row}" for row in range(6)]
    assert {one.metric for one in result.not_run} & {one.metric for one in result.results} == set()
    assert seen == list(range(60))


def test_training_away_from_the_validation_reports_keeps_the_epoch_that_they_liked_best(tmp_path: Path) -> None:
    name = save_language_model(tmp_path, "gpt2")
    # No word of these is in the train reports, so that they get ever less likely.
    other = pairs("validation", ["ZQXZQXZQX JKJKJK " * 2] * 6)
    reporter = train_reporter(pairs("train"), other, config(name, epochs=12))
    losses = [epoch.validation_loss for epoch in reporter.epochs]
    assert reporter.best_epoch == int(np.argmin(losses)) < 3
    # Measured error: 0.
    assert mean_loss(reporter.model, other) == pytest.approx(min(losses), rel=1e-6)
    assert losses[-1] > min(losses) + 0.05  # measured: 0.1


def test_training_twice_with_a_seed_is_the_same_and_another_seed_is_not(tmp_path: Path) -> None:
    name = save_language_model(tmp_path, "gpt2")
    runs = [
        train_reporter(pairs("train"), pairs("validation"), config(name, epochs=3, batch=4, seed=seed))
        for seed in (5, 5, 6)
    ]
    first, again, other = ([epoch.validation_loss for epoch in run.epochs] for run in runs)
    assert first == again
    assert first != other
    for one, two in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        assert torch.equal(one, two)
    assert generate_reports(runs[0].model, pairs("test"), 3) == generate_reports(runs[1].model, pairs("test"), 3)


def test_training_leaves_the_callers_random_numbers_alone(tmp_path: Path) -> None:
    name = save_language_model(tmp_path, "gpt2")
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    train_reporter(pairs("train"), pairs("validation"), config(name, epochs=1))
    assert torch.equal(torch.rand(1), expected)


def test_training_never_reaches_the_image_tower(tmp_path: Path) -> None:
    tower = torch.nn.Conv2d(1, 3, 4, stride=4)
    before = tower.weight.detach().clone()
    picture = torch.randn(len(REPORTS), 1, 8, 8)
    shown = [
        ReportPairs([name], [name], REPORTS[:1], lambda rows: tower(picture[list(rows)]))
        for name in ("train", "validation")
    ]
    name = save_language_model(tmp_path, "gpt2")
    reporter = train_reporter(shown[0], shown[1], config(name, epochs=2, tune="projector"))
    assert tower.weight.grad is None
    assert torch.equal(tower.weight, before)
    assert reporter.epochs[1].train_loss < reporter.epochs[0].train_loss


def test_projector_tuning_leaves_the_language_model_as_it_was(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    name = save_language_model(tmp_path, "llama")
    reporter = train_reporter(pairs("train"), pairs("validation"), config(name, tune="projector", epochs=2))
    kept = reporter.model.language_model.state_dict()
    for key, value in load_file(tmp_path / "model.safetensors").items():
        assert torch.equal(kept[key], value)


def test_training_adapters_of_a_bfloat16_model_keeps_what_is_trained_in_float32(tmp_path: Path) -> None:
    name = save_language_model(tmp_path, "llama")
    half = config(name, tune="lora", precision="bfloat16", epochs=4)
    reporter = train_reporter(pairs("train"), pairs("validation"), half)
    trained = reporter.model.trained()
    assert {value.dtype for value in trained.values()} == {torch.float32}
    kept = [value for name, value in reporter.model.named_parameters() if name not in trained]
    assert {value.dtype for value in kept} == {torch.bfloat16}
    assert reporter.epochs[3].validation_loss < reporter.epochs[0].validation_loss
    assert len(generate_reports(reporter.model, pairs("test"), 3)) == 6


def test_training_without_validation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the validation split has no pairs"):
        train_reporter(pairs("train"), pairs("validation", []), config(str(tmp_path)))


def test_training_on_blank_reports_is_refused_with_their_number(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the train split has 2 pairs without report, of 3"):
        train_reporter(pairs("train", ["a", " ", ""]), pairs("validation"), config(str(tmp_path)))


@pytest.mark.parametrize(("first", "second"), [("train", "validation"), ("train", "test"), ("validation", "test")])
def test_evaluation_with_a_patient_in_two_splits_is_refused(tmp_path: Path, first: str, second: str) -> None:
    names = {"train": "train", "validation": "validation", "test": "test"} | {second: first}
    splits = [pairs(names[split]) for split in ("train", "validation", "test")]
    with pytest.raises(UsageError, match=f"6 patients are in the {first} split and in the {second} split"):
        evaluate_report_generation(*splits, config(str(tmp_path)))


def test_evaluation_of_a_test_split_without_reports_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the test split has 2 pairs, and none has a report"):
        evaluate_report_generation(pairs("train"), pairs("validation"), pairs("test", ["", " "]), config(str(tmp_path)))


def test_training_on_images_too_large_for_the_language_model_is_refused(tmp_path: Path) -> None:
    name = save_language_model(tmp_path, "gpt2", positions=64)
    large = torch.randn(6, 3, 8, 8)
    with pytest.raises(UsageError, match="lower it, or image_grid"):
        train_reporter(pairs("train", image=large), pairs("validation", image=large), config(name))
    reporter = train_reporter(
        pairs("train", image=large), pairs("validation", image=large), config(name, epochs=1, image_grid=2)
    )
    assert reporter.best_epoch == 0


def test_features_that_are_not_one_an_image_are_refused(tmp_path: Path) -> None:
    name = save_language_model(tmp_path, "gpt2")
    wrong = ReportPairs(["a"], ["a"], ["No."], lambda rows: IMAGES[:2])
    with pytest.raises(ValueError, match="features gave 2 rows for 1 images"):
        train_reporter(wrong, pairs("validation"), config(name))


def test_best_epoch_is_the_first_of_equals_and_skips_what_is_no_number() -> None:
    losses = [float("nan"), 2.0, 1.0, 1.0]
    assert best_epoch([Epoch(0.0, loss) for loss in losses]) == 2
    with pytest.raises(UsageError, match="no number in any epoch"):
        best_epoch([Epoch(0.0, float("nan"))])
