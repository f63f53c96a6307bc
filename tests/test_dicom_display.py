"""DICOM to display pixels: hand-computed values on 12-bit data, pydicom's own test files, real radiographs.

Expected values follow PS3.3 C.11.1, C.11.2.1.2 and C.7.6.3.1.2, then 8 bits rounded to the nearest.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_files import TEST_FILES, noise, radiograph, shown_row, written
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing

from chexray.platform.corpus.dicom import display_pixels, read_radiograph
from chexray.platform.corpus.raster import UnreadableImage, decode_image, decode_source
from chexray.platform.corpus.redaction import Region, Rule


@pytest.mark.parametrize(
    ("values", "elements", "expected"),
    [
        # No window: the pixels' own range.
        ([100, 300, 500], {}, [0, 128, 255]),
        ([-50, 0, 50], {}, [0, 128, 255]),
        # C.11.2.1.2.1: centre 2048, width 4096 covers 0.5 to 4095.5 - 1; (x - 2047.5) / 4095 + 0.5.
        ([0, 1024, 2048, 4095], {"WindowCenter": 2048, "WindowWidth": 4096}, [0, 64, 128, 255]),
        # Width 101 about 200: x <= 149.5 black, x > 249.5 white, between (x - 199.5) / 100 + 0.5.
        ([0, 149, 175, 249, 250], {"WindowCenter": 200, "WindowWidth": 101}, [0, 0, 65, 254, 255]),
        # LINEAR_EXACT (C.11.2.1.3.2): (x - 200) / 100 + 0.5.
        (
            [0, 150, 175, 250, 300],
            {"WindowCenter": 200, "WindowWidth": 100, "VOILUTFunction": "LINEAR_EXACT"},
            [0, 0, 64, 255, 255],
        ),
        # SIGMOID (C.11.2.1.3.1): 255 / (1 + exp(-4 (x - 200) / 100)); exp(-2) gives 0.8808.
        (
            [100, 200, 250],
            {"WindowCenter": 200, "WindowWidth": 100, "VOILUTFunction": "SIGMOID"},
            [5, 128, 225],
        ),
        # Width 1 is a threshold at 199.5.
        ([199, 200], {"WindowCenter": 200, "WindowWidth": 1}, [0, 255]),
        # The first of two windows.
        ([149, 250], {"WindowCenter": [200, 4000], "WindowWidth": [101, 2]}, [0, 255]),
        # Rescale before the window: 2 x - 1000 is 0, 100, 200; window 0 to 200.
        (
            [500, 550, 600],
            {
                "RescaleSlope": 2,
                "RescaleIntercept": -1000,
                "WindowCenter": 100,
                "WindowWidth": 200,
                "VOILUTFunction": "LINEAR_EXACT",
            },
            [0, 128, 255],
        ),
        # A negative slope turns the stored order; the window keeps the sense of the rescaled values.
        (
            [0, 50, 100],
            {
                "RescaleSlope": -1,
                "RescaleIntercept": 100,
                "WindowCenter": 50,
                "WindowWidth": 100,
                "VOILUTFunction": "LINEAR_EXACT",
            },
            [255, 128, 0],
        ),
        # C.7.6.3.1.2: MONOCHROME1 shows its minimum white.
        ([100, 300, 500], {"PhotometricInterpretation": "MONOCHROME1"}, [255, 127, 0]),
        (
            [149, 175, 250],
            {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 200, "WindowWidth": 101},
            [255, 190, 0],
        ),
        # C.7.5.1.1.2: padding does not count for the range.
        ([4000, 100, 300], {"PixelPaddingValue": 4000}, [255, 0, 255]),
        ([0, 5, 100, 300], {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 5}, [0, 0, 0, 255]),
        # A window that the standard forbids, or half a window, is none.
        ([100, 300, 500], {"WindowCenter": 200, "WindowWidth": 0}, [0, 128, 255]),
        ([100, 300, 500], {"WindowCenter": 200}, [0, 128, 255]),
    ],
)
def test_display_of_12_bit_values_is_as_computed_by_hand(
    values: list[int], elements: dict[str, Any], expected: list[int]
) -> None:
    assert shown_row(values, **elements) == expected


@pytest.mark.parametrize(("window", "expected"), [(0, [0, 255]), (1, [0, 0]), (2, [0, 255])])
def test_display_of_several_windows_shows_the_one_asked_for_else_the_first(window: int, expected: list[int]) -> None:
    dataset = radiograph(np.array([[149, 250]], np.uint16), WindowCenter=[200, 4000], WindowWidth=[101, 2])
    assert display_pixels(dataset, window)[0].tolist() == expected


def windowed_by_pydicom(dataset: Dataset) -> np.ndarray:
    """Modality values through pydicom's own window, pixel by pixel, as floats of 0 to 255."""
    shell = Dataset()
    shell.PhotometricInterpretation, shell.BitsStored, shell.PixelRepresentation = "MONOCHROME2", 8, 0
    shell.WindowCenter, shell.WindowWidth = dataset.WindowCenter, dataset.WindowWidth
    shell.VOILUTFunction = dataset.VOILUTFunction
    shown = apply_windowing(apply_modality_lut(dataset.pixel_array, dataset), shell)
    return 255 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(8, 16),
    signed=st.booleans(),
    slope=st.floats(-4, 4).filter(lambda slope: abs(slope) > 0.01),
    intercept=st.integers(-5000, 5000),
    center=st.floats(-3000, 60_000),
    width=st.floats(1.5, 60_000),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
    seed=st.integers(0, 1000),
)
def test_display_by_table_equals_pydicom_pixel_by_pixel(
    bits: int,
    signed: bool,
    slope: float,
    intercept: int,
    center: float,
    width: float,
    function: str,
    photometric: str,
    seed: int,
) -> None:
    low = -(2 ** (bits - 1)) if signed else 0
    stored = np.random.default_rng(seed).integers(low, low + 2**bits, (8, 40))
    dataset = radiograph(stored.astype(np.int16 if signed else np.uint16), PhotometricInterpretation=photometric)
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.RescaleSlope, dataset.RescaleIntercept = f"{slope:.6f}", intercept
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = f"{center:.4f}", f"{width:.4f}", function
    error = np.abs(display_pixels(dataset) - windowed_by_pydicom(dataset))
    assert error.max() <= 0.5 + 1e-6  # measured worst: 0.50, the rounding


