"""Frames that are cut, lie about their size or are changed: pixels or a reason, in bounded memory, without a hang."""

import contextlib
import multiprocessing
import resource

import imagecodecs
import numpy as np
import pytest
from dicom_files import encapsulated, written
from dicom_frames import Encoder, dataset_of, jpeg, jpeg_2000, jpeg_ls, smooth
from process_memory import peak_mebibytes
from pydicom import uid

from chexray.platform.corpus import dicom_dataset
from chexray.platform.corpus.dicom import read_radiograph
from chexray.platform.corpus.raster import UnreadableImage


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [(uid.JPEGLosslessSV1, jpeg(1)), (uid.JPEGLSLossless, jpeg_ls(0)), (uid.JPEG2000Lossless, jpeg_2000("j2k"))],
)
def test_decode_of_frame_cut_short_is_truncated(syntax: uid.UID, encode: Encoder) -> None:
    frame = encode(smooth(12), 12)
    for length in (len(frame) // 3, len(frame) // 2, len(frame) - 2):
        with pytest.raises(UnreadableImage, match="image truncated"):
            read_radiograph(written(encapsulated(dataset_of(12), syntax, frame[:length])))


def test_decode_of_frame_of_another_size_than_the_dataset_s_is_refused_undecoded() -> None:
    frame = bytearray(jpeg_2000("j2k")(smooth(12), 12))
    frame[8:12] = (60_000).to_bytes(4, "big")
    with pytest.raises(UnreadableImage, match="a frame of 41 x 60000 pixels, the dataset says 41 x 53"):
        read_radiograph(written(encapsulated(dataset_of(12), uid.JPEG2000Lossless, bytes(frame))))


def test_decode_of_colour_frame_in_grey_dataset_is_refused() -> None:
    frame = bytes(imagecodecs.jpeg8_encode(np.dstack([smooth(8)] * 3)))
    with pytest.raises(UnreadableImage, match="image in colour: a frame of 3 components"):
        read_radiograph(written(encapsulated(dataset_of(8), uid.JPEGBaseline8Bit, frame)))


def test_decode_of_run_length_frame_that_ends_early_is_truncated() -> None:
    header = np.zeros(16, "<u4")
    header[:3] = 2, 64, 68
    dataset = encapsulated(dataset_of(12), uid.RLELossless, header.tobytes() + b"\x02abc\x02abc")
    with pytest.raises(UnreadableImage, match="image truncated: RLE segments of 6 bytes, 4346 needed"):
        read_radiograph(written(dataset))


def test_decode_of_deflated_dataset_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = dataset_of(12)
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    data = written(dataset)
    monkeypatch.setattr(dicom_dataset, "_MAX_INFLATED", 1000)
    with pytest.raises(UnreadableImage, match="image too large: inflates to more than 1000 bytes"):
        read_radiograph(data)


def corrupted(data: bytes, rng: np.random.Generator) -> bytes:
    """A few changed bytes in the header, at the start of the pixels or anywhere in them; one in four is cut too."""
    broken = bytearray(data)
    pixels = max(data.find(b"\xe0\x7f\x10\x00"), 132)
    start, end = ((132, pixels + 8), (pixels, pixels + 300), (pixels, len(data)))[int(rng.integers(3))]
    for at in rng.integers(start, min(end, len(data)), int(rng.integers(1, 8))):
        broken[at] = int(rng.integers(256))
    return bytes(broken[: int(rng.integers(132, len(data)))] if rng.random() < 0.25 else broken)


def decode_corruptions(count: int) -> None:
    """Decode corrupted files of every syntax; AssertionError where they take 2 GB."""
    resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
    frames = {
        uid.JPEGBaseline8Bit: (8, jpeg()),
        uid.JPEGExtended12Bit: (12, jpeg()),
        uid.JPEGLosslessSV1: (16, jpeg(1)),
        uid.JPEGLossless: (12, jpeg(4)),
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
        with contextlib.suppress(UnreadableImage):
            read_radiograph(corrupted(files[number % len(files)], rng))
    assert peak_mebibytes() < 2048  # measured: 0.1 of it


def test_decode_of_corrupt_files_of_every_syntax_gives_pixels_or_a_reason() -> None:
    # In a process of its own: a decoder that ends it must fail the test and not the session.
    child = multiprocessing.get_context("spawn").Process(target=decode_corruptions, args=(3000,))
    child.start()
    child.join(120)  # a guard against a hang: it takes seconds
    if child.exitcode is None:
        child.kill()
    assert child.exitcode == 0
