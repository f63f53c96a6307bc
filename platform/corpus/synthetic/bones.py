"""Bones of the chest film: spine, ribs, clavicles, shoulder blades and arms, as attenuation.

Shapes: H rows, W columns.
"""

from __future__ import annotations

import numpy as np

from chexray.platform.corpus.synthetic.anatomy import Anatomy, Side
from chexray.platform.corpus.synthetic.canvas import Plane, disc, grid, ramp
from chexray.platform.corpus.synthetic.lungs import Lung

_F = np.float32


def draw_spine(anatomy: Anatomy, size: int, offset: Plane) -> tuple[Plane, Plane]:
    y_H1 = grid(size)[1]
    half = _F(0.030) + _F(0.012) * y_H1
    column = ramp(half - np.abs(offset), 0.010)
    phase = y_H1 * _F(1 / 0.052) - _F(0.3) * y_H1 * y_H1 * 10
    disc_space = _F(0.5) - _F(0.5) * np.cos(phase * _F(2 * np.pi))
    body = _F(0.55) + _F(0.45) * np.clip(disc_space * 2, 0, 1)
    pedicle = ramp(_F(0.009) - np.abs(np.abs(offset) - half * _F(0.62)), 0.009)
    process = ramp(_F(0.005) - np.abs(offset), 0.008)
    marks = (pedicle * _F(0.35) + process * _F(0.25)) * np.clip(disc_space * 1.6 - _F(0.5), 0, 1)
    return column, _F(0.055) * (column * body + marks * column)


def draw_ribs(anatomy: Anatomy, size: int, lungs: dict[Side, Lung]) -> Plane:
    total = np.zeros((size, size), dtype=_F)
    for columns, lung in (lung.half() for lung in lungs.values()):
        inside = ramp(_F(1.07) - lung.u, 0.03) * ramp(lung.u - _F(0.08), 0.08)
        inside = inside * ramp(lung.s - _F(0.015), 0.05) * ramp(_F(1.06) - lung.s, 0.18)
        below = _F(0.55) + _F(0.45) * ramp(lung.depth, 0.05)
        back = _rib_bands(rib_phase(anatomy, size, lung), _F(0.30))
        front_reach = ramp(lung.u - _F(0.36), 0.22) * ramp(_F(0.88) - lung.s, 0.10)
        front_reach = front_reach * ramp(lung.s - _F(0.10), 0.1)
        front = _rib_bands(front_phase(anatomy, size, lung), _F(0.27)) * front_reach
        tangent = ramp(lung.u - _F(0.955), 0.07) * ramp(_F(1.07) - lung.u, 0.05)
        bones = back * (_F(0.75) + _F(0.5) * lung.u) + _F(0.62) * front
        total[:, columns] += inside * below * (bones + _F(0.55) * tangent)
    return total * _F(1.25 * anatomy.rib_contrast)


def rib_phase(anatomy: Anatomy, size: int, lung: Lung) -> Plane:
    """Posterior rib number at each pixel (float32 HW): ribs are centred on whole numbers."""
    y_H1 = grid(size)[1]
    u = np.clip(lung.u, 0, 1.1)
    slope = _F(anatomy.rib_slope) * (_F(0.75) + _F(0.55) * lung.s)
    arch = slope * ((u - _F(0.36)) ** 2 * _F(2.3) - _F(0.30)) + _F(0.05) * _eighth(u)
    out: Plane = (y_H1 - _F(anatomy.apex + 0.012) - arch) * _F(1 / anatomy.rib_spacing)
    return out


def front_phase(anatomy: Anatomy, size: int, lung: Lung) -> Plane:
    """Anterior rib number at each pixel (float32 HW): they fall towards the sternum."""
    y_H1 = grid(size)[1]
    inward = np.clip(1 - lung.u, 0, 1)
    fall = _F(0.26 + anatomy.rib_slope) * inward * (1 - _F(0.45) * inward)
    return (y_H1 - _F(anatomy.apex + 0.02) - fall) * _F(1 / (anatomy.rib_spacing * 1.22))


def _eighth(u: Plane) -> Plane:
    square = u * u
    square *= square
    return square * square


def _rib_bands(phase: Plane, half: np.float32) -> Plane:
    away = np.abs(phase - np.rint(phase))
    band = np.clip((half - away) * _F(9), 0, 1)
    cortex = np.clip(1 - np.abs(away - half + _F(0.07)) * _F(11), 0, 1)
    out: Plane = band * _F(0.72) + cortex * _F(0.55)
    return out


def draw_clavicles(anatomy: Anatomy, size: int) -> Plane:
    x_1W, y_H1 = grid(size)
    t = (np.abs(x_1W - _F(0.5)) - _F(0.030)) * _F(1 / 0.37)
    bow = np.sin(np.clip(t, 0, 1) * _F(2.2))
    centre = _F(anatomy.clavicle_y + 0.035) - _F(1.6 * anatomy.clavicle_tilt) * bow
    centre = centre - _F(0.010) * np.sin(t * 7)
    half = _F(0.012) + _F(0.007) * np.clip(1 - t * 4, 0, 1)
    away = np.abs(y_H1 - centre)
    cortex = np.clip(1 - np.abs(away - half + _F(0.003)) * _F(230), 0, 1)
    reach = ramp(t, 0.03) * ramp(_F(1.0) - t, 0.06)
    out: Plane = reach * (ramp(half - away, 0.006) * _F(0.085) + cortex * _F(0.070))
    return out


def draw_limbs(anatomy: Anatomy, size: int) -> Plane:
    """Shoulder blades, humeral heads and shafts."""
    total = np.zeros((size, size), dtype=_F)
    for m in (-1.0, 1.0):
        head = disc(size, 0.5 + m * 0.462, anatomy.shoulder + 0.075, 0.052, 0.055)
        shaft = disc(size, 0.5 + m * 0.505, anatomy.shoulder + 0.25, 0.034, 0.20, -0.06 * m)
        blade = disc(size, 0.5 + m * 0.395, anatomy.shoulder + 0.18, 0.060, 0.150, 0.32 * m)
        total += _F(0.06) * np.maximum(ramp(1 - head, 0.4), ramp(1 - shaft, 0.5))
        total += _F(0.035) * ramp(1 - blade, 0.45) + _F(0.014) * np.clip(1 - np.abs(blade - 1) * 5, 0, 1)
    return total
