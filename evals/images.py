"""Pixels of stored images, decoded when they are first asked for and kept as long as memory is allowed.

n: images; b: images of a batch; S: the tower's size in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from chexray.evals.masked_images import Recall
from chexray.platform.model.preprocess import model_pixels

CACHE_BYTES = 2 * 2**30


class StoredPixels:
    """Encoded images (PNG or JPEG) as uint8 [b, S, S] of the rows that are asked for."""

    def __init__(self, images: Sequence[bytes], size: int, budget: int = CACHE_BYTES) -> None:
        self._images, self._size = images, size
        self._recall = Recall(self._load, budget)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row_b: npt.NDArray[np.int64], /) -> npt.NDArray[np.uint8]:
        (pixels_bSS,) = self._recall([int(row) for row in row_b])
        found: npt.NDArray[np.uint8] = pixels_bSS.numpy()
        return found

    def subset(self, row_n: npt.NDArray[np.int64]) -> PixelSubset:
        """Some of the images, decoded once for all subsets."""
        return PixelSubset(self, row_n)

    def _load(self, rows: Sequence[int]) -> tuple[torch.Tensor, ...]:
        return (torch.from_numpy(np.stack([model_pixels(self._images[row], self._size) for row in rows])),)


class PixelSubset:
    """Rows of stored pixels, counted from 0."""

    def __init__(self, pixels: StoredPixels, row_n: npt.NDArray[np.int64]) -> None:
        self._pixels, self._row_n = pixels, row_n

    def __len__(self) -> int:
        return len(self._row_n)

    def __getitem__(self, row_b: npt.NDArray[np.int64], /) -> npt.NDArray[np.uint8]:
        return self._pixels[self._row_n[row_b]]