@settings(max_examples=40, deadline=None)
@given(
    signed=st.booleans(),
    padding=st.one_of(st.none(), st.integers(0, 40)),
    limit=st.one_of(st.none(), st.integers(0, 40)),
    slope=st.sampled_from([-0.7, 1, 2.5]),
    spread=st.integers(2, 60),
    seed=st.integers(0, 1000),
)
def test_display_without_window_spans_the_values_that_are_not_padding(
    signed: bool, padding: int | None, limit: int | None, slope: float, spread: int, seed: int
) -> None:
    stored = np.random.default_rng(seed).integers(-spread if signed else 0, spread, (6, 30))
    dataset = radiograph(stored.astype(np.int16 if signed else np.uint16), RescaleSlope=slope, RescaleIntercept=3)
    low, high = 1, 0
    if padding is not None:
        low, high = sorted((padding, padding if limit is None else limit))
        dataset.add_new("PixelPaddingValue", "SS" if signed else "US", padding)
        if limit is not None:
            dataset.add_new("PixelPaddingRangeLimit", "SS" if signed else "US", limit)
    values = stored * slope + 3
    shown = values[(stored < low) | (stored > high)]
    if shown.size == 0:
        with pytest.raises(UnreadableImage, match="every pixel is padding"):
            display_pixels(dataset)
        return
    expected = np.clip((values - shown.min()) / max(np.ptp(shown), 1e-9), 0, 1) * 255 * (np.ptp(shown) > 0)
    error = np.abs(display_pixels(dataset) - expected)
    assert error.max() <= 0.5 + 1e-6  # measured worst: 0.50, the rounding


def test_display_of_inverted_monochrome1_copy_is_the_same() -> None:
    window = {"WindowCenter": 2048, "WindowWidth": 2001}
    inverse = radiograph(4095 - noise(), PhotometricInterpretation="MONOCHROME1", **window)
    error = np.abs(display_pixels(inverse).astype(int) - display_pixels(radiograph(noise(), **window)))
    assert error.max() == 0


