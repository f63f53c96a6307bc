"""DICOM to display pixels: hand-computed values on 12-bit data, pydicom's own test files, real radiographs.

Expected values follow PS3.3 C.11.1, C.11.2.1.2 and C.7.6.3.1.2, then 8 bits rounded to the nearest.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_voi_lut
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from chexray.platform.corpus.dicom import decode_dicom, display_pixels
from chexray.platform.corpus.raster import UnreadableImage, decode_image

DATA = Path(__file__).parents[2] / "shared" / "data" / "dicom"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs shared/data/dicom")


def radiograph(stored: np.ndarray, **elements: Any) -> Dataset:
    """A 12-bit single-frame grey dataset."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0 if stored.dtype == np.uint16 else 1
    dataset.PixelData = stored.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def row(values: list[int], **elements: Any) -> list[int]:
    """Display values of one row of stored values, through a written file."""
    dataset = radiograph(np.array([values], np.int16 if min(values) < 0 else np.uint16), **elements)
    return display_pixels(pydicom.dcmread(io.BytesIO(written(dataset))))[0].tolist()


def written(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def lut(entries: int, first: int, bits: int, data: list[int] | bytes) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [entries, first, bits])
    item.add_new("LUTData", "OW" if isinstance(data, bytes) else "US", data)
    return [item]


def large() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4096, (40, 50)).astype(np.uint16)


def refusal(data: bytes) -> UnreadableImage:
    with pytest.raises(UnreadableImage) as caught:
        decode_image(data)
    return caught.value


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
    assert row(values, **elements) == expected


@pytest.mark.parametrize("packed", [False, True])
def test_display_with_voi_lut_maps_and_holds_its_ends(packed: bool) -> None:
    data: list[int] | bytes = [0, 10, 200, 255]
    sequence = lut(4, 100, 8, bytes(data) if packed else data)
    assert row([0, 100, 101, 102, 103, 4095], VOILUTSequence=sequence) == [0, 0, 10, 200, 255, 255]


def test_display_with_8_bit_voi_lut_of_many_entries_does_not_wrap() -> None:
    sequence = lut(4096, 0, 8, [i // 16 for i in range(4096)])
    assert row([0, 300, 2048, 4095], VOILUTSequence=sequence) == [0, 18, 128, 255]


def test_display_with_modality_lut_then_window_uses_the_mapped_values() -> None:
    elements = {"WindowCenter": 200, "WindowWidth": 101}
    sequence = lut(3, 10, 16, [149, 175, 250])
    sequence[0].ModalityLUTType = "US"
    assert row([10, 11, 12], ModalityLUTSequence=sequence, **elements) == [0, 65, 255]


def test_display_with_voi_lut_of_12_bits_is_as_pydicom_maps_it() -> None:
    table = np.sort(np.random.default_rng(3).integers(0, 4096, 4096)).tolist()
    dataset = radiograph(large(), VOILUTSequence=lut(4096, 0, 12, table))
    expected = apply_voi_lut(dataset.pixel_array, dataset) / 4095 * 255
    error = np.abs(display_pixels(dataset) - expected)
    assert error.max() <= 0.5 + 1e-9  # measured worst: 0.50, the rounding


def test_display_of_inverted_monochrome1_copy_is_the_same() -> None:
    window = {"WindowCenter": 2048, "WindowWidth": 2001}
    inverse = radiograph(4095 - large(), PhotometricInterpretation="MONOCHROME1", **window)
    error = np.abs(display_pixels(inverse).astype(int) - display_pixels(radiograph(large(), **window)))
    assert error.max() == 0


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
    path = Path(str(get_testdata_file(name)))
    dataset = pydicom.dcmread(path)
    values = apply_voi_lut(dataset.pixel_array, dataset) if window else dataset.pixel_array.astype(float)
    low, high = (-32768, 32767) if window else (values.min(), values.max())
    error = np.abs(decode_dicom(path.read_bytes()) - (values - low) / (high - low) * 255)
    assert error.max() <= 0.5 + 1e-9  # measured worst: 0.50, the rounding


def test_display_of_computed_radiographs_is_rescaled_inverted_and_windowed() -> None:
    directory = Path(str(get_testdata_file("DICOMDIR"))).parent / "77654033"
    for path in sorted(p for p in directory.glob("CR*/*") if p.is_file()):
        dataset = pydicom.dcmread(path)
        low, high = 1600 - 0.5 - 2799 / 2, 1600 - 0.5 + 2799 / 2
        density = dataset.pixel_array * 0.684 + 200
        expected = 255 - 255 * np.clip((density - low) / (high - low), 0, 1)
        assert np.abs(display_pixels(dataset) - expected).max() <= 0.5 + 1e-9  # measured worst: 0.50


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PixelData": None}, "image without pixels"),
        ({"NumberOfFrames": 2}, "image with several frames"),
        ({"PhotometricInterpretation": "RGB"}, "image in colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "image in colour"),
        ({"Rows": 60_000, "Columns": 60_000}, "image too large"),
        ({"Rows": 0}, "image empty"),
        ({"Rows": 80}, "image truncated"),
        ({"Rows": 20}, "image with several frames"),
        ({"Rows": 20, "PixelData": bytes(range(200)) * 10}, "image too small"),
        ({"PixelData": bytes(4000)}, "image constant"),
        ({"PixelRepresentation": 3}, "image not readable"),
    ],
)
def test_decode_of_unusable_dataset_gives_the_reason(elements: dict[str, Any], reason: str) -> None:
    dataset = radiograph(large())
    for name, value in elements.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    assert refusal(written(dataset)).reason == reason


def test_decode_of_padding_alone_is_constant() -> None:
    dataset = radiograph(np.full((40, 50), 7, np.uint16), PixelPaddingValue=7)
    assert refusal(written(dataset)).reason == "image constant"


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "image_dfl.dcm"])
def test_decode_of_file_cut_in_its_pixels_is_truncated(name: str) -> None:
    data = Path(str(get_testdata_file(name))).read_bytes()
    start = data.find(b"\xe0\x7f\x10\x00")
    cut = (max(start, 0) + len(data)) // 2
    assert refusal(data[:cut]).reason == "image truncated"


def test_decode_of_12_bit_jpeg_without_a_decoder_says_so() -> None:
    error = refusal(Path(str(get_testdata_file("JPGExtended.dcm"))).read_bytes())
    assert error.reason == "image encoding not supported"
    assert "JPEG Extended" in str(error)


def test_decode_of_corrupt_jpeg_in_dicom_gives_a_reason() -> None:
    dataset = radiograph(large())
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8 not a jpeg \xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    assert refusal(written(dataset)).reason in ("image not readable", "image truncated")


@needs_data
def test_decode_of_real_radiographs_is_stored_pixels_stretched_and_inverted() -> None:
    fake = DATA / "Fake_MONOHR1.dcm"
    real = next(path for path in sorted(DATA.glob("*.dcm")) if path != fake)
    stored = pydicom.dcmread(real).pixel_array
    shown = decode_image(real.read_bytes())
    assert np.abs(shown - stored * (255 / 254)).max() <= 0.5 + 1e-9  # measured worst: 0.50; stored 0 to 254
    # The two files hold the same stored values and differ in the photometric interpretation alone.
    np.testing.assert_array_equal(decode_image(fake.read_bytes()), 255 - shown)
