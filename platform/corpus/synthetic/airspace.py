"""Painters of what fills or scars the lung: opacity, consolidation, edema, atelectasis, nodule, mass, cavity.

Shapes: H rows, W columns. Each painter gives (change in attenuation, mask in 0..1), float32 HW.
"""

from __future__ import annotations

import numpy as np

from chexray.platform.corpus.synthetic.anatomy import Side
from chexray.platform.corpus.synthetic.canvas import (
    Plane,
    Stroke,
    disc,
    draw_strokes,
    grid,
    ramp,
    smooth_noise,
)
from chexray.platform.corpus.synthetic.chest import Chest
from chexray.platform.corpus.synthetic.labels import Finding, Zone
from chexray.platform.corpus.synthetic.lungs import lung_point

_F = np.float32
_ZONE_S: dict[Zone, tuple[float, float]] = {"upper": (0.14, 0.32), "mid": (0.38, 0.56), "lower": (0.62, 0.76)}


def _spot(
    chest: Chest, rng: np.random.Generator, side: Side, zone: Zone, u: tuple[float, float]
) -> tuple[float, float]:
    """A random (x, y) in a zone of a lung; `u` bounds the lateral position."""
    s = float(rng.uniform(*_ZONE_S[zone]))
    clear = max(u[0], 0.58) if side == "left" and zone == "lower" else u[0]
    return lung_point(chest.anatomy, side, float(rng.uniform(clear, max(u[1], clear + 0.05))), s)


def _side_only(chest: Chest, side: Side) -> Plane:
    return chest.lungs[side].member * (1 - _F(0.6) * chest.heart)


def paint_opacity(chest: Chest, finding: Finding) -> tuple[Plane, Plane]:
    """One to three hazy, ill-defined patches a side."""
    rng = np.random.default_rng(finding.seed)
    haze = np.zeros_like(chest.heart)
    for side in finding.sides:
        noise = smooth_noise(rng, chest.size, 9)
        for _ in range(int(rng.integers(1, 4))):
            x, y = _spot(chest, rng, side, finding.zone, (0.35, 0.78))
            radius = float(rng.uniform(0.055, 0.085)) * (0.8 + 0.5 * finding.severity)
            square = disc(chest.size, x, y, radius, radius * float(rng.uniform(0.8, 1.3))) + _F(0.35) * noise
            np.maximum(haze, np.exp(-np.maximum(square, 0)) * _side_only(chest, side), out=haze)
    texture = _F(0.8) + _F(0.25) * smooth_noise(rng, chest.size, 34)
    return _F(0.07 + 0.13 * finding.severity) * haze * texture, haze * _F(1.4)


def paint_consolidation(chest: Chest, finding: Finding) -> tuple[Plane, Plane]:
    """A dense lobar region with one sharp (fissural) border and air bronchograms."""
    rng = np.random.default_rng(finding.seed)
    total, mask = np.zeros_like(chest.heart), np.zeros_like(chest.heart)
    for side in finding.sides:
        lung = chest.lungs[side]
        low, high = {"upper": (-0.2, 0.42), "mid": (0.40, 0.66), "lower": (0.58, 1.2)}[finding.zone]
        wave = _F(0.035) * smooth_noise(rng, chest.size, 6) + _F(0.10) * (lung.u - _F(0.5))
        extent = _F(0.45 + 0.55 * finding.severity)
        s = lung.s + wave
        sharp, fading = (ramp(_F(high) - s, 0.025), ramp(s - _F(low), 0.16))
        if finding.zone == "lower":
            sharp, fading = ramp(_F(high) - s, 0.16), ramp(s - _F(low), 0.05)
        lateral = ramp(extent + _F(0.25) + _F(0.1) * wave - np.abs(lung.u - _F(0.55)) * _F(1.6), 0.30)
        region = sharp * fading * lateral * _side_only(chest, side)
        air = _bronchogram(chest, rng, side, finding.zone)
        total += _F(0.15 + 0.10 * finding.severity) * region * (1 - _F(0.5) * air)
        np.maximum(mask, region, out=mask)
    return total, mask


def _bronchogram(chest: Chest, rng: np.random.Generator, side: Side, zone: Zone) -> Plane:
    hilum = lung_point(chest.anatomy, side, 0.22, 0.48)
    strokes = []
    for _ in range(5):
        x, y = _spot(chest, rng, side, zone, (0.35, 0.8))
        bend = (hilum[0] + 0.5 * (x - hilum[0]), hilum[1] + 0.65 * (y - hilum[1]))
        strokes.append(Stroke((hilum, bend, (x, y)), float(rng.uniform(0.006, 0.010)), 0.8))
    return draw_strokes(chest.size, strokes, 0.002)


