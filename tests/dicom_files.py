"""DICOM files that tests build: what every one needs, and the rest by keyword."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.data import get_testdata_files
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from chexray.platform.corpus.dicom import display_pixels

TEST_FILES = {Path(name).name: Path(name) for name in get_testdata_files()}
"""pydicom's own, by their names."""


def radiograph(stored: np.ndarray, **elements: Any) -> Dataset:
    """A single-frame grey dataset: 12 bits stored in words of 16, all 8 in bytes."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = 8 if stored.itemsize == 1 else 12
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * stored.itemsize, bits, bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.add_new("PixelData", "OB" if stored.itemsize == 1 else "OW", stored.tobytes() + bytes(stored.nbytes % 2))
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def written(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def encapsulated(dataset: Dataset, syntax: str, frame: bytes) -> Dataset:
    """The dataset itself, with a compressed frame for its pixels."""
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = pydicom.encaps.encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def noise() -> np.ndarray:
    """Stored values of 12 bits, of a size that is no reason to refuse an image."""
    return np.random.default_rng(0).integers(0, 4096, (40, 50)).astype(np.uint16)


def shown_row(values: list[int], **elements: Any) -> list[int]:
    """Display values of one row of stored values, through a written file."""
    dataset = radiograph(np.array([values], np.int16 if min(values) < 0 else np.uint16), **elements)
    return display_pixels(pydicom.dcmread(io.BytesIO(written(dataset))))[0].tolist()


def lut(entries: int, first: int, bits: int, data: list[int] | bytes) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [entries, first, bits])
    item.add_new("LUTData", "OW" if isinstance(data, bytes) else "US", data)
    return [item]
