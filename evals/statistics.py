"""How sure a score is: patient-level bootstrap intervals of AUROCs and means, and paired differences.

Patients are resampled, not images, because the images of one patient are not independent. All statistics
take weights instead of resampled rows: a sample's weight in a draw is how often its patient was drawn, so
one sort per finding serves every draw. Intervals are percentile intervals (Efron & Tibshirani 1993, An
Introduction to the Bootstrap, chapter 13); the same seed and patients give the same draws, which is what
makes differences between models paired.

Shapes: B samples, F findings, M quantities, R bootstrap draws, P patients, N negatives, S positives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Patients = Sequence[str] | Sequence[int] | npt.NDArray[np.str_] | npt.NDArray[np.int64]
Statistic = Callable[[FloatArray], FloatArray]
"""weight_RB, float64 >= 0 -> value_RM, float64, NaN where a draw leaves a quantity undefined."""

DRAWS = 2000
LEVEL = 0.95
CHUNK_ELEMENTS = 2_000_000  # weights held at once: 16 MB of float64


@dataclass(frozen=True)
class Estimate:
    """A value with its interval [low, high].

    `n` samples from `patients` patients entered it. `defined_draws` is how many bootstrap draws had a value;
    the others (a class was absent) are left out of the interval. NaN where there is no value.
    """

    value: float
    low: float
    high: float
    n: int
    patients: int
    defined_draws: int


@dataclass(frozen=True)
class AurocEstimates:
    """AUROCs, or differences between AUROCs: one per finding, and their mean over the defined findings.

    The mean's `n` and `patients` are those with a known label for any of these findings.
    """

    per_finding: tuple[Estimate, ...]
    mean: Estimate


def stream_weights(patient_B: Patients, draws: int, seed: int, chunk: int | None = None) -> Iterator[FloatArray]:
    """Bootstrap weights of `draws` draws in turn, in blocks weight_RB of at most `chunk` draws.

    Each draw takes P of the P patients with replacement; a sample weighs as often as its patient was taken
    (whole numbers, float64). The draws depend on `seed` and the set of patient ids alone: not on the order
    of the samples, nor on `chunk`. Raises ValueError on no samples or non-positive `draws` or `chunk`.
    """
    patients_P, index_B = np.unique(np.asarray(patient_B), return_inverse=True)
    if index_B.ndim != 1 or index_B.size == 0:
        raise ValueError(f"patient_B has shape {np.shape(patient_B)}; allowed: (B,) with B >= 1")
    count = len(patients_P)
    chunk = max(1, CHUNK_ELEMENTS // max(count, len(index_B))) if chunk is None else chunk
    for name, value in (("draws", draws), ("chunk", chunk)):
        if value < 1:
            raise ValueError(f"{name} is {value}; allowed: 1 or more")
    generator = np.random.default_rng(seed)
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        drawn_RP = generator.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        times_RP = np.bincount(drawn_RP.ravel(), minlength=size * count).reshape(size, count)
        # Samples are the contiguous rows of the transposed array: weighted_auroc gathers by sample.
        yield np.ascontiguousarray(times_RP.T, dtype=np.float64)[index_B].T


def bootstrap_weights(patient_B: Patients, draws: int = DRAWS, seed: int = 0) -> FloatArray:
    """All weights of `stream_weights` at once: weight_RB, 8 bytes x draws x samples."""
    return np.concatenate(list(stream_weights(patient_B, draws, seed)))


def weighted_auroc(
    score_B: npt.NDArray[np.floating], target_B: npt.NDArray[np.floating], weight_RB: FloatArray
) -> FloatArray:
    """AUROC under each row of weights: auroc_R in [0, 1], NaN where a class has no weight.

    The weighted share of (positive, negative) pairs that the score orders rightly, a tie counting one half
    (Hanley & McNeil 1982, the Mann-Whitney form). `target_B` is 1, 0 or NaN = unknown, which is left out.
    Raises ValueError on other targets, on a NaN score of a known sample, and on shapes that do not agree.
    """
    score_B = np.asarray(score_B, dtype=np.float64)
    target_B = checked_target(np.asarray(target_B, dtype=np.float64))
    if score_B.ndim != 1 or target_B.shape != score_B.shape or weight_RB.shape[1:] != score_B.shape:
        raise ValueError(
            f"score_B, target_B, weight_RB have shapes {score_B.shape}, {target_B.shape}, "
            f"{weight_RB.shape}; allowed: (B,), (B,), (R, B)"
        )
    if np.isnan(score_B[~np.isnan(target_B)]).any():
        raise ValueError("score_B is NaN for a sample with a known target; allowed: numbers")
    positive_S, negative_N = np.flatnonzero(target_B == 1), np.flatnonzero(target_B == 0)
    negative_N = negative_N[np.argsort(score_B[negative_N], kind="stable")]
    weight_BR = weight_RB.T
    below_NR = np.zeros((len(negative_N) + 1, len(weight_RB)))  # row n: weight of the n lowest negatives
    np.cumsum(weight_BR[negative_N], axis=0, out=below_NR[1:])
    negative_score_N = score_B[negative_N]
    lower_S = np.searchsorted(negative_score_N, score_B[positive_S], side="left")
    upper_S = np.searchsorted(negative_score_N, score_B[positive_S], side="right")
    weight_SR = weight_BR[positive_S]
    won_R = np.einsum("sr,sr->r", weight_SR, below_NR[lower_S])
    won_or_tied_R = np.einsum("sr,sr->r", weight_SR, below_NR[upper_S])
    return _ratio((won_R + won_or_tied_R) / 2, weight_SR.sum(axis=0) * below_NR[-1])


def weighted_mean(value_B: npt.NDArray[np.floating], weight_RB: FloatArray) -> FloatArray:
    """Mean under each row of weights: mean_R. NaN values are left out; NaN where nothing has weight."""
    value_B = np.asarray(value_B, dtype=np.float64)
    if value_B.ndim != 1 or weight_RB.shape[1:] != value_B.shape:
        raise ValueError(f"value_B, weight_RB have shapes {value_B.shape}, {weight_RB.shape}; allowed: (B,), (R, B)")
    known_B = ~np.isnan(value_B)
    return _ratio(weight_RB @ np.where(known_B, value_B, 0.0), weight_RB @ known_B.astype(np.float64))


def auroc_statistic(score_BF: npt.NDArray[np.floating], target_BF: npt.NDArray[np.floating]) -> Statistic:
    """The F AUROCs and, in the last column, their mean, as a function of weights: value_R(F+1).

    The mean is over the findings that are defined in the whole sample, and is NaN in a draw in which one of
    them is not: a mean over fewer findings would be of another quantity.
    """
    if np.ndim(score_BF) != 2 or np.shape(score_BF) != np.shape(target_BF):
        raise ValueError(
            f"score_BF, target_BF have shapes {np.shape(score_BF)}, {np.shape(target_BF)}; allowed: the same (B, F)"
        )
    defined_F = defined_findings(target_BF)

    def statistic(weight_RB: FloatArray) -> FloatArray:
        auroc_RF = np.empty((len(weight_RB), score_BF.shape[1]))
        for finding in range(score_BF.shape[1]):
            auroc_RF[:, finding] = weighted_auroc(score_BF[:, finding], target_BF[:, finding], weight_RB)
        count = int(defined_F.sum())
        mean_R = auroc_RF[:, defined_F].mean(axis=1) if count else np.full(len(weight_RB), np.nan)
        return np.column_stack([auroc_RF, mean_R])

    return statistic


def mean_statistic(value_BM: npt.NDArray[np.floating]) -> Statistic:
    """The means of the columns (hits at each k, ranks ...) as a function of weights: value_RM."""
    return lambda weight_RB: np.column_stack([weighted_mean(value_B, weight_RB) for value_B in value_BM.T])


def defined_findings(target_BF: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Which findings have a known positive and a known negative, and so an AUROC: bool [F]."""
    target_BF = np.asarray(target_BF)
    defined_F: npt.NDArray[np.bool_] = (target_BF == 1).any(axis=0) & (target_BF == 0).any(axis=0)
    return defined_F


