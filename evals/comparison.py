"""Whether one model is better than another: paired bootstrap p-values, and Holm's correction for many tests.

Shapes: B samples, M quantities or tests, R bootstrap draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from chexray.evals.statistics import DRAWS, LEVEL, FloatArray, Patients, Statistic, bootstrap, interval


@dataclass(frozen=True)
class Comparison:
    """First model's score less the second's on the same samples, its interval, and the two-sided p-value.

    The p-value is of the hypothesis that there is no difference. NaN where it is not defined.
    """

    difference: float
    low: float
    high: float
    p_value: float
    method: Literal["paired bootstrap", "DeLong"]


def paired_bootstrap(
    first: Statistic,
    second: Statistic,
    patient_B: Patients,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> tuple[Comparison, ...]:
    """Each of the M quantities that two statistics compute of the same samples, one model less the other.

    Both see the same draws of patients (see `chexray.evals.statistics`): `auroc_statistic` or `mean_statistic` of
    the two models' scores. Raises ValueError as those do.
    """
    draw_RM = bootstrap(lambda weight_RB: first(weight_RB) - second(weight_RB), patient_B, draws, seed)
    once_1B = np.ones((1, len(patient_B)))
    return tuple(
        Comparison(float(difference), *interval(draw_R, level), bootstrap_p_value(draw_R), "paired bootstrap")
        for difference, draw_R in zip(first(once_1B)[0] - second(once_1B)[0], draw_RM.T, strict=True)
    )


def bootstrap_p_value(difference_R: npt.NDArray[np.floating]) -> float:
    """Twice the smaller share of draws on either side of 0, in [2 / (R + 1), 1]: NaN draws are left out.

    The level at which the percentile interval just reaches 0 (Efron & Tibshirani 1993, section 15.4), counting the
    sample itself among the draws, so that it is never 0 (Phipson & Smyth 2010). NaN where no draw has a value.
    """
    defined_R = difference_R[~np.isnan(difference_R)]
    if not defined_R.size:
        return float("nan")
    smaller = min(int((defined_R <= 0).sum()), int((defined_R >= 0).sum()))
    return float(min(1.0, 2 * (1 + smaller) / (1 + defined_R.size)))


def holm(p_value_M: npt.ArrayLike) -> FloatArray:
    """Holm's adjusted p-values [M]: below the level, the test stands among all M (Holm 1979).

    The chance of one false claim or more among them is at most the level, however the tests depend on each other.
    NaN is a test that was not made: it stays NaN and does not count. Raises ValueError on values outside [0, 1].
    """
    p_value = np.asarray(p_value_M, dtype=np.float64)
    wrong = p_value[(p_value < 0) | (p_value > 1)]
    if p_value.ndim != 1 or wrong.size:
        raise ValueError(f"p_value_M has shape {p_value.shape} and values as {wrong[:1]}; allowed: (M,), in [0, 1]")
    made = np.flatnonzero(~np.isnan(p_value))
    order = made[np.argsort(p_value[made], kind="stable")]
    adjusted: FloatArray = np.full(len(p_value), np.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(np.arange(len(order), 0, -1) * p_value[order]))
    return adjusted
