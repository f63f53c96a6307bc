"""ROC and precision-recall curves as points to draw, as few as a plot can show.

Points stand at distinct scores: samples of one score are taken together, so that ties make slopes and not steps.

B: samples; P: points of a curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chexray.evals.statistics import FloatArray, checked_target

GRID = 400
"""Points nearer to each other than a 400th of the plot are drawn as one."""


@dataclass(frozen=True)
class Curve:
    """Points from left to right: x_P and y_P in [0, 1]."""

    x_P: FloatArray
    y_P: FloatArray


@dataclass(frozen=True)
class Curves:
    """One finding's. ROC: false against true positive rate. Precision-recall: recall against precision.

    `average_precision` is the step-wise sum over recall: between its points a precision-recall curve is no straight
    line (Davis & Goadrich 2006). `prevalence`: the precision of a score that knows nothing.
    """

    roc: Curve
    precision_recall: Curve
    average_precision: float
    prevalence: float


def curves(
    score_B: npt.NDArray[np.floating], target_B: npt.NDArray[np.floating], grid: int | None = GRID
) -> Curves | None:
    """Both curves over the samples whose target is known; None where a class is absent or a known score is NaN.

    `target_B` is 1, 0 or NaN. Without a `grid` every point is kept. Raises ValueError on other targets.
    """
    score_B = np.asarray(score_B, dtype=np.float64)
    target_B = checked_target(np.asarray(target_B, dtype=np.float64))
    known_B = ~np.isnan(target_B)
    score_B, positive_B = score_B[known_B], target_B[known_B] == 1
    positives, negatives = int(positive_B.sum()), int((~positive_B).sum())
    if not positives or not negatives or np.isnan(score_B).any():
        return None
    order = np.argsort(-score_B, kind="stable")
    last_P = np.append(np.flatnonzero(np.diff(score_B[order])), len(order) - 1)
    true_P = np.cumsum(positive_B[order])[last_P].astype(np.float64)
    taken_P = last_P + 1.0
    recall_P, precision_P = true_P / positives, true_P / taken_P
    steps_P = np.diff(recall_P, prepend=0.0)
    roc = Curve(np.append(0.0, (taken_P - true_P) / negatives), np.append(0.0, recall_P))
    return Curves(
        _thinned(roc, grid),
        # At recall 0 nothing is taken yet; scikit-learn, too, begins there with precision 1.
        _thinned(Curve(np.append(0.0, recall_P), np.append(1.0, precision_P)), grid),
        float((steps_P * precision_P).sum()),
        positives / len(score_B),
    )


def _thinned(curve: Curve, grid: int | None) -> Curve:
    """The first point in each cell of a grid that the curve enters, and its last."""
    if grid is None:
        return curve
    cell_P2 = np.floor(np.column_stack([curve.x_P, curve.y_P]) * grid)
    new_P = np.append(True, (np.diff(cell_P2, axis=0) != 0).any(axis=1))
    new_P[-1] = True
    return Curve(curve.x_P[new_P], curve.y_P[new_P])
