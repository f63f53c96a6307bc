"""The lungs' shapes and coordinates, and the air in them.

Shapes: H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chexray.platform.corpus.synthetic.anatomy import Anatomy, Side
from chexray.platform.corpus.synthetic.canvas import Plane, grid, ramp

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


def lung_point(anatomy: Anatomy, side: Side, u: float, s: float) -> tuple[float, float]:
    """The (x, y) of lung coordinates `u` (0 midline, 1 wall) and `s` (0 apex, 1 base) of an unbent spine."""
    base = anatomy.base_right if side == "right" else anatomy.base_left
    wall = float(_wall(anatomy, np.array([s], dtype=_F))[0])
    return 0.5 + (-u if side == "right" else u) * wall, anatomy.apex + s * (base - anatomy.apex)


def _wall(anatomy: Anatomy, s: Plane) -> Plane:
    """Distance from the midline to the chest wall at height `s`."""
    rise = 1 - np.clip(s * _F(1 / 0.52), 0, 1)
    wall = np.clip(1 - rise ** _F(2.1), 0, 1) ** _F(0.46) * (_F(0.93) + _F(0.075) * s)
    out: Plane = np.maximum(_F(anatomy.width) * wall, _F(1e-3))
    return out


def draw_lung(anatomy: Anatomy, size: int, offset: Plane, side: Side) -> Lung:
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


def draw_air(lungs: dict[Side, Lung], heart: Plane) -> Plane:
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
