"""The two tasks that embeddings are enough for: zero-shot findings classification and retrieval.

B: pairs of the split; F: findings; K: families of prompts; D: embedding width. No Ray and no model here: embeddings
come in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chexray.evals.prompts import PRESENCE, prompt_families
from chexray.evals.results import (
    Result,
    findings_of_mean,
    label_sets,
    positives_of,
    prediction_table,
    result_of,
    undefined_estimate,
)
from chexray.evals.retrieval import RETRIEVAL_VARIANT, Retrieval, retrieve
from chexray.evals.statistics import FloatArray, auroc_estimates, mean_estimates
from chexray.evals.zero_shot import unit_vectors, zero_shot_probability
from chexray.platform.evaluate_config import EvaluateConfig

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


def evaluate_zero_shot(
    split: EncodedSplit, encode_texts: Callable[[list[str]], npt.NDArray[np.float32]], config: EvaluateConfig
) -> tuple[list[Result], FloatArray]:
    """AUROC of every finding and their means over all, common and rare findings; and probability_BF.

    "No Finding" is scored by itself and is in no mean. Nor are findings with fewer than `min_positives` positives or
    negatives in the split; how many findings a mean is over stands in its variant.
    """
    name = config.prompts or PRESENCE.name
    families = prompt_families(name)
    prompts = [text for family in families for finding in split.findings for text in family.pair(finding)]
    text_KF2D = unit_vectors("text", encode_texts(prompts).reshape(len(families), len(split.findings), 2, -1))
    probability_BF = zero_shot_probability(split.image_BD, text_KF2D.mean(axis=0))
    variant = f"prompts={name}"
    per_finding = zip(
        split.findings,
        _aurocs(probability_BF, split, config, slice(None)).per_finding,
        split.target_BF.T,
        split.prevalence_F,
        strict=True,
    )
    results = [
        result_of("zero_shot", "auroc", variant, estimate, finding, positives_of(target_B), prevalence)
        for finding, estimate, target_B, prevalence in per_finding
    ]
    for name, chosen_F in label_sets(split.findings, split.target_BF, split.prevalence_F, config).items():
        estimate = (
            _aurocs(probability_BF, split, config, chosen_F).mean
            if chosen_F.any()
            else undefined_estimate(split.patient_id)
        )
        results.append(result_of("zero_shot", name, f"{variant}; {findings_of_mean(chosen_F, config)}", estimate))
    return results, probability_BF


def zero_shot_predictions(split: EncodedSplit, probability_BF: FloatArray) -> pa.Table:
    return prediction_table(split.sample_id, split.patient_id, split.findings, probability_BF, split.target_BF)


def evaluate_retrieval(split: EncodedSplit, config: EvaluateConfig) -> tuple[list[Result], Retrieval]:
    """Recall at 1, 5 and 10 and mean rank in both directions; and how every query went."""
    found = retrieve(split.image_BD, split.text_BD, split.report, RECALL_AT)
    results = []
    for direction in ("image_to_text", "text_to_image"):
        directed = getattr(found, direction)
        value_BM = np.column_stack([directed.hits, directed.rank])
        variant = f"{RETRIEVAL_VARIANT}; {directed.candidates} candidates"
        estimates = mean_estimates(value_BM, split.patient_id, config.bootstrap, config.seed)
        for (name, chance), estimate in zip(_by_chance(directed.candidates).items(), estimates, strict=True):
            results.append(
                result_of("retrieval", f"{direction}_{name}", f"{variant}; by chance {chance:.3g}", estimate)
            )
    return results, found


def _by_chance(candidates: int) -> dict[str, float]:
    """What a ranking at random gives in the mean, by metric, where one candidate is right."""
    recall = {f"recall@{k}": min(1.0, k / candidates) for k in RECALL_AT}
    return {**recall, "mean_rank": (candidates + 1) / 2}


def retrieval_ranks(split: EncodedSplit, found: Retrieval) -> pa.Table:
    """The rank of every query, from 1."""
    return pa.table(
        {
            "sample_id": list(split.sample_id),
            "patient_id": list(split.patient_id),
            "image_to_text_rank": found.image_to_text.rank,
            "text_to_image_rank": found.text_to_image.rank,
        }
    )


def _aurocs(probability_BF: FloatArray, split: EncodedSplit, config: EvaluateConfig, chosen: Any) -> Any:
    return auroc_estimates(
        probability_BF[:, chosen], split.target_BF[:, chosen], split.patient_id, config.bootstrap, config.seed
    )
