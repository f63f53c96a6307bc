"""How the error falls with the pairs that are kept and the compute that is spent: a saturating power law, with doubt.

E(n, c) = e_inf + a * n ** -alpha + b * c ** -beta; n: distinct pairs kept, c: FLOPs or pairs seen. The law and its
sources: `chexray.evals.sweep.power_law`. An axis that does not vary is left out. Where the runs cannot carry the law,
the answer is `NoFit` with its reason.

Intervals are percentile intervals of a bootstrap of the runs' residuals (Efron & Tibshirani 1993, section 9.4): every
draw has the designs of the sweep, and at each the fitted log error plus the deviation of some run. Drawing whole runs
within a design would give no width where a design was run with one seed, and sqrt(2/3) of it with three; drawing them
across designs would lose ends of an axis. The residuals are scaled up by their leverage (Davison & Hinkley 1997,
section 6.2), because a fit comes nearer to its own runs than to new ones.

Shapes: N runs, A axes, P parameters, R draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from chexray.evals.statistics import FloatArray, interval
from chexray.evals.sweep.power_law import EXPONENTS, HUBER, bounds, descend, gradient, log_error, starts

DRAWS = 500
MIN_LEVELS = 4
MIN_RATIO = 4.0
"""Of an axis's largest value to its smallest."""
_SAME_LEVEL = {"pairs": 0.01, "compute": 0.2}
"""Values that differ by less, relatively, are one: whole epochs over few pairs do not meet a budget exactly."""
_MAX_CORRELATION = 0.95
_MIN_EXPLAINED = 0.5
_VAGUE = 10.0
"""An exponent whose interval's ends differ by more than such a factor says little."""
AXES = {"pairs": ("kept pairs", "a", "alpha"), "compute": ("compute", "b", "beta")}


@dataclass(frozen=True)
class Parameter:
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class NoFit:
    """Why the runs do not carry a scaling law: one sentence without its full stop."""

    reason: str


@dataclass(frozen=True)
class ScalingFit:
    """A fitted law. `parameters`: e_inf, then a and alpha, b and beta of the axes that vary.

    `rmse`: of the log error, which is about the relative error. `warnings`: what to know before it is believed.
    `centre_A`: geometric means of the axes; `theta_P`, `draw_RP`: as `power_law` holds parameters.
    """

    axes: tuple[str, ...]
    parameters: dict[str, Parameter]
    rmse: float
    runs: int
    warnings: tuple[str, ...]
    centre_A: FloatArray = field(repr=False, compare=False)
    theta_P: FloatArray = field(repr=False, compare=False)
    draw_RP: FloatArray = field(repr=False, compare=False)

    def error(self, pairs: float, compute: float) -> Parameter:
        """E at so many kept pairs and so much compute, with the interval of the curve (not of a single run)."""
        axis_A1 = self._at(pairs, compute)
        value_R = np.exp(log_error(np.vstack([self.theta_P, self.draw_RP]), axis_A1)[:, 0])
        return Parameter(float(value_R[0]), *interval(value_R[1:]))

    def fall_with_compute(self, compute: float) -> float:
        """-dE/dc, error per unit of compute. NaN where compute is no axis of the fit."""
        if "compute" not in self.axes:
            return math.nan
        factor, power = self.parameters["b"].value, self.parameters["beta"].value
        return float(power * factor * compute ** (-power - 1))

    def as_dict(self) -> dict[str, Any]:
        return {
            "axes": list(self.axes),
            "parameters": {name: vars(one) for name, one in self.parameters.items()},
            "rmse": self.rmse,
            "runs": self.runs,
            "warnings": list(self.warnings),
        }

    def _at(self, pairs: float, compute: float) -> FloatArray:
        given = {"pairs": pairs, "compute": compute}
        return np.log([[given[axis] / centre] for axis, centre in zip(self.axes, self.centre_A, strict=True)])


def fit_scaling(
    pairs_N: npt.ArrayLike, compute_N: npt.ArrayLike, error_N: npt.ArrayLike, draws: int = DRAWS, seed: int = 0
) -> ScalingFit | NoFit:
    """The law of the runs' errors, along the axes that vary: pairs, compute or both.

    The error is a loss, or 1 less a metric of which more is better. Raises ValueError on arrays of other shapes or
    with values that are not finite, and on `draws` below 1.
    """
    given = {"pairs": np.asarray(pairs_N, np.float64), "compute": np.asarray(compute_N, np.float64)}
    error = np.asarray(error_N, np.float64)
    _check(given, error, draws)
    axes = tuple(axis for axis in AXES if levels(axis, given[axis]) > 1)
    refused = _refusal(axes, given, error)
    if refused:
        return NoFit(refused)
    centre_A = np.array([np.exp(np.log(given[axis]).mean()) for axis in axes])
    axis_AN = np.log(np.array([given[axis] for axis in axes]) / centre_A[:, None])
    log_error_N = np.log(error)
    theta_P, width = _estimate(axis_AN, log_error_N)
    residual_N = log_error_N - log_error(theta_P[None], axis_AN)[0]
    if noisy := _noise(residual_N, log_error_N, len(theta_P)):
        return NoFit(noisy)
    draw_RP = _bootstrap(theta_P, axis_AN, log_error_N, width, draws, seed)
    parameters = _parameters(axes, theta_P, draw_RP, centre_A)
    warnings = _warnings(axes, theta_P, parameters, axis_AN, log_error_N)
    rmse = float(np.sqrt((residual_N**2).mean()))
    return ScalingFit(axes, parameters, rmse, len(error), tuple(warnings), centre_A, theta_P, draw_RP)


