"""Which DICOM files are refused, for which reason, and that a refusal quotes nothing of the header."""

from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_files import TEST_FILES, encapsulated, noise, radiograph, written
from pydicom.uid import JPEGBaseline8Bit

from chexray.platform.corpus.dicom import read_radiograph
from chexray.platform.corpus.raster import UnreadableImage

NO_JPEG = b"\xff\xd8 not a jpeg \xff\xd9"


def refusal(data: bytes) -> UnreadableImage:
    with pytest.raises(UnreadableImage) as caught:
        read_radiograph(data)
    return caught.value


def test_display_of_negative_window_index_is_refused() -> None:
    with pytest.raises(ValueError, match="window is -1: it must be 0 or more"):
        read_radiograph(written(radiograph(noise())), window=-1)


@pytest.mark.parametrize("name", ["PhotometricInterpretation", "Rows", "Columns", "BitsAllocated"])
def test_decode_without_an_element_that_cannot_be_guessed_names_it(name: str) -> None:
    dataset = radiograph(noise())
    del dataset[name]
    error = refusal(written(dataset))
    assert error.reason == "image not readable"
    assert name in str(error).replace(" ", "")


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
    dataset = radiograph(noise())
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
    dataset = pydicom.dcmread(TEST_FILES[name])
    dataset.Modality, dataset.BodyPartExamined = "CR", "CHEST"
    data = written(dataset)
    start = data.find(b"\xe0\x7f\x10\x00")
    cut = (max(start, 0) + len(data)) // 2
    assert refusal(data[:cut]).reason == "image truncated"


def test_decode_of_corrupt_jpeg_in_dicom_gives_a_reason() -> None:
    dataset = encapsulated(radiograph(noise()), JPEGBaseline8Bit, NO_JPEG)
    assert refusal(written(dataset)).reason in ("image not readable", "image truncated")


def test_decode_never_decodes_what_the_header_leaves_out() -> None:
    dataset = radiograph(noise(), Modality="DX", BodyPartExamined="CHEST", ViewPosition="LL")
    encapsulated(dataset, JPEGBaseline8Bit, NO_JPEG)
    lateral = written(dataset)
    dataset.BodyPartExamined = "HAND"
    hand = written(dataset)
    with pytest.raises(UnreadableImage, match=r"^lateral view$"):
        read_radiograph(lateral, "frontal")
    with pytest.raises(UnreadableImage, match=r"^not a chest$"):
        read_radiograph(hand)
    with pytest.raises(UnreadableImage, match=r"^image not readable"):
        read_radiograph(lateral, "lateral")


def test_refusal_and_warnings_of_a_broken_header_quote_none_of_it(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    secret = "Doe^Jane "
    dataset = radiograph(noise(), Modality="CR", NumberOfFrames=1, PatientAge="030Y", Laterality="L")
    data = written(dataset)
    for element in (b"IS\x02\x001 ", b"AS\x04\x00030Y", b"CS\x02\x00L "):
        assert element in data
        data = data.replace(element, element[:2] + b"\x09\x00" + secret.encode())
    error = refusal(data)
    assert error.reason == "image not readable"
    assert secret not in str(error)
    assert secret not in caplog.text
    assert not any(secret in str(warning.message) for warning in recwarn)
