"""Disease prediction: from a share of the labels and what was learned from it to results on the test split.

The protocol is that of MGCA (Wang et al. 2022) and BenchX (Zhou et al. 2024): a linear probe or fine-tuning with 1, 10
and 100 % of the training labels, three seeds, AUROC per finding. What is chosen (a regularisation, an epoch) is chosen
on the whole validation split at every share, as MGCA does.

B: samples of a split; F: findings; D: drawn training samples; G: findings of a mean; C: columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chexray.evals.label_draws import BoolArray, LabelDraw, draw_labels
from chexray.evals.results import (
    Result,
    findings_of_mean,
    label_sets,
    positives_of,
    prediction_table,
    result_of,
    undefined_estimate,
)
from chexray.evals.statistics import Estimate, FloatArray, auroc_statistic, defined_findings, estimates
from chexray.evals.zero_shot import auroc_per_finding, mean_over_findings
from chexray.platform.evaluate_config import EvaluateConfig, Method


@dataclass(frozen=True)
class LabelledSplit:
    """Whose the samples of a split are, and `target_BF`: 1, 0 or NaN (unknown)."""

    sample_id: Sequence[str]
    patient_id: Sequence[str]
    target_BF: FloatArray


@dataclass(frozen=True)
class DiseaseData:
    """What is known of the splits. `prevalence_F`: of the whole corpus, over known labels, in [0, 1] or NaN."""

    findings: Sequence[str]
    prevalence_F: FloatArray
    train: LabelledSplit
    test: LabelledSplit


@dataclass(frozen=True)
class Predicted:
    """Probabilities of the test samples, probability_BF float64 in [0, 1].

    `undefined[f]` says why finding f could not be learned (None: it could); its column is NaN then. `protocol` names
    feature and settings, as a result's variant has them.
    """

    probability_BF: FloatArray
    undefined: tuple[str | None, ...]
    protocol: str


Learner = Callable[[npt.NDArray[np.int64]], Predicted]
"""Rows [D] of the train split whose labels may be used -> the test split's probabilities. It is given no test label."""


@dataclass(frozen=True)
class DiseaseEvaluation:
    """One seed at one share: results, predictions (a row a test sample and finding), and what they came from."""

    results: list[Result]
    predictions: pa.Table
    draw: LabelDraw
    predicted: Predicted


def evaluate_disease_prediction(
    method: Method, learner: Learner, data: DiseaseData, share: float, seed: int, config: EvaluateConfig
) -> DiseaseEvaluation:
    """Draw the labels, have `learner` learn from them, and score what it says of the test split.

    AUROC of every finding, and means over all, common and rare findings, as for zero-shot: "No Finding" and findings
    with fewer than `config.min_positives` positives or negatives in the test split are in no mean, nor are findings
    that could not be learned; how many a mean is over stands in its variant. Those that could not be learned have a
    result without a value, whose variant says why.
    """
    train = data.train
    draw = draw_labels(train.sample_id, train.patient_id, train.target_BF, share, seed)
    predicted = learner(draw.row_D)
    shape = np.shape(data.test.target_BF)
    if predicted.probability_BF.shape != shape:
        raise ValueError(f"the learner's probabilities have shape {predicted.probability_BF.shape}; allowed: {shape}")
    variant = f"{predicted.protocol}; {draw.name}"
    results = _score(method, variant, [predicted], data, config)
    test = data.test
    predictions = prediction_table(
        test.sample_id, test.patient_id, data.findings, predicted.probability_BF, test.target_BF
    )
    return DiseaseEvaluation(results, predictions, draw, predicted)


def average_over_seeds(
    method: Method, runs: Mapping[int, Predicted], share: float, data: DiseaseData, config: EvaluateConfig
) -> list[Result]:
    """The mean AUROC of several label seeds at one share, and beside each mean over findings the seeds' deviation.

    `runs`: what was predicted, by seed. The intervals are of the mean AUROC over the same draws of test patients: how
    much it depends on who was tested. How much it depends on whose labels were drawn is what the standard deviation
    (n - 1) says; it has no interval. Raises ValueError where the protocols differ.
    """
    protocols = sorted({run.protocol for run in runs.values()})
    if len(protocols) != 1:
        raise ValueError(f"runs are of the protocols {protocols}; allowed: one")
    seeds = f"label seeds {','.join(str(seed) for seed in runs)}"
    variant = f"{protocols[0]}; labels={share:.4g} of train"
    results = _score(method, f"{variant}; mean of {seeds}", list(runs.values()), data, config)
    for metric, chosen_F in _sets(data, _learned(list(runs.values())), config).items():
        target_BG = data.test.target_BF[:, chosen_F]
        aurocs = [auroc_per_finding(run.probability_BF[:, chosen_F], target_BG) for run in runs.values()]
        means = [mean_over_findings(auroc_G) for auroc_G in aurocs]
        spread = float(np.std(means, ddof=1)) if len(means) > 1 else math.nan
        estimate = replace(undefined_estimate(data.test.patient_id), value=spread)
        of = f"{variant}; {seeds}; {findings_of_mean(chosen_F, config)}"
        results.append(result_of(method, f"{metric}_deviation", of, estimate))
    return results