def paint_edema(chest: Chest, finding: Finding) -> tuple[Plane, Plane]:
    """Perihilar haze on both sides, thick vessels, and septal (Kerley B) lines at the bases."""
    rng = np.random.default_rng(finding.seed)
    haze = np.zeros_like(chest.heart)
    strokes = []
    for side in finding.sides:
        lung = chest.lungs[side]
        wing = np.exp(_F(-6.9) * ((lung.u - _F(0.32)) ** 2 + (lung.s - _F(0.60)) ** 2))
        haze += wing * _side_only(chest, side)
        for s in np.linspace(0.62, 0.86, 7):
            inner = lung_point(chest.anatomy, side, 0.86, float(s))
            outer = lung_point(chest.anatomy, side, 0.98, float(s) + 0.004)
            strokes.append(Stroke((inner, outer), 0.004, 0.8))
    texture = _F(0.85) + _F(0.22) * smooth_noise(rng, chest.size, 40)
    lines = draw_strokes(chest.size, strokes, 0.001) * chest.lung_field
    change = _F(0.08 + 0.14 * finding.severity) * haze * texture
    change += _F(0.2 + 0.5 * finding.severity) * chest.vessels
    return change + _F(0.03 + 0.05 * finding.severity) * lines, haze * _F(1.25)


def paint_atelectasis(chest: Chest, finding: Finding) -> tuple[Plane, Plane]:
    """Plate-like bands and crowding above a raised dome (raised by `findings.alter_anatomy`)."""
    rng = np.random.default_rng(finding.seed)
    total, mask = np.zeros_like(chest.heart), np.zeros_like(chest.heart)
    for side in finding.sides:
        lung = chest.lungs[side]
        bands = np.zeros_like(chest.heart)
        for _ in range(int(rng.integers(2, 4))):
            height = _F(rng.uniform(0.03, 0.12)) + _F(rng.normal(0, 0.06)) * (lung.u - _F(0.5))
            half = float(rng.uniform(0.005, 0.010))
            reach = ramp(_F(0.27) - np.abs(lung.u - _F(rng.uniform(0.45, 0.68))), 0.1)
            np.maximum(bands, ramp(_F(half) - np.abs(lung.depth - height), 0.010) * reach, out=bands)
        crowd = ramp(_F(0.09) - lung.depth, 0.12)
        inside = _side_only(chest, side)
        strength = _F(0.10 + 0.12 * finding.severity)
        total += (strength * bands + _F(0.03 + 0.06 * finding.severity) * crowd) * inside
        np.maximum(mask, (bands + _F(0.45) * ramp(_F(0.16) - lung.depth, 0.1)) * inside * _F(1.3), out=mask)
    return total, mask


def paint_nodule(chest: Chest, finding: Finding) -> tuple[Plane, Plane]:
    """One to three round, well-defined nodules, 7 to 14 mm in radius on a 40 cm film."""
    rng = np.random.default_rng(finding.seed)
    spots = np.zeros_like(chest.heart)
    for side in finding.sides:
        for _ in range(int(rng.choice(3, p=(0.55, 0.30, 0.15))) + 1):
            x, y = _spot(chest, rng, side, finding.zone, (0.40, 0.82))
            radius = 0.018 + 0.016 * finding.severity * float(rng.uniform(0.8, 1.1))
            square = disc(chest.size, x, y, radius, radius * float(rng.uniform(0.9, 1.1)))
            np.maximum(spots, ramp(_F(1.1) - square, 0.8) * _side_only(chest, side), out=spots)
    return _F(0.13 + 0.13 * finding.severity) * spots, spots


def _lump(chest: Chest, rng: np.random.Generator, finding: Finding, scale: float) -> tuple[Plane, float, float, float]:
    """A lobulated lump as squared radius, and its centre and radius."""
    x, y = _spot(chest, rng, finding.sides[0], finding.zone, (0.45, 0.72))
    radius = scale * (0.8 + 0.5 * finding.severity)
    other, tilt = radius * float(rng.uniform(0.8, 1.15)), float(rng.uniform(0, 1.5))
    square = disc(chest.size, x, y, radius, other, tilt)
    return square + _F(0.30) * smooth_noise(rng, chest.size, 15), x, y, radius


def paint_mass(chest: Chest, finding: Finding) -> tuple[Plane, Plane]:
    """A lobulated mass over 3 cm wide with spiculated edges."""
    rng = np.random.default_rng(finding.seed)
    square, x, y, radius = _lump(chest, rng, finding, 0.055)
    lump = ramp(_F(1.0) - square, 0.9)
    strokes = []
    for angle in rng.uniform(0, 2 * np.pi, 11):
        far = radius * float(rng.uniform(1.25, 1.75))
        tip = (x + far * float(np.cos(angle)), y + far * float(np.sin(angle)))
        strokes.append(Stroke(((x, y), tip), 0.004, 0.30))
    body = np.maximum(lump, draw_strokes(chest.size, strokes, 0.0015)) * chest.lungs[finding.sides[0]].member
    return _F(0.17 + 0.10 * finding.severity) * body, body


def paint_cavity(chest: Chest, finding: Finding) -> tuple[Plane, Plane]:
    """A thick-walled ring with air above a fluid level."""
    rng = np.random.default_rng(finding.seed)
    square, _, y, radius = _lump(chest, rng, finding, 0.062)
    member = chest.lungs[finding.sides[0]].member
    whole = ramp(_F(1.0) - square, 0.35) * member
    hole = ramp(_F(0.42) - square, 0.20) * member
    air = hole * ramp(_F(y + 0.25 * radius) - grid(chest.size)[1], 0.008)
    return _F(0.19 + 0.06 * finding.severity) * whole - _F(0.22 + 0.06 * finding.severity) * air, whole
