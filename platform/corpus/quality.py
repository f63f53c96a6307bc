"""Is this image worth keeping, and is it the right way round in grey: cheap looks at pixels, without a model.

Shapes: H rows, W columns of one image; T rows and columns of its thumbnail.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from chexray.platform.corpus.raster import Image

QualityReason = Literal["image nearly constant"]

MAX_LEVEL_SHARE = 0.95
"""Above this share of pixels on three neighbouring grey levels an image shows nothing. The 790 images of NIH
ChestX-ray14 described at `is_inverted` have 0.46 at most (the median is 0.05)."""

_SAMPLES = 128
"""Pixels looked at, at least, along the short side."""
_THUMBNAIL = 32
_PADDING_RANGE = 12.0
"""Outer rows and columns of the thumbnail whose values differ by less are padding, black or white."""

_HALF_TEMPLATE = (
    (-5, -3, -2, -1),
    (-2, -2, -2, -1),
    (0, -1, -2, -2),
    (-1, -1, -2, -1),
    (-2, -1, 0, 0),
    (-2, 0, 1, 3),
    (-2, 1, 4, 6),
    (-1, 4, 8, 9),
)
"""What is bright (abdomen, heart) and dark (air beside the neck, lungs) in a chest: the left half, the right is its
mirror. Ridge discriminant of 8 x 8 means of images and of random crops of them; see `is_inverted`."""

_MAX_INVERTED_SCORE = -0.15


def polarity_score(image_HW: Image) -> float:
    """From 1, like a chest shown as usual (air black, bone white), to -1, like its negative.

    The correlation of the image's 8 x 8 means, without padding, with a template. The negative's score is exactly
    the opposite; linear changes of brightness do not matter. 0 where there is nothing but padding.
    """
    means_88 = cell_means(image_HW)
    centred_88 = means_88 - means_88.mean()
    half = np.array(_HALF_TEMPLATE, np.float64)
    template_88 = np.concatenate([half, half[:, ::-1]], 1)
    template_88 -= template_88.mean()
    norm = float(np.linalg.norm(centred_88) * np.linalg.norm(template_88))
    return float((centred_88 * template_88).sum()) / norm if norm > 0 else 0.0


def cell_means(image_HW: Image) -> NDArray[np.float64]:
    """The means of 8 x 8 parts of the image without its padding, 0 to 255."""
    thumbnail = PIL.Image.fromarray(np.ascontiguousarray(_trim(_thumbnail(image_HW))))
    return np.asarray(thumbnail.resize((8, 8), PIL.Image.Resampling.BOX), np.float64)


def is_inverted(image_HW: Image) -> bool:
    """Whether a frontal chest is a negative: air white, bone black. Doubtful images are not.

    The template was fitted on the 400 images of one half of the patients among 790 frontal images of NIH
    ChestX-ray14, at 384 pixels. Of the 390 of the other half none is called inverted, and 388 of their negatives are
    (99.5 %); the lowest score, -0.13, is of a patient upside down. Of 38 figures of publications and a CR file none
    is, and all of their negatives. Where a random third of each side is cut off, 0.4 % are called inverted and 94 %
    of their negatives are. Lateral views were not measured. Rerun: `tests/test_quality.py`.
    """
    return polarity_score(image_HW) < _MAX_INVERTED_SCORE


def fix_polarity(image_HW: Image) -> tuple[Image, bool]:
    """The image as a chest is shown (air black), and whether it had to be inverted for that."""
    return (255 - image_HW, True) if is_inverted(image_HW) else (image_HW, False)


def keep_image(image_HW: Image, max_level_share: float = MAX_LEVEL_SHARE) -> QualityReason | None:
    """Why an image that can be decoded is left out, or None to keep it.

    'image nearly constant': more than `max_level_share` of its pixels are on three neighbouring grey levels.
    """
    return "image nearly constant" if level_share(image_HW) > max_level_share else None


def level_share(image_HW: Image) -> float:
    """The largest share, 0 to 1, of pixels on three neighbouring grey levels, which JPEG's rounding can mix."""
    counts = np.bincount(_sample(image_HW).ravel(), minlength=256)
    return float(np.convolve(counts, np.ones(3), "valid").max() / counts.sum())


def _sample(image_HW: Image) -> Image:
    """Every n-th row and column: a template of 8 x 8 needs no more of a detector's 3,000."""
    step = max(1, min(image_HW.shape) // _SAMPLES)
    return np.ascontiguousarray(image_HW[::step, ::step])


def _thumbnail(image_HW: Image) -> NDArray[np.float32]:
    sample = PIL.Image.fromarray(_sample(image_HW).astype(np.float32))
    return np.asarray(sample.resize((_THUMBNAIL, _THUMBNAIL), PIL.Image.Resampling.BOX))


def _trim(thumbnail_TT: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without the padding around: outer rows, then columns, of one value."""
    rows = np.flatnonzero(np.ptp(thumbnail_TT, axis=1) >= _PADDING_RANGE)
    if not len(rows):
        return thumbnail_TT
    inner = thumbnail_TT[rows[0] : rows[-1] + 1]
    columns = np.flatnonzero(np.ptp(inner, axis=0) >= _PADDING_RANGE)
    return inner[:, columns[0] : columns[-1] + 1] if len(columns) else inner
