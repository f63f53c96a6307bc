"""Fine-tuning against losses worked out by hand and scikit-learn, and what must and must not change its predictions."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from torch import nn

from chexray.evals.fine_tuning import (
    Epoch,
    LabelledImages,
    TunedPrediction,
    fine_tune,
    masked_bce,
    rate_factor,
)
from chexray.platform.config import ModelConfig, VisionTower
from chexray.platform.errors import UsageError
from chexray.platform.evaluate_config import FineTuningConfig
from chexray.platform.model.encoder import build_model
from chexray.platform.model.features import FeatureTower

Images = npt.NDArray[np.uint8]
QUICK = FineTuningConfig(epochs=6, batch=16, head_lr=1e-2, encoder_lr=1e-2)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class SmallEncoder(nn.Module):
    """uint8 [b, 12, 12] to [b, 6], with a batch normalisation and a dropout as towers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 5, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.1), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, image_bSS: torch.Tensor) -> torch.Tensor:
        feature_bE: torch.Tensor = self.layers(image_bSS[:, None].float() / 255).flatten(1)
        return feature_bE


def encoder() -> SmallEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return SmallEncoder()


def made(size: int, seed: int) -> LabelledImages:
    """Noise with a striped patch: finding 0 says that the stripes lie, finding 1 that a bright cross is there too."""
    draw = np.random.default_rng(seed)
    target_n2 = (draw.random((size, 2)) < 0.4).astype(np.float64)
    image_nSS = draw.integers(0, 120, (size, 12, 12), dtype=np.uint8)
    for image, (lying, cross) in zip(image_nSS, target_n2, strict=True):
        row, column = draw.integers(0, 7, 2)
        if cross:
            image[row + 2, column : column + 5] = image[row : row + 5, column + 2] = 190
        top, left = draw.integers(0, 5, 2)
        patch = image[top : top + 8, left : left + 8]
        (patch if lying else patch.T)[::2] += 60
    return LabelledImages(image_nSS, target_n2)


def tune(
    train: LabelledImages,
    validation: LabelledImages,
    test: Images,
    seed: int = 0,
    protocol: FineTuningConfig = QUICK,
) -> TunedPrediction:
    return fine_tune(encoder(), train, validation, test, "average pool", seed, protocol)


def pixels(split: LabelledImages) -> Images:
    assert isinstance(split.pixels, np.ndarray)
    return split.pixels


def test_masked_bce_unknown_targets_is_the_mean_log_loss_of_the_known() -> None:
    logit_bG = torch.tensor([[0.0, 2.0], [-1.0, 5.0]])
    target_bG = torch.tensor([[1.0, 0.0], [0.0, math.nan]])
    # ln 2, 2 + ln(1 + e^-2), ln(1 + e^-1)
    expected = (0.6931471806 + 2.1269280110 + 0.3132616875) / 3
    assert float(masked_bce(logit_bG, target_bG)) == pytest.approx(expected, abs=1e-6)


def test_masked_bce_nothing_known_is_zero_and_has_no_gradient() -> None:
    logit_bG = torch.zeros(3, 2, requires_grad=True)
    loss = masked_bce(logit_bG, torch.full((3, 2), math.nan))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert logit_bG.grad is not None
    assert not logit_bG.grad.any()


