"""Raster images to 8-bit grey and back; oracles are hand-made files, numpy and torch's own resampling."""

import io
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chexray.platform.corpus import raster
from chexray.platform.corpus.raster import UnreadableImage
from chexray.platform.corpus.schema import RawFormat


def noise(height: int = 48, width: int = 64, seed: int = 0) -> raster.Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)


def smooth(height: int, width: int) -> raster.Image:
    y, x = np.mgrid[0:height, 0:width]
    return (127 + 80 * np.sin(y / 17) + 40 * np.cos(x / 11)).astype(np.uint8)


def saved(pixels: np.ndarray | PIL.Image.Image, codec: str, **options: Any) -> bytes:
    image = pixels if isinstance(pixels, PIL.Image.Image) else PIL.Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, codec, **options)
    return buffer.getvalue()


def refusal(data: bytes) -> UnreadableImage:
    with pytest.raises(UnreadableImage) as caught:
        raster.decode_image(data)
    return caught.value


@pytest.mark.parametrize("codec", ["PNG", "BMP", "TIFF"])
def test_decode_of_lossless_grey_gives_the_pixels(codec: str) -> None:
    np.testing.assert_array_equal(raster.decode_image(saved(noise(), codec)), noise())


def test_decode_of_jpeg_is_near_the_pixels() -> None:
    error = np.abs(raster.decode_image(raster.encode_image(smooth(64, 96))).astype(int) - smooth(64, 96))
    assert error.max() <= 2  # measured worst: 1 grey level


def test_decode_of_colour_gives_itu_r_601_luma() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    expected = rgb @ np.array([0.299, 0.587, 0.114])
    for image in (PIL.Image.fromarray(rgb), PIL.Image.fromarray(rgb).convert("RGBA")):
        error = np.abs(raster.decode_image(saved(image, "PNG")) - expected)
        assert error.max() <= 0.51  # measured worst: 0.50, the rounding


def test_decode_of_palette_gives_luma_of_the_colours() -> None:
    image = PIL.Image.fromarray((noise() > 127).astype(np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    assert set(np.unique(raster.decode_image(saved(image, "PNG")))) == {29, 76}  # 0.114 and 0.299 x 255


@pytest.mark.parametrize("codec", ["PNG", "TIFF"])
def test_decode_of_16_bit_grey_stretches_its_own_range(codec: str) -> None:
    deep = np.full((40, 40), 1000, np.uint16)
    deep[0, :4] = (2000, 3000, 4000, 5000)
    values = raster.decode_image(saved(deep, codec))
    assert values[0, :5].tolist() == [64, 128, 191, 255, 0]  # 63.75, 127.5 (to even), 191.25 rounded


def test_decode_of_float_tiff_with_nan_is_not_readable() -> None:
    deep = np.linspace(-1, 1, 1600, dtype=np.float32).reshape(40, 40)
    assert raster.decode_image(saved(deep, "TIFF"))[0, 0] == 0
    deep[3, 3] = np.nan
    assert refusal(saved(deep, "TIFF")).reason == "image not readable"


@pytest.mark.parametrize("codec", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, 3), (8, 1)])
def test_decode_with_exif_orientation_turns_the_image(codec: str, orientation: int, turns: int) -> None:
    image = PIL.Image.fromarray(smooth(48, 64))
    exif = image.getexif()
    exif[0x0112] = orientation
    upright = raster.decode_image(saved(image, codec, exif=exif)).astype(int)
    error = np.abs(upright - np.rot90(smooth(48, 64), turns))
    assert error.max() <= 4  # measured worst: 3 (JPEG at quality 75; 0 for the others)


