"""Masked images: what is read of a corpus's rows, and what is kept of what was loaded."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.evals.masked_images import MaskedImages, Recall, masked_images, stored_size
from chexray.platform.corpus.raster import encode_image
from chexray.platform.corpus.schema import CORPUS_SCHEMA
from chexray.platform.model.preprocess import fit_mask, model_pixels


def png(pixels: np.ndarray) -> bytes:
    return encode_image(pixels.astype(np.uint8), "png")


def drawn(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width))


def drawn_mask(height: int, width: int, seed: int) -> np.ndarray:
    return drawn(height, width, seed) // 128 * 255


def rows(masks: list[dict[str, bytes] | None]) -> pa.Table:
    count = len(masks)
    return pa.table(
        {
            "sample_id": [f"s{row}" for row in range(count)],
            "patient_id": [f"p{row}" for row in range(count)],
            "image": pa.array([png(drawn(40, 30 + row, row)) for row in range(count)], pa.binary()),
            "masks": pa.array([m and list(m.items()) for m in masks], CORPUS_SCHEMA.field("masks").type),
        }
    )


def test_masked_images_leave_out_rows_without_a_mask_of_each_class() -> None:
    left, right, empty = png(drawn_mask(40, 30, 1)), png(drawn_mask(40, 33, 2)), png(np.zeros((40, 33)))
    found = masked_images(
        rows([{"Heart": left}, None, {}, {"Lungs": right, "Heart": empty}, {"Lungs": left}]), ["Heart", "Lungs"]
    )
    assert (found.sample_id, found.patient_id) == (["s3"], ["p3"])
    assert found.mask == [[empty, right]]
    truth_CHW = found.truth(0)
    assert truth_CHW.shape == (2, 40, 33)
    assert truth_CHW[0].max() == 0
    np.testing.assert_array_equal(truth_CHW[1], drawn_mask(40, 33, 2) // 255)


@pytest.mark.parametrize("classes", [[], ["Heart", "Heart"]])
def test_masked_images_of_no_or_repeated_classes_raise(classes: list[str]) -> None:
    with pytest.raises(ValueError, match=r"classes are \["):
        masked_images(rows([{"Heart": png(drawn_mask(40, 30, 1))}]), classes)


def test_masked_images_pixels_and_targets_are_fitted_alike() -> None:
    images = [drawn(40, 30, 1), drawn(24, 50, 2)]
    masks = [[drawn_mask(*image.shape, seed) for seed in (3, 4)] for image in images]
    data = MaskedImages(
        ["a", "b"], ["a", "b"], [png(image) for image in images], [[png(m) for m in pair] for pair in masks]
    )
    pixels, targets = data.pixels([1, 0], 32), data.targets([1, 0], 32)
    assert (pixels.shape, pixels.dtype) == ((2, 32, 32), torch.uint8)
    assert (targets.shape, targets.dtype, targets.max()) == ((2, 2, 32, 32), torch.uint8, 1)
    for place, row in enumerate([1, 0]):
        np.testing.assert_array_equal(pixels[place], model_pixels(png(images[row]), 32))
        expected = fit_mask(torch.from_numpy(np.stack(masks[row]).astype(np.uint8)), 32) // 255
        assert torch.equal(targets[place], expected)


def test_masked_images_with_a_mask_of_another_size_raise_naming_the_image() -> None:
    data = MaskedImages(["xray"], ["p"], [png(drawn(40, 30, 1))], [[png(drawn_mask(30, 40, 1))]])
    with pytest.raises(ValueError, match=r"xray: a mask has \(30, 40\) pixels, its image \(40, 30\)"):
        data.truth(0)


def test_masked_images_of_unequal_columns_raise() -> None:
    with pytest.raises(ValueError, match="'image': 1, 'mask': 0"):
        MaskedImages(["a"], ["a"], [b""], [])


@pytest.mark.parametrize("codec", ["PNG", "JPEG"])
def test_stored_size_is_height_and_width(codec: str) -> None:
    buffer = io.BytesIO()
    PIL.Image.fromarray(drawn(40, 30, 1).astype(np.uint8)).save(buffer, codec)
    assert stored_size(buffer.getvalue()) == (40, 30)


@settings(max_examples=60, deadline=None)
@given(
    calls=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True), min_size=1, max_size=8),
    kept=st.integers(0, 10),
)
def test_recall_of_any_budget_gives_what_loading_gives_and_keeps_no_more(calls: list[list[int]], kept: int) -> None:
    loaded: list[int] = []

    def load(wanted: list[int]) -> tuple[torch.Tensor, ...]:
        loaded.extend(wanted)
        row = torch.tensor(wanted, dtype=torch.float32)
        return row[:, None] * torch.arange(3), (row + 7).to(torch.uint8)

    recall = Recall(load, budget=kept * 13)  # 3 float32 and 1 uint8 a row
    for call in calls:
        first, second = recall(call)
        assert first.tolist() == [[0, row, 2 * row] for row in call]
        assert second.tolist() == [row + 7 for row in call]
    # The rows that were asked for first are loaded once, all others as often as asked for.
    order = list(dict.fromkeys(row for call in calls for row in call))
    for row in order:
        asked = sum(row in call for call in calls)
        assert loaded.count(row) == (1 if order.index(row) < kept else asked)
