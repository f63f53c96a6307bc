"""DICOM bytes to the pixels that a radiologist would see, in the standard's order.

Stored values -> modality LUT or rescale (PS3.3 C.11.1) -> VOI LUT or window (C.11.2) -> inversion of
MONOCHROME1 (C.7.6.3.1.2) -> 8 bits. Shapes: H rows, W columns of one image.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels import apply_modality_lut, apply_windowing, get_decoder, pixel_array
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import JPEGExtended12Bit

from chexray.platform.corpus.raster import Image, UnreadableImage, check_image, check_size, stretch

_READ_ERRORS = (
    AttributeError,
    BytesLengthException,
    EOFError,
    IndexError,
    InvalidDicomError,
    KeyError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom and its decoders raise on bad or missing elements and on broken codestreams."""

_PLUGINS = ("pydicom", "pylibjpeg", "pillow", "gdcm")
"""In the order of our trust. gdcm is last because it ends the whole process (an uncaught C++ exception) on
some corrupt JPEG files; it is the only one here for JPEG Lossless and JPEG-LS."""

_PIXEL_DATA_TAGS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")


def decode_dicom(data: bytes) -> Image:
    """Display pixels image_HW uint8 of a single-frame grey DICOM file (PS3.10). Raises `UnreadableImage`."""
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        if "PixelData" not in dataset and any(tag in data for tag in _PIXEL_DATA_TAGS):
            # pydicom drops an encapsulated element that the file ends in, and says so in its log only.
            raise UnreadableImage("image truncated", f"{len(data)} bytes of DICOM end in its Pixel Data")
        return check_image(display_pixels(dataset))
    except _READ_ERRORS as error:
        truncated = isinstance(error, EOFError) or "truncated" in str(error).lower()
        raise UnreadableImage(
            "image truncated" if truncated else "image not readable",
            f"{len(data)} bytes of DICOM: {type(error).__name__}: {error}",
        ) from error


def display_pixels(dataset: Dataset) -> Image:
    """Display pixels image_HW uint8 (0 black, 255 white) of a parsed dataset, of any size.

    Of several windows the first is taken; a VOI LUT goes before a window (C.11.2 leaves the choice to the
    application). Without either, the image's own range is shown, padding pixels not counted (C.7.5.1.1.2).
    Raises `UnreadableImage` where there are no pixels, several frames, colour, or too few bytes.
    """
    _check_dataset(dataset)
    stored_HW = pixel_array(dataset, decoding_plugin=_decoding_plugin(dataset)).astype(np.int64)
    if stored_HW.ndim != 2:
        raise UnreadableImage("image with several frames", f"pixels of shape {stored_HW.shape}")
    modality_HW = _apply_modality(stored_HW, dataset)
    image_HW = _apply_voi(modality_HW, dataset)
    if image_HW is None:
        shown = modality_HW[~_is_padding(stored_HW, dataset)]
        if shown.size == 0:
            raise UnreadableImage("image constant", "every pixel is padding")
        image_HW = stretch(modality_HW, float(shown.min()), float(shown.max()))
    # C.7.6.3.1.2: the minimum value of MONOCHROME1 is meant to be displayed as white.
    return 255 - image_HW if dataset.PhotometricInterpretation == "MONOCHROME1" else image_HW


def _check_dataset(dataset: Dataset) -> None:
    if "PixelData" not in dataset:
        raise UnreadableImage("image without pixels", "no Pixel Data (7FE0,0010)")
    photometric = dataset.PhotometricInterpretation
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or dataset.SamplesPerPixel != 1:
        raise UnreadableImage("image in colour", f"photometric interpretation {photometric}")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise UnreadableImage("image with several frames", f"{frames} frames")
    check_size(dataset.Rows, dataset.Columns)


def _decoding_plugin(dataset: Dataset) -> str:
    """The decoder for the dataset's transfer syntax, or '' for uncompressed Pixel Data of full length."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        found, expected = len(dataset.PixelData), get_expected_length(dataset)
        if found < expected:
            raise UnreadableImage("image truncated", f"{found} of {expected} bytes of Pixel Data")
        return ""
    available = get_decoder(syntax).available_plugins
    if syntax == JPEGExtended12Bit and dataset.BitsStored > 8:
        # Pillow and gdcm read 8-bit JPEG Extended only, says pydicom.
        available = [name for name in available if name == "pylibjpeg"]
    for name in _PLUGINS:
        if name in available:
            return name
    raise UnreadableImage(
        "image encoding not supported",
        f"{syntax.name} of {dataset.BitsStored} bits: no decoder here; most are in chexray[dicom]",
    )


def _apply_modality(stored_HW: NDArray[np.int64], dataset: Dataset) -> NDArray[np.generic]:
    """C.11.1: a lookup table, or slope and intercept, or the stored values themselves."""
    if dataset.get("ModalityLUTSequence"):
        return _look_up(stored_HW, dataset.ModalityLUTSequence[0], dataset)
    modality_HW: NDArray[np.generic] = apply_modality_lut(stored_HW, dataset)
    return modality_HW


def _apply_voi(modality_HW: NDArray[np.generic], dataset: Dataset) -> Image | None:
    """C.11.2: 8-bit values of the first VOI LUT or window; None where the dataset has no usable one."""
    if dataset.get("VOILUTSequence"):
        item = dataset.VOILUTSequence[0]
        return stretch(_look_up(modality_HW, item, dataset), 0, 2 ** int(item.LUTDescriptor[2]) - 1)
    center, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    # C.11.2.1.2.1 and C.11.2.1.3: width is at least 1 for LINEAR, above 0 for the others.
    if center is None or width is None or width <= 0 or (function == "LINEAR" and width < 1):
        return None
    window = Dataset()
    window.PhotometricInterpretation = "MONOCHROME2"
    # 8 stored bits and no rescale: pydicom then answers in 0 to 255, whatever the modality's range was.
    window.BitsStored, window.PixelRepresentation = 8, 0
    window.WindowCenter, window.WindowWidth, window.VOILUTFunction = center, width, function
    return stretch(apply_windowing(modality_HW, window), 0, 255)


def _look_up(values_HW: NDArray[np.generic], item: Dataset, dataset: Dataset) -> NDArray[np.generic]:
    """C.11.1.1: values through a LUT item, its first and last entries beyond its ends.

    Own code because pydicom 3.0 wraps the index of 8-bit tables with more than 256 entries.
    """
    entries, first, _ = item.LUTDescriptor
    entries = entries or 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        order = ">" if dataset.original_encoding[1] is False else "<"
        # C.11.1.1.1: 8-bit entries are packed, though some writers pad each to 16 bits.
        width = 1 if len(data) < 2 * entries else 2
        data = np.frombuffer(data, f"{order}u{width}")
    table = np.atleast_1d(np.asarray(data))[:entries]
    index_HW = np.rint(values_HW.astype(np.float64)).astype(np.int64) - first
    looked_up: NDArray[np.generic] = table[np.clip(index_HW, 0, len(table) - 1)]
    return looked_up


def _is_padding(stored_HW: NDArray[np.int64], dataset: Dataset) -> NDArray[np.bool_]:
    """C.7.5.1.1.2: pixels of the padding value, or from it to the padding range limit."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored_HW.shape, bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return (stored_HW >= low) & (stored_HW <= high)


def _first(value: object) -> float | None:
    """The first of an element's values, or None where it is absent or empty."""
    if isinstance(value, pydicom.multival.MultiValue):
        value = value[0] if value else None
    return None if value is None or value == "" else float(str(value))
