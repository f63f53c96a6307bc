"""Which findings a study shows, how severe and where: sampled without drawing anything.

A study's findings come from a Gaussian copula: a latent normal per finding falls below the quantile of its
prevalence, so marginals are exact while shared factors (illness, heart failure, infection, trauma) correlate
the findings and the patient's own share makes them persist. Shapes: S studies, F findings, K factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from chexray.platform.corpus.synthetic.anatomy import Side

Laterality = Literal["right", "left", "bilateral", "midline"]
Zone = Literal["upper", "mid", "lower"]

FINDINGS: dict[str, float] = {
    "Lung Opacity": 0.26,
    "Support Devices": 0.20,
    "Pleural Effusion": 0.17,
    "Cardiomegaly": 0.15,
    "Atelectasis": 0.12,
    "Edema": 0.08,
    "Consolidation": 0.06,
    "Pneumothorax": 0.04,
    "Nodule": 0.035,
    "Mass": 0.015,
    "Scoliosis": 0.012,
    "Rib Fracture": 0.012,
    "Hernia": 0.009,
    "Subcutaneous Emphysema": 0.007,
    "Cavitary Lesion": 0.005,
    "Pneumoperitoneum": 0.003,
    "Dextrocardia": 0.002,
}
"""Finding -> target prevalence among studies. 'No Finding' is what is left, about half."""

PARENT = {"Consolidation": "Lung Opacity"}
"""A child is present only with its parent, as in CheXpert's hierarchy (Irvin et al. 2019, figure 1)."""

_FACTORS = ("illness", "heart failure", "infection", "trauma")
# finding: loadings on the factors, and the patient's own share of what the factors leave (persistence)
_LOADINGS: dict[str, tuple[tuple[float, float, float, float], float]] = {
    "Lung Opacity": ((0.62, 0.10, 0.40, 0.0), 0.3),
    "Support Devices": ((0.66, 0.25, 0.0, 0.25), 0.5),
    "Pleural Effusion": ((0.60, 0.50, 0.15, 0.05), 0.4),
    "Cardiomegaly": ((0.45, 0.62, 0.0, 0.0), 0.9),
    "Atelectasis": ((0.62, 0.15, 0.10, 0.15), 0.3),
    "Edema": ((0.50, 0.65, 0.0, 0.0), 0.2),
    "Consolidation": ((0.0, 0.0, 0.0, 0.0), 0.3),
    "Pneumothorax": ((0.30, 0.0, 0.0, 0.55), 0.3),
    "Nodule": ((0.25, 0.0, 0.0, 0.0), 0.8),
    "Mass": ((0.35, 0.0, 0.0, 0.0), 0.9),
    "Scoliosis": ((0.0, 0.0, 0.0, 0.0), 1.0),
    "Rib Fracture": ((0.15, 0.0, 0.0, 0.60), 0.7),
    "Hernia": ((0.15, 0.0, 0.0, 0.0), 0.95),
    "Subcutaneous Emphysema": ((0.30, 0.0, 0.0, 0.75), 0.2),
    "Cavitary Lesion": ((0.25, 0.0, 0.50, 0.0), 0.7),
    "Pneumoperitoneum": ((0.30, 0.0, 0.0, 0.20), 0.1),
    "Dextrocardia": ((0.0, 0.0, 0.0, 0.0), 1.0),
}
_FACTOR_PERSISTENCE = 0.6
_BILATERAL = {"Pleural Effusion": 0.35, "Lung Opacity": 0.25, "Atelectasis": 0.3, "Consolidation": 0.1}
_MIDLINE = frozenset({"Support Devices", "Cardiomegaly", "Scoliosis", "Hernia", "Dextrocardia"})
_ZONES: dict[str, tuple[float, float, float]] = {
    "Lung Opacity": (0.2, 0.35, 0.45),
    "Consolidation": (0.25, 0.25, 0.5),
    "Cavitary Lesion": (0.75, 0.25, 0.0),
    "Atelectasis": (0.0, 0.0, 1.0),
    "Pleural Effusion": (0.0, 0.0, 1.0),
    "Pneumothorax": (1.0, 0.0, 0.0),
}
DEVICES = (
    "endotracheal tube",
    "nasogastric tube",
    "right internal jugular catheter",
    "left subclavian catheter",
    "right PICC",
    "left-sided pacemaker",
    "median sternotomy wires",
    "chest tube",
)
_DEVICE_SHARES = (0.18, 0.14, 0.17, 0.09, 0.14, 0.14, 0.10, 0.04)


