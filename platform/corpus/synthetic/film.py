"""From attenuation to a film: patient position, scatter, exposure, grain, collimation and side marker.

Shapes: H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from chexray.platform.corpus.synthetic.anatomy import View
from chexray.platform.corpus.synthetic.canvas import Plane, blurred, grid, ramp

STORED_MAXIMUM = 4095
_F = np.float32


@dataclass(frozen=True)
class Exposure:
    """How one film was taken. Angles in radians, shifts as fractions, grain as a share of the full range."""

    angle: float
    zoom: float
    shift_x: float
    shift_y: float
    brightness: float
    contrast: float
    scatter: float
    sharpen: float
    grain: float
    tilt_x: float
    tilt_y: float
    collimation: tuple[float, float, float, float] | None
    marker: tuple[str, float, float, float] | None


def sample_exposure(rng: np.random.Generator, view: View) -> Exposure:
    """A film's settings: wide spread for one in four, small for the rest; AP films are greyer and rotated."""
    wide = 2.2 if rng.random() < 0.25 else 1.0
    portable = view == "AP"
    collimated = rng.random() < (0.35 if portable else 0.15)
    borders = (float(v) for v in rng.uniform(-0.02, 0.05, 4))
    return Exposure(
        angle=float(rng.normal(0, 0.018 * wide * (1.6 if portable else 1))),
        zoom=float(np.clip(1 + rng.normal(0, 0.018 * wide), 0.88, 1.12)),
        shift_x=float(rng.normal(0, 0.010 * wide)),
        shift_y=float(rng.normal(0, 0.012 * wide)),
        brightness=float(rng.normal(0.01 if portable else 0.0, 0.022 * wide)),
        contrast=float(np.clip(rng.normal(0.94 if portable else 1.0, 0.05 * wide), 0.75, 1.25)),
        scatter=float(rng.uniform(0.18, 0.32)) if portable else float(rng.uniform(0.08, 0.18)),
        sharpen=float(rng.uniform(0.1, 0.6)),
        grain=float(rng.uniform(0.006, 0.016)) * (1.2 if portable else 1.0),
        tilt_x=float(rng.normal(0, 0.02 * wide)),
        tilt_y=float(rng.normal(0, 0.02 * wide)),
        collimation=tuple(borders) if collimated else None,  # type: ignore[arg-type]
        marker=_sample_marker(rng) if rng.random() < 0.55 else None,
    )


def _sample_marker(rng: np.random.Generator) -> tuple[str, float, float, float]:
    letter = "R" if rng.random() < 0.4 else "L"
    x = float(rng.uniform(0.045, 0.10))
    return (
        letter,
        x if letter == "R" else 1 - x,
        float(rng.uniform(0.05, 0.16)),
        float(rng.uniform(0.035, 0.06)),
    )


def position(plane: Plane, exposure: Exposure) -> Plane:
    """Rotate, zoom and shift a plane about the centre (bilinear; the border is repeated); float32 HW."""
    edge = plane.shape[0] // 8
    return np.asarray(_move(Image.fromarray(np.pad(plane, edge, mode="edge")), plane.shape[0], exposure))


def position_mask(soft: Plane, exposure: Exposure) -> npt.NDArray[np.uint8]:
    """A soft mask moved like its image (outside is 0) and cut at one half; uint8 HW, 0 or 255."""
    grey = (np.clip(soft, 0, 1) * _F(255)).astype(np.uint8)
    moved = np.asarray(_move(Image.fromarray(grey), soft.shape[0], exposure))
    return (moved > 127).astype(np.uint8) * np.uint8(255)


def _move(image: Image.Image, size: int, exposure: Exposure) -> Image.Image:
    """The affine map of `exposure`, of an image with equal margins around `size` pixels."""
    cos, sin = np.cos(exposure.angle) / exposure.zoom, np.sin(exposure.angle) / exposure.zoom
    x0, y0 = size * (0.5 + exposure.shift_x), size * (0.5 + exposure.shift_y)
    centre = image.width / 2
    matrix = (cos, sin, centre - cos * x0 - sin * y0, -sin, cos, centre + sin * x0 - cos * y0)
    return image.transform((size, size), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR)


def expose(attenuation: Plane, exposure: Exposure, rng: np.random.Generator) -> npt.NDArray[np.uint16]:
    """Develop a positioned attenuation map into 12-bit display values, 0 (air) to 4095 (dense)."""
    size = attenuation.shape[0]
    x_1W, y_H1 = grid(size)
    veil = blurred(attenuation, 0.06)
    ray = attenuation + _F(exposure.sharpen * 0.5) * (attenuation - blurred(attenuation, 0.012))
    ray = ray * _F(1 - exposure.scatter) + _F(exposure.scatter) * veil
    grey = _F(0.53 + exposure.brightness) + _F(1.06 * exposure.contrast) * (ray - _F(0.45))
    grey += _F(exposure.tilt_x) * (x_1W - _F(0.5)) + _F(exposure.tilt_y) * (y_H1 - _F(0.5))
    grey = _shoulder(grey)
    grain = rng.standard_normal((size, size), dtype=np.float32)
    grain = _F(0.6) * grain + _F(0.8) * (grain + np.roll(grain, 1, 0) + np.roll(grain, 1, 1)) * _F(0.5)
    grey += _F(exposure.grain) * grain * (_F(1.25) - grey)
    if exposure.collimation is not None:
        grey = _F(0.02) + (grey - _F(0.02)) * _shutter(size, exposure.collimation)
    if exposure.marker is not None:
        grey = np.maximum(grey, _marker_plane(size, exposure.marker))
    return np.rint(np.clip(grey, 0, 1) * STORED_MAXIMUM).astype(np.uint16)


def _shoulder(grey: Plane) -> Plane:
    """The film's characteristic curve: linear in the middle, compressed towards white and black."""
    out: Plane = _F(0.5) + _F(0.46) * np.tanh((grey - _F(0.5)) * _F(1.85)) / _F(np.tanh(1.0))
    return out


def _shutter(size: int, borders: tuple[float, float, float, float]) -> Plane:
    x_1W, y_H1 = grid(size)
    left, right, top, bottom = borders
    horizontal = ramp(x_1W - _F(left), 0.008) * ramp(_F(1 - right) - x_1W, 0.008)
    return horizontal * ramp(y_H1 - _F(top), 0.008) * ramp(_F(1 - bottom) - y_H1, 0.008)


def _marker_plane(size: int, marker: tuple[str, float, float, float]) -> Plane:
    letter, x, y, height = marker
    image = Image.new("L", (size, size))
    font = ImageFont.load_default(size=max(7.0, height * size))
    ImageDraw.Draw(image).text((x * size, y * size), letter, fill=245, font=font, anchor="mm")
    return np.asarray(image, dtype=np.float32) * _F(1 / 255)
