"""The normal frontal chest: an attenuation map summed from its tissues, so that overlapping shadows add up.

Shapes: H rows, W columns. Attenuation is in display units: about 0 for air and 1 for the densest bone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chexray.platform.corpus.synthetic.anatomy import Anatomy, Side
from chexray.platform.corpus.synthetic.bones import draw_clavicles, draw_limbs, draw_ribs, draw_spine
from chexray.platform.corpus.synthetic.canvas import Plane, blurred, disc, enlarged, grid, ramp, smooth_noise
from chexray.platform.corpus.synthetic.lungs import SIDES, Lung, draw_air, draw_lung
from chexray.platform.corpus.synthetic.vessels import vessel_plane

_F = np.float32


@dataclass(frozen=True)
class Chest:
    """A drawn normal chest. Masks are soft memberships in 0..1; all planes are float32 HW."""

    anatomy: Anatomy
    size: int
    attenuation: Plane
    lungs: dict[Side, Lung]
    heart: Plane
    spine: Plane
    body: Plane
    vessels: Plane
    ribs: Plane

    @property
    def lung_field(self) -> Plane:
        """Both lungs, heart excluded."""
        member = np.maximum(self.lungs["right"].member, self.lungs["left"].member)
        return member * (1 - self.heart)


def midline(anatomy: Anatomy, size: int) -> Plane:
    """The spine's x at each row (H1), curved where there is scoliosis."""
    y_H1 = grid(size)[1]
    bend = np.sin((y_H1 - _F(0.12)) * _F(2 * np.pi / 0.80)) * (y_H1 > 0.12)
    out: Plane = _F(0.5) + _F(anatomy.spine_curve) * bend
    return out


def draw_chest(anatomy: Anatomy, size: int, rng: np.random.Generator) -> Chest:
    """Draw one normal chest (or one whose anatomy a finding has changed) of `size` x `size` pixels."""
    x_1W = grid(size)[0]
    offset = x_1W - midline(anatomy, size)
    # the rib cage follows a curved spine half way
    cage = _F(0.5) * (offset + x_1W - _F(0.5))
    lungs = {side: draw_lung(anatomy, size, cage, side) for side in SIDES}
    heart = _heart(anatomy, size)
    body, tissue = _body(anatomy, size)
    spine, bone = draw_spine(anatomy, size, offset)
    ribs = draw_ribs(anatomy, size, lungs) * body
    field = np.maximum(lungs["right"].member, lungs["left"].member)
    vessels = vessel_plane(anatomy, size) * field * (1 - _F(0.75) * heart) * _F(anatomy.vessels)
    right = offset < 0
    depth = lungs["right"].depth * right + lungs["left"].depth * ~right
    above = ramp(depth + _F(0.01), 0.04)
    total = tissue + ribs + bone + vessels
    total += draw_air(lungs, heart)
    total += heart * above * _F(0.085) + _mediastinum(anatomy, size, offset)
    total += (_abdomen(anatomy, size, lungs) + draw_clavicles(anatomy, size) + _coarse(anatomy, size)) * body
    total += _F(0.010) * smooth_noise(rng, size, 40) * field
    return Chest(anatomy, size, total, lungs, heart, spine, body, vessels, ribs)


