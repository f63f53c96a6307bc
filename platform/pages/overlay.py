"""A predicted and a reference mask drawn on their image.

Shapes: H rows, W columns.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import PIL.Image
from scipy.ndimage import binary_erosion

from chexray.platform.corpus.raster import Image, resize_mask, shrink

PREDICTION, REFERENCE = "#ff9f1c", "#19c3ff"
_SIDE = 320
_LINE_PIXELS = 2
_FILL = 0.22


def overlay(image_HW: Image, predicted_HW: Image, reference_HW: Image | None, side: int = _SIDE) -> bytes:
    """JPEG: the prediction filled and outlined, the reference outlined over it.

    Masks are 0 and 255, of the image's size or any other of its proportions. A reference of None is not drawn.
    """
    small_HW = shrink(image_HW, side)
    height, width = small_HW.shape
    colour_HW3 = np.repeat(small_HW[:, :, None], 3, axis=2).astype(np.float64)
    inside_HW = resize_mask(predicted_HW, height, width) > 0
    colour_HW3[inside_HW] = (1 - _FILL) * colour_HW3[inside_HW] + _FILL * _rgb(PREDICTION)
    colour_HW3[_outline(inside_HW)] = _rgb(PREDICTION)
    if reference_HW is not None:
        colour_HW3[_outline(resize_mask(reference_HW, height, width) > 0)] = _rgb(REFERENCE)
    buffer = io.BytesIO()
    # Without subsampling of colour, of which thin lines would fade.
    PIL.Image.fromarray(np.rint(colour_HW3).astype(np.uint8)).save(buffer, "JPEG", quality=88, subsampling=0)
    return buffer.getvalue()


def _outline(inside_HW: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    kept: npt.NDArray[np.bool_] = inside_HW & ~binary_erosion(inside_HW, iterations=_LINE_PIXELS, border_value=1)
    return kept


def _rgb(colour: str) -> npt.NDArray[np.float64]:
    return np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)], dtype=np.float64)
