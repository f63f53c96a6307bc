"""What a tower sees of a stored image, against hand-made pictures and open_clip's own transform."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2

from chexray.platform.model.preprocess import (
    PREPROCESS_CFG,
    fit_mask,
    fit_square,
    model_pixels,
    normalise,
    place_in_square,
    unfit_square,
)

SIZE = 96


def textured(height: int, width: int) -> np.ndarray:
    """Smooth structure with noise and hard edges, which resampling could treat differently."""
    y, x = np.mgrid[0:height, 0:width]
    smooth = 120 + 60 * np.sin(y / 23) + 40 * np.cos(x / 13)
    noise = np.random.default_rng(0).normal(0, 12, (height, width))
    image = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    image[height // 3 : height // 2, width // 4 : width // 2] = 255
    return image


def encoded(image: np.ndarray, codec: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, codec)
    return buffer.getvalue()


def open_clip_levels(image: bytes, size: int) -> np.ndarray:
    """open_clip's transform for evaluation, taken back from normalised values to grey levels. [3, size, size]."""
    transform = image_transform_v2(PreprocessCfg(size=size, **PREPROCESS_CFG), is_train=False)
    image_3HW = transform(PIL.Image.open(io.BytesIO(image)))
    mean, std = (torch.tensor(PREPROCESS_CFG[name]).view(3, 1, 1) for name in ("mean", "std"))
    levels: np.ndarray = ((image_3HW * std + mean) * 255).numpy()
    return levels


@pytest.mark.parametrize(("height", "width", "rows", "columns"), [(200, 100, 96, 48), (100, 200, 48, 96)])
def test_model_pixels_of_an_oblong_image_are_centred_on_black(height: int, width: int, rows: int, columns: int) -> None:
    pixels = model_pixels(encoded(np.full((height, width), 200, np.uint8)), SIZE)
    expected = np.zeros((SIZE, SIZE), np.uint8)
    top, left = (SIZE - rows) // 2, (SIZE - columns) // 2
    expected[top : top + rows, left : left + columns] = 200
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


def test_model_pixels_of_the_size_itself_are_unchanged() -> None:
    image = textured(SIZE, SIZE)
    np.testing.assert_array_equal(model_pixels(encoded(image), SIZE), image)


def test_model_pixels_of_a_large_image_keep_its_mean_without_aliasing() -> None:
    checkers = (np.indices((960, 960)).sum(0) % 2 * 255).astype(np.uint8)
    error = np.abs(model_pixels(encoded(checkers), SIZE).astype(float) - 127.5)
    assert error.max() <= 1  # measured worst: 0.5


def test_model_pixels_of_a_thin_image_have_one_row_at_least() -> None:
    pixels = model_pixels(encoded(np.full((32, 8000), 90, np.uint8)), SIZE)
    assert (pixels > 0).any(axis=1).sum() == 1


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(512, 421, 96), (421, 512, 96), (300, 777, 224), (513, 512, 378), (60, 45, 96), (512, 512, 96)],
)
def test_model_pixels_are_open_clips_to_within_rounding(height: int, width: int, size: int) -> None:
    image = encoded(textured(height, width))
    reference_3HW = open_clip_levels(image, size)
    pixels = model_pixels(image, size).astype(np.float32)
    error = np.abs(pixels[None] - reference_3HW)
    # Grey levels of 255: both resample in two passes and round after each.
    assert error.max() <= 1.01  # measured worst: 1.00002
    assert error.mean() <= 0.01  # measured worst: 0.0051


def test_model_pixels_of_a_tall_image_differ_from_open_clips_at_saturated_corners_only() -> None:
    """Pillow 13 resamples rows before columns where that is cheaper, torchvision never: overshoot is cut elsewhere."""
    image = encoded(textured(777, 300))
    error = np.abs(model_pixels(image, 224)[None] - open_clip_levels(image, 224))
    assert error.max() <= 8  # measured worst: 6.00002
    assert (error > 1.01).mean() <= 2e-4  # measured: 1.4e-4, 7 pixels of 50,176
    assert error.mean() <= 0.1  # measured: 0.061


def test_model_pixels_of_a_jpeg_are_open_clips_to_within_decoders_rounding() -> None:
    image = encoded(textured(512, 421), "JPEG")
    error = np.abs(model_pixels(image, SIZE)[None] - open_clip_levels(image, SIZE))
    assert error.max() <= 1.01  # measured worst: 1.00001