def test_rate_factor_rises_to_one_and_falls_to_zero_by_a_cosine() -> None:
    factors = [rate_factor(step, 10, 0.2) for step in range(11)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert factors[6] == pytest.approx(0.5)
    assert factors[10] == pytest.approx(0.0)
    assert factors[2:] == sorted(factors[2:], reverse=True)
    assert [rate_factor(step, 1, 0.0) for step in (0, 1)] == [1.0, 0.0]


def test_fine_tuning_shapes_in_noise_are_found_because_the_encoder_learns_too() -> None:
    train, validation, test = made(400, 0), made(100, 1), made(150, 2)
    auroc = {}
    for encoder_lr in (1e-2, 1e-12):
        protocol = QUICK.model_copy(update={"epochs": 15, "encoder_lr": encoder_lr})
        found = tune(train, validation, pixels(test), protocol=protocol)
        auroc[encoder_lr] = [roc_auc_score(test.target_nF[:, f], found.probability_BF[:, f]) for f in range(2)]
    # Measured: 0.93 and 1.00, and where the encoder stays as it is 0.66 and 0.84.
    assert min(auroc[1e-2]) > 0.75
    assert np.mean(auroc[1e-2]) > np.mean(auroc[1e-12]) + 0.1


def test_fine_tuning_encoder_without_weights_equals_logistic_regression() -> None:
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (size, 3, 3), dtype=np.uint8) for size in (300, 200, 100)]
    weight_E = draw.normal(size=9)
    target = [
        (((x.reshape(-1, 9) / 255 - 0.5) @ weight_E + 0.3 * draw.logistic(size=len(x))) > 0).astype(float)[:, None]
        for x in images
    ]

    class Flat(nn.Module):
        def forward(self, image_bSS: torch.Tensor) -> torch.Tensor:
            return (image_bSS.float() / 255 - 0.5).flatten(1) * 4

    # One batch an epoch: its loss is that of the weights before the epoch's step.
    protocol = FineTuningConfig(epochs=200, patience=200, batch=300, head_lr=0.1, decay=0.0)
    splits = [LabelledImages(x, y) for x, y in zip(images, target, strict=True)]
    found = fine_tune(Flat(), splits[0], splits[1], images[2], "pixels", 0, protocol)
    flat = [(x.reshape(-1, 9) / 255 - 0.5) * 4 for x in images]
    optimum = LogisticRegression(C=1e8, tol=1e-8, max_iter=1000).fit(flat[0], target[0][:, 0])
    least = log_loss(target[0][:, 0], optimum.predict_proba(flat[0]))
    # Measured error: 7.8e-6.
    assert found.epochs[-1].train_loss == pytest.approx(least, abs=1e-4)
    ours, theirs = found.probability_BF[:, 0], optimum.predict_proba(flat[2])[:, 1]
    assert roc_auc_score(target[2][:, 0], ours) == pytest.approx(roc_auc_score(target[2][:, 0], theirs), abs=0.02)


