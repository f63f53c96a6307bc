"""Pixel Data (7FE0,0010) of a DICOM dataset to its stored values as unsigned codes, whatever the transfer syntax.

Compressed frames go to `imagecodecs` (libjpeg-turbo, CharLS, OpenJPEG): exact on every process of PS3.5 A.4, and
it raises where other decoders end the process. Every frame's own header is compared with the dataset before it is
decoded, so that no decoder allocates more than the image. Shapes: H rows, W columns; codes uint8 or uint16.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import UID, RLELossless

from chexray.platform.corpus.dicom_dataset import integers, is_big_endian
from chexray.platform.corpus.raster import UnreadableImage, check_size

Codes = NDArray[np.uint8] | NDArray[np.uint16]

_JPEG_LS = 0xF7
_LOSSY_8_BIT = (0xC0, 0xC1)
_START_OF_FRAME = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 0xCB, _JPEG_LS})
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})
_END_OF_IMAGE = b"\xff\xd9"
_J2K_START = b"\xff\x4f\xff\x51"
_JP2_START = b"\x00\x00\x00\x0cjP  "
_MAX_BITS = 16


@dataclass(frozen=True)
class StoredPixels:
    """`codes_HW`: the low `bits` of each stored value, unsigned; `signed` says that they are two's complement."""

    codes_HW: Codes
    bits: int
    signed: bool


@dataclass(frozen=True)
class _FrameHeader:
    kind: int
    precision: int
    height: int
    width: int
    components: int


def read_pixels(dataset: Dataset) -> StoredPixels:
    """The stored values of a single-frame grey dataset of up to 16 bits (PS3.5 8.1.1).

    Missing elements are taken as the common case: one sample, one frame, all allocated bits stored, unsigned.
    Raises `UnreadableImage`, or what pydicom raises on broken elements.
    """
    rows, columns = _check_dataset(dataset)
    allocated = _integer(dataset, "BitsAllocated")
    stored = _integer(dataset, "BitsStored", allocated)
    if allocated not in (8, 16, 32) or not 1 <= stored <= min(allocated, _MAX_BITS):
        raise UnreadableImage("image encoding not supported", f"{stored} bits stored in {allocated}; up to 16 are read")
    signed = _integer(dataset, "PixelRepresentation", 0)
    if signed not in (0, 1):
        raise UnreadableImage("image not readable", f"pixel representation {signed}: it is 0 or 1")
    if not isinstance(dataset.PixelData, bytes):
        raise UnreadableImage("image not readable", "Pixel Data (7FE0,0010) that is no bytes")
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    # An empty element is no UID, and one of two values is a list: of their text, too, UID says ValueError.
    if dataset["PixelData"].is_undefined_length or (syntax is not None and UID(str(syntax)).is_encapsulated):
        words_HW = _decode_frame(dataset, syntax == RLELossless, allocated, rows, columns)
        shift = 0
    else:
        words_HW = _native_words(dataset, allocated, rows, columns)
        shift = _integer(dataset, "HighBit", stored - 1) + 1 - stored
        if not 0 <= shift <= allocated - stored:
            raise UnreadableImage("image not readable", f"high bit of {stored} stored bits is {shift + stored - 1}")
    return StoredPixels(_masked(words_HW, shift, stored), stored, bool(signed))


def _check_dataset(dataset: Dataset) -> tuple[int, int]:
    """Rows and columns of what can be decoded."""
    if "PixelData" not in dataset:
        raise UnreadableImage("image without pixels", "no Pixel Data (7FE0,0010)")
    photometric, samples = dataset.get("PhotometricInterpretation"), _integer(dataset, "SamplesPerPixel", 1)
    if not photometric:
        # C.7.6.3.1.2: without it black and white cannot be told apart.
        raise UnreadableImage("image not readable", "no Photometric Interpretation (0028,0004)")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or samples != 1:
        raise UnreadableImage("image in colour", f"photometric interpretation {photometric}, {samples} samples")
    frames = _integer(dataset, "NumberOfFrames", 1)
    if frames > 1:
        raise UnreadableImage("image with several frames", f"{frames} frames")
    rows, columns = _integer(dataset, "Rows"), _integer(dataset, "Columns")
    check_size(rows, columns)
    return rows, columns


def _integer(dataset: Dataset, name: str, default: int | None = None) -> int:
    values = integers(dataset, name)
    if values:
        return values[0]
    if default is None:
        raise UnreadableImage("image not readable", f"no {name}")
    return default


def _masked(words_HW: NDArray[Any], shift: int, stored: int) -> Codes:
    """PS3.5 8.1.1: the stored bits end at High Bit; what is around them (overlays, signs) is no part of the value."""
    mask = (1 << stored) - 1
    if shift or words_HW.max(initial=0) > mask:
        words_HW = (words_HW >> words_HW.dtype.type(shift)) & words_HW.dtype.type(mask)
    return words_HW if words_HW.dtype.itemsize <= 2 else words_HW.astype(np.uint16)