def bootstrap(statistic: Statistic, patient_B: Patients, draws: int = DRAWS, seed: int = 0) -> FloatArray:
    """The statistic in every draw, value_RM, with the weights streamed so that memory stays bounded."""
    return np.concatenate([statistic(weight_RB) for weight_RB in stream_weights(patient_B, draws, seed)])


def interval(value_R: FloatArray, level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval (low, high) of the defined draws; (NaN, NaN) if none is defined."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; allowed: between 0 and 1, both excluded")
    defined_R = value_R[~np.isnan(value_R)]
    if defined_R.size == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(defined_R, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def estimates(
    statistic: Statistic,
    known_BM: npt.NDArray[np.bool_],
    patient_B: Patients,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> tuple[Estimate, ...]:
    """Each of the M quantities that `statistic` computes, with its interval; `known_BM`: which samples enter it."""
    patient_ids_B = np.asarray(patient_B)
    if patient_ids_B.shape != known_BM.shape[:1]:
        raise ValueError(f"patient_B has shape {patient_ids_B.shape}; allowed: {known_BM.shape[:1]}")
    value_M = statistic(np.ones((1, len(known_BM))))[0]
    draw_RM = bootstrap(statistic, patient_ids_B, draws, seed)
    return tuple(
        estimate(float(value), draw_R, patient_ids_B[known_B], level)
        for value, draw_R, known_B in zip(value_M, draw_RM.T, known_BM.T, strict=True)
    )


def estimate(value: float, draw_R: FloatArray, patient_B: Patients, level: float = LEVEL) -> Estimate:
    """One value with the interval of its draws; `patient_B`: of the samples that entered it."""
    low, high = interval(draw_R, level)
    defined = int((~np.isnan(draw_R)).sum())
    return Estimate(value, low, high, len(patient_B), len(np.unique(np.asarray(patient_B))), defined)


def auroc_estimates(
    score_BF: npt.NDArray[np.floating],
    target_BF: npt.NDArray[np.floating],
    patient_B: Patients,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> AurocEstimates:
    """AUROC of each finding and their mean with intervals, from the same draws of patients.

    `target_BF` is 1, 0 or NaN = unknown.
    """
    statistic = auroc_statistic(score_BF, target_BF)
    return _auroc_estimates(statistic, target_BF, patient_B, draws, seed, level)


def auroc_differences(
    first_BF: npt.NDArray[np.floating],
    second_BF: npt.NDArray[np.floating],
    target_BF: npt.NDArray[np.floating],
    patient_B: Patients,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> AurocEstimates:
    """First model's AUROC less the second's on the same samples: the paired bootstrap."""
    first, second = auroc_statistic(first_BF, target_BF), auroc_statistic(second_BF, target_BF)
    return _auroc_estimates(
        lambda weight_RB: first(weight_RB) - second(weight_RB), target_BF, patient_B, draws, seed, level
    )


def mean_estimates(
    value_BM: npt.NDArray[np.floating],
    patient_B: Patients,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> tuple[Estimate, ...]:
    """The mean of each column of per-sample values with its interval. NaN values are left out.

    Paired differences between two models are the estimates of `first_BM - second_BM`.
    """
    value_BM = np.asarray(value_BM, dtype=np.float64)
    if value_BM.ndim != 2:
        raise ValueError(f"value_BM has shape {value_BM.shape}; allowed: (B, M)")
    return estimates(mean_statistic(value_BM), ~np.isnan(value_BM), patient_B, draws, seed, level)


def _auroc_estimates(
    statistic: Statistic,
    target_BF: npt.NDArray[np.floating],
    patient_B: Patients,
    draws: int,
    seed: int,
    level: float,
) -> AurocEstimates:
    known_BF = ~np.isnan(target_BF)
    in_mean_B = known_BF[:, defined_findings(target_BF)].any(axis=1)
    known_BM = np.column_stack([known_BF, in_mean_B])
    *per_finding, mean = estimates(statistic, known_BM, patient_B, draws, seed, level)
    return AurocEstimates(tuple(per_finding), mean)


def checked_target(target_B: FloatArray) -> FloatArray:
    """`target_B` as it is; ValueError where one is neither 1, 0 nor NaN = unknown."""
    wrong = target_B[~(np.isnan(target_B) | (target_B == 0) | (target_B == 1))]
    if wrong.size:
        raise ValueError(f"target is {wrong[0]:g}; allowed: 1 (present), 0 (absent), NaN (unknown)")
    return target_B


def _ratio(numerator_R: FloatArray, denominator_R: FloatArray) -> FloatArray:
    ratio_R: FloatArray = np.full(denominator_R.shape, np.nan)
    np.divide(numerator_R, denominator_R, out=ratio_R, where=denominator_R > 0)
    return ratio_R
