"""Painters of what lies around the lung: pleural fluid and air, hernia, fractures, air under skin and dome.

Shapes: H rows, W columns. Each painter gives (change in attenuation, mask in 0..1), float32 HW.
"""

from __future__ import annotations

import numpy as np

from chexray.platform.corpus.synthetic.bones import rib_phase
from chexray.platform.corpus.synthetic.canvas import Plane, disc, grid, ramp, smooth_noise
from chexray.platform.corpus.synthetic.chest import Chest
from chexray.platform.corpus.synthetic.labels import Finding

_F = np.float32


def paint_effusion(chest: Chest, finding: Finding) -> tuple[Plane, Plane]:
    """Fluid that blunts the angle and climbs the wall as a meniscus; up to half of the lung's height."""
    rng = np.random.default_rng(finding.seed)
    total, mask = np.zeros_like(chest.heart), np.zeros_like(chest.heart)
    y_H1 = grid(chest.size)[1]
    for side in finding.sides:
        lung = chest.lungs[side]
        base = chest.anatomy.base_right if side == "right" else chest.anatomy.base_left
        share = finding.severity * float(rng.uniform(0.75, 1.0))
        square = np.clip(lung.u, 0, 1) ** 2
        level = _F(base - 0.035 - 0.27 * share**1.4) - _F(0.035 + 0.05 * share) * square * square
        fluid = ramp(y_H1 - level, 0.045 + 0.03 * share) * ramp(lung.u - _F(0.02), 0.1)
        fluid = fluid * lung.member * (1 - _F(0.55) * chest.heart)
        total += _F(0.245) * fluid
        np.maximum(mask, fluid, out=mask)
    return total, mask


def paint_pneumothorax(chest: Chest, finding: Finding) -> tuple[Plane, Plane]:
    """Air without vessels between the wall and a thin pleural line, widest at the apex."""
    lung = chest.lungs[finding.sides[0]]
    wobble = _F(0.012) * np.sin(lung.s * 11 + _F(finding.seed % 7))
    gap = _F(0.10 + 0.34 * finding.severity) * (_F(1.0) - _F(0.55) * np.clip(lung.s, 0, 1)) + wobble
    cap = _F(0.05 + 0.16 * finding.severity)
    beside, below = (_F(1) - gap) - lung.u, lung.s - cap - _F(0.30) * lung.u**3
    inward = _F(0.5) * (beside + below - np.sqrt((beside - below) ** 2 + _F(0.02)))  # a rounded minimum
    outside = ramp(-inward, 0.012) * lung.member
    line = np.clip(1 - np.abs(inward) * _F(65), 0, 1) * lung.member
    collapsed = ramp(inward, 0.012) * lung.member * (1 - chest.heart)
    change = -outside * (chest.vessels + _F(0.055 + 0.03 * finding.severity))
    return change + _F(0.075) * line + _F(0.015 + 0.05 * finding.severity) * collapsed, outside


def paint_hernia(chest: Chest, finding: Finding) -> tuple[Plane, Plane]:
    """A hiatal hernia: a round retrocardiac shadow with a gas cap above a fluid level."""
    rng = np.random.default_rng(finding.seed)
    radius = 0.062 + 0.045 * finding.severity
    x = 0.5 + float(rng.uniform(-0.005, 0.035))
    a = chest.anatomy
    y = min(a.base_right, a.base_left) - a.dome_height - 0.6 * radius + 0.02
    square = disc(chest.size, x, y, radius * 1.15, radius)
    whole = ramp(1 - square, 0.22)
    gas = ramp(_F(0.80) - square, 0.15) * ramp(_F(y + 0.1 * radius) - grid(chest.size)[1], 0.008)
    return _F(0.09) * whole - _F(0.20 + 0.05 * finding.severity) * gas, whole