def test_model_pixels_of_real_radiographs_are_open_clips_to_within_rounding(real_data: Path) -> None:
    files = sorted((real_data / "nih" / "images").glob("*.png"))[:5]
    worst = 0.0
    for file in files:
        grey = encoded(np.array(PIL.Image.open(file).convert("L"))[:, 100:])
        worst = max(worst, float(np.abs(model_pixels(grey, SIZE)[None] - open_clip_levels(grey, SIZE)).max()))
    assert files
    assert worst <= 1.01  # measured worst: 1.0


def test_fit_square_keeps_the_type_and_the_shape_asked_for() -> None:
    for dtype in (torch.uint8, torch.float32):
        fitted = fit_square(torch.zeros(1, 77, 50, dtype=dtype), 64)
        assert (fitted.dtype, tuple(fitted.shape)) == (dtype, (1, 64, 64))


def test_normalise_gives_three_channels_of_clips_mean_and_deviation() -> None:
    image_BHW = torch.tensor([[[0, 255]], [[51, 102]]], dtype=torch.uint8)
    out = normalise(image_BHW)
    assert (out.dtype, tuple(out.shape)) == (torch.float32, (2, 3, 1, 2))
    # (51 / 255 - mean) / std by hand, with CLIP's published constants.
    expected = [(0.2 - 0.48145466) / 0.26862954, (0.2 - 0.4578275) / 0.26130258, (0.2 - 0.40821073) / 0.27577711]
    assert out[1, :, 0, 0].tolist() == pytest.approx(expected, abs=1e-6)  # measured 1e-7


SIDES = st.integers(1, 80)


def speckled(height: int, width: int, seed: int, classes: int = 2) -> torch.Tensor:
    drawn = np.random.default_rng(seed).integers(0, 2, (classes, height, width))
    return torch.from_numpy(drawn.astype(np.uint8))


@settings(max_examples=200, deadline=None)
@given(height=SIDES, width=SIDES, size=SIDES, seed=st.integers(0, 9))
def test_unfit_square_of_a_fitted_mask_gives_it_back_where_the_square_is_no_smaller(
    height: int, width: int, size: int, seed: int
) -> None:
    if size >= max(height, width):
        mask_CHW = speckled(height, width, seed)
        assert torch.equal(unfit_square(fit_mask(mask_CHW, size), height, width, "nearest-exact"), mask_CHW)
    else:
        # The other way round: what a smaller square holds survives the way to the image and back.
        placed = place_in_square(height, width, size)
        inside = speckled(placed.height, placed.width, seed)
        square_CSS = torch.nn.functional.pad(inside, placed.padding(size))
        assert torch.equal(fit_mask(unfit_square(square_CSS, height, width, "nearest-exact"), size), square_CSS)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 30), width=st.integers(1, 30), size=st.integers(1, 30), seed=st.integers(0, 9))
def test_fit_mask_takes_the_nearest_pixel_centre_as_integers_say(height: int, width: int, size: int, seed: int) -> None:
    mask_CHW = speckled(height, width, seed, classes=1)
    placed = place_in_square(height, width, size)
    expected = torch.zeros((1, size, size), dtype=torch.uint8)
    for row in range(placed.height):
        for column in range(placed.width):
            # (row + 1/2) height / placed.height, rounded down.
            from_row = (2 * row + 1) * height // (2 * placed.height)
            from_column = (2 * column + 1) * width // (2 * placed.width)
            expected[0, placed.top + row, placed.left + column] = mask_CHW[0, from_row, from_column]
    assert torch.equal(fit_mask(mask_CHW, size), expected)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), size=st.integers(1, 60))
def test_fit_mask_of_the_whole_image_covers_what_fit_square_covers(height: int, width: int, size: int) -> None:
    white = torch.full((1, height, width), 255, dtype=torch.uint8)
    assert torch.equal(fit_mask(white, size), fit_square(white, size))


def test_unfit_square_bilinear_leaves_the_padding_out() -> None:
    # A 4 x 8 image in a square of 8 lies in rows 2 to 5; the padding holds what must not leak in.
    square_CSS = torch.full((1, 8, 8), 1e6)
    square_CSS[:, 2:6] = torch.arange(4.0)[:, None].expand(4, 8)
    whole = unfit_square(square_CSS, 4, 8, "bilinear")
    assert torch.equal(whole, torch.arange(4.0)[:, None].expand(1, 4, 8))
    # Twice as large: rows at -1/4, 1/4, 3/4 ... of the four, held at the edges. Measured worst error: 0.
    twice = unfit_square(square_CSS, 8, 16, "bilinear")
    expected = torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    torch.testing.assert_close(twice[0, :, 5], expected, rtol=0, atol=1e-6)
