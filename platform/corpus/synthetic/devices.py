"""Painters of support devices: tubes, catheters, a pacemaker, sternal wires.

Shapes: H rows, W columns. Paths are (x, y) fractions of the side.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from chexray.platform.corpus.synthetic.anatomy import Anatomy
from chexray.platform.corpus.synthetic.canvas import Plane, Stroke, draw_strokes
from chexray.platform.corpus.synthetic.chest import Chest
from chexray.platform.corpus.synthetic.labels import Finding
from chexray.platform.corpus.synthetic.lungs import lung_point

Point = tuple[float, float]
_F = np.float32


def paint_devices(chest: Chest, finding: Finding) -> tuple[Plane, Plane]:
    """All devices of one study: (change in attenuation, mask in 0..1), float32 HW."""
    rng = np.random.default_rng(finding.seed)
    strokes = [stroke for device in finding.devices for stroke in _DEVICES[device](chest.anatomy, rng)]
    plane = draw_strokes(chest.size, strokes)
    return _F(0.26 + 0.16 * finding.severity) * plane, plane * _F(2.5)


def _path(points: list[Point], rng: np.random.Generator, jitter: float = 0.006) -> tuple[Point, ...]:
    """A smooth curve (Catmull-Rom, 8 steps a span) near `points`."""
    knots = np.array(points) + rng.normal(0, jitter, (len(points), 2))
    padded = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    t = np.linspace(0, 1, 8, endpoint=False)[:, None]
    curve = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        cubic = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
        curve.append(cubic / 2)
    rows = np.vstack([*curve, knots[-1:]])
    return tuple((float(x), float(y)) for x, y in rows)


def _endotracheal(a: Anatomy, rng: np.random.Generator) -> list[Stroke]:
    tip = float(rng.uniform(0.29, 0.34))
    line = _path([(0.497, -0.02), (0.503, 0.12), (0.497, tip)], rng, 0.003)
    return [Stroke(line, 0.019, 0.32), Stroke(tuple((x + 0.007, y) for x, y in line), 0.005, 0.9)]


def _nasogastric(a: Anatomy, rng: np.random.Generator) -> list[Stroke]:
    m = a.situs
    dome = a.base_left - a.dome_height
    tip = (0.5 + m * 0.17, dome + 0.13)
    points = [
        (0.51, -0.02),
        (0.507, 0.3),
        (0.512, 0.6),
        (0.5 + m * 0.03, dome + 0.02),
        (0.5 + m * 0.09, dome + 0.09),
    ]
    return [Stroke(_path([*points, tip], rng, 0.004), 0.0085, 0.75)]


def _jugular(a: Anatomy, rng: np.random.Generator) -> list[Stroke]:
    points = [
        (0.405, -0.02),
        (0.425, 0.10),
        (0.455, 0.22),
        (0.452, 0.38),
        (0.458, float(rng.uniform(0.44, 0.5))),
    ]
    return [Stroke(_path(points, rng), 0.0075, 0.85)]


def _subclavian(a: Anatomy, rng: np.random.Generator) -> list[Stroke]:
    y = a.clavicle_y
    points = [
        (0.80, y + 0.07),
        (0.70, y + 0.02),
        (0.58, y + 0.02),
        (0.49, y + 0.08),
        (0.455, y + 0.19),
        (0.457, y + 0.3),
    ]
    return [Stroke(_path(points, rng), 0.0075, 0.85)]


def _picc(a: Anatomy, rng: np.random.Generator) -> list[Stroke]:
    y = a.clavicle_y
    points = [
        (0.02, 0.52),
        (0.07, 0.36),
        (0.17, y + 0.04),
        (0.32, y + 0.0),
        (0.42, y + 0.05),
        (0.455, y + 0.18),
    ]
    return [Stroke(_path([*points, (0.458, y + 0.28)], rng), 0.0065, 0.8)]


def _pacemaker(a: Anatomy, rng: np.random.Generator) -> list[Stroke]:
    x, y = 0.755 + float(rng.normal(0, 0.012)), a.clavicle_y + 0.085
    r = float(rng.uniform(0.032, 0.042))
    vein = [(x - r, y - 0.02), (0.63, a.clavicle_y + 0.03), (0.53, a.clavicle_y + 0.06), (0.458, 0.36)]
    m = a.situs
    atrial = [*vein, (0.462, 0.50), (0.445, 0.545), (0.452, 0.515)]
    ventricular = [*vein, (0.465, 0.58), (0.52, 0.685), (0.5 + m * 0.10, a.heart_y + 0.075)]
    leads = [Stroke(_path(points, rng, 0.003), 0.006, 0.8) for points in (atrial, ventricular)]
    tips = [Stroke(lead.points[-3:], 0.010, 1.0) for lead in leads]
    can = [
        Stroke(((x - half, y + r * dy), (x + half, y + r * dy)), r * 0.30, 0.95)
        for dy in (-0.8, -0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6, 0.8)
        for half in (r * (1 - abs(dy) ** 3) ** 0.5,)
    ]
    return [*leads, *tips, *can]


def _sternotomy(a: Anatomy, rng: np.random.Generator) -> list[Stroke]:
    strokes = []
    for y in np.linspace(0.27, 0.62, int(rng.integers(5, 8))):
        x, w = 0.5 + float(rng.normal(0, 0.004)), float(rng.uniform(0.013, 0.019))
        ring = [
            (x - w, float(y)),
            (x, float(y) - 0.010),
            (x + w, float(y)),
            (x, float(y) + 0.010),
            (x - w, float(y)),
        ]
        knot = ((x + 0.3 * w, float(y) - 0.013), (x + w, float(y) - 0.020))
        strokes += [Stroke(_path(ring, rng, 0.0008), 0.0045, 0.95), Stroke(knot, 0.0045, 0.95)]
    return strokes


def _chest_tube(a: Anatomy, rng: np.random.Generator) -> list[Stroke]:
    side, sign = ("right", -1.0) if rng.random() < 0.5 else ("left", 1.0)
    entry = (0.5 + sign * (a.width + 0.09), 0.66)
    inside = [lung_point(a, side, u, s) for u, s in ((0.93, 0.68), (0.80, 0.45), (0.62, 0.16))]  # type: ignore[arg-type]
    line = _path([entry, *inside], rng)
    return [Stroke(line, 0.016, 0.30), Stroke(tuple((x + 0.005, y) for x, y in line), 0.005, 0.9)]


_DEVICES: dict[str, Callable[[Anatomy, np.random.Generator], list[Stroke]]] = {
    "endotracheal tube": _endotracheal,
    "nasogastric tube": _nasogastric,
    "right internal jugular catheter": _jugular,
    "left subclavian catheter": _subclavian,
    "right PICC": _picc,
    "left-sided pacemaker": _pacemaker,
    "median sternotomy wires": _sternotomy,
    "chest tube": _chest_tube,
}
