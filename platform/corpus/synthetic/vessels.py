"""Lung vessels: a forking tree from each hilum, the same for the same seed.

Shapes: N branches.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from chexray.platform.corpus.synthetic.anatomy import Anatomy
from chexray.platform.corpus.synthetic.canvas import Plane, Stroke, draw_strokes

_STEMS = 8
_GENERATIONS = 5


def vessel_plane(anatomy: Anatomy, size: int) -> Plane:
    """Both lungs' vessels on black, float32 HW in 0..1. Lungs of about one size share a tree, so it is cached."""
    width, height = round(anatomy.width / 0.04) * 0.04, round((anatomy.base_right - anatomy.apex) / 0.1) * 0.1
    return _plane(anatomy.vessel_seed, width, height, size) * np.float32(1 / 255)


@lru_cache(maxsize=96)
def _plane(seed: int, width: float, height: float, size: int) -> npt.NDArray[np.uint8]:
    strokes = []
    for side, sign in ((0, -1.0), (1, 1.0)):
        for x0, y0, x1, y1, x2, y2, thick, level in _tree(seed, side, width, height):
            xs = (0.5 + sign * (0.07 + x0), 0.5 + sign * (0.07 + x1), 0.5 + sign * (0.07 + x2))
            strokes.append(Stroke(((xs[0], y0), (xs[1], y1), (xs[2], y2)), thick, level))
    plane = np.rint(draw_strokes(size, strokes, 0.0012) * 255).astype(np.uint8)
    plane.setflags(write=False)
    return plane


def _tree(seed: int, side: int, width: float, height: float) -> list[list[float]]:
    """Branches of one lung as (start, bend, end, width, level), thin first; lateral positive."""
    rng = np.random.default_rng([seed, side])
    angle = np.linspace(-1.42, 1.50, _STEMS) + rng.normal(0, 0.13, _STEMS)
    reach = np.where(np.abs(angle) > 0.9, height * 0.20, width * 0.22) * rng.uniform(0.8, 1.2, _STEMS)
    x = np.zeros(_STEMS)
    y = 0.455 + 0.055 * np.sin(angle) + rng.normal(0, 0.008, _STEMS)
    thick = rng.uniform(0.0085, 0.0125, _STEMS)
    rows: list[list[float]] = []
    for generation in range(_GENERATIONS):
        bend = rng.normal(0, 0.16, len(x))
        mid_x, mid_y = x + 0.5 * reach * np.cos(angle + bend), y + 0.5 * reach * np.sin(angle + bend)
        end_x, end_y = x + reach * np.cos(angle), y + reach * np.sin(angle)
        level = np.full(len(x), 0.95 * 0.78**generation)
        branches = np.stack([x, y, mid_x, mid_y, end_x, end_y, thick, level], axis=1)
        rows.extend(branches.tolist())
        fork = np.abs(rng.normal(0.36, 0.12, len(x)))
        angle = np.concatenate([angle - fork, angle + fork * rng.uniform(0.4, 1.1, len(x))])
        x, y = np.tile(end_x, 2), np.tile(end_y, 2)
        reach = np.tile(reach, 2) * rng.uniform(0.55, 0.85, len(x))
        thick = np.tile(thick, 2) * rng.uniform(0.60, 0.78, len(x))
    return rows[::-1]
