"""Bytes of a DICOM file (PS3.10) to a parsed dataset, within bounds, and the values of its elements.

pydicom quotes values in the warnings of its checks, and headers name patients, so its checks are off.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import IO

import pydicom
from pydicom import config as pydicom_config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as ItemSequence
from pydicom.uid import DeflatedExplicitVRLittleEndian

from chexray.platform.corpus.raster import MAX_PIXELS, UnreadableImage

pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE

READ_ERRORS = (
    BytesLengthException,  # 3 bytes of US
    InvalidDicomError,  # no 'DICM' where it must be
    NotImplementedError,  # a VR that there is not: pydicom's own error for it
    OSError,  # the file ends in a sequence
    OverflowError,  # Number of Frames is 'inf'
    RecursionError,  # a thousand sequences in one another
    ValueError,  # Rows is text
    TypeError,  # a date-time that is a number (pydicom converts elements when they are looked at)
    struct.error,  # the file ends in an item's tag
    zlib.error,  # a deflated dataset with a wrong byte
)
"""What reading bad elements raises, with an example of each."""

_PREAMBLE_BYTES = 132
_START_BYTES = 1024
"""Enough for the file meta elements, of which Transfer Syntax UID is one (PS3.10 7.1)."""

_MAX_INFLATED = 4 * MAX_PIXELS


def parse_dataset(stream: IO[bytes], tags: Sequence[str] | None = None) -> Dataset:
    """The dataset of a DICOM file: all of it, or only the elements `tags`, which come before the pixels.

    Deflated files (PS3.5 A.5) are inflated to 400 MB at most. Raises `UnreadableImage`, or one of `READ_ERRORS`.
    """
    start = stream.read(_START_BYTES)
    stream.seek(0)
    if DeflatedExplicitVRLittleEndian.encode() in start:
        return _read_deflated(stream)
    return pydicom.dcmread(
        stream, stop_before_pixels=tags is not None, specific_tags=None if tags is None else list(tags)
    )


def first_text(dataset: Dataset, name: str) -> str:
    """The first value of an element as text, '' where it is absent or empty."""
    value = dataset.get(name)
    if isinstance(value, MultiValue):
        value = value[0] if value else None
    return "" if value is None else str(value).strip()


def items(dataset: Dataset, name: str) -> Sequence[Dataset]:
    """The items of a sequence; () where it is absent or empty. ValueError where its VR is another one."""
    value = dataset.get(name)
    if not value:
        return ()
    if not isinstance(value, ItemSequence):
        raise ValueError(f"{name} is {type(value).__name__}: it must be a sequence")
    return list(value)


def floats(dataset: Dataset, name: str) -> list[float]:
    """All values of a numeric element; [] where it is absent or empty."""
    value = dataset.get(name)
    values = value if isinstance(value, MultiValue | list) else [value]
    return [float(str(one)) for one in values if one is not None and str(one).strip()]


def integers(dataset: Dataset, name: str) -> list[int]:
    """All values of an element; those of 16 bits whose VR the file leaves open (US or SS) as unsigned."""
    value = dataset.get(name)
    if isinstance(value, bytes):
        order = ">" if is_big_endian(dataset) else "<"
        return list(struct.unpack(f"{order}{len(value) // 2}H", value[: len(value) // 2 * 2]))
    return [int(one) for one in floats(dataset, name)]


def is_big_endian(dataset: Dataset) -> bool:
    return dataset.original_encoding[1] is False


def _read_deflated(stream: IO[bytes]) -> Dataset:
    stream.seek(_PREAMBLE_BYTES)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = inflater.decompress(stream.read(), _MAX_INFLATED)
    if inflater.unconsumed_tail:
        raise UnreadableImage("image too large", f"inflates to more than {_MAX_INFLATED} bytes")
    if not inflater.eof:
        raise UnreadableImage("image truncated", "the deflated dataset has no end")
    dataset = read_dataset(io.BytesIO(plain), False, True)
    dataset.file_meta = FileMetaDataset(meta)
    return dataset