def paint_fracture(chest: Chest, finding: Finding) -> tuple[Plane, Plane]:
    """Two to five neighbouring lateral ribs broken, stepped and swollen, with a haze of blood beside them."""
    rng = np.random.default_rng(finding.seed)
    lung = chest.lungs[finding.sides[0]]
    phase = rib_phase(chest.anatomy, chest.size, lung)
    first, count = int(rng.integers(2, 5)), 2 + round(3 * finding.severity)
    place = _F(rng.uniform(0.70, 0.80)) + _F(0.02) * np.sin(np.rint(phase) * 2)
    inside = ramp(phase - _F(first - 0.5), 0.1) * ramp(_F(first + count - 0.5) - phase, 0.1)
    inside = inside * ramp(_F(1.06) - lung.u, 0.05) * chest.body
    away = phase - np.rint(phase)
    fragment = np.exp(-(((lung.u - place - _F(0.07)) * _F(1 / 0.075)) ** 2))
    step = _rib_bar(away - _F(0.42), 0.24) + _rib_bar(away + _F(0.58), 0.24)
    gap = np.clip(1 - np.abs(lung.u - place) * _F(1 / 0.022), 0, 1) * _rib_bar(away, 0.33)
    callus = np.exp(-(((lung.u - place - _F(0.03)) * _F(1 / 0.035)) ** 2) - (away * _F(1 / 0.34)) ** 2)
    blood = ramp(lung.u - _F(0.86), 0.08) * lung.member
    change = fragment * step * _F(0.10) - gap * _F(0.10) + callus * _F(0.13) + blood * _F(0.08)
    near = ramp(_F(0.16) - np.abs(lung.u - place - _F(0.03)), 0.02)
    return change * inside * _F(0.75 + 0.45 * finding.severity), near * inside


def _rib_bar(away: Plane, half: float) -> Plane:
    out: Plane = np.clip((_F(half) - np.abs(away)) * _F(9), 0, 1)
    return out


def paint_emphysema(chest: Chest, finding: Finding) -> tuple[Plane, Plane]:
    """Streaks of air in the soft tissue of chest wall and neck."""
    rng = np.random.default_rng(finding.seed)
    y_H1 = grid(chest.size)[1]
    lung = chest.lungs[finding.sides[0]]
    wall = ramp(lung.u - _F(1.05), 0.06) * ramp(_F(1.42) - lung.u, 0.20) * ramp(lung.s - _F(0.02), 0.15)
    wall = wall * ramp(_F(0.75 + 0.35 * finding.severity) - lung.s, 0.2)
    neck = ramp(_F(0.16) - y_H1, 0.06) * ramp(lung.u + _F(6), 4.0) * (y_H1 < chest.anatomy.apex + 0.05)
    side = np.clip(wall + neck * (1 - chest.spine), 0, 1) * chest.body * (1 - lung.member)
    flow = smooth_noise(rng, chest.size, 7) * _F(1.2) + smooth_noise(rng, chest.size, 24) * _F(1.6)
    direction = _F(1 if finding.sides[0] == "left" else -1)
    streaks = np.sin((y_H1 * _F(70) - direction * grid(chest.size)[0] * _F(120)) + flow)
    bubbles = smooth_noise(rng, chest.size, 44)
    patches = smooth_noise(rng, chest.size, 9)
    pockets = np.clip(_F(0.6) * streaks + _F(0.55) * bubbles + _F(0.15) * patches, 0, 1)
    return side * (-_F(0.12 + 0.08 * finding.severity) * pockets - _F(0.02)), side


def paint_pneumoperitoneum(chest: Chest, finding: Finding) -> tuple[Plane, Plane]:
    """A crescent of free air under the right dome, which shows the diaphragm as a thin line."""
    lung = chest.lungs["right"]
    across = (lung.u - _F(0.46)) * _F(1 / 0.36)
    crescent = np.clip(1 - across * across, 0, 1)
    thick = _F(0.022 + 0.030 * finding.severity) * crescent
    below = -lung.depth - _F(0.009)
    air = ramp(below, 0.006) * ramp(thick - below, 0.006) * (thick > 0.002)
    line = np.clip(1 - np.abs(lung.depth + _F(0.004)) * _F(170), 0, 1) * (crescent > 0)
    return -_F(0.25 + 0.06 * finding.severity) * air + _F(0.03) * line, air
