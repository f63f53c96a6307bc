"""Every transfer syntax that radiographs come in: exact against the stored values and pydicom."""

import imagecodecs
import numpy as np
import pydicom
import pytest
from dicom_files import TEST_FILES, encapsulated, written
from dicom_frames import Encoder, dataset_of, jpeg, jpeg_2000, jpeg_ls, smooth, stored_of
from pydicom import uid

from chexray.platform.corpus import dicom_pixels
from chexray.platform.corpus.dicom import read_radiograph
from chexray.platform.corpus.raster import UnreadableImage


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
    ],
)
def test_stored_values_of_syntaxes_that_pydicom_writes_are_exact(syntax: uid.UID, bits: int, signed: bool) -> None:
    dataset = dataset_of(bits, signed)
    if syntax == uid.RLELossless:
        dataset.compress(uid.RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    elif syntax == uid.ExplicitVRBigEndian:
        dataset.PixelData = smooth(bits, signed).byteswap().tobytes() + bytes(smooth(bits).nbytes % 2)
    dataset.file_meta.TransferSyntaxUID = syntax
    np.testing.assert_array_equal(stored_of(written(dataset)), smooth(bits, signed))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (uid.JPEGLosslessSV1, jpeg(1)),
        (uid.JPEGLossless, jpeg(6)),
        (uid.JPEGLSLossless, jpeg_ls(0)),
        (uid.JPEG2000Lossless, jpeg_2000("j2k")),
        (uid.JPEG2000, jpeg_2000("jp2")),
    ],
)
def test_stored_values_of_lossless_frames_are_exact(syntax: uid.UID, encode: Encoder, bits: int) -> None:
    dataset = encapsulated(dataset_of(bits), syntax, encode(smooth(bits), bits))
    np.testing.assert_array_equal(stored_of(written(dataset)), smooth(bits))


@pytest.mark.parametrize(
    ("syntax", "encode", "bits", "worst"),
    [
        (uid.JPEGBaseline8Bit, jpeg(), 8, 8),  # measured worst: 7
        (uid.JPEGExtended12Bit, jpeg(), 12, 10),  # measured worst: 7
        (uid.JPEGLSNearLossless, jpeg_ls(3), 12, 3),  # measured worst: 3, what near-lossless promises
    ],
)
def test_stored_values_of_lossy_frames_are_near(syntax: uid.UID, encode: Encoder, bits: int, worst: int) -> None:
    found = stored_of(written(encapsulated(dataset_of(bits), syntax, encode(smooth(bits), bits))))
    assert 0 < np.abs(found - smooth(bits).astype(int)).max() <= worst


def test_stored_values_of_signed_jpeg_2000_are_the_dataset_s_whatever_the_frame_says() -> None:
    for values in (smooth(12, True), smooth(12, True).view(np.uint16) & 0xFFF):
        frame = bytes(imagecodecs.jpeg2k_encode(values, level=0, reversible=True, codecformat="j2k"))
        dataset = encapsulated(dataset_of(12, True), uid.JPEG2000Lossless, frame)
        np.testing.assert_array_equal(stored_of(written(dataset)), smooth(12, True))


@pytest.mark.parametrize(
    "name",
    [
        "693_J2KI.dcm",
        "J2K_pixelrep_mismatch.dcm",
        "JPEG2000.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
    ],
)
def test_stored_values_of_pydicom_s_files_are_those_that_pydicom_reads(name: str) -> None:
    dataset = pydicom.dcmread(TEST_FILES[name])
    found = stored_of(TEST_FILES[name].read_bytes())
    np.testing.assert_array_equal(found, dataset.pixel_array)  # measured worst: 0, by gdcm and OpenJPEG too


def test_decode_without_the_optional_decoders_reads_baseline_and_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    baseline = written(encapsulated(dataset_of(8), uid.JPEGBaseline8Bit, jpeg()(smooth(8), 8)))
    lossless = written(encapsulated(dataset_of(8), uid.JPEGLosslessSV1, jpeg(1)(smooth(8), 8)))
    expected = read_radiograph(baseline).image_HW
    monkeypatch.setattr(dicom_pixels, "_codecs", lambda: None)
    np.testing.assert_array_equal(read_radiograph(baseline).image_HW, expected)  # measured worst: 0
    with pytest.raises(UnreadableImage, match=r"image encoding not supported: .*install chexray\[dicom\]"):
        read_radiograph(lossless)