def test_display_of_stored_bits_below_an_overlay_ignores_the_overlay() -> None:
    stored = np.array([[100, 300, 500]], np.uint16)
    assert display_pixels(radiograph(stored | 0x9000))[0].tolist() == [0, 128, 255]


def test_display_of_stored_bits_at_the_top_of_the_word_takes_them_from_there() -> None:
    # PS3.5 8.1.1: High Bit 15 with 12 bits stored.
    stored = np.array([[100, 300, 500]], np.uint16)
    assert display_pixels(radiograph(stored << 4, HighBit=15))[0].tolist() == [0, 128, 255]


def test_display_of_12_bits_in_words_of_32_is_that_of_16() -> None:
    dataset = radiograph(np.array([[100, 300, 500]], np.uint32), PixelRepresentation=0)
    assert display_pixels(dataset)[0].tolist() == [0, 128, 255]


def test_display_without_the_elements_that_have_one_common_value_assumes_it() -> None:
    dataset = radiograph(np.array([[100, 300, 500]], np.uint16))
    for name in ("SamplesPerPixel", "BitsStored", "HighBit", "PixelRepresentation"):
        del dataset[name]
    assert display_pixels(pydicom.dcmread(io.BytesIO(written(dataset))))[0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("MR_small.dcm", True),
        ("MR_small_RLE.dcm", True),
        ("MR_small_bigendian.dcm", True),
        ("CT_small.dcm", False),
    ],
)
def test_decode_of_pydicom_test_file_is_as_pydicom_windows_it(name: str, window: bool) -> None:
    dataset = pydicom.dcmread(TEST_FILES[name])
    values = apply_voi_lut(dataset.pixel_array, dataset) if window else dataset.pixel_array.astype(float)
    low, high = (-32768, 32767) if window else (values.min(), values.max())
    error = np.abs(display_pixels(dataset) - (values - low) / (high - low) * 255)
    assert error.max() <= 0.5 + 1e-9  # measured worst: 0.50, the rounding


@pytest.mark.parametrize("name", ["6154", "6247", "6278"])
def test_display_of_computed_radiographs_is_rescaled_inverted_and_windowed(name: str) -> None:
    dataset = pydicom.dcmread(TEST_FILES[name])
    low, high = 1600 - 0.5 - 2799 / 2, 1600 - 0.5 + 2799 / 2
    density = dataset.pixel_array * 0.684 + 200
    expected = 255 - 255 * np.clip((density - low) / (high - low), 0, 1)
    assert np.abs(display_pixels(dataset) - expected).max() <= 0.5 + 1e-9  # measured worst: 0.50


def test_decode_of_real_radiographs_is_stored_pixels_stretched_and_inverted(real_data: Path) -> None:
    folder = real_data / "dicom"
    fake = folder / "Fake_MONOHR1.dcm"
    real = next(path for path in sorted(folder.glob("*.dcm")) if path != fake)
    stored = pydicom.dcmread(real).pixel_array
    shown = decode_image(real.read_bytes())
    assert np.abs(shown - stored * (255 / 254)).max() <= 0.5 + 1e-9  # measured worst: 0.50; stored 0 to 254
    # The two files hold the same stored values and differ in the photometric interpretation alone.
    np.testing.assert_array_equal(decode_image(fake.read_bytes()), 255 - shown)


def test_decode_masks_by_rules_before_anything_else_is_judged() -> None:
    rules = (Rule("label", (Region(0, 0, 50, 39),), manufacturer="acme"),)
    data = written(radiograph(noise(), Modality="CR", Manufacturer="ACME Imaging"))
    found = read_radiograph(data, rules=rules)
    plain = read_radiograph(data)
    assert found.notes == ("masked by label",)
    assert not found.image_HW[:39].any()
    np.testing.assert_array_equal(found.image_HW[39:], plain.image_HW[39:])


def test_decode_source_gives_the_view_of_the_header_and_what_was_masked() -> None:
    data = written(radiograph(noise(), Modality="CR", ViewPosition="PA", BurnedInAnnotation="YES"))
    decoded = decode_source(data, None)
    assert (decoded.image_HW.shape, decoded.size, decoded.view) == ((40, 50), (40, 50), "PA")
    assert decoded.notes == ("burned-in annotation not masked",)
