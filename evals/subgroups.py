"""A score for each group of patients (sex, age band, view, dataset), and the gap between the best and the worst.

Groups come as labels, one a sample, None where it is not known. A group of fewer than `MIN_PATIENTS` patients, or in
which the score has too little to go by, is left out with its reason: its number would be noise, and the gap to it too.
All groups are computed from the same draws of patients, so that a gap's interval is of the groups' difference.

Shapes: B samples, F findings, G groups, M quantities, R bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from chexray.evals.statistics import (
    DRAWS,
    LEVEL,
    Estimate,
    FloatArray,
    Patients,
    Statistic,
    auroc_statistic,
    bootstrap,
    estimate,
    interval,
)

MIN_PATIENTS = 20
MIN_POSITIVES = 5
AGE_BANDS = (20.0, 40.0, 60.0, 80.0)  # years, as Seyyed-Kalantari et al. 2021

Groups = Sequence[str | None] | npt.NDArray[np.object_] | npt.NDArray[np.str_]


@dataclass(frozen=True)
class Group:
    """One group of an attribute. `estimate` is None where it was left out, for the reason in `left_out`."""

    name: str
    n: int
    patients: int
    estimate: Estimate | None
    left_out: str | None


@dataclass(frozen=True)
class Gap:
    """The best group's score less the worst's, or the reverse where lower is better: 0 or more in the sample.

    Best and worst are those of the sample, in every draw. They were chosen for being so, and some group always is: the
    gap of a fair model is above 0 too, the more so the smaller the groups, and its interval says how far to trust it.
    """

    best: str
    worst: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Subgroups:
    """The groups by name, and the gap where two or more have a score; `unknown` samples have no group."""

    groups: tuple[Group, ...]
    gap: Gap | None
    unknown: int


@dataclass(frozen=True)
class AurocSubgroups:
    """AUROCs by group: of each finding, and their mean over the findings [numbers] in `mean_over`."""

    per_finding: tuple[Subgroups, ...]
    mean: Subgroups
    mean_over: tuple[int, ...]


def age_bands(age_years_B: npt.ArrayLike) -> list[str | None]:
    """The band of each age: '0-19', '20-39', '40-59', '60-79', '80+'; None for NaN. ValueError below 0."""
    age_B = np.asarray(age_years_B, dtype=np.float64)
    if (age_B < 0).any():
        raise ValueError(f"age_years_B is {age_B[age_B < 0][0]:g}; allowed: 0 or more, NaN = unknown")
    starts = (0.0, *AGE_BANDS)
    names = [f"{low:.0f}-{high - 1:.0f}" for low, high in zip(starts, AGE_BANDS, strict=False)]
    names.append(f"{AGE_BANDS[-1]:.0f}+")
    return [None if np.isnan(age) else names[int(np.searchsorted(AGE_BANDS, age, side="right"))] for age in age_B]


def compare_groups(
    statistic: Statistic,
    known_B: npt.NDArray[np.bool_],
    group_B: Groups,
    patient_B: Patients,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
    min_patients: int = MIN_PATIENTS,
    higher_is_better: bool = True,
    left_out: Mapping[str, str] | None = None,
) -> Subgroups:
    """The first quantity of `statistic` in each group, and their gap.

    `known_B`: which samples enter it. `left_out`: groups for which there are other reasons to leave them out than
    their size. Raises ValueError on shapes that do not agree.
    """
    name_B, patient_ids_B = _names(group_B), np.asarray(patient_B)
    if not known_B.shape == name_B.shape == patient_ids_B.shape or known_B.ndim != 1:
        raise ValueError(
            f"known_B, group_B, patient_B have shapes {known_B.shape}, {name_B.shape}, {patient_ids_B.shape}; "
            "allowed: the same (B,)"
        )
    unknown = int((known_B & (name_B == "")).sum())
    names = sorted(set(name_B.tolist()) - {""})
    if not names:
        return Subgroups((), None, unknown)
    inside_GB = np.array([name_B == name for name in names])

    def by_group(weight_RB: FloatArray) -> FloatArray:
        return np.column_stack([statistic(weight_RB * inside_B)[:, 0] for inside_B in inside_GB])

    value_G = by_group(np.ones((1, len(name_B))))[0]
    draw_RG = bootstrap(by_group, patient_ids_B, draws, seed)
    groups = [
        _group(
            name,
            estimate(float(value), draw_R, patient_ids_B[inside_B & known_B], level),
            min_patients,
            (left_out or {}).get(name),
        )
        for name, value, draw_R, inside_B in zip(names, value_G, draw_RG.T, inside_GB, strict=True)
    ]
    return Subgroups(tuple(groups), _gap(groups, draw_RG, level, higher_is_better), unknown)


def _group(name: str, found: Estimate, min_patients: int, left_out: str | None) -> Group:
    if found.patients < min_patients:
        left_out = f"{found.patients} patients, fewer than {min_patients}"
    elif np.isnan(found.value):
        left_out = left_out or "the score is not defined in it"
    return Group(name, found.n, found.patients, None if left_out else found, left_out)


def auroc_subgroups(
    score_BF: npt.NDArray[np.floating],
    target_BF: npt.NDArray[np.floating],
    group_B: Groups,
    patient_B: Patients,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
    min_patients: int = MIN_PATIENTS,
    min_positives: int = MIN_POSITIVES,
    mean_only: bool = False,
) -> AurocSubgroups:
    """Each finding's AUROC by group (not with `mean_only`, which is quicker), and the groups' mean AUROC.

    A finding is left out of a group that has fewer than `min_positives` known positives or negatives of it. The mean is
    over the findings that every group large enough has, so that groups are compared in the same findings. Raises
    ValueError on shapes that do not agree.
    """
    target_BF, name_B = np.asarray(target_BF, dtype=np.float64), _names(group_B)
    known_BF = ~np.isnan(target_BF)
    compare = partial(
        compare_groups,
        group_B=group_B,
        patient_B=patient_B,
        draws=draws,
        seed=seed,
        level=level,
        min_patients=min_patients,
    )
    lacking_F = [_lacking(target_B, name_B, min_positives) for target_B in target_BF.T]
    per_finding = tuple(
        compare(auroc_statistic(score_BF[:, [finding]], target_BF[:, [finding]]), known_B, left_out=lacking)
        for finding, (known_B, lacking) in enumerate(zip(known_BF.T, lacking_F, strict=True))
        if not mean_only
    )
    large = _large(name_B[known_BF.any(axis=1)], np.asarray(patient_B)[known_BF.any(axis=1)], min_patients)
    shared = [finding for finding, lacking in enumerate(lacking_F) if not large & lacking.keys()]
    means = auroc_statistic(score_BF[:, shared], target_BF[:, shared])
    none = "no finding has enough positives and negatives in every group"
    mean = compare(
        lambda weight_RB: means(weight_RB)[:, -1:],
        known_BF[:, shared].any(axis=1) if shared else known_BF.any(axis=1),
        left_out={} if shared else dict.fromkeys(large, none),
    )
    return AurocSubgroups(per_finding, mean, tuple(shared))


def _large(name_B: npt.NDArray[np.str_], patient_B: npt.NDArray[Any], least: int) -> set[str]:
    """The groups of `least` patients or more."""
    return {name for name in set(name_B.tolist()) - {""} if len(np.unique(patient_B[name_B == name])) >= least}


def _lacking(target_B: FloatArray, name_B: npt.NDArray[np.str_], least: int) -> dict[str, str]:
    """The groups with too few known positives or negatives of a finding, and which."""
    lacking = {}
    for name in {name for name in name_B.tolist() if name}:
        positives, negatives = (int(((name_B == name) & (target_B == value)).sum()) for value in (1, 0))
        if min(positives, negatives) < least:
            lacking[name] = f"{positives} positives and {negatives} negatives, fewer than {least}"
    return lacking


def _names(group_B: Groups) -> npt.NDArray[np.str_]:
    return np.array(["" if name is None else str(name) for name in group_B], dtype=np.str_)


def _gap(groups: Sequence[Group], draw_RG: FloatArray, level: float, higher_is_better: bool) -> Gap | None:
    scored = [(group.estimate.value, number) for number, group in enumerate(groups) if group.estimate is not None]
    if len(scored) < 2:
        return None
    (low_value, low), (high_value, high) = min(scored), max(scored)
    best, worst = (high, low) if higher_is_better else (low, high)
    return Gap(
        groups[best].name,
        groups[worst].name,
        high_value - low_value,
        *interval(draw_RG[:, high] - draw_RG[:, low], level),
    )
