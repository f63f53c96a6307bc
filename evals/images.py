"""Pixels of stored images, decoded once into a file of this machine: memory holds what is asked for, and no more.

n: images; b: images of a batch; S: the tower's size in pixels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from chexray.platform.model.preprocess import model_pixels


class StoredPixels:
    """Images as uint8 [b, S, S] of the rows that are asked for. Its file, n x S x S bytes, goes with it."""

    def __init__(self, images: Iterable[bytes], count: int, size: int) -> None:
        """`images`: PNG or JPEG, `count` of them, read once and one after the other. ValueError on another number."""
        self._folder = tempfile.TemporaryDirectory(prefix="chexray-")
        file = Path(self._folder.name) / "pixels"
        written = 0
        with file.open("wb") as stream:
            for image in images:
                stream.write(model_pixels(image, size).tobytes())
                written += 1
        if written != count or not count:
            raise ValueError(f"{written} images are there, {count} were promised; allowed: as many, and one or more")
        self._pixels_nSS = np.memmap(file, np.uint8, "r", shape=(count, size, size))

    def __len__(self) -> int:
        return len(self._pixels_nSS)

    def __getitem__(self, row_b: npt.NDArray[np.int64], /) -> npt.NDArray[np.uint8]:
        return np.array(self._pixels_nSS[row_b])

    def subset(self, row_n: npt.NDArray[np.int64]) -> PixelSubset:
        """Some of the images, decoded once for all subsets."""
        return PixelSubset(self, row_n)


class PixelSubset:
    """Rows of stored pixels, counted from 0."""

    def __init__(self, pixels: StoredPixels, row_n: npt.NDArray[np.int64]) -> None:
        self._pixels, self._row_n = pixels, row_n

    def __len__(self) -> int:
        return len(self._row_n)

    def __getitem__(self, row_b: npt.NDArray[np.int64], /) -> npt.NDArray[np.uint8]:
        return self._pixels[self._row_n[row_b]]
