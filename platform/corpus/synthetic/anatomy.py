"""Whose chest it is: the shape of one patient's thorax, as numbers, and how patients and breaths vary it.

All lengths are fractions of the image's side; `x` grows to the image's right (the patient's left), `y` down.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

Sex = Literal["F", "M"]
View = Literal["AP", "PA"]
Side = Literal["right", "left"]


@dataclass(frozen=True)
class Anatomy:
    """One thorax. The patient's right is at the image's left."""

    apex: float = 0.125
    base_right: float = 0.80
    base_left: float = 0.82
    dome_height: float = 0.10
    width: float = 0.365
    mediastinum: float = 0.052
    heart_width: float = 0.160
    heart_height: float = 0.165
    heart_y: float = 0.635
    aorta: float = 0.040
    shoulder: float = 0.135
    neck: float = 0.125
    torso: float = 0.485
    fat: float = 0.50
    breast: float = 0.0
    clavicle_y: float = 0.175
    clavicle_tilt: float = 0.055
    rib_spacing: float = 0.062
    rib_slope: float = 0.105
    rib_contrast: float = 0.060
    vessels: float = 0.085
    stomach: float = 0.06
    spine_curve: float = 0.0
    situs: int = 1
    vessel_seed: int = 0


_MALE = (
    Anatomy(vessel_seed=11),
    Anatomy(
        width=0.39, torso=0.52, fat=0.62, heart_width=0.172, base_right=0.76, base_left=0.785,
        rib_slope=0.09, rib_contrast=0.045, clavicle_y=0.19, vessel_seed=12,
    ),
    Anatomy(
        width=0.345, torso=0.45, fat=0.40, heart_width=0.140, base_right=0.85, base_left=0.865,
        rib_slope=0.135, rib_contrast=0.07, shoulder=0.16, apex=0.11, vessel_seed=13,
    ),
)  # fmt: skip
_FEMALE = (
    Anatomy(
        width=0.345, torso=0.455, breast=0.09, heart_width=0.150, base_right=0.77, base_left=0.79,
        aorta=0.036, neck=0.105, shoulder=0.145, rib_contrast=0.05, vessel_seed=21,
    ),
    Anatomy(
        width=0.37, torso=0.51, breast=0.14, fat=0.62, heart_width=0.165, base_right=0.74, base_left=0.765,
        rib_contrast=0.042, clavicle_y=0.185, neck=0.12, vessel_seed=22,
    ),
    Anatomy(
        width=0.33, torso=0.43, breast=0.06, fat=0.38, heart_width=0.135, base_right=0.83, base_left=0.85,
        rib_slope=0.13, rib_contrast=0.065, neck=0.10, shoulder=0.155, vessel_seed=23,
    ),
)  # fmt: skip
PROTOTYPES: dict[Sex, tuple[Anatomy, ...]] = {"F": _FEMALE, "M": _MALE}
"""Few builds, so that normal chests crowd together as they do in real corpora."""

_PROTOTYPE_SHARES = (0.55, 0.28, 0.17)
_TYPICAL_SHARE = 0.75
_VESSEL_TREES = 16
_FIXED = {"spine_curve", "situs", "vessel_seed"}


def sample_anatomy(rng: np.random.Generator, sex: Sex, age_years: float) -> Anatomy:
    """A patient's thorax: a prototype of the sex with 1.5 % jitter, or 6 % (and
    one of 16 other vessel trees) for one in four.
    """
    index = int(rng.choice(len(_PROTOTYPE_SHARES), p=_PROTOTYPE_SHARES))
    prototype = PROTOTYPES[sex][index]
    typical = rng.random() < _TYPICAL_SHARE
    anatomy = _jitter(rng, prototype, 0.015 if typical else 0.06)
    if not typical:
        anatomy = replace(anatomy, vessel_seed=100 + int(rng.integers(_VESSEL_TREES)))
    return replace(anatomy, aorta=anatomy.aorta * (1 + 0.004 * (age_years - 50)))


def breathe(rng: np.random.Generator, anatomy: Anatomy, view: View) -> Anatomy:
    """The same thorax in one study: the breath's depth; in AP a magnified heart and wider mediastinum."""
    lift = abs(rng.normal(0, 0.012)) + (0.035 if view == "AP" else 0.0)
    heart = 1.10 if view == "AP" else 1.0
    return replace(
        _jitter(rng, anatomy, 0.006),
        base_right=anatomy.base_right - lift,
        base_left=anatomy.base_left - lift,
        heart_width=anatomy.heart_width * heart,
        heart_y=anatomy.heart_y - 0.5 * lift,
        mediastinum=anatomy.mediastinum * (1.12 if view == "AP" else 1.0),
        stomach=anatomy.stomach * float(rng.uniform(0.0, 1.5)),
    )


def _jitter(rng: np.random.Generator, anatomy: Anatomy, scale: float) -> Anatomy:
    values = {
        f.name: getattr(anatomy, f.name) * (1 + scale * float(np.clip(rng.normal(), -2.5, 2.5)))
        for f in fields(anatomy)
        if f.name not in _FIXED
    }
    return replace(anatomy, **values)