@dataclass(frozen=True)
class Finding:
    """One present finding: `severity` in 0 (barely visible) to 1, `seed` fixes its shape, `devices` if any."""

    name: str
    laterality: Laterality
    zone: Zone
    severity: float
    seed: int
    devices: tuple[str, ...] = ()

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides to draw it on; ("left",) for midline findings."""
        if self.laterality == "bilateral":
            return ("right", "left")
        return ("right",) if self.laterality == "right" else ("left",)


def sample_presence(rng: np.random.Generator, studies: int) -> npt.NDArray[np.bool_]:
    """Presence of each finding in each of a patient's studies: bool SF, columns in the order of FINDINGS."""
    loading_FK = np.array([_LOADINGS[name][0] for name in FINDINGS])
    persistence_F = np.array([_LOADINGS[name][1] for name in FINDINGS])
    factor_SK = _persisting(rng, studies, np.full(len(_FACTORS), _FACTOR_PERSISTENCE))
    own_SF = _persisting(rng, studies, persistence_F)
    rest_F = np.sqrt(1 - np.sum(loading_FK**2, axis=1))
    latent_SF = factor_SK @ loading_FK.T + rest_F * own_SF
    threshold_F = ndtri([prevalence / FINDINGS.get(PARENT.get(n, ""), 1) for n, prevalence in FINDINGS.items()])
    present_SF: npt.NDArray[np.bool_] = latent_SF < threshold_F
    names = list(FINDINGS)
    for child, parent in PARENT.items():
        present_SF[:, names.index(child)] &= present_SF[:, names.index(parent)]
    return present_SF


def _persisting(rng: np.random.Generator, rows: int, persistence: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Standard normals whose correlation between rows is `persistence`, one per column."""
    shared = rng.standard_normal(len(persistence))
    return np.sqrt(persistence) * shared + np.sqrt(1 - persistence) * rng.standard_normal((rows, len(persistence)))


def sample_findings(rng: np.random.Generator, present_SF: npt.NDArray[np.bool_]) -> list[tuple[Finding, ...]]:
    """Details of every present finding, one tuple a study: place and shape are the patient's, severity drifts."""
    ever_F: npt.NDArray[np.bool_] = np.any(present_SF, axis=0)
    details = {name: _sample_details(rng, name) for name, ever in zip(FINDINGS, ever_F, strict=True) if ever}
    studies = []
    for present_F in present_SF:
        drift = rng.normal(0, 0.12, len(FINDINGS))
        studies.append(
            tuple(
                _with_severity(details[name], float(shift))
                for name, present, shift in zip(FINDINGS, present_F, drift, strict=True)
                if present
            )
        )
    return studies


def _with_severity(finding: Finding, shift: float) -> Finding:
    severity = float(np.clip(finding.severity + shift, 0.02, 1.0))
    f = finding
    return Finding(f.name, f.laterality, f.zone, severity, f.seed, f.devices)


def _sample_details(rng: np.random.Generator, name: str) -> Finding:
    zones: tuple[Zone, Zone, Zone] = ("upper", "mid", "lower")
    zone = zones[int(rng.choice(3, p=_ZONES.get(name, (0.35, 0.4, 0.25))))]
    count = int(rng.choice(3, p=(0.45, 0.35, 0.20))) + 1
    chosen = rng.choice(len(DEVICES), size=count, replace=False, p=_DEVICE_SHARES)
    return Finding(
        name=name,
        laterality=_sample_laterality(rng, name),
        zone=zone,
        severity=float(rng.beta(1.9, 1.7)),
        seed=int(rng.integers(2**31)),
        devices=tuple(DEVICES[i] for i in sorted(chosen)) if name == "Support Devices" else (),
    )


def _sample_laterality(rng: np.random.Generator, name: str) -> Laterality:
    u, right = rng.random(), rng.random() < 0.53
    if name in _MIDLINE:
        return "midline"
    if name == "Edema" or u < _BILATERAL.get(name, 0.0):
        return "bilateral"
    if name == "Pneumoperitoneum":
        return "right"
    return "right" if right else "left"
