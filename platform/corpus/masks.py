"""Masks of an image: from run-length text, boxes or decoded files to one mask at the stored image's size.

Shapes: H rows, W columns. Every mask here is uint8, 255 inside and 0 outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from chexray.platform.corpus.raster import Image, resize_mask
from chexray.platform.corpus.schema import MaskSource

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels; pixel i of a row reaches from i to i + 1."""


def build_mask(source: MaskSource, files: Sequence[Image], original: tuple[int, int], stored: tuple[int, int]) -> Image:
    """mask_HW of the `stored` height and width: the union of decoded `files`, of any size, runs and boxes.

    `original`: height and width of the image in whose pixels the boxes are. Each part is resized before the union.
    All 0 where the source has no part. ValueError as `decode_runs` and `draw_boxes`, and for runs without a size.
    """
    parts = list(files)
    if source.runs and source.runs_size is None:
        raise ValueError("runs_size is None: runs need the height and width of the image that they cover")
    if source.runs_size is not None:
        height, width = source.runs_size
        decode = decode_runs if source.run_form == "relative" else decode_absolute_runs
        parts += [decode(runs, height, width) for runs in source.runs]
    if source.boxes:
        parts.append(draw_boxes(source.boxes, *original))
    if not parts:
        return np.zeros(stored, np.uint8)
    return combine_masks([resize_mask(part_HW, *stored) for part_HW in parts])


def decode_runs(runs: str, height: int, width: int) -> Image:
    """mask_HW of SIIM-ACR's relative run-length encoding: 'gap length gap length ...'.

    Each gap counts from the end of the run before it, the first from 0; pixels go down the columns, left to right
    (the challenge's `mask_functions.py`). '' is an empty mask. ValueError for text that is no number, a negative or
    unpaired number, or runs beyond the image.
    """
    _check_shape(height, width)
    numbers = _run_numbers(runs, "gap")
    if numbers and min(numbers) < 0:
        raise ValueError(f"runs hold {min(numbers)}: gaps and lengths must be at least 0")
    if sum(numbers) > height * width:
        raise ValueError(f"runs end at pixel {sum(numbers)}: {height} x {width} pixels have {height * width}")
    values = np.tile(np.array([0, 255], np.uint8), len(numbers) // 2)
    flat = np.zeros(height * width, np.uint8)
    flat[: sum(numbers)] = np.repeat(values, numbers)
    return flat.reshape(width, height).T


def decode_absolute_runs(runs: str, height: int, width: int) -> Image:
    """mask_HW of Kaggle's usual run-length encoding: 'start length start length ...'.

    Each start is a pixel's number, the first 1; pixels go down the columns, left to right. Runs may come in any order
    and overlap. '' is an empty mask. ValueError as `decode_runs`, and for a start below 1, as relative text has.
    """
    _check_shape(height, width)
    numbers = _run_numbers(runs, "start")
    flat = np.zeros(height * width, np.uint8)
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        if start < 1 or length < 0:
            raise ValueError(f"runs hold {start} {length}: a start must be at least 1, a length at least 0")
        if start - 1 + length > height * width:
            raise ValueError(f"runs end at pixel {start - 1 + length}: {height} x {width} pixels have {height * width}")
        flat[start - 1 : start - 1 + length] = 255
    return flat.reshape(width, height).T


def draw_boxes(boxes: Sequence[Box], height: int, width: int) -> Image:
    """mask_HW with the pixels inside whose centre lies in a box (on its left and upper edge too).

    Boxes may reach beyond the image. ValueError for a box that is not finite, has no width or height, or lies
    outside as a whole, as the boxes of a larger image do.
    """
    _check_shape(height, width)
    mask_HW = np.zeros((height, width), np.uint8)
    for box in boxes:
        left, top, right, bottom = box
        if not all(math.isfinite(edge) for edge in box) or right <= left or bottom <= top:
            raise ValueError(f"box is {box}: it must be finite, with left below right and top below bottom")
        if left >= width or top >= height or right <= 0 or bottom <= 0:
            raise ValueError(f"box is {box}: the image has {height} x {width} pixels (height x width)")
        rows = slice(_first_centre(top), _first_centre(bottom))
        mask_HW[rows, _first_centre(left) : _first_centre(right)] = 255
    return mask_HW


def combine_masks(masks: Sequence[Image]) -> Image:
    """mask_HW, the union of masks of one size. ValueError where there is none, or the sizes differ."""
    sizes = sorted({mask_HW.shape for mask_HW in masks})
    if len(sizes) != 1:
        raise ValueError(f"masks have the sizes {sizes}: they must all have the same")
    union_HW: Image = np.maximum.reduce(masks)
    return union_HW


def _run_numbers(runs: str, first: str) -> list[int]:
    numbers = [int(text) for text in runs.split()]
    if len(numbers) % 2:
        raise ValueError(f"runs have {len(numbers)} numbers: they must be pairs of a {first} and a length")
    return numbers


def _first_centre(edge: float) -> int:
    """The first pixel whose centre is at `edge` or beyond, not before 0."""
    return max(0, math.ceil(edge - 0.5))


def _check_shape(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"height and width are {height} and {width}: both must be at least 1")
