"""Whether probabilities mean what they say: reliability, expected calibration error and Brier score, with intervals.

Nothing is fitted here: probabilities are taken as they come. Those of a zero-shot benchmark are the softmax of two
cosine similarities without the logit scale, so that they lie in [0.12, 0.88] whatever the image shows (1 / (1 + e^2)
is 0.1192). A finding with a prevalence below that is overstated at best: its calibration error is at least 0.1192
less the prevalence. To mend that, fit a scale on a validation split, never on the split that is reported.

Shapes: B samples, F findings, K bins, R bootstrap draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chexray.evals.statistics import (
    DRAWS,
    LEVEL,
    Estimate,
    FloatArray,
    Patients,
    Statistic,
    checked_target,
    estimates,
    weighted_mean,
)

BINS = 15


@dataclass(frozen=True)
class ReliabilityBin:
    """The samples with a probability in (low, high], the first bin's low included.

    `predicted`: their mean probability. `observed`: the share of positives among them. `n`: how many there are.
    """

    low: float
    high: float
    predicted: float
    observed: float
    n: int


@dataclass(frozen=True)
class Calibration:
    """One finding's. `baseline_brier` is that of always predicting the split's own prevalence: lower is informative.

    Draws of patients have a larger calibration error than the sample itself, because noise only ever adds to it: the
    interval of `error` lies high, and with few samples a bin so does its value (Kumar et al. 2019).
    """

    error: Estimate
    brier: Estimate
    baseline_brier: float
    bins: tuple[ReliabilityBin, ...]


def brier_score(probability_B: npt.NDArray[np.floating], target_B: npt.NDArray[np.floating]) -> float:
    """Mean squared difference to the target, in [0, 1], over known targets (Brier 1950); NaN where none is known.

    `target_B` is 1, 0 or NaN = unknown. Raises ValueError on other targets, on probabilities of known samples
    outside [0, 1], and on shapes that do not agree.
    """
    probability_B, target_B = _known(probability_B, target_B)
    return float(np.square(probability_B - target_B).mean()) if target_B.size else float("nan")


def reliability_bins(
    probability_B: npt.NDArray[np.floating], target_B: npt.NDArray[np.floating], bins: int = BINS
) -> tuple[ReliabilityBin, ...]:
    """Equal-mass bins of the known samples, ascending: as many samples in each as ties allow.

    Edges are quantiles, and equal probabilities share a bin, so that the order of the samples decides nothing; bins
    without samples are left out. That is scikit-learn's `calibration_curve` with strategy 'quantile'. Raises
    ValueError as `brier_score` does, and on fewer than one bin.
    """
    probability_B, target_B = _known(probability_B, target_B)
    if not target_B.size:
        return ()
    edge_K, bin_B = _bin(probability_B, bins)
    table = []
    for number in np.unique(bin_B):
        inside_B = bin_B == number
        predicted, observed = float(probability_B[inside_B].mean()), float(target_B[inside_B].mean())
        low, high = float(edge_K[number]), float(edge_K[number + 1])
        table.append(ReliabilityBin(low, high, predicted, observed, int(inside_B.sum())))
    return tuple(table)


def expected_calibration_error(
    probability_B: npt.NDArray[np.floating], target_B: npt.NDArray[np.floating], bins: int = BINS
) -> float:
    """Mean over known samples of their bin's |predicted - observed|, in [0, 1]; NaN where none is known.

    Naeini et al. 2015, with the equal-mass bins of Nguyen & O'Connor 2015: medical probabilities crowd at one end,
    where bins of equal width would leave most empty. Raises ValueError as `reliability_bins` does.
    """
    table = reliability_bins(probability_B, target_B, bins)
    if not table:
        return float("nan")
    gap_K = [abs(one.predicted - one.observed) for one in table]
    return float(np.average(gap_K, weights=[one.n for one in table]))


def calibration(
    probability_B: npt.NDArray[np.floating],
    target_B: npt.NDArray[np.floating],
    patient_B: Patients,
    bins: int = BINS,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> Calibration:
    """One finding's calibration, with intervals over patients. The bins of the sample serve all draws.

    Raises ValueError as the functions above, and as `chexray.evals.statistics` does.
    """
    known_B = ~np.isnan(np.asarray(target_B, dtype=np.float64))
    statistic = calibration_statistic(probability_B, target_B, bins)
    error, brier = estimates(statistic, np.column_stack([known_B, known_B]), patient_B, draws, seed, level)
    prevalence = float(np.mean(np.asarray(target_B)[known_B])) if known_B.any() else float("nan")
    table = reliability_bins(probability_B, target_B, bins)
    return Calibration(error, brier, prevalence * (1 - prevalence), table)


def calibration_statistic(
    probability_B: npt.NDArray[np.floating], target_B: npt.NDArray[np.floating], bins: int = BINS
) -> Statistic:
    """Expected calibration error and Brier score as a function of weights: value_R2."""
    probability, target = _known(probability_B, target_B)
    known_B = ~np.isnan(np.asarray(target_B, dtype=np.float64))
    squared_B = np.full(known_B.shape, np.nan)
    squared_B[known_B] = np.square(probability - target)
    excess_BK = np.zeros((len(known_B), bins))
    if target.size:
        excess_BK[np.flatnonzero(known_B), _bin(probability, bins)[1]] = probability - target

    def statistic(weight_RB: FloatArray) -> FloatArray:
        # A bin's weight times |predicted - observed| is the size of its weighted sum of p - t.
        total_R = np.maximum(weight_RB @ known_B.astype(np.float64), 0)
        excess_R = np.abs(weight_RB @ excess_BK).sum(axis=1)
        error_R: FloatArray = np.full(len(weight_RB), np.nan)
        np.divide(excess_R, total_R, out=error_R, where=total_R > 0)
        return np.column_stack([error_R, weighted_mean(squared_B, weight_RB)])

    return statistic


def _bin(probability_B: FloatArray, bins: int) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """The bins' edges [K + 1], and the number of each sample's bin [B]."""
    if bins < 1:
        raise ValueError(f"bins is {bins}; allowed: 1 or more")
    edge_K = np.percentile(probability_B, np.linspace(0, 1, bins + 1) * 100)
    return edge_K, np.searchsorted(edge_K[1:-1], probability_B, side="left")


def _known(
    probability_B: npt.NDArray[np.floating], target_B: npt.NDArray[np.floating]
) -> tuple[FloatArray, FloatArray]:
    probability: FloatArray = np.asarray(probability_B, dtype=np.float64)
    target: FloatArray = checked_target(np.asarray(target_B, dtype=np.float64))
    if probability.ndim != 1 or probability.shape != target.shape:
        raise ValueError(
            f"probability_B, target_B have shapes {probability.shape}, {target.shape}; allowed: (B,), (B,)"
        )
    known_B = ~np.isnan(target)
    wrong = probability[known_B & ~((probability >= 0) & (probability <= 1))]
    if wrong.size:
        raise ValueError(f"probability_B is {wrong[0]} for a sample with a known target; allowed: 0 to 1")
    return probability[known_B], target[known_B]
