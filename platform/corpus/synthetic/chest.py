"""The normal frontal chest: an attenuation map summed from its tissues, so that overlapping shadows add up.

Shapes: H rows, W columns. Attenuation is in display units: about 0 for air and 1 for the densest bone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chexray.platform.corpus.synthetic.anatomy import Anatomy, Side
from chexray.platform.corpus.synthetic.canvas import Plane, blurred, disc, enlarged, grid, ramp, smooth_noise
from chexray.platform.corpus.synthetic.vessels import vessel_plane

SIDES: tuple[Side, Side] = ("right", "left")
_F = np.float32


@dataclass(frozen=True)
class Lung:
    """One lung: soft membership and its coordinates, all float32 HW.

    `member` 0..1; `u` 0 at the midline and 1 at the chest wall; `s` 0 at the apex and 1 at the base;
    `depth` how far a pixel lies above the diaphragm's dome (fractions of the side, negative below).
    """

    side: Side
    member: Plane
    u: Plane
    s: Plane
    depth: Plane

    def half(self) -> tuple[slice, Lung]:
        """The columns that can hold this lung, and the lung cut to them."""
        size = self.member.shape[1]
        columns = slice(0, int(0.56 * size)) if self.side == "right" else slice(int(0.44 * size), size)
        planes = (plane[:, columns] for plane in (self.member, self.u, self.s, self.depth))
        return columns, Lung(self.side, *planes)


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
    return _F(0.5) + _F(anatomy.spine_curve) * bend


def draw_chest(anatomy: Anatomy, size: int, rng: np.random.Generator) -> Chest:
    """Draw one normal chest (or one whose anatomy a finding has changed) of `size` x `size` pixels."""
    x_1W = grid(size)[0]
    offset = x_1W - midline(anatomy, size)
    # the rib cage follows a curved spine half way
    cage = _F(0.5) * (offset + x_1W - _F(0.5))
    lungs = {side: _lung(anatomy, size, cage, side) for side in SIDES}
    heart = _heart(anatomy, size)
    body, tissue = _body(anatomy, size)
    spine, bone = _spine(anatomy, size, offset)
    ribs = _ribs(anatomy, size, lungs) * body
    field = np.maximum(lungs["right"].member, lungs["left"].member)
    vessels = vessel_plane(anatomy, size) * field * (1 - _F(0.75) * heart) * _F(anatomy.vessels)
    above = ramp(np.where(offset < 0, lungs["right"].depth, lungs["left"].depth) + _F(0.01), 0.04)
    total = tissue + ribs + bone + vessels
    total += _air(lungs, heart)
    total += heart * above * _F(0.085) + _mediastinum(anatomy, size, offset)
    total += (_abdomen(anatomy, size, lungs) + _clavicles(anatomy, size) + _coarse(anatomy, size)) * body
    total += _F(0.010) * smooth_noise(rng, size, 40) * field
    return Chest(anatomy, size, total, lungs, heart, spine, body, vessels, ribs)


def _lung(anatomy: Anatomy, size: int, offset: Plane, side: Side) -> Lung:
    y_H1 = grid(size)[1]
    base = anatomy.base_right if side == "right" else anatomy.base_left
    lateral = -offset if side == "right" else offset
    s_H1 = (y_H1 - _F(anatomy.apex)) * _F(1 / (base - anatomy.apex))
    wall = _wall(anatomy, s_H1)
    inner = _F(anatomy.mediastinum) + _F(0.05) * np.clip(1 - s_H1 * _F(9), 0, 1) ** 2
    u = lateral / wall
    across = np.minimum(u, 1) - _F(0.42)
    away = np.maximum(across * _F(1 / 0.58), across * _F(-1 / 0.75))
    dome = _F(base) - _F(anatomy.dome_height) * (1 - away * away * (_F(0.7) + _F(0.3) * away))
    depth = dome - y_H1
    edge = ramp(wall - lateral, 0.012) * ramp(lateral - inner, 0.02)
    return Lung(side, edge * ramp(depth, 0.010), u, np.broadcast_to(s_H1, u.shape), depth)


def lung_point(anatomy: Anatomy, side: Side, u: float, s: float) -> tuple[float, float]:
    """The (x, y) of lung coordinates `u` (0 midline, 1 wall) and `s` (0 apex, 1 base) of an unbent spine."""
    base = anatomy.base_right if side == "right" else anatomy.base_left
    wall = float(_wall(anatomy, np.array([s], dtype=_F))[0])
    return 0.5 + (-u if side == "right" else u) * wall, anatomy.apex + s * (base - anatomy.apex)


def _wall(anatomy: Anatomy, s: Plane) -> Plane:
    """Distance from the midline to the chest wall at height `s`."""
    rise = 1 - np.clip(s * _F(1 / 0.52), 0, 1)
    wall = np.clip(1 - rise ** _F(2.1), 0, 1) ** _F(0.46) * (_F(0.93) + _F(0.075) * s)
    return np.maximum(_F(anatomy.width) * wall, _F(1e-3))


def _air(lungs: dict[Side, Lung], heart: Plane) -> Plane:
    total = np.zeros_like(heart)
    for columns, lung in (lung.half() for lung in lungs.values()):
        across = (lung.u - _F(0.55)) * _F(1 / 0.62)
        thick = _F(0.62) + _F(0.38) * np.sqrt(np.clip(1 - across * across, 0, 1))
        thick *= _F(0.86) + _F(0.14) * np.clip(lung.s * 4, 0, 1)
        # lung lies behind the dome too: a veil of air fades out below its edge
        veil = np.clip(1 + lung.depth * _F(1 / 0.09), 0, 1)
        behind = veil * ((lung.depth < 0) & (lung.u > 0.15) & (lung.u < 1))
        total[:, columns] -= _F(0.30) * lung.member * thick + _F(0.03) * behind
    return total * (1 - _F(0.55) * heart)


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
    return _F(0.095) * column - _F(0.095) * tube - _F(0.03) * bronchi


def _spine(anatomy: Anatomy, size: int, offset: Plane) -> tuple[Plane, Plane]:
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


def _ribs(anatomy: Anatomy, size: int, lungs: dict[Side, Lung]) -> Plane:
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
    return (y_H1 - _F(anatomy.apex + 0.012) - arch) * _F(1 / anatomy.rib_spacing)


def _eighth(u: Plane) -> Plane:
    square = u * u
    square *= square
    return square * square


def front_phase(anatomy: Anatomy, size: int, lung: Lung) -> Plane:
    """Anterior rib number at each pixel (float32 HW): they fall towards the sternum."""
    y_H1 = grid(size)[1]
    inward = np.clip(1 - lung.u, 0, 1)
    fall = _F(0.26 + anatomy.rib_slope) * inward * (1 - _F(0.45) * inward)
    return (y_H1 - _F(anatomy.apex + 0.02) - fall) * _F(1 / (anatomy.rib_spacing * 1.22))


def _rib_bands(phase: Plane, half: np.float32) -> Plane:
    away = np.abs(phase - np.rint(phase))
    band = np.clip((half - away) * _F(9), 0, 1)
    cortex = np.clip(1 - np.abs(away - half + _F(0.07)) * _F(11), 0, 1)
    return band * _F(0.72) + cortex * _F(0.55)


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


def _clavicles(anatomy: Anatomy, size: int) -> Plane:
    x_1W, y_H1 = grid(size)
    t = (np.abs(x_1W - _F(0.5)) - _F(0.030)) * _F(1 / 0.37)
    bow = np.sin(np.clip(t, 0, 1) * _F(2.2))
    centre = _F(anatomy.clavicle_y + 0.035) - _F(1.6 * anatomy.clavicle_tilt) * bow
    centre = centre - _F(0.010) * np.sin(t * 7)
    half = _F(0.012) + _F(0.007) * np.clip(1 - t * 4, 0, 1)
    away = np.abs(y_H1 - centre)
    cortex = np.clip(1 - np.abs(away - half + _F(0.003)) * _F(230), 0, 1)
    reach = ramp(t, 0.03) * ramp(_F(1.0) - t, 0.06)
    return reach * (ramp(half - away, 0.006) * _F(0.085) + cortex * _F(0.070))


def _limbs(anatomy: Anatomy, size: int) -> Plane:
    """Shoulder blades, humeral heads and shafts."""
    total = np.zeros((size, size), dtype=_F)
    for m in (-1.0, 1.0):
        head = disc(size, 0.5 + m * 0.462, anatomy.shoulder + 0.075, 0.052, 0.055)
        shaft = disc(size, 0.5 + m * 0.505, anatomy.shoulder + 0.25, 0.034, 0.20, -0.06 * m)
        blade = disc(size, 0.5 + m * 0.395, anatomy.shoulder + 0.18, 0.060, 0.150, 0.32 * m)
        total += _F(0.06) * np.maximum(ramp(1 - head, 0.4), ramp(1 - shaft, 0.5))
        total += _F(0.035) * ramp(1 - blade, 0.45) + _F(0.014) * np.clip(1 - np.abs(blade - 1) * 5, 0, 1)
    return total


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
    total = _limbs(anatomy, half)
    if anatomy.breast > 0.02:
        total += _breasts(anatomy, half)
    for sign in (-1.0, 1.0):
        total += _F(0.065) * np.exp(-disc(half, 0.5 + sign * 0.09, 0.47 - 0.012 * sign, 0.045, 0.075))
    return enlarged(total, size)