def test_fine_tuning_same_seed_gives_the_same_bits_and_leaves_the_encoder_and_the_random_state_alone() -> None:
    train, validation, test = made(60, 0), made(40, 1), made(20, 2)
    given = encoder()
    before, state = copy.deepcopy(given.state_dict()), torch.get_rng_state()
    runs = [fine_tune(given, train, validation, pixels(test), "average pool", 3, QUICK) for _ in range(2)]
    np.testing.assert_array_equal(runs[0].probability_BF, runs[1].probability_BF)
    assert runs[0].epochs == runs[1].epochs
    assert all(torch.equal(value, before[name]) for name, value in given.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    other = tune(train, validation, pixels(test), seed=4)
    assert not np.array_equal(other.probability_BF, runs[0].probability_BF)


def test_fine_tuning_chosen_epoch_is_the_best_on_validation_and_its_weights_predict() -> None:
    train, validation = made(60, 0), made(40, 1)
    reported: list[Epoch] = []
    found = fine_tune(encoder(), train, validation, validation.pixels, "x", 0, QUICK, report=reported.append)
    assert tuple(reported) == found.epochs
    assert [epoch.number for epoch in found.epochs] == list(range(1, len(found.epochs) + 1))
    assert found.chosen is not None
    assert found.chosen.validation_auroc == max(epoch.validation_auroc for epoch in found.epochs)
    # The test images are the validation images here, so that the predictions are the chosen epoch's, or are not.
    target_nF = validation.target_nF
    auroc_2 = [roc_auc_score(target_nF[:, f], found.probability_BF[:, f]) for f in range(2)]
    assert np.mean(auroc_2) == pytest.approx(found.chosen.validation_auroc, abs=1e-12)
    assert log_loss(target_nF.ravel(), found.probability_BF.ravel()) == pytest.approx(found.chosen.validation_loss)
    assert found.because == (
        f"highest validation AUROC {found.chosen.validation_auroc:.4f}, the mean of 2 findings, "
        f"of {len(found.epochs)} epochs trained"
    )


def test_fine_tuning_stops_when_patience_ends() -> None:
    train, validation, test = made(60, 0), made(30, 1), made(10, 2)
    # Labels of chance: the validation split soon has its best epoch.
    chance = np.random.default_rng(1).integers(0, 2, (30, 2)).astype(np.float64)
    protocol = QUICK.model_copy(update={"epochs": 60, "patience": 3})
    found = tune(train, replace(validation, target_nF=chance), pixels(test), protocol=protocol)
    assert found.chosen is not None
    assert len(found.epochs) < 60
    assert len(found.epochs) == found.chosen.number + 3


def test_fine_tuning_changed_validation_labels_change_the_choice_but_not_the_training() -> None:
    train, validation, test = made(60, 0), made(40, 1), made(20, 2)
    one = tune(train, validation, pixels(test))
    other = tune(train, replace(validation, target_nF=1 - validation.target_nF), pixels(test))
    assert [epoch.train_loss for epoch in one.epochs] == [epoch.train_loss for epoch in other.epochs]
    assert one.chosen is not None
    assert other.chosen is not None
    assert one.chosen.number != other.chosen.number


def test_fine_tuning_changed_test_images_change_no_other_image_and_no_choice() -> None:
    train, validation, test = made(60, 0), made(40, 1), made(20, 2)
    changed = pixels(test).copy()
    changed[5] = 255
    one, other = tune(train, validation, pixels(test)), tune(train, validation, changed)
    assert one.epochs == other.epochs
    rest = np.arange(20) != 5
    np.testing.assert_array_equal(one.probability_BF[rest], other.probability_BF[rest])
    assert not np.array_equal(one.probability_BF[5], other.probability_BF[5])


def test_fine_tuning_images_of_which_nothing_is_known_equal_dropped_rows_bit_by_bit() -> None:
    train, validation, test = made(60, 0), made(40, 1), made(20, 2)
    hidden = np.arange(60) % 3 == 0
    masked = LabelledImages(train.pixels, np.where(hidden[:, None], np.nan, train.target_nF))
    dropped = LabelledImages(pixels(train)[~hidden], train.target_nF[~hidden])
    one, other = tune(masked, validation, pixels(test)), tune(dropped, validation, pixels(test))
    np.testing.assert_array_equal(one.probability_BF, other.probability_BF)
    assert one.epochs == other.epochs


class Reader:
    """Images made when they are asked for; remembers how many at a time."""

    def __init__(self, image_nSS: Images) -> None:
        self.image_nSS, self.most = image_nSS, 0

    def __len__(self) -> int:
        return len(self.image_nSS)

    def __getitem__(self, row_b: npt.NDArray[np.int64], /) -> Images:
        self.most = max(self.most, len(row_b))
        return np.stack([self.image_nSS[row] for row in row_b.tolist()])


def test_fine_tuning_images_read_by_the_batch_predict_as_those_held_in_memory() -> None:
    train, validation, test = made(60, 0), made(40, 1), made(35, 2)
    readers = [Reader(pixels(split)) for split in (train, validation, test)]
    one = tune(train, validation, pixels(test))
    other = fine_tune(
        encoder(),
        LabelledImages(readers[0], train.target_nF),
        LabelledImages(readers[1], validation.target_nF),
        readers[2],
        "average pool",
        0,
        QUICK,
    )
    np.testing.assert_array_equal(one.probability_BF, other.probability_BF)
    assert max(reader.most for reader in readers) <= QUICK.batch


def test_fine_tuning_one_class_in_train_is_undefined_and_changes_no_other_finding() -> None:
    train, validation, test = made(60, 0), made(40, 1), made(20, 2)
    target_n3 = np.column_stack([train.target_nF[:, 0], np.zeros(60), train.target_nF[:, 1]])
    checked_n3 = np.column_stack([validation.target_nF[:, 0], np.ones(40), validation.target_nF[:, 1]])
    found = tune(replace(train, target_nF=target_n3), replace(validation, target_nF=checked_n3), pixels(test))
    assert found.undefined == (None, "no positive in the drawn train labels", None)
    assert np.isnan(found.probability_BF[:, 1]).all()
    plain = tune(train, validation, pixels(test))
    np.testing.assert_array_equal(found.probability_BF[:, [0, 2]], plain.probability_BF)


def test_fine_tuning_one_class_in_validation_is_chosen_by_loss() -> None:
    train, validation, test = made(60, 0), made(40, 1), made(20, 2)
    absent = replace(validation, target_nF=np.where(validation.target_nF == 1, np.nan, 0.0))
    found = tune(train, absent, pixels(test))
    assert all(math.isnan(epoch.validation_auroc) for epoch in found.epochs)
    assert found.chosen is not None
    assert found.chosen.validation_loss == min(epoch.validation_loss for epoch in found.epochs)
    assert found.because.startswith("lowest validation loss")


def test_fine_tuning_without_validation_labels_refuses() -> None:
    train, test = made(20, 0), made(5, 2)
    empty = LabelledImages(pixels(train)[:0], np.empty((0, 2)))
    with pytest.raises(UsageError, match=r"validation split has 0 samples .* and the epoch is chosen"):
        tune(train, empty, pixels(test))
    # Known is only what has one class in train.
    one_class = np.column_stack([train.target_nF[:, 0], np.zeros(20)])
    other = LabelledImages(pixels(train), np.column_stack([np.full(20, np.nan), train.target_nF[:, 1]]))
    with pytest.raises(UsageError, match="validation split has 20 samples and no known label"):
        tune(replace(train, target_nF=one_class), other, pixels(test))


def test_fine_tuning_nothing_to_learn_is_undefined_without_training() -> None:
    train, validation, test = made(20, 0), made(10, 1), made(5, 2)
    found = tune(replace(train, target_nF=np.zeros((20, 2))), validation, pixels(test))
    assert np.isnan(found.probability_BF).all()
    assert found.undefined == ("no positive in the drawn train labels",) * 2
    assert (found.chosen, found.because, found.epochs) == (None, "no finding could be learned", ())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.zeros((19, 2)), "20 images have 19 rows of targets"),
        (np.full((20, 2), -1.0), "target is -1; allowed"),
    ],
)
def test_fine_tuning_wrong_train_targets_raises(target: npt.NDArray[np.float64], message: str) -> None:
    train, validation, test = made(20, 0), made(10, 1), made(5, 2)
    with pytest.raises(ValueError, match=message):
        tune(replace(train, target_nF=target), validation, pixels(test))