def levels(axis: str, value_N: FloatArray) -> int:
    """How many distinct values an axis has, those that are nearly the lowest of a group being one with it."""
    count, start = 0, -math.inf
    for value in np.sort(value_N):
        if value > start * (1 + _SAME_LEVEL[axis]) or not count:
            count, start = count + 1, float(value)
    return count


def _check(given: dict[str, FloatArray], error_N: FloatArray, draws: int) -> None:
    for name, value_N in {**given, "error": error_N}.items():
        if value_N.ndim != 1 or value_N.shape != error_N.shape:
            raise ValueError(f"{name} has shape {value_N.shape}; allowed: (N,), as the error's {error_N.shape}")
        if not np.isfinite(value_N).all():
            raise ValueError(f"{name} is not finite in a run; allowed: numbers")
    if draws < 1:
        raise ValueError(f"draws is {draws}; allowed: 1 or more")


def _refusal(axes: Sequence[str], given: dict[str, FloatArray], error_N: FloatArray) -> str | None:
    """Why there can be no fit, before one is tried."""
    if not axes:
        return "neither kept pairs nor compute varies over the runs"
    needed = 1 + 2 * len(axes) + 2
    if len(error_N) < needed:
        along = " and ".join(AXES[axis][0] for axis in axes)
        return f"{len(error_N)} runs; along {along} the law has {needed - 2} parameters and needs {needed} runs or more"
    if (error_N <= 0).any():
        return f"an error of {error_N.min():.3g}; the law is of errors above 0"
    for axis in axes:
        value_N, name = given[axis], AXES[axis][0]
        if (value_N <= 0).any():
            return f"{name}: a run has {value_N.min():g}; the law is of values above 0"
        if levels(axis, value_N) < MIN_LEVELS:
            return f"{name}: {levels(axis, value_N)} distinct values; a curve that flattens needs {MIN_LEVELS} or more"
        if value_N.max() < MIN_RATIO * value_N.min():
            ratio = value_N.max() / value_N.min()
            return f"{name}: the largest is {ratio:.2g} times the smallest; {MIN_RATIO:g} times or more are needed"
    if len(axes) == 2:
        correlation = float(np.corrcoef(np.log(given["pairs"]), np.log(given["compute"]))[0, 1])
        if abs(correlation) > _MAX_CORRELATION:
            return "kept pairs and compute go together in these runs, so what either does cannot be told apart"
    return None


def _noise(residual_N: FloatArray, log_error_N: FloatArray, parameters: int) -> str | None:
    """Why a fit that was made is none: it leaves most of the runs' differences unexplained."""
    total, free = float(log_error_N.var(ddof=1)), len(residual_N) - parameters
    left = float((residual_N**2).sum()) / free
    explained = 1 - left / total if total > 0 else 0.0
    if explained >= _MIN_EXPLAINED:
        return None
    return (
        f"the noise between runs ({math.sqrt(left):.1%} of the error) is as large as what is to be explained "
        f"({math.sqrt(total):.1%}); more seeds or a wider range are needed"
    )


def _estimate(axis_AN: FloatArray, log_error_N: FloatArray) -> tuple[FloatArray, float]:
    """The parameters [P] of the lowest loss over all starts, and the width of the Huber loss."""
    axes = len(axis_AN)
    limits, start_RP = bounds(log_error_N, axes), starts(log_error_N, axes)
    theta_RP, loss_R = descend(
        start_RP, axis_AN, np.broadcast_to(log_error_N, (len(start_RP), len(log_error_N))), limits
    )
    best_P = theta_RP[np.argmin(loss_R)]
    width = math.inf
    for _ in range(2):
        residual_N = log_error_N - log_error(best_P[None], axis_AN)[0]
        free = max(1, len(residual_N) - len(best_P))
        # 1.4826: the median absolute deviation as a normal's standard deviation.
        spread = 1.4826 * float(np.median(np.abs(residual_N))) * math.sqrt(len(residual_N) / free)
        width = max(HUBER * spread, 1e-9)
        best_P = descend(best_P[None], axis_AN, log_error_N[None], limits, width)[0][0]
    return best_P, width


