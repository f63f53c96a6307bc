"""What every task's numbers look like: results with their variant and interval, and the predictions that they are of.

B: samples; F: findings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chexray.evals.statistics import Estimate, FloatArray, Patients
from chexray.platform.corpus.schema import NO_FINDING
from chexray.platform.evaluate_config import EvaluateConfig

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Result:
    """One number: what was measured, by which method and variant, on how many, and how sure it is.

    `value`, `low` and `high` are None where they are not defined (a finding without a positive, say).
    """

    method: str
    metric: str
    variant: str
    finding: str | None
    value: float | None
    low: float | None
    high: float | None
    n: int
    patients: int
    positives: int | None = None
    prevalence: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class NotRun:
    """A metric that has no value here, and why, in words."""

    metric: str
    variant: str
    reason: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def result_of(
    method: str,
    metric: str,
    variant: str,
    estimate: Estimate,
    finding: str | None = None,
    positives: int | None = None,
    prevalence: float | None = None,
) -> Result:
    """An estimate as a result: six decimals, None for NaN."""
    return Result(
        method,
        metric,
        variant,
        finding,
        value=defined(estimate.value),
        low=defined(estimate.low),
        high=defined(estimate.high),
        n=estimate.n,
        patients=estimate.patients,
        positives=positives,
        prevalence=None if prevalence is None else defined(float(prevalence)),
    )


def undefined_estimate(patient_B: Patients) -> Estimate:
    """No value; of how many samples and patients it would have been."""
    nan = float("nan")
    return Estimate(nan, nan, nan, len(patient_B), len(np.unique(np.asarray(patient_B))), 0)


def defined(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def positives_of(target_B: FloatArray) -> int:
    return int((target_B == 1).sum())


def label_sets(
    findings: Sequence[str],
    target_BF: FloatArray,
    prevalence_F: FloatArray,
    config: EvaluateConfig,
    learned_F: BoolArray | None = None,
) -> dict[str, BoolArray]:
    """Which findings [F] enter each mean AUROC, by the mean's name: all, common, rare ones.

    Those with `min_positives` known positives and negatives at least, and, where some had to be learned, those that
    were. "No Finding" is in no mean.
    """
    positives_F, negatives_F = ((target_BF == value).sum(axis=0) for value in (1, 0))
    enough_F: BoolArray = (positives_F >= config.min_positives) & (negatives_F >= config.min_positives)
    enough_F &= np.array([finding != NO_FINDING for finding in findings], dtype=np.bool_)
    if learned_F is not None:
        enough_F &= learned_F
    rare_F = prevalence_F < config.rare_below
    return {
        "mean_auroc": enough_F,
        "mean_auroc_common": enough_F & ~rare_F,
        "mean_auroc_rare": enough_F & rare_F,
    }


def findings_of_mean(chosen_F: BoolArray, config: EvaluateConfig) -> str:
    """As a mean's variant says what it is over."""
    return f"{int(chosen_F.sum())} findings with >= {config.min_positives} positives"


def prediction_table(
    sample_id: Sequence[str],
    patient_id: Sequence[str],
    findings: Sequence[str],
    probability_BF: FloatArray,
    target_BF: FloatArray,
) -> pa.Table:
    """One row a sample and finding: the probability and the label, null where there is none."""
    count = len(findings)
    probability, target = probability_BF.ravel(), target_BF.ravel()
    return pa.table(
        {
            "sample_id": np.repeat(np.array(sample_id, dtype=object), count),
            "patient_id": np.repeat(np.array(patient_id, dtype=object), count),
            "finding": np.tile(np.array(findings, dtype=object), len(sample_id)),
            "probability": pa.array(probability.astype(np.float32), pa.float32(), mask=np.isnan(probability)),
            "target": pa.array(target, pa.float32(), mask=np.isnan(target)).cast(pa.int8()),
        }
    )