@pytest.mark.parametrize("codec", ["JPEG", "PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_decode_of_cut_file_is_truncated(codec: str, share: float) -> None:
    data = saved(noise(), codec)
    assert refusal(data[: int(share * len(data))]).reason == "image truncated"


def reason_of(data: bytes) -> str | None:
    try:
        raster.decode_image(data)
    except UnreadableImage as error:
        return error.reason
    return None


@given(st.binary(max_size=200), st.integers(0, 200))
def test_decode_of_any_bytes_is_an_image_or_a_reason(tail: bytes, cut: int) -> None:
    reasons = {"image empty", "image truncated", "image not readable", "image too large"}
    assert reason_of(tail) in reasons
    assert reason_of(saved(noise(), "PNG")[:cut] + tail) in reasons


def png_header(height: int, width: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(("height", "width"), [(10_001, 10_000), (100_000, 100_000)])
def test_decode_of_decompression_bomb_is_refused_from_the_header(height: int, width: int) -> None:
    data = png_header(height, width) + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    assert refusal(data).reason == "image too large"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "image empty"),
        (b"patient,report\n", "image not readable"),
        (saved(noise(48, 31), "PNG"), "image too small"),
        (saved(np.full((40, 40), 7, np.uint8), "PNG"), "image constant"),
        (saved(np.full((40, 40), 700, np.uint16), "PNG"), "image constant"),
        (saved(noise(), "GIF"), "image not readable"),
    ],
)
def test_decode_of_unusable_image_gives_the_reason(data: bytes, reason: str) -> None:
    assert refusal(data).reason == reason


@pytest.mark.parametrize("codec", ["PNG", "TIFF"])
def test_decode_of_several_frames_is_refused(codec: str) -> None:
    second = PIL.Image.fromarray(noise(seed=1))
    data = saved(noise(), codec, save_all=True, append_images=[second])
    assert refusal(data).reason == "image with several frames"


def test_decode_of_two_frames_of_which_the_second_is_broken_is_not_readable() -> None:
    data = saved(noise(), "TIFF", save_all=True, append_images=[PIL.Image.fromarray(noise())])
    compression = struct.pack("<HHII", 259, 3, 1, 1)
    assert data.count(compression) == 2
    first, second, tail = data.split(compression)
    broken = compression[:2] + struct.pack("<HII", 1, 1, 1)  # of bytes, and so of no compression that there is
    assert refusal(first + compression + second + broken + tail).reason == "image not readable"


def test_unreadable_image_after_pickling_keeps_reason_and_text() -> None:
    error = pickle.loads(pickle.dumps(UnreadableImage("image empty", "0 bytes")))  # noqa: S301 - our own bytes
    assert (error.reason, str(error)) == ("image empty", "image empty: 0 bytes")


def test_decode_mask_of_empty_mask_is_allowed_and_grey_is_cut_in_half() -> None:
    assert not raster.decode_mask(saved(np.zeros((40, 40), np.uint8), "PNG")).any()
    grey = np.array([[0, 127, 128, 255]], np.uint8)
    assert raster.decode_mask(saved(grey, "PNG")).tolist() == [[0, 0, 255, 255]]


def test_encode_as_png_and_decode_gives_the_pixels() -> None:
    np.testing.assert_array_equal(raster.decode_image(raster.encode_image(noise(), "png")), noise())


@pytest.mark.parametrize(
    ("pixels", "options", "field"),
    [
        (noise().astype(np.float32), {}, "image_HW"),
        (noise()[None], {}, "image_HW"),
        (noise(), {"codec": "gif"}, "codec"),
        (noise(), {"quality": 0}, "quality"),
    ],
)
def test_encode_of_unfit_values_names_the_field(pixels: np.ndarray, options: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        raster.encode_image(pixels, **options)


@pytest.mark.parametrize("short_side", [32, 50, 97])
def test_shrink_against_torch_antialiased_bicubic_is_the_same(short_side: int) -> None:
    pixels = noise(120, 200) // 4 + 96  # far from 0 and 255, where Pillow clips between the two axes
    shrunk = raster.shrink(pixels, short_side)
    assert shrunk.shape == (short_side, round(200 * short_side / 120))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(pixels)[None, None].double(), shrunk.shape, mode="bicubic", antialias=True
    )[0, 0].clamp(0, 255)
    assert np.abs(shrunk - expected.numpy()).max() <= 1.5  # measured worst: 1.02; Pillow rounds between the two axes


@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 100))
def test_shrink_never_enlarges_and_meets_the_short_side(height: int, width: int, short_side: int) -> None:
    shape = raster.shrink(noise(height, width), short_side).shape
    assert min(shape) == min(short_side, height, width)
    assert shape[0] <= height
    assert shape[1] <= width


