"""Linear probe: what a frozen tower's features tell of a finding, by one logistic regression for each.

The protocol is CLIP's (Radford et al. 2021, appendix A.3): features before the projection, L2-regularised logistic
regression by L-BFGS, its strength swept and chosen on the validation split.

n: rows of a split; F: findings; E: feature width; k: rows whose label is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from chexray.evals.disease_prediction import Predicted, one_class_reasons
from chexray.evals.label_draws import check_targets
from chexray.evals.statistics import FloatArray, weighted_auroc
from chexray.platform.errors import UsageError

Features = npt.NDArray[np.floating]

BLOCK_ROWS = 8192


@dataclass(frozen=True)
class ProbeProtocol:
    """`strengths`: scikit-learn's C, ascending: the inverse of the penalty on a sum of losses. Each is tried.

    Training stops where no component of the mean loss's gradient is above `tolerance`, or after `iterations`.
    """

    strengths: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    tolerance: float = 1e-4
    iterations: int = 1000

    def __post_init__(self) -> None:
        if not self.strengths or self.strengths[0] <= 0 or sorted(set(self.strengths)) != list(self.strengths):
            raise ValueError(f"strengths is {self.strengths}; allowed: at least one, above 0, ascending")

    @property
    def name(self) -> str:
        """As a result's variant names it."""
        tried = ",".join(f"{strength:g}" for strength in self.strengths)
        return f"standardised; logistic regression, C of {tried} by validation AUROC"


@dataclass(frozen=True)
class ChosenStrength:
    """The C of one finding. `score`: its validation AUROC or log loss; None where C is the grid's middle."""

    strength: float
    by: str
    score: float | None


@dataclass(frozen=True)
class ProbePrediction(Predicted):
    """`chosen[f]`: by what the finding's C was chosen; None where it could not be learned."""

    chosen: tuple[ChosenStrength | None, ...]


def linear_probe(
    train: tuple[Features, FloatArray],
    validation: tuple[Features, FloatArray],
    test_nE: Features,
    feature: str,
    protocol: ProbeProtocol | None = None,
    threads: int = 1,
) -> ProbePrediction:
    """Probabilities of the test rows, from the features and targets (1, 0, NaN = unknown) of the other two splits.

    Each finding has its own regression, over the rows where it is known, features standardised by those training rows.
    Its C has the highest validation AUROC, the smaller C where two are equal. Where the validation split knows only
    one class of the finding, the lowest log loss decides; where it knows neither, C is the middle of the grid. A
    finding with one class in train is not learned: NaN, with the reason.

    `feature` names the feature for the results' variant. `threads`: findings fitted at a time, each on one core and
    with a float64 copy of the train features. Deterministic: the same input gives the same bits, at any number of
    threads. Raises `UsageError` where the validation split has no known label, ValueError on shapes, targets or
    features that are not allowed.
    """
    protocol = protocol or ProbeProtocol()
    _check(train, validation, test_nE)
    reasons = one_class_reasons(train[1])
    probability_nF = np.full((len(test_nE), len(reasons)), np.nan)
    chosen: list[ChosenStrength | None] = [None] * len(reasons)
    learned = [f for f, reason in enumerate(reasons) if reason is None]
    jobs = (delayed(_probe_finding)(f, train, validation, test_nE, protocol) for f in learned)
    # A matrix times a vector waits for memory: on a busy machine two BLAS threads took twice one's time at 50,000 rows
    # and a hundred times at 600. And the bits of sums depend on their number.
    with threadpool_limits(1):
        for f, found in zip(learned, Parallel(threads, prefer="threads")(jobs), strict=True):
            probability_nF[:, f], chosen[f] = found
    return ProbePrediction(probability_nF, reasons, f"feature={feature}; {protocol.name}", tuple(chosen))


