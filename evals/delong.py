"""AUROC's variance without resampling, and the paired test of two models on the same patients.

DeLong, DeLong & Clarke-Pearson 1988 in the fast form of Sun & Xu 2014 (midranks instead of all pairs), extended to
several images of a patient by Obuchowski 1997: a patient's terms are added up first. Where every patient has one
image, that is DeLong's own estimate. It holds for large samples: with a handful of positives, or an AUROC near 1, take
the bootstrap.

Shapes: M models, B samples, S positives, N negatives, P patients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from scipy.stats import rankdata

from chexray.evals.comparison import Comparison
from chexray.evals.statistics import LEVEL, FloatArray, Patients, checked_target


@dataclass(frozen=True)
class Delong:
    """AUROCs of M models on the same samples, and the covariance of these estimates.

    `positives` and `negatives` with a known label, of `patients`. All NaN where a class is absent; the covariance is
    NaN where a class comes from a single patient.
    """

    auroc_M: FloatArray
    covariance_MM: FloatArray
    positives: int
    negatives: int
    patients: int

    def interval(self, model: int = 0, level: float = LEVEL) -> tuple[float, float]:
        """The normal interval of one model's AUROC, within [0, 1]."""
        low, high = _normal_interval(float(self.auroc_M[model]), float(self.covariance_MM[model, model]), level)
        return float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))


@dataclass(frozen=True)
class _Terms:
    """What each patient's positives and negatives add to M estimates: the estimates less their expectation."""

    value_M: FloatArray
    positive_MP: FloatArray
    negative_MP: FloatArray
    positive_patients: int
    negative_patients: int

    def contrast(self, weight_KM: FloatArray) -> _Terms:
        """The same of weighted sums of the estimates."""
        return _Terms(
            weight_KM @ self.value_M,
            weight_KM @ self.positive_MP,
            weight_KM @ self.negative_MP,
            self.positive_patients,
            self.negative_patients,
        )

    def covariance(self) -> FloatArray:
        """Obuchowski 1997: the classes' own sums of squares, and those of patients who have images of both."""
        mixed_MM = self.positive_MP @ self.negative_MP.T
        return np.asarray(
            _unbiased(self.positive_patients) * (self.positive_MP @ self.positive_MP.T)
            + _unbiased(self.negative_patients) * (self.negative_MP @ self.negative_MP.T)
            + _unbiased(self.positive_MP.shape[1]) * (mixed_MM + mixed_MM.T)
        )


def delong(score_MB: npt.NDArray[np.floating], target_B: npt.NDArray[np.floating], patient_B: Patients) -> Delong:
    """AUROCs of M models and their covariance.

    A tie between a positive and a negative counts one half. `target_B` is 1, 0 or NaN = unknown, which is left out.
    Raises ValueError on other targets, on a NaN score of a known sample, and on shapes that do not agree.
    """
    score_MB, target_B, number_B = _known(score_MB, target_B, patient_B)
    terms = _terms(score_MB, target_B, number_B)
    positives, negatives = (int((target_B == value).sum()) for value in (1, 0))
    return Delong(terms.value_M, terms.covariance(), positives, negatives, terms.positive_MP.shape[1])


def delong_test(
    first_B: npt.NDArray[np.floating],
    second_B: npt.NDArray[np.floating],
    target_B: npt.NDArray[np.floating],
    patient_B: Patients,
    level: float = LEVEL,
) -> Comparison:
    """First model's AUROC less the second's on the same samples, with DeLong's interval and two-sided p-value.

    Models that order all pairs alike have difference 0 and p-value 1. The p-value is NaN where the method has
    nothing to say: a class from fewer than two patients, or a difference without any variance. Raises as `delong`.
    """
    both_2B = np.stack([np.asarray(first_B, dtype=np.float64), np.asarray(second_B, dtype=np.float64)])
    terms = _terms(*_known(both_2B, target_B, patient_B)).contrast(np.array([[1.0, -1.0]]))
    # With patients of both classes the estimate may fall below 0 in small samples.
    difference, variance = float(terms.value_M[0]), float(np.maximum(terms.covariance()[0, 0], 0))
    low, high = _normal_interval(difference, variance, level)
    if variance > 0:
        p_value = math.erfc(abs(difference) / math.sqrt(2 * variance))
    else:
        p_value = 1.0 if difference == 0 and variance == 0 else float("nan")
    return Comparison(difference, low, high, p_value, "DeLong")


def _known(
    score_MB: npt.NDArray[np.floating], target_B: npt.NDArray[np.floating], patient_B: Patients
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """The samples whose target is known, and numbers of their patients [B] from 0."""
    all_MB: FloatArray = np.asarray(score_MB, dtype=np.float64)
    target: FloatArray = checked_target(np.asarray(target_B, dtype=np.float64))
    patient_ids_B = np.asarray(patient_B)
    if all_MB.ndim != 2 or target.shape != all_MB.shape[1:] or patient_ids_B.shape != target.shape:
        raise ValueError(
            f"score_MB, target_B, patient_B have shapes {all_MB.shape}, {target.shape}, {patient_ids_B.shape}; "
            "allowed: (M, B), (B,), (B,)"
        )
    known_B = ~np.isnan(target)
    if np.isnan(all_MB[:, known_B]).any():
        raise ValueError("score_MB is NaN for a sample with a known target; allowed: numbers")
    number_B = np.unique(patient_ids_B[known_B], return_inverse=True)[1].astype(np.int64)
    return all_MB[:, known_B], target[known_B], number_B


def _terms(score_MB: FloatArray, target_B: FloatArray, number_B: npt.NDArray[np.int64]) -> _Terms:
    positive_B = target_B == 1
    positives, negatives = int(positive_B.sum()), int((~positive_B).sum())
    patients = len(np.unique(number_B))
    if not positives or not negatives:
        nothing = np.full((len(score_MB), patients), np.nan)
        return _Terms(np.full(len(score_MB), np.nan), nothing, nothing, 0, 0)
    midrank_MB = rankdata(score_MB, axis=1)
    won_MS = (midrank_MB[:, positive_B] - rankdata(score_MB[:, positive_B], axis=1)) / negatives
    won_MN = 1 - (midrank_MB[:, ~positive_B] - rankdata(score_MB[:, ~positive_B], axis=1)) / positives
    auroc_M = won_MS.mean(axis=1)
    return _Terms(
        auroc_M,
        _by_patient((won_MS - auroc_M[:, None]) / positives, number_B[positive_B], patients),
        _by_patient((won_MN - auroc_M[:, None]) / negatives, number_B[~positive_B], patients),
        len(np.unique(number_B[positive_B])),
        len(np.unique(number_B[~positive_B])),
    )


def _by_patient(term_MX: FloatArray, number_X: npt.NDArray[np.int64], patients: int) -> FloatArray:
    """Sums [M, P] of the terms of the samples X of each patient."""
    return np.stack([np.bincount(number_X, weights=term_X, minlength=patients) for term_X in term_MX])


def _unbiased(count: int) -> float:
    return count / (count - 1) if count > 1 else float("nan")


def _normal_interval(value: float, variance: float, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; allowed: between 0 and 1, both excluded")
    half = float(ndtri((1 + level) / 2)) * math.sqrt(max(variance, 0.0)) if not math.isnan(variance) else float("nan")
    return value - half, value + half
