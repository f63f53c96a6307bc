"""The two benchmarks of a corpus's split: from embeddings and what is known of the pairs to results.

B: pairs of the split; F: findings; D: embedding width. No Ray and no model here: embeddings come in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chexray.evals.prompts import prompt_family
from chexray.evals.retrieval import RETRIEVAL_VARIANT, retrieve
from chexray.evals.statistics import Estimate, FloatArray, auroc_estimates, mean_estimates
from chexray.evals.zero_shot import zero_shot_probability
from chexray.platform.config import EvaluateConfig
from chexray.platform.corpus.schema import NO_FINDING
from chexray.platform.errors import UsageError

BENCHMARKS = ("zero_shot", "retrieval")
RECALL_AT = (1, 5, 10)


@dataclass(frozen=True)
class EncodedSplit:
    """A split as a checkpoint sees it: unit embeddings and, row by row, whose they are.

    `target_BF`: 1, 0 or NaN (unknown). `prevalence_F`: of the whole corpus, over known labels, in [0, 1].
    """

    sample_id: Sequence[str]
    patient_id: Sequence[str]
    report: Sequence[str]
    image_BD: npt.NDArray[np.float32]
    text_BD: npt.NDArray[np.float32]
    findings: Sequence[str]
    target_BF: FloatArray
    prevalence_F: FloatArray


@dataclass(frozen=True)
class Result:
    """One number: what was measured, by which variant, on how many, and how sure it is.

    `value`, `low` and `high` are None where they are not defined (a finding without a positive, say).
    """

    benchmark: str
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


def check_benchmarks(names: Sequence[str]) -> None:
    if not names:
        raise UsageError(f"--benchmarks: none given; allowed: {', '.join(BENCHMARKS)}")
    for name in names:
        if name not in BENCHMARKS:
            raise UsageError(f"--benchmarks {name}: unknown; allowed: {', '.join(BENCHMARKS)}")


def evaluate_zero_shot(
    split: EncodedSplit, encode_texts: Callable[[list[str]], npt.NDArray[np.float32]], config: EvaluateConfig
) -> tuple[list[Result], pa.Table]:
    """AUROC of every finding and their means over all, common and rare findings; and the predictions.

    "No Finding" is scored by itself and is in no mean. Nor are findings with fewer than `min_positives` positives or
    negatives in the split; how many findings a mean is over stands in its variant.
    """
    family = prompt_family(config.prompts)
    prompts = [text for finding in split.findings for text in family.pair(finding)]
    text_F2D = encode_texts(prompts).reshape(len(split.findings), 2, -1)
    probability_BF = zero_shot_probability(split.image_BD, text_F2D)
    variant = f"prompts={family.name}"
    results = [
        _result("zero_shot", "auroc", variant, estimate, finding, target_B, prevalence)
        for finding, estimate, target_B, prevalence in zip(
            split.findings,
            _aurocs(probability_BF, split, config, slice(None)).per_finding,
            split.target_BF.T,
            split.prevalence_F,
            strict=True,
        )
    ]
    for name, chosen_F in _label_sets(split, config).items():
        estimate = _aurocs(probability_BF, split, config, chosen_F).mean if chosen_F.any() else _undefined(split)
        of = f"{variant}; {int(chosen_F.sum())} findings with >= {config.min_positives} positives"
        results.append(_result("zero_shot", name, of, estimate))
    return results, _predictions(split, probability_BF)


def evaluate_retrieval(split: EncodedSplit, config: EvaluateConfig) -> tuple[list[Result], pa.Table]:
    """Recall at 1, 5 and 10 and mean rank in both directions; and the rank of every query."""
    found = retrieve(split.image_BD, split.text_BD, split.report, RECALL_AT)
    results = []
    ranks: dict[str, Any] = {"sample_id": list(split.sample_id)}
    for direction in ("image_to_text", "text_to_image"):
        directed = getattr(found, direction)
        value_BM = np.column_stack([directed.hits, directed.rank])
        names = [f"{direction}_recall@{k}" for k in RECALL_AT] + [f"{direction}_mean_rank"]
        variant = f"{RETRIEVAL_VARIANT}; {directed.candidates} candidates"
        estimates = mean_estimates(value_BM, split.patient_id, config.bootstrap, config.seed)
        results += [_result("retrieval", n, variant, e) for n, e in zip(names, estimates, strict=True)]
        ranks[f"{direction}_rank"] = directed.rank
    return results, pa.table(ranks)


def _aurocs(probability_BF: FloatArray, split: EncodedSplit, config: EvaluateConfig, chosen: Any) -> Any:
    return auroc_estimates(
        probability_BF[:, chosen], split.target_BF[:, chosen], split.patient_id, config.bootstrap, config.seed
    )


def _label_sets(split: EncodedSplit, config: EvaluateConfig) -> dict[str, npt.NDArray[np.bool_]]:
    """Which findings [F] enter each mean, by name."""
    positives_F = (split.target_BF == 1).sum(axis=0)
    negatives_F = (split.target_BF == 0).sum(axis=0)
    enough_F = (positives_F >= config.min_positives) & (negatives_F >= config.min_positives)
    enough_F &= np.array([finding != NO_FINDING for finding in split.findings])
    rare_F = split.prevalence_F < config.rare_below
    return {
        "mean_auroc": enough_F,
        "mean_auroc_common": enough_F & ~rare_F,
        "mean_auroc_rare": enough_F & rare_F,
    }


def _result(
    benchmark: str,
    metric: str,
    variant: str,
    estimate: Estimate,
    finding: str | None = None,
    target_B: FloatArray | None = None,
    prevalence: float | None = None,
) -> Result:
    return Result(
        benchmark,
        metric,
        variant,
        finding,
        value=_defined(estimate.value),
        low=_defined(estimate.low),
        high=_defined(estimate.high),
        n=estimate.n,
        patients=estimate.patients,
        positives=None if target_B is None else int((target_B == 1).sum()),
        prevalence=None if prevalence is None else _defined(float(prevalence)),
    )


def _undefined(split: EncodedSplit) -> Estimate:
    nan = float("nan")
    return Estimate(nan, nan, nan, len(split.sample_id), len(set(split.patient_id)), 0)


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _predictions(split: EncodedSplit, probability_BF: FloatArray) -> pa.Table:
    """One row a pair and finding: the probability, and the label where it is known."""
    count = len(split.findings)
    target = split.target_BF.ravel()
    return pa.table(
        {
            "sample_id": np.repeat(np.array(split.sample_id, dtype=object), count),
            "finding": np.tile(np.array(split.findings, dtype=object), len(split.sample_id)),
            "probability": probability_BF.ravel().astype(np.float32),
            "target": pa.array(target, pa.float32(), mask=np.isnan(target)).cast(pa.int8()),
        }
    )
