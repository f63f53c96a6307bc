"""Segmentation: a decoder learns where bright discs are, the same way each time, and never from test masks."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from mean_masks import best_mean_mask_dice
from open_clip.timm_model import TimmModel

from chexray.evals.decoders import DECODERS
from chexray.evals.masked_images import MaskedImages
from chexray.evals.overlap import overlap
from chexray.evals.segmentation import (
    Segmenter,
    mask_at,
    protocol_name,
    segmentation_loss,
    train_segmenter,
)
from chexray.evals.segmentation_results import score_segmenter, segment
from chexray.platform.corpus.raster import decode_mask, encode_image
from chexray.platform.errors import ChexrayError
from chexray.platform.evaluate_config import DecoderName, SegmentationConfig
from chexray.platform.model.layers import ImageLayers

SIZE = 64
QUICK = SegmentationConfig(decoder="linear", epochs=6, lr=0.02)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def layers() -> ImageLayers:
    torch.manual_seed(0)
    return ImageLayers(TimmModel("test_efficientnet", 16, SIZE, pool="", proj="linear"), SIZE)


def disc(seed: int, empty: bool = False) -> tuple[bytes, list[bytes]]:
    """A noisy image of odd size with a bright disc, and the masks of the disc and of its upper half."""
    generator = np.random.default_rng(seed)
    height, width = generator.integers(70, 110, 2)
    row, column = np.mgrid[:height, :width]
    centre = generator.uniform(0.3, 0.7, 2) * (height, width)
    radius = generator.uniform(0.15, 0.25) * min(height, width)
    inside = (row - centre[0]) ** 2 + (column - centre[1]) ** 2 < (0 if empty else radius**2)
    image = generator.normal(60, 12, (height, width)) + 120 * inside
    png = encode_image(np.clip(image, 0, 255).astype(np.uint8), "png")
    return png, [encode_image((mask * 255).astype(np.uint8), "png") for mask in (inside, inside & (row < centre[0]))]


def discs(seeds: Sequence[int], classes: int = 1, empty: Sequence[int] = ()) -> MaskedImages:
    drawn = [disc(seed, seed in empty) for seed in seeds]
    names = [f"disc-{seed}" for seed in seeds]
    return MaskedImages(names, names, [image for image, _ in drawn], [masks[:classes] for _, masks in drawn])


def predictions(segmenter: Segmenter, data: MaskedImages) -> list[np.ndarray]:
    return list(segmenter.predict(data.image))


def mean_dice(segmenter: Segmenter, data: MaskedImages) -> float:
    masks = enumerate(segmenter.predict(data.image))
    return float(np.mean([overlap(mask, data.truth(row).astype(bool), "one")[0] for row, mask in masks]))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("fine_tune", [False, True], ids=["frozen", "fine-tuned"])
def test_segmenter_finds_discs_that_it_never_saw(layers: ImageLayers, decoder: DecoderName, fine_tune: bool) -> None:
    epochs, lr = (20, 0.1) if decoder == "linear" else (4, 5e-3)
    config = SegmentationConfig(decoder=decoder, fine_tune=fine_tune, epochs=epochs, lr=lr, tower_lr=1e-3)
    segmenter = train_segmenter(layers, discs(range(16)), discs(range(16, 20)), SIZE, config)
    test = discs(range(20, 28))
    # Measured: 0.84 and 0.97 linearly, frozen and fine-tuned, 0.91 and 0.92 by the U-Net; 0.36 with one mask.
    assert mean_dice(segmenter, test) > 0.7 > 1.2 * best_mean_mask_dice(discs(range(16)), test, SIZE).mean()
    for mask_CHW, row in zip(predictions(segmenter, test), range(8), strict=True):
        assert (mask_CHW.dtype, mask_CHW.shape) == (np.bool_, test.truth(row).shape)


def test_segmenter_learns_overlapping_classes_each_by_itself(layers: ImageLayers) -> None:
    config = SegmentationConfig(epochs=14, lr=3e-3)
    splits = {"train": discs(range(16), 2), "validation": discs(range(16, 20), 2), "test": discs(range(20, 26), 2)}
    results, table, _ = segment(layers, splits, ["disc", "upper half"], SIZE, config, draws=50)
    value = {(result.metric, result.finding): result.value for result in results}
    assert value["dice", "disc"] > 0.75
    assert value["dice", "upper half"] > 0.5
    assert value["mean_dice", None] == pytest.approx(
        (value["dice", "disc"] + value["dice", "upper half"]) / 2, abs=1e-6
    )
    masks = [decode_mask(png) > 0 for png in table["mask"].to_pylist()]
    both = [(whole & half).sum() for whole, half in zip(masks[::2], masks[1::2], strict=True)]
    assert min(both) > 0  # a softmax over classes could not say both


@pytest.mark.parametrize("fine_tune", [False, True], ids=["frozen", "fine-tuned"])
def test_training_twice_gives_the_same_bits_and_another_seed_others(layers: ImageLayers, fine_tune: bool) -> None:
    train, validation, test = discs(range(8)), discs(range(8, 10)), discs(range(10, 12))
    config = QUICK.model_copy(update={"fine_tune": fine_tune, "epochs": 2})
    first, second, other = (
        train_segmenter(layers, train, validation, SIZE, config.model_copy(update={"seed": seed})) for seed in (0, 0, 1)
    )
    assert first.validation_dice == second.validation_dice != other.validation_dice
    states = [segmenter.decoder.state_dict() for segmenter in (first, second)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    for one, two in zip(predictions(first, test), predictions(second, test), strict=True):
        np.testing.assert_array_equal(one, two)


def test_training_leaves_the_callers_random_state_and_the_frozen_encoder_alone(layers: ImageLayers) -> None:
    before = copy.deepcopy(layers.state_dict())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_segmenter(layers, discs(range(4)), discs([4]), SIZE, QUICK.model_copy(update={"epochs": 1}))
    assert torch.equal(torch.rand(3), expected)
    tuned = train_segmenter(
        layers, discs(range(4)), discs([4]), SIZE, QUICK.model_copy(update={"epochs": 1, "fine_tune": True})
    )
    assert all(torch.equal(value, before[name]) for name, value in layers.state_dict().items())
    changed = [name for name, value in tuned.maps.state_dict().items() if not torch.equal(value, before[name])]  # type: ignore[attr-defined]
    assert any("conv_stem" in name for name in changed)
    assert not any("running" in name for name in changed)


def test_changed_test_masks_change_scores_but_no_prediction(layers: ImageLayers) -> None:
    splits = {"train": discs(range(8)), "validation": discs(range(8, 10)), "test": discs(range(10, 13))}
    turned = [[encode_image(255 - decode_mask(png), "png") for png in masks] for masks in splits["test"].mask]
    other = splits | {"test": replace(splits["test"], mask=turned)}
    (results, table, first), (changed, others, second) = (
        segment(layers, data, ["disc"], SIZE, QUICK, draws=20) for data in (splits, other)
    )
    assert table["mask"].to_pylist() == others["mask"].to_pylist()
    assert (first.epoch, first.validation_dice) == (second.epoch, second.validation_dice)
    assert results[0].value != changed[0].value


def test_epoch_is_the_first_with_the_best_validation_dice_and_its_weights_are_kept(layers: ImageLayers) -> None:
    validation = discs(range(16, 19))
    segmenter = train_segmenter(
        layers, discs(range(8)), validation, SIZE, QUICK.model_copy(update={"lr": 0.3, "epochs": 8})
    )
    dice = segmenter.validation_dice
    assert len(dice) == 8
    assert segmenter.epoch == dice.index(max(dice))
    # Measured worst error: 0.
    assert mean_dice(segmenter, validation) == pytest.approx(max(dice), abs=1e-6)


def test_validation_masks_choose_the_epoch_but_do_not_teach(layers: ImageLayers) -> None:
    train, validation, other = discs(range(8)), discs(range(8, 11)), discs(range(40, 43))
    first, second = (train_segmenter(layers, train, data, SIZE, QUICK) for data in (validation, other))
    # The epochs are the same whoever watches: chosen to be equal, the weights are.
    assert first.validation_dice != second.validation_dice
    last = QUICK.model_copy(update={"epochs": 1})
    one, two = (train_segmenter(layers, train, data, SIZE, last).decoder.state_dict() for data in (validation, other))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("fine_tune", [False, True], ids=["frozen", "fine-tuned"])
@pytest.mark.parametrize("cache_bytes", [0, 300_000])
def test_maps_that_are_computed_anew_give_what_kept_ones_give(
    layers: ImageLayers, fine_tune: bool, cache_bytes: int
) -> None:
    config = QUICK.model_copy(update={"epochs": 2, "fine_tune": fine_tune})
    kept, anew = (
        train_segmenter(layers, discs(range(6)), discs([6, 7]), SIZE, config.model_copy(update={"cache_bytes": bytes_}))
        for bytes_ in (config.cache_bytes, cache_bytes)
    )
    # An image's maps depend on its batch by rounding. Measured worst error: 0.
    for name, value in kept.decoder.state_dict().items():
        torch.testing.assert_close(anew.decoder.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_maps_of_a_frozen_encoder_are_computed_once_an_image(layers: ImageLayers) -> None:
    class Counting:
        variant = "counted"
        images = 0

        def __call__(self, image_bSS: torch.Tensor) -> tuple[torch.Tensor, ...]:
            self.images += len(image_bSS)
            maps: tuple[torch.Tensor, ...] = layers(image_bSS)
            return maps

    counting = Counting()
    segmenter = train_segmenter(counting, discs(range(6)), discs([6, 7]), SIZE, QUICK.model_copy(update={"epochs": 4}))
    assert counting.images == 6 + 2
    assert segmenter.variant.startswith("linear decoder on counted; encoder frozen; ")
    with pytest.raises(ValueError, match="fine_tune is true and maps is a Counting; allowed: a torch module"):
        train_segmenter(counting, discs(range(6)), discs([6]), SIZE, QUICK.model_copy(update={"fine_tune": True}))


def test_score_of_known_predictions_is_as_counted_by_hand() -> None:
    segmenter = fixed_segmenter({"a": ["##..", "##.."], "b": ["....", "...."], "c": ["#...", "...."]})
    data = small_images({"a": ["##..", "...."], "b": ["....", "...."], "c": ["....", "...."]})
    results, table = score_segmenter(segmenter, data, ["square"], "one", draws=200)
    # a: 2 of 4 predicted and 2 true: Dice 4/6, IoU 2/4. b: both empty. c: only predicted.
    assert table["dice"].to_pylist() == pytest.approx([2 / 3, 1, 0], abs=1e-7)
    assert table["iou"].to_pylist() == pytest.approx([1 / 2, 1, 0], abs=1e-7)
    assert (table["pixels"].to_pylist(), table["predicted_pixels"].to_pylist()) == ([2, 0, 0], [4, 0, 1])
    assert [(r.metric, r.finding, r.n, r.patients, r.positives) for r in results] == [
        ("dice", "square", 3, 3, 1),
        ("iou", "square", 3, 3, 1),
    ]
    assert [r.value for r in results] == pytest.approx([5 / 9, 1 / 2], abs=1e-6)
    assert all(r.low <= r.value <= r.high for r in results)  # type: ignore[operator]
    assert all((decode_mask(png) > 0).shape == (2, 4) for png in table["mask"].to_pylist())
    left_out, table = score_segmenter(segmenter, data, ["square"], "left out", draws=200)
    assert table["dice"].to_pylist() == [pytest.approx(2 / 3, abs=1e-7), None, None]
    assert [(r.value, r.n) for r in left_out] == [(pytest.approx(2 / 3, abs=1e-6), 1), (0.5, 1)]


def test_score_of_two_classes_takes_an_images_mean_over_those_that_have_a_value() -> None:
    whole = {"a": ["##..", "##.."], "b": ["....", "...."], "c": ["....", "...."]}
    segmenter = fixed_segmenter(whole, whole)
    data = small_images(
        {"a": ["##..", "##.."], "b": ["####", "...."], "c": ["....", "...."]},
        {"a": ["##..", "...."], "b": ["....", "...."], "c": ["....", "...."]},
    )
    results, _ = score_segmenter(segmenter, data, ["one", "two"], "left out", draws=20)
    value = {(r.metric, r.finding): (r.value, r.n) for r in results}
    # One: 1, 0, none. Two: 4/6, none, none. So the images: (1 + 4/6) / 2, 0, none.
    assert value["dice", "one"] == (0.5, 2)
    assert value["dice", "two"] == (pytest.approx(2 / 3, abs=1e-6), 1)
    assert value["mean_dice", None] == (pytest.approx((1 + 2 / 3) / 4, abs=1e-6), 2)
    assert value["mean_iou", None] == (pytest.approx((1 + 1 / 2) / 4, abs=1e-6), 2)
    with pytest.raises(ValueError, match=r"classes are \['one'\]; allowed: a name for each of 2 masks"):
        score_segmenter(segmenter, data, ["one"], "left out", draws=20)


def test_variant_names_decoder_layers_encoder_size_and_empty_convention(layers: ImageLayers) -> None:
    assert protocol_name(QUICK, layers) == (
        "linear decoder on layers 1, 2, 3, 4, 5 of 5; encoder frozen; per image at its stored size, then the mean; "
        "empty masks count 1 if predicted empty, else 0"
    )
    other = protocol_name(QUICK.model_copy(update={"decoder": "unet", "fine_tune": True, "empty": "left out"}), layers)
    assert other.startswith("unet decoder")
    assert "encoder fine-tuned" in other
    assert other.endswith("empty masks left out")


def test_loss_of_logits_equals_dice_and_cross_entropy_written_out() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 5, 4, generator=generator)
    target = torch.randint(0, 2, (3, 2, 5, 4), generator=generator, dtype=torch.uint8)
    target[:, 1] = 0  # a class that no image of the batch has
    probability, truth = torch.sigmoid(logits).double(), target.double()
    entropy = -(truth * probability.log() + (1 - truth) * (1 - probability).log()).mean()
    both, sums = (probability * truth).sum((0, 2, 3)), (probability + truth).sum((0, 2, 3))
    dice = (1 - (2 * both + 1e-5) / (sums + 1e-5)).mean()
    # Measured worst error: 1.2e-7.
    assert segmentation_loss()(logits, target).item() == pytest.approx(float(entropy + dice), abs=1e-5)


def test_training_without_a_split_or_with_bad_values_raises(layers: ImageLayers) -> None:
    train, none = discs(range(4)), discs([])
    with pytest.raises(ValueError, match="validation has no images: the epoch is chosen on them, never on test"):
        train_segmenter(layers, train, none, SIZE, QUICK)
    with pytest.raises(ValueError, match="train has no images"):
        train_segmenter(layers, none, train, SIZE, QUICK)
    with pytest.raises(ValueError, match="validation has no mask that is not empty"):
        train_segmenter(layers, train, discs([5], empty=[5]), SIZE, QUICK.model_copy(update={"empty": "left out"}))
    splits = {"train": train, "validation": discs([4]), "test": discs([5])}
    for name in splits:
        with pytest.raises(ValueError, match=f"split '{name}' has no images"):
            segment(layers, splits | {name: none}, ["disc"], SIZE, QUICK)
        with pytest.raises(ValueError, match=f"split '{name}' has no images"):
            segment(layers, {key: data for key, data in splits.items() if key != name}, ["disc"], SIZE, QUICK)
    with pytest.raises(ValueError, match="splits 'train' and 'test' share a patient"):
        segment(layers, splits | {"test": discs([3])}, ["disc"], SIZE, QUICK)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"decoder": "fcn"}, "decoder"),
        ({"empty": "zero"}, "empty"),
        ({"epochs": 0}, "epochs"),
        ({"batch": 0}, "batch"),
        ({"cache_bytes": -1}, "cache_bytes"),
        ({"lr": 0.0}, "lr"),
        ({"tower_lr": float("nan")}, "tower_lr"),
    ],
)
def test_config_of_a_value_that_is_not_allowed_raises(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentationConfig(**values)


def test_training_on_maps_that_are_not_finite_says_so(layers: ImageLayers) -> None:
    broken = copy.deepcopy(layers)
    next(broken.parameters()).data.fill_(float("nan"))
    with pytest.raises(ChexrayError, match="the loss is nan in epoch 0"):
        train_segmenter(broken, discs(range(4)), discs([4]), SIZE, QUICK)


@pytest.mark.parametrize("decoder", DECODERS)
def test_training_on_a_single_image_and_a_map_of_one_pixel_works(decoder: DecoderName) -> None:
    torch.manual_seed(0)
    maps = ImageLayers(TimmModel("test_convnext", 16, 64, pool="", proj="linear"), 64)
    assert maps(torch.zeros(1, 64, 64, dtype=torch.uint8))[-1].shape[-2:] == (1, 1)
    config = SegmentationConfig(decoder=decoder, epochs=2, batch=1)
    assert len(train_segmenter(maps, discs([1]), discs([9]), 64, config).validation_dice) == 2


def fixed_segmenter(*classes: dict[str, list[str]]) -> Segmenter:
    """Predicts these 2 x 4 masks, one after the other: its maps are the images, its decoder knows the answers."""
    drawn = [[pixels_of(masks[name]) for masks in classes] for name in classes[0]]

    class Answers(torch.nn.Module):
        def forward(self, maps: tuple[torch.Tensor, ...], size: int) -> torch.Tensor:
            logits = torch.full((len(drawn), len(classes), size, size), -9.0)
            for place, masks in enumerate(drawn):  # a 2 x 4 image lies in rows 1 and 2 of a square of 4
                logits[place, :, 1:3] = torch.from_numpy(np.where(np.stack(masks), 9.0, -9.0))
            return logits

    class Images:
        variant = "images"

        def __call__(self, image_bSS: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (image_bSS,)

    return Segmenter(Images(), Answers(), 4, "cpu", "fixed", 0, (1.0,))


def small_images(*classes: dict[str, list[str]]) -> MaskedImages:
    image = encode_image(np.arange(8, dtype=np.uint8).reshape(2, 4), "png")
    names = list(classes[0])
    pngs = [[encode_image(pixels_of(masks[name]), "png") for masks in classes] for name in names]
    return MaskedImages(names, names, [image] * len(names), pngs)


def pixels_of(rows: list[str]) -> np.ndarray:
    return np.array([[255 * (letter == "#") for letter in row] for row in rows], dtype=np.uint8)


def test_mask_at_the_stored_size_ignores_the_padding() -> None:
    logits_CSS = torch.full((1, 8, 8), 5.0)
    logits_CSS[:, 2:6, :4] = -5.0  # a 40 x 80 image lies in rows 2 to 5
    mask_CHW = mask_at(logits_CSS, (40, 80))
    expected = np.zeros((1, 40, 80), bool)
    expected[:, :, 40:] = True
    np.testing.assert_array_equal(mask_CHW, expected)
