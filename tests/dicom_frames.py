"""Frames of every compressed transfer syntax that tests build, and the dataset that they are put in."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from dicom_files import radiograph
from pydicom.dataset import Dataset

from chexray.platform.corpus.dicom_dataset import parse_dataset
from chexray.platform.corpus.dicom_lut import stored_values
from chexray.platform.corpus.dicom_pixels import read_pixels

Encoder = Callable[[np.ndarray, int], bytes]
"""Values and their bits to a frame."""


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


def jpeg(predictor: int | None = None) -> Encoder:
    """Lossless with a predictor (ITU-T T.81 H.1.2.1), without one of quality 95."""
    options: dict[str, Any] = {"level": 95} if predictor is None else {"lossless": True, "predictor": predictor}
    return lambda values, bits: bytes(imagecodecs.jpeg8_encode(values, bitspersample=bits, **options))


def jpeg_ls(near: int) -> Encoder:
    return lambda values, bits: bytes(imagecodecs.jpegls_encode(values, level=near))


def jpeg_2000(codecformat: str) -> Encoder:
    return lambda values, bits: bytes(
        imagecodecs.jpeg2k_encode(values, level=0, reversible=True, codecformat=codecformat, bitspersample=bits)
    )


def stored_of(file: bytes) -> np.ndarray:
    """The stored values that we read from a DICOM file."""
    pixels = read_pixels(parse_dataset(io.BytesIO(file)))
    return stored_values(pixels.bits, pixels.signed)[pixels.codes_HW]