def one_class_reasons(target_BF: npt.NDArray[np.floating]) -> tuple[str | None, ...]:
    """Why each finding cannot be learned from these training labels; None where it can."""
    reasons: list[str | None] = []
    for positives, negatives in zip((target_BF == 1).sum(axis=0), (target_BF == 0).sum(axis=0), strict=True):
        missing = [name for name, count in (("positive", positives), ("negative", negatives)) if count == 0]
        reasons.append(f"no {' and no '.join(missing)} in the drawn train labels" if missing else None)
    return tuple(reasons)


def _score(
    method: Method, variant: str, runs: Sequence[Predicted], data: DiseaseData, config: EvaluateConfig
) -> list[Result]:
    """Results of one run, or of the mean AUROC of several over the same test split: all from one bootstrap."""
    learned_F = _learned(runs)
    sets = _sets(data, learned_F, config)
    estimated = _estimates(runs, learned_F, sets, data, config)
    patient_B = np.asarray(data.test.patient_id)
    results = []
    for f, finding in enumerate(data.findings):
        target_B = data.test.target_BF[:, f]
        reason = next((run.undefined[f] for run in runs if run.undefined[f]), None)
        estimate = estimated[f] or undefined_estimate(patient_B[~np.isnan(target_B)])
        of = variant if learned_F[f] else f"{variant}; undefined: {reason}"
        positives, prevalence = positives_of(target_B), float(data.prevalence_F[f])
        results.append(result_of(method, "auroc", of, estimate, finding, positives, prevalence))
    for (metric, chosen_F), found in zip(sets.items(), estimated[len(data.findings) :], strict=True):
        of = f"{variant}; {findings_of_mean(chosen_F, config)}"
        results.append(result_of(method, metric, of, found or undefined_estimate(patient_B)))
    return results


def _learned(runs: Sequence[Predicted]) -> BoolArray:
    """Which findings [F] were learned in every run."""
    of_findings = zip(*(run.undefined for run in runs), strict=True)
    return np.array([all(reason is None for reason in reasons) for reasons in of_findings], dtype=np.bool_)


def _estimates(
    runs: Sequence[Predicted],
    learned_F: BoolArray,
    sets: Mapping[str, BoolArray],
    data: DiseaseData,
    config: EvaluateConfig,
) -> list[Estimate | None]:
    """Of each finding's AUROC and of each set's mean, the mean over the runs; None where it is of nothing learned."""
    of_findings = [np.arange(len(learned_F)) == f for f in range(len(learned_F))]
    wanted = [chosen_F & learned_F for chosen_F in (*of_findings, *sets.values())]
    found: list[Estimate | None] = [None] * len(wanted)
    made = [place for place, chosen_F in enumerate(wanted) if chosen_F.any()]
    if not made:
        return found
    row_F = np.cumsum(learned_F) - 1
    target_BG = data.test.target_BF[:, learned_F]
    aurocs = [auroc_statistic(run.probability_BF[:, learned_F], target_BG) for run in runs]
    # A finding that the test split knows one class of is undefined, and in no mean.
    defined_F = learned_F & defined_findings(data.test.target_BF)

    def means(weight_RB: FloatArray) -> FloatArray:
        auroc_RG = np.mean([auroc(weight_RB)[:, :-1] for auroc in aurocs], axis=0)
        columns = []
        for place in made:
            alone = wanted[place].sum() == 1
            chosen_F = wanted[place] if alone else wanted[place] & defined_F
            columns.append(auroc_RG[:, row_F[chosen_F]].mean(axis=1))
        return np.column_stack(columns)

    known_BF = ~np.isnan(data.test.target_BF)
    known_BM = np.column_stack([known_BF[:, wanted[place]].any(axis=1) for place in made])
    estimated = estimates(means, known_BM, data.test.patient_id, config.bootstrap, config.seed)
    for place, estimate in zip(made, estimated, strict=True):
        found[place] = estimate
    return found


def _sets(data: DiseaseData, learned_F: BoolArray, config: EvaluateConfig) -> dict[str, BoolArray]:
    return label_sets(data.findings, data.test.target_BF, data.prevalence_F, config, learned_F)
