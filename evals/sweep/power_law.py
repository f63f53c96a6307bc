"""The saturating power law, and how it is fitted: many starts or many bootstrap draws at once.

    E(n, c) = e_inf + a * n ** -alpha + b * c ** -beta

Hestness et al. 2017 (arXiv 1712.00409) for one axis, Hoffmann et al. 2022 (arXiv 2203.15556, section 3.3 and equation
10) for two; as there, the error is compared in its logarithm, under a Huber loss. All parameters are held as their
logarithms, which keeps them positive, and the axes as the logarithm of value over geometric mean, which keeps the
numbers near 1 and makes a and alpha nearly independent.

Shapes: N runs, A axes, P = 1 + 2 A parameters (log e_inf, then log a and log alpha of each axis), R fits at once.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt

from chexray.evals.statistics import FloatArray

EXPONENTS = (0.02, 4.0)
"""Between which an exponent is sought. Below, a power cannot be told from a constant less a logarithm."""
HUBER = 1.345
"""In standard deviations: 95 % of least squares' efficiency where the noise is normal (Huber 1981, section 4.5)."""
STEPS = 150
_TOLERANCE = 1e-9
_START_EXPONENTS = (0.15, 0.4, 0.9, 1.8)
_START_FLOORS = (0.1, 0.6, 0.95)


def log_error(theta_RP: FloatArray, axis_AN: FloatArray) -> FloatArray:
    """log E of each fit at each run: [R, N]."""
    return np.asarray(np.logaddexp.reduce(_log_terms(theta_RP, axis_AN), axis=1))


def gradient(theta_RP: FloatArray, axis_AN: FloatArray) -> FloatArray:
    """Of log E by the parameters: [R, N, P]."""
    term_RTN = _log_terms(theta_RP, axis_AN)
    share_RTN = np.exp(term_RTN - np.logaddexp.reduce(term_RTN, axis=1)[:, None])
    gradient_RNP = np.empty((len(theta_RP), axis_AN.shape[1], theta_RP.shape[1]))
    gradient_RNP[..., 0] = share_RTN[:, 0]
    for axis, axis_N in enumerate(axis_AN):
        share_RN = share_RTN[:, axis + 1]
        gradient_RNP[..., 2 * axis + 1] = share_RN
        gradient_RNP[..., 2 * axis + 2] = -share_RN * np.exp(theta_RP[:, 2 * axis + 2, None]) * axis_N
    return gradient_RNP


def bounds(log_error_N: FloatArray, axes: int) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest parameters [P]: e_inf from a thousandth of the lowest error to just above it."""
    low, high = float(log_error_N.min()), float(log_error_N.max())
    exponent = np.log(EXPONENTS)
    lower = [low - np.log(1000), *[low - np.log(10_000), exponent[0]] * axes]
    upper = [low + 0.1, *[high + np.log(10), exponent[1]] * axes]
    return np.array(lower), np.array(upper)


def starts(log_error_N: FloatArray, axes: int) -> FloatArray:
    """A grid of parameters [R, P] that agree with the mean error, from which to descend."""
    lowest, middle = float(np.exp(log_error_N.min())), float(np.exp(log_error_N.mean()))
    grid = []
    for floor, *exponents in product(_START_FLOORS, *[_START_EXPONENTS] * axes):
        factor = np.log((middle - floor * lowest) / axes)
        grid.append([np.log(floor * lowest), *(one for power in exponents for one in (factor, np.log(power)))])
    return np.array(grid)


def descend(
    start_RP: FloatArray,
    axis_AN: FloatArray,
    log_error_RN: FloatArray,
    limits: tuple[FloatArray, FloatArray],
    width: float = np.inf,
) -> tuple[FloatArray, FloatArray]:
    """Parameters [R, P] and losses [R] where Levenberg and Marquardt's method ends within `limits`, from each start.

    `width`: where the Huber loss of a residual in log error turns from a square to a line.
    """
    theta_RP = np.clip(start_RP, *limits)
    loss_R, damping_R = _loss(theta_RP, axis_AN, log_error_RN, width), np.full(len(theta_RP), 1e-2)
    moving = np.arange(len(theta_RP))
    for _ in range(STEPS):
        here, observed = theta_RP[moving], log_error_RN[moving]
        there = np.clip(here + _step(here, axis_AN, observed, limits, width, damping_R[moving]), *limits)
        loss = _loss(there, axis_AN, observed, width)
        better = loss < loss_R[moving]
        gain = np.where(better, loss_R[moving] - loss, 0.0)
        done = (better & (gain <= _TOLERANCE * loss_R[moving])) | (~better & (damping_R[moving] > 1e8))
        theta_RP[moving[better]], loss_R[moving[better]] = there[better], loss[better]
        damping_R[moving] *= np.where(better, 0.2, 5.0)
        moving = moving[~done]
        if not moving.size:
            break
    return theta_RP, loss_R


def _log_terms(theta_RP: FloatArray, axis_AN: FloatArray) -> FloatArray:
    floor_R1N = np.broadcast_to(theta_RP[:, :1, None], (len(theta_RP), 1, axis_AN.shape[1]))
    fall_RAN = theta_RP[:, 1::2, None] - np.exp(theta_RP[:, 2::2, None]) * axis_AN
    return np.concatenate([floor_R1N, fall_RAN], axis=1)


def _loss(theta_RP: FloatArray, axis_AN: FloatArray, log_error_RN: FloatArray, width: float) -> FloatArray:
    distance_RN = np.abs(log_error_RN - log_error(theta_RP, axis_AN))
    square_RN = np.minimum(distance_RN, width)
    loss_R: FloatArray = (square_RN * (distance_RN - square_RN / 2)).sum(axis=1)
    return loss_R


def _step(
    theta_RP: FloatArray,
    axis_AN: FloatArray,
    log_error_RN: FloatArray,
    limits: tuple[FloatArray, FloatArray],
    width: float,
    damping_R: FloatArray,
) -> FloatArray:
    residual_RN = log_error_RN - log_error(theta_RP, axis_AN)
    weight_RN = np.minimum(1.0, width / np.maximum(np.abs(residual_RN), 1e-300))
    slope_RNP = gradient(theta_RP, axis_AN)
    weighted_RPN = (slope_RNP * weight_RN[..., None]).transpose(0, 2, 1)
    downhill_RP = (weighted_RPN @ residual_RN[..., None])[..., 0]
    held_RP = _held(theta_RP, downhill_RP, limits)
    curvature_RPP = np.where(held_RP[:, :, None] | held_RP[:, None, :], 0.0, weighted_RPN @ slope_RNP)
    size_RP = np.diagonal(curvature_RPP, axis1=1, axis2=2)
    ridge_RP = np.where(held_RP, 1.0, damping_R[:, None] * (size_RP + 1e-9) + 1e-12)
    curvature_RPP = curvature_RPP + ridge_RP[:, :, None] * np.eye(theta_RP.shape[1])
    step_RP: FloatArray = np.linalg.solve(curvature_RPP, np.where(held_RP, 0.0, downhill_RP)[..., None])[..., 0]
    return np.clip(step_RP, -1.0, 1.0)


def _held(
    theta_RP: FloatArray, downhill_RP: FloatArray, limits: tuple[FloatArray, FloatArray]
) -> npt.NDArray[np.bool_]:
    """Parameters at a limit that would leave it: they stay, so that the others may move."""
    held: npt.NDArray[np.bool_] = ((theta_RP <= limits[0]) & (downhill_RP < 0)) | (
        (theta_RP >= limits[1]) & (downhill_RP > 0)
    )
    return held
