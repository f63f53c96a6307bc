"""Every transfer syntax that radiographs come in: exact against the stored values, dcmtk and other decoders."""

import contextlib
import io
import multiprocessing
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import PIL.Image
import pydicom
import pytest
from dicom_files import radiograph, written
from process_memory import peak_mebibytes
from pydicom import uid
from pydicom.data import get_testdata_files
from pydicom.dataset import Dataset

from chexray.platform.corpus import dicom_dataset, dicom_pixels
from chexray.platform.corpus.dicom import decode_dicom, display_pixels
from chexray.platform.corpus.dicom_lut import stored_values
from chexray.platform.corpus.dicom_pixels import read_pixels
from chexray.platform.corpus.raster import UnreadableImage

REAL = Path(__file__).parents[2] / "shared" / "data" / "dicom"
TEST_FILES = {Path(name).name: Path(name) for name in get_testdata_files()}
needs_dcmtk = pytest.mark.skipif(
    not all(map(shutil.which, ("dcmj2pnm", "dcmcjpeg", "dcmdjpeg", "dcmcjpls", "dcmcrle"))), reason="needs dcmtk"
)


def smooth(bits: int, signed: bool = False, height: int = 41, width: int = 53) -> np.ndarray:
    """An odd number of pixels over almost all of the range, with some noise."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(bits).standard_normal((height, width))
    share = np.clip(0.5 + 0.4 * np.sin(y / 9) * np.cos(x / 7) + 0.02 * noise, 0, 1)
    values = np.rint(share * (2**bits - 1)).astype(np.int64) - (2 ** (bits - 1) if signed else 0)
    return values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


def dataset_of(bits: int, signed: bool = False) -> Dataset:
    dataset = radiograph(smooth(bits, signed), BitsStored=bits, HighBit=bits - 1)
    # dcmtk's compressors ask for these.
    dataset.PatientID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "x", "1.2.3.4", "1.2.3.5"
    return dataset


def encapsulated(dataset: Dataset, syntax: str, frame: bytes) -> Dataset:
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    dataset.PixelData = pydicom.encaps.encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def stored_of(dataset: Dataset) -> np.ndarray:
    """The stored values that we read from the dataset, written and read again."""
    pixels = read_pixels(pydicom.dcmread(io.BytesIO(written(dataset))))
    return stored_values(pixels.bits, pixels.signed)[pixels.codes_HW]


def jpeg(lossless: bool, predictor: int | None = None) -> Callable[[np.ndarray, int], bytes]:
    def encode(values: np.ndarray, bits: int) -> bytes:
        options: dict[str, Any] = {"bitspersample": bits}
        if lossless:
            options |= {"lossless": True, "predictor": predictor}
        return bytes(imagecodecs.jpeg8_encode(values, level=None if lossless else 95, **options))

    return encode


def jpeg_ls(near: int) -> Callable[[np.ndarray, int], bytes]:
    return lambda values, bits: bytes(imagecodecs.jpegls_encode(values, level=near))


def jpeg_2000(codecformat: str) -> Callable[[np.ndarray, int], bytes]:
    return lambda values, bits: bytes(
        imagecodecs.jpeg2k_encode(values, level=0, reversible=True, codecformat=codecformat, bitspersample=bits)
    )


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
        dataset.PixelData = smooth(bits, signed).astype(f">{smooth(bits, signed).dtype.str[1:]}").tobytes() + b"\0" * (
            bits == 8
        )
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    pydicom.dcmwrite(
        buffer,
        dataset,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=syntax.is_little_endian,
        enforce_file_format=True,
    )
    pixels = read_pixels(dicom_dataset.parse_dataset(io.BytesIO(buffer.getvalue())))
    found = stored_values(pixels.bits, pixels.signed)[pixels.codes_HW]
    np.testing.assert_array_equal(found, smooth(bits, signed))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (uid.JPEGLosslessSV1, jpeg(True, 1)),
        (uid.JPEGLossless, jpeg(True, 6)),
        (uid.JPEGLSLossless, jpeg_ls(0)),
        (uid.JPEG2000Lossless, jpeg_2000("j2k")),
        (uid.JPEG2000, jpeg_2000("jp2")),
    ],
)
def test_stored_values_of_lossless_frames_are_exact(
    syntax: uid.UID, encode: Callable[[np.ndarray, int], bytes], bits: int
) -> None:
    dataset = encapsulated(dataset_of(bits), syntax, encode(smooth(bits), bits))
    np.testing.assert_array_equal(stored_of(dataset), smooth(bits))


@pytest.mark.parametrize(
    ("syntax", "encode", "bits", "worst"),
    [
        (uid.JPEGBaseline8Bit, jpeg(False), 8, 8),  # measured worst: 7
        (uid.JPEGExtended12Bit, jpeg(False), 12, 10),  # measured worst: 7
        (uid.JPEGLSNearLossless, jpeg_ls(3), 12, 3),  # measured worst: 3, what near-lossless promises
    ],
)
def test_stored_values_of_lossy_frames_are_near(
    syntax: uid.UID, encode: Callable[[np.ndarray, int], bytes], bits: int, worst: int
) -> None:
    found = stored_of(encapsulated(dataset_of(bits), syntax, encode(smooth(bits), bits)))
    assert 0 < np.abs(found - smooth(bits).astype(int)).max() <= worst


def test_stored_values_of_signed_jpeg_2000_are_the_dataset_s_whatever_the_frame_says() -> None:
    for values in (smooth(12, True), smooth(12, True).view(np.uint16) & 0xFFF):
        frame = bytes(imagecodecs.jpeg2k_encode(values, level=0, reversible=True, codecformat="j2k"))
        dataset = encapsulated(dataset_of(12, True), uid.JPEG2000Lossless, frame)
        np.testing.assert_array_equal(stored_of(dataset), smooth(12, True))


@needs_dcmtk
@pytest.mark.parametrize(
    ("encoder", "decoder", "bits", "signed"),
    [
        (["dcmcjpeg", "+e1"], "dcmdjpeg", 16, True),
        (["dcmcjpeg", "+e1", "+fs", "1"], "dcmdjpeg", 12, False),
        (["dcmcjpeg", "+el", "+sv", "2"], "dcmdjpeg", 12, True),
        (["dcmcjpeg", "+el", "+sv", "7"], "dcmdjpeg", 14, False),
        (["dcmcjpeg", "+el", "+sv", "1", "+pt", "2"], "dcmdjpeg", 12, False),
        (["dcmcjpeg", "+eb"], "dcmdjpeg", 8, False),
        (["dcmcjpeg", "+eb"], "dcmdjpeg", 12, False),
        (["dcmcjpeg", "+ee"], "dcmdjpeg", 8, False),
        (["dcmcjpeg", "+ee"], "dcmdjpeg", 12, True),
        (["dcmcjpls", "+el"], "dcmdjpls", 16, False),
        (["dcmcjpls", "+el"], "dcmdjpls", 12, True),
        (["dcmcjpls", "+en"], "dcmdjpls", 12, False),
        (["dcmcrle"], "dcmdrle", 16, True),
        (["dcmcrle"], "dcmdrle", 8, False),
    ],
)
def test_stored_values_of_dcmtk_s_files_are_those_that_dcmtk_decodes(
    tmp_path: Path, encoder: list[str], decoder: str, bits: int, signed: bool
) -> None:
    plain, packed, unpacked = (str(tmp_path / name) for name in ("plain", "packed", "unpacked"))
    Path(plain).write_bytes(written(dataset_of(bits, signed)))
    subprocess.run([*encoder, plain, packed], check=True, capture_output=True)
    subprocess.run([decoder, packed, unpacked], check=True, capture_output=True)
    # measured worst: 0, of these and of 170 files of 7 predictors and 9 kinds of values
    np.testing.assert_array_equal(stored_of(pydicom.dcmread(packed)), pydicom.dcmread(unpacked).pixel_array)


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
    pixels = read_pixels(dataset)
    found = stored_values(pixels.bits, pixels.signed)[pixels.codes_HW]
    np.testing.assert_array_equal(found, dataset.pixel_array)  # measured worst: 0, by gdcm and OpenJPEG too


@needs_dcmtk
@pytest.mark.parametrize(
    "name", ["JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "MR_small_jpeg_ls_lossless.dcm"]
)
def test_stored_values_of_pydicom_s_jpeg_ls_files_are_those_that_dcmtk_decodes(name: str, tmp_path: Path) -> None:
    unpacked = str(tmp_path / "unpacked")
    subprocess.run(["dcmdjpls", str(TEST_FILES[name]), unpacked], check=True, capture_output=True)
    pixels = read_pixels(pydicom.dcmread(TEST_FILES[name]))
    found = stored_values(pixels.bits, pixels.signed)[pixels.codes_HW]
    np.testing.assert_array_equal(found, pydicom.dcmread(unpacked).pixel_array)  # measured worst: 0


def dcmtk_display(path: str, dataset: Dataset, folder: Path) -> np.ndarray:
    """What dcmj2pnm shows, of 16 bits, as floats of 0 to 255: its 8 bits are cut and not rounded."""
    if dataset.get("WindowCenter") is not None:
        options = ["+Wi", "1"]
    else:
        values = dataset.pixel_array * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
        padding = dataset.pixel_array == dataset.get("PixelPaddingValue", 1e9)
        low, high = values[~padding].min(), values[~padding].max()
        # Its own +Wm takes 0 for the minimum of 8-bit images (3.6.7).
        options = ["+Ww", str((low + high + 1) / 2), str(high - low + 1)]
    target = folder / "shown.png"
    subprocess.run(["dcmj2pnm", "-O", "+on2", *options, path, str(target)], check=True, capture_output=True)
    with PIL.Image.open(target) as image:
        return np.asarray(image).astype(float) * (255 / 65535)


@needs_dcmtk
@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "JPGExtended.dcm",
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_expb.dcm",
        "MR_small_implicit.dcm",
        "MR_small_padded.dcm",
        "examples_overlay.dcm",
        "image_dfl.dcm",
        "6154",
        "6247",
        "6278",
        "17106",
        "2062",
        "6293",
        "4648",
        "15820",
    ],
)
def test_display_of_pydicom_s_files_is_that_of_dcmtk(name: str, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(TEST_FILES[name])
    if name == "JPGExtended.dcm":
        # pydicom needs another package to decode it for the window.
        dataset.WindowCenter, dataset.WindowWidth = 132.5, 265
        path = str(tmp_path / name)
        Path(path).write_bytes(written(dataset))
    else:
        path = str(TEST_FILES[name])
    error = np.abs(display_pixels(dataset) - dcmtk_display(path, dataset, tmp_path))
    # measured worst: 0.502, the rounding; 0.564 of the CR images, whose rescaled values dcmtk rounds to integers
    assert error.max() <= 0.6


@needs_dcmtk
@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data/dicom")
def test_display_of_real_radiographs_is_that_of_dcmtk(tmp_path: Path) -> None:
    for path in sorted(REAL.glob("*.dcm")):
        dataset = pydicom.dcmread(path)
        error = np.abs(display_pixels(dataset) - dcmtk_display(str(path), dataset, tmp_path))
        assert error.max() <= 0.51  # measured worst: 0.502, the rounding


@needs_dcmtk
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("function", ["LINEAR", "SIGMOID"])
def test_display_of_second_window_is_that_of_dcmtk(photometric: str, function: str, tmp_path: Path) -> None:
    dataset = dataset_of(12)
    dataset.PhotometricInterpretation, dataset.VOILUTFunction = photometric, function
    dataset.WindowCenter, dataset.WindowWidth = [1000, 2100], [500, 1800]
    path, shown = tmp_path / "in", tmp_path / "out.png"
    path.write_bytes(written(dataset))
    subprocess.run(["dcmj2pnm", "+on2", "+Wi", "2", str(path), str(shown)], check=True, capture_output=True)
    with PIL.Image.open(shown) as image:
        expected = np.asarray(image).astype(float) * (255 / 65535)
    assert np.abs(display_pixels(dataset, window=1) - expected).max() <= 0.51  # measured worst: 0.502


@needs_dcmtk
def test_display_of_voi_lut_is_that_of_dcmtk(tmp_path: Path) -> None:
    dataset = dataset_of(12)
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4096, 0, 12])
    item.add_new("LUTData", "US", [int(4095 * (i / 4095) ** 2) for i in range(4096)])
    dataset.VOILUTSequence = [item]
    path, shown = tmp_path / "in", tmp_path / "out.png"
    path.write_bytes(written(dataset))
    subprocess.run(["dcmj2pnm", "+on2", "+Wl", "1", str(path), str(shown)], check=True, capture_output=True)
    with PIL.Image.open(shown) as image:
        expected = np.asarray(image).astype(float) * (255 / 65535)
    assert np.abs(display_pixels(dataset) - expected).max() <= 0.54  # measured worst: 0.533; dcmtk divides by 2**12


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [(uid.JPEGLosslessSV1, jpeg(True, 1)), (uid.JPEGLSLossless, jpeg_ls(0)), (uid.JPEG2000Lossless, jpeg_2000("j2k"))],
)
def test_decode_of_frame_cut_short_is_truncated(syntax: uid.UID, encode: Callable[[np.ndarray, int], bytes]) -> None:
    frame = encode(smooth(12), 12)
    for length in (len(frame) // 3, len(frame) // 2, len(frame) - 2):
        with pytest.raises(UnreadableImage, match="image truncated"):
            decode_dicom(written(encapsulated(dataset_of(12), syntax, frame[:length])), None)


def test_decode_of_frame_of_another_size_than_the_dataset_s_is_refused_undecoded() -> None:
    frame = bytearray(jpeg_2000("j2k")(smooth(12), 12))
    frame[8:12] = (60_000).to_bytes(4, "big")
    with pytest.raises(UnreadableImage, match="a frame of 41 x 60000 pixels, the dataset says 41 x 53"):
        decode_dicom(written(encapsulated(dataset_of(12), uid.JPEG2000Lossless, bytes(frame))), None)


def test_decode_of_colour_frame_in_grey_dataset_is_refused() -> None:
    frame = bytes(imagecodecs.jpeg8_encode(np.dstack([smooth(8)] * 3)))
    with pytest.raises(UnreadableImage, match="image in colour: a frame of 3 components"):
        decode_dicom(written(encapsulated(dataset_of(8), uid.JPEGBaseline8Bit, frame)), None)


def test_decode_of_run_length_frame_that_ends_early_is_truncated() -> None:
    dataset = dataset_of(12)
    dataset.compress(uid.RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    header = np.zeros(16, "<u4")
    header[:3] = 2, 64, 68
    dataset = encapsulated(dataset, uid.RLELossless, header.tobytes() + b"\x02abc\x02abc")
    with pytest.raises(UnreadableImage, match="image truncated: RLE segments of 6 bytes, 4346 needed"):
        decode_dicom(written(dataset), None)


def test_decode_of_deflated_dataset_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = dataset_of(12)
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    data = written(dataset)
    monkeypatch.setattr(dicom_dataset, "_MAX_INFLATED", 1000)
    with pytest.raises(UnreadableImage, match="image too large: inflates to more than 1000 bytes"):
        decode_dicom(data, None)


def test_decode_without_the_optional_decoders_reads_baseline_and_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    baseline = written(encapsulated(dataset_of(8), uid.JPEGBaseline8Bit, jpeg(False)(smooth(8), 8)))
    lossless = written(encapsulated(dataset_of(8), uid.JPEGLosslessSV1, jpeg(True, 1)(smooth(8), 8)))
    expected = decode_dicom(baseline, None)
    monkeypatch.setattr(dicom_pixels, "_codecs", lambda: None)
    np.testing.assert_array_equal(decode_dicom(baseline, None), expected)  # measured worst: 0
    with pytest.raises(UnreadableImage, match=r"image encoding not supported: .*install chexray\[dicom\]"):
        decode_dicom(lossless, None)


def corrupted(data: bytes, rng: np.random.Generator) -> bytes:
    """A few changed bytes in the header, at the start of the pixels or anywhere in them; one in four is cut too."""
    broken = bytearray(data)
    pixels = max(data.find(b"\xe0\x7f\x10\x00"), 132)
    start, end = ((132, pixels + 8), (pixels, pixels + 300), (pixels, len(data)))[int(rng.integers(3))]
    for at in rng.integers(start, min(end, len(data)), int(rng.integers(1, 8))):
        broken[at] = int(rng.integers(256))
    return bytes(broken[: int(rng.integers(132, len(data)))] if rng.random() < 0.25 else broken)


def decode_corruptions(count: int) -> None:
    """Decode corrupted files of every syntax; AssertionError where one takes a second or all take 2 GB."""
    resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
    frames = {
        uid.JPEGBaseline8Bit: (8, jpeg(False)),
        uid.JPEGExtended12Bit: (12, jpeg(False)),
        uid.JPEGLosslessSV1: (16, jpeg(True, 1)),
        uid.JPEGLossless: (12, jpeg(True, 4)),
        uid.JPEGLSLossless: (12, jpeg_ls(0)),
        uid.JPEGLSNearLossless: (8, jpeg_ls(2)),
        uid.JPEG2000Lossless: (12, jpeg_2000("j2k")),
        uid.JPEG2000: (8, jpeg_2000("jp2")),
    }
    files = [
        written(encapsulated(dataset_of(bits), syntax, encode(smooth(bits), bits)))
        for syntax, (bits, encode) in frames.items()
    ]
    for syntax in (uid.RLELossless, uid.DeflatedExplicitVRLittleEndian, uid.ExplicitVRLittleEndian):
        dataset = dataset_of(12)
        if syntax == uid.RLELossless:
            dataset.compress(syntax, encoding_plugin="pydicom", generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = syntax
        files.append(written(dataset))
    rng = np.random.default_rng(0)
    for number in range(count):
        start = time.process_time()
        with contextlib.suppress(UnreadableImage):
            decode_dicom(corrupted(files[number % len(files)], rng), None)
        assert time.process_time() - start < 1, f"corruption {number}"  # measured worst: 0.03 s
    assert peak_mebibytes() < 2048  # measured: 0.1 of it


def test_decode_of_corrupt_files_of_every_syntax_gives_pixels_or_a_reason() -> None:
    # In a process of its own: a decoder that ends it must fail the test and not the session.
    child = multiprocessing.get_context("spawn").Process(target=decode_corruptions, args=(3000,))
    child.start()
    child.join(120)
    if child.exitcode is None:
        child.kill()
    assert child.exitcode == 0