def _heart(anatomy: Anatomy, size: int) -> Plane:
    """Membership of the heart and great vessels' silhouette."""
    a, m = anatomy, float(anatomy.situs)
    grow = a.heart_width / 0.16
    bumps = (
        (0.060 * grow, a.heart_y + 0.020, a.heart_width, a.heart_height * 0.80, m * 0.62),
        (-0.028 * grow, a.heart_y - 0.005, 0.082 * grow, a.heart_height * 0.85, 0.0),
        (0.034, 0.455, 0.062, 0.105, m * 0.35),
        (0.040, 0.325, a.aorta, a.aorta * 1.25, 0.0),
        (0.004, 0.36, 0.054, 0.18, 0.0),
    )
    half = max(64, size // 2)
    union = np.zeros((half, half), dtype=_F)
    for x, *ellipse in bumps:
        np.maximum(union, ramp(1 - disc(half, 0.5 + m * x, *ellipse), 0.35), out=union)
    union = enlarged(blurred(union, 0.010), size)
    return ramp(union - _F(0.42), 0.38)


def _mediastinum(anatomy: Anatomy, size: int, offset: Plane) -> Plane:
    """Mediastinal soft tissue, with the trachea and main bronchi cut out of it, and the hila."""
    y_H1 = grid(size)[1]
    half = _F(anatomy.mediastinum + 0.004) + _F(0.010) * np.sin(y_H1 * 9)
    away = np.abs(offset)
    column = ramp(half - away, 0.06) * ramp(y_H1 - _F(0.13), 0.14)
    tube = ramp(_F(0.019) - np.abs(offset + _F(0.006 * anatomy.situs)), 0.012) * ramp(_F(0.385) - y_H1, 0.05)
    fork = np.clip((y_H1 - _F(0.365)) * _F(0.85), 0, 0.1)
    bronchi = ramp(_F(0.012) - np.abs(away - fork - _F(0.004)), 0.012)
    bronchi = bronchi * (ramp(y_H1 - _F(0.37), 0.02) * ramp(_F(0.46) - y_H1, 0.06))
    out: Plane = _F(0.095) * column - _F(0.095) * tube - _F(0.03) * bronchi
    return out


def _body(anatomy: Anatomy, size: int) -> tuple[Plane, Plane]:
    """Membership and soft-tissue attenuation of trunk, shoulders and neck: an ellipse at every height."""
    x_1W, y_H1 = grid(size)
    a = anatomy
    knots_y = (-0.1, a.shoulder - 0.12, a.shoulder - 0.06, a.shoulder, a.shoulder + 0.06, 0.42, 0.7, 1.1)
    knots_w = (a.neck, a.neck * 1.08, a.neck * 1.45, 0.33, 0.54, a.torso + 0.07, a.torso, a.torso * 1.02)
    half = np.interp(y_H1[:, 0], knots_y, knots_w).astype(_F)
    half = _smooth_rows(half, size)[:, None]
    thick = np.interp(y_H1, (0, 0.12, 0.25, 0.6, 1.0), (0.50, 0.53, 0.57, 0.64, 0.70)).astype(_F)
    across = np.minimum(np.abs(x_1W - _F(0.5)) / half, 1)
    square = across * across
    tissue = np.sqrt(1 - square * (_F(0.6) + _F(0.4) * square)) * (thick * _F(0.80 + 0.32 * a.fat))
    return ramp((1 - across) * half - _F(0.004), 0.008), tissue


def _smooth_rows(values: Plane, size: int) -> Plane:
    width = max(3, int(0.055 * size) | 1)
    kernel = np.hanning(width + 2)[1:-1].astype(_F)
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid").astype(_F)


def _abdomen(anatomy: Anatomy, size: int, lungs: dict[Side, Lung]) -> Plane:
    """Liver, spleen and the rest below the domes, and the stomach's gas under one of them."""
    x_1W = grid(size)[0]
    below = np.zeros((size, size), dtype=_F)
    for lung in lungs.values():
        half = (x_1W < 0.5) if lung.side == "right" else (x_1W >= 0.5)
        below += ramp(-lung.depth, 0.05) * (half * ramp(lung.s - _F(0.84), 0.16))
    if anatomy.stomach <= 0.02:
        return _F(0.09) * below
    m = float(anatomy.situs)
    dome = (anatomy.base_left if m > 0 else anatomy.base_right) - anatomy.dome_height
    r = anatomy.stomach
    gas = disc(size, 0.5 + m * 0.165, dome + 0.035 + r * 0.55, r, r * 0.62, -0.25 * m)
    return (_F(0.09) - _F(0.11) * ramp(1 - gas, 0.55)) * below


def _breasts(anatomy: Anatomy, size: int) -> Plane:
    y_H1 = grid(size)[1]
    r = 0.10 + 0.35 * anatomy.breast
    centre = anatomy.base_right - 0.16
    total = np.zeros((size, size), dtype=_F)
    for m in (-1.0, 1.0):
        total += ramp(1 - disc(size, 0.5 + m * 0.245, centre, r * 1.05, r), 0.45)
    return total * ramp(y_H1 - _F(centre - 0.02), 0.28) * _F(0.50 * anatomy.breast + 0.02)


def _coarse(anatomy: Anatomy, size: int) -> Plane:
    """What has no sharp edge, drawn at half size: limbs, breasts, hila."""
    half = max(64, size // 2)
    total = draw_limbs(anatomy, half)
    if anatomy.breast > 0.02:
        total += _breasts(anatomy, half)
    for sign in (-1.0, 1.0):
        total += _F(0.065) * np.exp(-disc(half, 0.5 + sign * 0.09, 0.47 - 0.012 * sign, 0.045, 0.075))
    return enlarged(total, size)