def _bootstrap(
    theta_P: FloatArray, axis_AN: FloatArray, log_error_N: FloatArray, width: float, draws: int, seed: int
) -> FloatArray:
    fitted_N = log_error(theta_P[None], axis_AN)[0]
    slope_NP = gradient(theta_P[None], axis_AN)[0]
    leverage_N = (slope_NP * np.linalg.pinv(slope_NP, rcond=1e-8).T).sum(axis=1)
    deviation_N = (log_error_N - fitted_N) / np.sqrt(np.maximum(1 - leverage_N, 0.05))
    deviation_N -= deviation_N.mean()
    drawn_RN = np.random.default_rng(seed).integers(len(fitted_N), size=(draws, len(fitted_N)))
    start_RP = np.broadcast_to(theta_P, (draws, len(theta_P)))
    limits = bounds(log_error_N, len(axis_AN))
    draw_RP = descend(start_RP, axis_AN, fitted_N + deviation_N[drawn_RN], limits, width)[0]
    # The noise is itself known from few runs: Student's quantile in place of the normal one.
    widening = float(stats.t.ppf(0.975, len(fitted_N) - len(theta_P)) / stats.norm.ppf(0.975))
    return theta_P + widening * (draw_RP - theta_P)


def _parameters(
    axes: Sequence[str], theta_P: FloatArray, draw_RP: FloatArray, centre_A: FloatArray
) -> dict[str, Parameter]:
    named: dict[str, FloatArray] = {}
    every_RP = np.vstack([theta_P, draw_RP])
    named["e_inf"] = np.exp(every_RP[:, 0])
    for place, (axis, centre) in enumerate(zip(axes, centre_A, strict=True)):
        _, factor, power = AXES[axis]
        power_R = np.exp(every_RP[:, 2 * place + 2])
        named[factor] = np.exp(every_RP[:, 2 * place + 1] + power_R * np.log(centre))
        named[power] = power_R
    return {name: Parameter(float(value_R[0]), *interval(value_R[1:])) for name, value_R in named.items()}


def _warnings(
    axes: Sequence[str],
    theta_P: FloatArray,
    parameters: dict[str, Parameter],
    axis_AN: FloatArray,
    log_error_N: FloatArray,
) -> list[str]:
    said = []
    lowest = float(np.exp(log_error_N.min()))
    floor = parameters["e_inf"]
    if floor.low < 0.05 * lowest and floor.high > 0.8 * lowest:
        said.append("e_inf may be anything from 0 to the lowest error: the curve does not flatten enough to tell")
    elif floor.value < 0.01 * lowest:
        said.append("e_inf cannot be told from 0")
    residual_N = log_error_N - log_error(theta_P[None], axis_AN)[0]
    spread = math.sqrt(float((residual_N**2).sum()) / (len(residual_N) - len(theta_P)))
    for place, axis in enumerate(axes):
        name, _, power = AXES[axis]
        exponent = parameters[power]
        fall_N = np.exp(theta_P[2 * place + 1] - exponent.value * axis_AN[place])
        if float(np.ptp(fall_N)) < 2 * spread * float(np.exp(log_error_N.mean())):
            said.append(f"{name}: what it changes over its range does not stand out from the noise")
        if not EXPONENTS[0] * 1.01 < exponent.value < EXPONENTS[1] / 1.01:
            said.append(f"{power} stands at {exponent.value:.3g}, the end of where it is sought")
        elif exponent.high > _VAGUE * exponent.low:
            said.append(f"{power} is hardly known: from {exponent.low:.2g} to {exponent.high:.2g}")
    if _misses(residual_N, axis_AN, len(theta_P)):
        said.append("the runs bend otherwise than the law, by more than their noise: its intervals are too narrow")
    return said


def _misses(residual_N: FloatArray, axis_AN: FloatArray, parameters: int) -> bool:
    """Whether designs' means are off by more than their runs' differences allow: the F test of lack of fit, at 1 %.

    Draper & Smith 1998, section 2.1. False where no design was run twice.
    """
    design_N = np.unique(axis_AN.round(9), axis=1, return_inverse=True)[1].ravel()
    count_D = np.bincount(design_N)
    pure, lack = len(residual_N) - len(count_D), len(count_D) - parameters
    if pure < 1 or lack < 1:
        return False
    mean_D = np.bincount(design_N, residual_N) / count_D
    within = float(((residual_N - mean_D[design_N]) ** 2).sum()) / pure
    between = float((count_D * mean_D**2).sum()) / lack
    return bool(between > within * stats.f.ppf(0.99, lack, pure))