def test_fine_tuning_loss_that_is_not_finite_raises_with_the_rates() -> None:
    class Broken(SmallEncoder):
        def forward(self, image_bSS: torch.Tensor) -> torch.Tensor:
            return super().forward(image_bSS) * math.inf

    train, validation, test = made(20, 0), made(10, 1), made(5, 2)
    with pytest.raises(ValueError, match=r"the loss of fine-tuning is nan at encoder_lr 0\.01, head_lr 0\.01"):
        fine_tune(Broken(), train, validation, test.pixels, "x", 0, QUICK)


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch": 3}, {"patience": 0}, {"head_lr": 0.0}, {"warmup": 1.0}, {"decay": -1.0}]
)
def test_fine_tuning_protocol_out_of_range_raises(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FineTuningConfig(**wrong)  # type: ignore[arg-type]


def test_fine_tuning_tower_of_a_model_learns_from_its_pixels() -> None:
    config = ModelConfig(embed_dim=16, vision=VisionTower(timm_model="test_convnext", image_size=32))
    model = build_model(config, 0)
    draw = np.random.default_rng(0)
    target_n1 = (np.arange(36) % 2 == 0).astype(np.float64)[:, None]
    image_nSS = draw.integers(0, 60, (36, 32, 32), dtype=np.uint8)
    image_nSS[:, 8:24, 8:24] += (120 * target_n1[:, :, None]).astype(np.uint8)
    protocol = FineTuningConfig(epochs=4, batch=9, encoder_lr=1e-3, head_lr=1e-2)
    tower = FeatureTower(model)
    parts = [LabelledImages(image_nSS[i::3], target_n1[i::3]) for i in range(3)]
    found = fine_tune(tower, parts[0], parts[1], parts[2].pixels, tower.name, 0, protocol)
    assert found.protocol == (
        "feature=average pool before the projection; fine-tuned; AdamW, lr 0.001 encoder, 0.01 head, cosine, batch 9, "
        "best of up to 4 epochs by validation AUROC"
    )
    assert roc_auc_score(parts[2].target_nF[:, 0], found.probability_BF[:, 0]) == 1.0
