"""Adding findings to a chest: some change the anatomy before it is drawn, the rest paint on what was drawn.

Shapes: H rows, W columns. Painters add to the attenuation in place of the tissue that a disease replaces and
give the finding's mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from chexray.platform.corpus.synthetic.airspace import (
    paint_atelectasis,
    paint_cavity,
    paint_consolidation,
    paint_edema,
    paint_mass,
    paint_nodule,
    paint_opacity,
)
from chexray.platform.corpus.synthetic.anatomy import Anatomy
from chexray.platform.corpus.synthetic.canvas import Plane, ramp
from chexray.platform.corpus.synthetic.chest import Chest
from chexray.platform.corpus.synthetic.devices import paint_devices
from chexray.platform.corpus.synthetic.labels import PARENT, Finding
from chexray.platform.corpus.synthetic.pleura import (
    paint_effusion,
    paint_emphysema,
    paint_fracture,
    paint_hernia,
    paint_pneumoperitoneum,
    paint_pneumothorax,
)

Painter = Callable[[Chest, Finding], tuple[Plane, Plane]]
"""From a chest and a finding to the change in attenuation and the mask in 0..1, both float32 HW."""


def alter_anatomy(anatomy: Anatomy, findings: Iterable[Finding]) -> Anatomy:
    """The thorax as cardiomegaly, scoliosis, dextrocardia, hernia and volume loss leave it."""
    for finding in findings:
        severity = finding.severity
        if finding.name == "Cardiomegaly":
            grow = 1.20 + 0.38 * severity
            wide, tall = anatomy.heart_width * grow, anatomy.heart_height * (1 + 0.5 * (grow - 1))
            anatomy = replace(anatomy, heart_width=wide, heart_height=tall)
        elif finding.name == "Scoliosis":
            bend = (0.028 + 0.035 * severity) * (1 if finding.seed % 2 else -1)
            anatomy = replace(anatomy, spine_curve=bend)
        elif finding.name == "Dextrocardia":
            anatomy = replace(anatomy, situs=-1)
        elif finding.name == "Atelectasis":
            rise = 0.015 + 0.05 * severity
            if "right" in finding.sides:
                anatomy = replace(anatomy, base_right=anatomy.base_right - rise)
            if "left" in finding.sides:
                anatomy = replace(anatomy, base_left=anatomy.base_left - rise)
    return anatomy


def _show_heart(chest: Chest, finding: Finding) -> tuple[Plane, Plane]:
    right, left = chest.lungs["right"], chest.lungs["left"]
    above = np.maximum(ramp(right.depth, 0.01), ramp(left.depth, 0.01))
    return np.zeros_like(chest.heart), chest.heart * above


def _show_spine(chest: Chest, finding: Finding) -> tuple[Plane, Plane]:
    return np.zeros_like(chest.spine), chest.spine


PAINTERS: dict[str, Painter] = {
    "Lung Opacity": paint_opacity,
    "Support Devices": paint_devices,
    "Pleural Effusion": paint_effusion,
    "Cardiomegaly": _show_heart,
    "Atelectasis": paint_atelectasis,
    "Edema": paint_edema,
    "Consolidation": paint_consolidation,
    "Pneumothorax": paint_pneumothorax,
    "Nodule": paint_nodule,
    "Mass": paint_mass,
    "Scoliosis": _show_spine,
    "Rib Fracture": paint_fracture,
    "Hernia": paint_hernia,
    "Subcutaneous Emphysema": paint_emphysema,
    "Cavitary Lesion": paint_cavity,
    "Pneumoperitoneum": paint_pneumoperitoneum,
    "Dextrocardia": _show_heart,
}


def paint_findings(chest: Chest, findings: Iterable[Finding]) -> tuple[Plane, dict[str, Plane]]:
    """The chest's attenuation with its findings, float32 HW, and a soft mask per finding.

    A parent's mask covers its children's (see `labels.PARENT`).
    """
    total, masks = chest.attenuation.copy(), {}
    for finding in findings:
        change, mask = PAINTERS[finding.name](chest, finding)
        total += change
        masks[finding.name] = mask
    for child, parent in PARENT.items():
        if child in masks:
            masks[parent] = np.maximum(masks.get(parent, masks[child]), masks[child])
    return total, masks