def _native_words(dataset: Dataset, allocated: int, rows: int, columns: int) -> NDArray[Any]:
    """PS3.5 8.1.1: words of uncompressed Pixel Data, in the machine's byte order."""
    data = dataset.PixelData
    expected = rows * columns * allocated // 8
    if len(data) < expected:
        raise UnreadableImage("image truncated", f"{len(data)} of {expected} bytes of Pixel Data")
    if len(data) >= 2 * expected:
        raise UnreadableImage("image with several frames", f"{len(data)} bytes of Pixel Data, one frame has {expected}")
    big = is_big_endian(dataset)
    if big and allocated == 8 and dataset["PixelData"].VR == "OW":
        # PS3.5 A.3: the bytes are pairs in words, and the words are swapped.
        data = np.frombuffer(data, ">u2").astype("<u2").tobytes()
    words = np.frombuffer(data, f"{'>' if big else '<'}u{allocated // 8}", rows * columns)
    return words.reshape(rows, columns).astype(words.dtype.newbyteorder("="), copy=False)


def _decode_frame(dataset: Dataset, is_rle: bool, allocated: int, rows: int, columns: int) -> NDArray[Any]:
    """The one frame of encapsulated Pixel Data (PS3.5 A.4), by what its first bytes say that it is."""
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if is_rle:
        return _decode_rle(frame, allocated, rows, columns)
    header = _frame_header(frame)
    if header.components != 1:
        raise UnreadableImage("image in colour", f"a frame of {header.components} components")
    if (header.height, header.width) != (rows, columns):
        raise UnreadableImage(
            "image not readable",
            f"a frame of {header.height} x {header.width} pixels, the dataset says {rows} x {columns}",
        )
    if header.precision > min(allocated, _MAX_BITS):
        raise UnreadableImage("image encoding not supported", f"a frame of {header.precision} bits in {allocated}")
    end = frame.rfind(_END_OF_IMAGE)
    if end < 0:
        # CharLS looks for it for up to 20 s, and the others invent the rows that are missing.
        raise UnreadableImage("image truncated", f"a frame of {len(frame)} bytes without end marker")
    words_HW = _decompress(frame[: end + len(_END_OF_IMAGE)], header)
    if words_HW.shape != (rows, columns):
        raise UnreadableImage("image not readable", f"decoded pixels of shape {words_HW.shape}")
    return words_HW.view(np.dtype(f"u{words_HW.itemsize}"))


def _decompress(frame: bytes, header: _FrameHeader) -> NDArray[Any]:
    codecs = _codecs()
    if codecs is None:
        return _decompress_baseline(frame, header)
    try:
        if header.kind == 0:
            return np.asarray(codecs.jpeg2k_decode(frame, numthreads=1))
        return np.asarray(codecs.jpegls_decode(frame) if header.kind == _JPEG_LS else codecs.jpeg8_decode(frame))
    except RuntimeError as error:
        raise UnreadableImage("image not readable", str(error)) from error


def _decompress_baseline(frame: bytes, header: _FrameHeader) -> NDArray[Any]:
    """What a bare installation can read: JPEG of 8 bits."""
    if header.kind not in _LOSSY_8_BIT or header.precision != 8:
        raise _missing_codecs()
    with PIL.Image.open(io.BytesIO(frame), formats=("JPEG",)) as image:
        return np.asarray(image)


def _decode_rle(frame: bytes, allocated: int, rows: int, columns: int) -> NDArray[Any]:
    """PS3.5 annex G: one run-length segment per byte of the words."""
    codecs = _codecs()
    if codecs is None:
        raise _missing_codecs()
    width = allocated // 8
    data = np.zeros(rows * columns * width, np.uint8)
    try:
        decoded = codecs.dicomrle_decode(frame, f"<u{width}", out=data)
    except (RuntimeError, ValueError) as error:
        raise UnreadableImage("image not readable", f"RLE: {error}") from error
    if len(decoded) != len(data):
        raise UnreadableImage("image truncated", f"RLE segments of {len(decoded)} bytes, {len(data)} needed")
    return data.view(f"<u{width}").reshape(rows, columns)


@cache
def _codecs() -> Any:
    """The module `imagecodecs`, or None where it is not installed."""
    try:
        import imagecodecs
    except ImportError:
        return None
    return imagecodecs


def _missing_codecs() -> UnreadableImage:
    return UnreadableImage(
        "image encoding not supported", "no decoder here for this compression: install chexray[dicom]"
    )


def _frame_header(frame: bytes) -> _FrameHeader:
    """Kind (0: JPEG 2000, else the JPEG start-of-frame marker), precision and size from a frame's first segments."""
    if frame.startswith((_J2K_START, _JP2_START)):
        return _j2k_header(frame)
    if not frame.startswith(b"\xff\xd8"):
        raise UnreadableImage("image encoding not supported", f"a frame of {len(frame)} bytes that is no JPEG")
    at = 2
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF or marker in _BARE_MARKERS:
            at += 1 if marker == 0xFF else 2
        elif marker in _START_OF_FRAME and at + 10 <= len(frame):
            return _FrameHeader(marker, *struct.unpack(">BHHB", frame[at + 4 : at + 10]))
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    raise UnreadableImage("image not readable", f"a JPEG frame of {len(frame)} bytes without start of frame")


def _j2k_header(frame: bytes) -> _FrameHeader:
    """ISO/IEC 15444-1 A.5.1: the image and tile size segment opens the codestream, which a JP2 file has in a box."""
    start = frame.find(_J2K_START)
    segment = frame[start + 4 : start + 43]
    if start < 0 or len(segment) < 39:
        raise UnreadableImage("image truncated", f"a JPEG 2000 frame of {len(frame)} bytes")
    right, bottom, left, top = struct.unpack(">4I", segment[4:20])
    (components,) = struct.unpack(">H", segment[36:38])
    return _FrameHeader(0, (segment[38] & 0x7F) + 1, bottom - top, right - left, components)
