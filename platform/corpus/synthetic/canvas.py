"""Drawing primitives in image fractions: pixel grid, soft edges and blobs, smooth noise, anti-aliased strokes.

Shapes: H rows, W columns (H = W = size), N points.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter

Plane = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Stroke:
    """A polyline of (x, y) fractions, with its width as a fraction and its brightness in 0..1."""

    points: tuple[tuple[float, float], ...]
    width: float
    level: float


@lru_cache(maxsize=8)
def grid(size: int) -> tuple[Plane, Plane]:
    """Pixel centres as fractions: x_1W and y_H1, float32 in (0, 1)."""
    centre = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return centre[None, :], centre[:, None]


def ramp(distance: Plane, width: float) -> Plane:
    """A soft step over `width`, centred at distance 0: 0 below, 1 above; float32."""
    out = distance * np.float32(1 / width)
    out += np.float32(0.5)
    np.clip(out, 0, 1, out=out)
    return out


def disc(size: int, x: float, y: float, rx: float, ry: float, tilt: float = 0.0) -> Plane:
    """Squared normalised radius of a tilted ellipse: 0 at its centre, 1 on its edge; float32 HW."""
    x_1W, y_H1 = grid(size)
    cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    dx, dy = x_1W - np.float32(x), y_H1 - np.float32(y)
    along = (dx * cos + dy * sin) * np.float32(1 / rx)
    across = (dy * cos - dx * sin) * np.float32(1 / ry)
    return along * along + across * across


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Plane:
    """Low-frequency noise of about unit variance: `cells` random knots a side, bicubically enlarged."""
    knots = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32) * np.float32(1.25))
    return np.asarray(knots.resize((size, size), Image.Resampling.BICUBIC))


def enlarged(plane: Plane, size: int) -> Plane:
    """A coarse plane bilinearly brought to `size` x `size`."""
    if plane.shape[0] == size:
        return plane
    return np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR))


def blurred(plane: Plane, sigma: float) -> Plane:
    """Gaussian blur by `sigma` (a fraction of the side), computed at reduced resolution for wide kernels."""
    size = plane.shape[0]
    factor = max(1, int(sigma * size / 1.5))
    small = Image.fromarray(plane).reduce(factor) if factor > 1 else Image.fromarray(plane)
    array = _blur(np.asarray(small), sigma * size / factor)
    if factor == 1:
        return array
    return np.asarray(Image.fromarray(array).resize((size, size), Image.Resampling.BICUBIC))


def _blur(plane: Plane, sigma_px: float) -> Plane:
    out: Plane = gaussian_filter(plane, sigma_px, truncate=2.5, mode="nearest")
    return out


def draw_strokes(size: int, strokes: Iterable[Stroke], soften: float = 0.0) -> Plane:
    """Strokes drawn anti-aliased on black, later ones over earlier ones; float32 HW in 0..1."""
    scale = 2 if size < 600 else 1
    side = size * scale
    image = Image.new("L", (side, side))
    pen = ImageDraw.Draw(image)
    for stroke in strokes:
        pixels = [(x * side, y * side) for x, y in stroke.points]
        pen.line(pixels, fill=round(255 * stroke.level), width=max(1, round(stroke.width * side)))
    if scale > 1:
        image = image.reduce(scale)
    if soften > 0:
        image = image.filter(ImageFilter.GaussianBlur(soften * size))
    return np.asarray(image, dtype=np.float32) * np.float32(1 / 255)