def _probe_finding(
    f: int,
    train: tuple[Features, FloatArray],
    validation: tuple[Features, FloatArray],
    test_nE: Features,
    p: ProbeProtocol,
) -> tuple[FloatArray, ChosenStrength]:
    """Probability of one finding for the test rows [n], and its C."""
    train_n, validation_n = ~np.isnan(train[1][:, f]), ~np.isnan(validation[1][:, f])
    checked_kE, checked_k = validation[0][validation_n], validation[1][validation_n, f]
    scaler = StandardScaler(copy=False)
    # In float32, at strong regularisation, the bias ends 1e-4 off.
    train_kE = scaler.fit_transform(train[0][train_n].astype(np.float64))
    # From strong to weak regularisation, each starting from the last one's weights.
    model = LogisticRegression(solver="lbfgs", tol=p.tolerance, max_iter=p.iterations, warm_start=True)
    fits: list[tuple[float, ChosenStrength, FloatArray, float]] = []
    for strength in p.strengths if len(checked_k) else p.strengths[len(p.strengths) // 2 :][:1]:
        model.set_params(C=strength).fit(train_kE, train[1][train_n, f])
        # The scaler is folded into the weights, so that no other split is copied.
        weight_E = model.coef_[0] / scaler.scale_
        bias = float(model.intercept_[0]) - float(weight_E @ scaler.mean_)
        rank, choice = _judge(_logits(checked_kE, weight_E, bias), checked_k, strength)
        fits.append((rank, choice, weight_E, bias))
    _, choice, weight_E, bias = max(fits, key=lambda fit: fit[0])  # the first of equals
    return expit(_logits(test_nE, weight_E, bias)), choice


def _judge(logit_k: FloatArray, target_k: FloatArray, strength: float) -> tuple[float, ChosenStrength]:
    """How good a C is on the validation rows (higher is better), and the choice that it would be."""
    if len(target_k) == 0:
        return 0.0, ChosenStrength(strength, "the grid's middle: no known validation label", None)
    auroc = float(weighted_auroc(logit_k, target_k, np.ones((1, len(target_k))))[0])
    if not np.isnan(auroc):
        return auroc, ChosenStrength(strength, "validation AUROC", auroc)
    loss = float(log_loss(target_k, expit(logit_k), labels=[0, 1]))
    return -loss, ChosenStrength(strength, "validation log loss: one class only", loss)


def _logits(feature_nE: Features, weight_E: FloatArray, bias: float) -> FloatArray:
    """[n] float64, in blocks, because the features are made float64 too."""
    blocks = range(0, len(feature_nE), BLOCK_ROWS)
    logit = [feature_nE[first : first + BLOCK_ROWS].astype(np.float64) @ weight_E + bias for first in blocks]
    return np.concatenate([np.empty(0), *logit])


def _check(train: tuple[Features, FloatArray], validation: tuple[Features, FloatArray], test_nE: Features) -> None:
    width, findings = test_nE.shape[-1], train[1].shape[-1]
    for name, (feature_nE, target_nF) in (("train", train), ("validation", validation)):
        if feature_nE.shape != (len(target_nF), width) or target_nF.shape != (len(feature_nE), findings):
            raise ValueError(
                f"{name} has features and targets of shapes {feature_nE.shape}, {target_nF.shape}; "
                f"allowed: (n, {width}), (n, {findings})"
            )
        check_targets(target_nF)
    for name, feature_nE in (("train", train[0]), ("validation", validation[0]), ("test", test_nE)):
        if not np.isfinite(feature_nE).all():
            raise ValueError(f"a {name} feature is not finite; allowed: finite numbers")
    require_validation(validation[1], "C")


def require_validation(target_nF: FloatArray, chosen: str) -> None:
    """`UsageError` where there is nothing to choose by: test data must not take its place."""
    if np.isnan(target_nF).all():
        raise UsageError(
            f"the validation split has {len(target_nF)} samples and no known label of what is learned, and "
            f"{chosen} is chosen on it alone; ingest with --set ingest.validation_share=0.1, or give a corpus with a "
            "validation split"
        )