def test_shrink_without_a_short_side_keeps_the_image() -> None:
    np.testing.assert_array_equal(raster.shrink(noise(), None), noise())
    with pytest.raises(ValueError, match="short_side is 0"):
        raster.shrink(noise(), 0)


def test_resize_mask_to_half_keeps_pixels_that_are_half_covered() -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[0, 0] = 255  # a quarter of its pixel
    mask[2:4, 2] = 255  # half
    mask[0:2, 2:4] = 255  # all
    assert raster.resize_mask(mask, 2, 2).tolist() == [[0, 255], [0, 255]]
    np.testing.assert_array_equal(raster.resize_mask(raster.resize_mask(mask, 16, 16), 4, 4), mask)


def test_decode_of_real_radiographs_is_as_pillow_reads_them(real_data: Path) -> None:
    paths = sorted((real_data / "nih" / "images").glob("*.png"))[:5]
    assert paths
    for path in paths:
        np.testing.assert_array_equal(
            raster.decode_image(path.read_bytes()), np.array(PIL.Image.open(path).convert("L"))
        )


def raw(words: list[list[int]], height: int = 32, width: int = 32) -> bytes:
    """Big-endian words, the given ones in the left upper corner of a field of 0."""
    field = np.zeros((height, width), ">u2")
    field[: len(words), : len(words[0])] = words
    return field.tobytes()


@pytest.mark.parametrize(("inverted", "expected"), [(False, [0, 64, 128, 255]), (True, [255, 191, 127, 0])])
def test_decode_of_raw_pixels_spans_the_bits_that_are_used(inverted: bool, expected: list[int]) -> None:
    # 255 / 4095 of 0, 1024, 2048 and 4095 is 0, 63.8, 127.5 and 255.
    data = raw([[0, 1024, 2048, 4095]])
    image = raster.decode_raw(data, RawFormat(32, 32, 12, inverted))
    assert image[0, :4].tolist() == expected
    assert raster.decode_source(data, RawFormat(32, 32, 12, inverted)).image_HW.tolist() == image.tolist()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "image empty"),
        (raw([[1]])[:-1], "image truncated"),
        (raw([[1]]) + b"\0", "image not readable"),
        (raw([[4096]]), "image not readable"),
        (raw([[0]]), "image constant"),
    ],
)
def test_decode_of_raw_pixels_that_are_not_of_the_format_gives_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage) as caught:
        raster.decode_raw(data, RawFormat(32, 32, 12, False))
    assert caught.value.reason == reason


def test_decode_of_raw_pixels_of_more_than_16_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="bits is 17: it must be 1 to 16"):
        raster.decode_raw(raw([[1]]), RawFormat(32, 32, 17, False))


def test_decode_mask_reads_the_gif_masks_of_jsrt_which_no_image_may_be() -> None:
    pixels = np.zeros((40, 50), np.uint8)
    pixels[10:20] = 255
    data = saved(pixels, "GIF")
    np.testing.assert_array_equal(raster.decode_mask(data), pixels)
    assert refusal(data).reason == "image not readable"


@pytest.mark.parametrize(("height", "width", "scale"), [(512, 640, 2), (1024, 1280, 4), (511, 640, 1), (300, 310, 1)])
def test_large_jpeg_is_decoded_at_a_fraction_that_changes_the_small_image_by_little(
    height: int, width: int, scale: int
) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (12, 12)).astype(np.uint8)
    pixels = PIL.Image.fromarray(coarse).resize((width, height), PIL.Image.Resampling.BICUBIC)
    data = saved(pixels, "JPEG", quality=95)
    decoded = raster.decode_source(data, None, short_side=128)
    assert decoded.size == (height, width)
    assert decoded.image_HW.shape == (-(-height // scale), -(-width // scale))
    whole = raster.decode_raster(data)
    small, expected = (raster.shrink(image, 128).astype(int) for image in (decoded.image_HW, whole))
    assert np.abs(small - expected).max() <= 3  # measured worst: 2


def test_jpeg_turned_by_its_exif_tag_has_the_size_of_the_upright_image() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    decoded = raster.decode_source(saved(noise(200, 100), "JPEG", exif=exif), None, short_side=20)
    assert decoded.size == (100, 200)
    assert decoded.image_HW.shape == (50, 100)
