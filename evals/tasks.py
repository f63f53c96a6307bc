"""How a cell of each task is done: from a benchmark's data and a checkpoint to results.

n: rows of a split; F: findings; S: image size in pixels; E: feature width.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chexray.evals.calibration import calibration
from chexray.evals.cell_subgroups import mean_auroc_subgroups, mean_subgroups
from chexray.evals.cells import CellContext, CellOutput, TaskRun
from chexray.evals.dense_tasks import report_generation, segmentation, stored_pixels
from chexray.evals.disease_prediction import (
    DiseaseData,
    LabelledSplit,
    Learner,
    Predicted,
    evaluate_disease_prediction,
)
from chexray.evals.embedding_tasks import (
    EncodedSplit,
    evaluate_retrieval,
    evaluate_zero_shot,
    retrieval_ranks,
    zero_shot_predictions,
)
from chexray.evals.fine_tuning import LabelledImages, fine_tune
from chexray.evals.images import StoredPixels
from chexray.evals.json_values import finite
from chexray.evals.linear_probe import linear_probe
from chexray.evals.specs import Task
from chexray.evals.statistics import FloatArray
from chexray.evals.zero_shot import unit_vectors
from chexray.platform.corpus.schema import Split
from chexray.platform.evaluate_config import Method
from chexray.platform.model.features import FeatureTower, feature_name

EXAMPLES = 8
"""Queries whose best reports a retrieval cell keeps to be looked at."""


def zero_shot(context: CellContext) -> CellOutput:
    """AUROCs with intervals, by subgroup, and calibration of every finding."""
    rows = context.data.rows(context.spec.split)
    split = _encoded_split(context, rows, context.data.findings)
    results, probability_nF = evaluate_zero_shot(split, context.encode_texts, context.config)
    output = CellOutput(results, {"predictions.parquet": zero_shot_predictions(split, probability_nF)})
    output.subgroups = mean_auroc_subgroups(context, rows, probability_nF, split.target_BF)
    for finding, probability_n, target_n in zip(split.findings, probability_nF.T, split.target_BF.T, strict=True):
        if not np.isnan(target_n).all():
            found = calibration(
                probability_n, target_n, split.patient_id, draws=context.config.bootstrap, seed=context.config.seed
            )
            output.calibration.append(_calibration_record(finding, found))
    return output


def retrieval(context: CellContext) -> CellOutput:
    """Recall and mean rank in both directions, by subgroup, and what some images found."""
    rows = context.data.rows(context.spec.split)
    split = _encoded_split(context, rows, [])
    results, found = evaluate_retrieval(split, context.config)
    output = CellOutput(results, {"ranks.parquet": retrieval_ranks(split, found)})
    output.files["examples.json"] = _examples(split, found.image_to_text.rank)
    hit_n = found.image_to_text.hit(10)
    output.subgroups = mean_subgroups(context, rows, "image_to_text_recall@10", hit_n)
    return output


def disease_prediction(context: CellContext) -> CellOutput:
    """A linear probe and fine-tuning at each share of the labels, with the cell's label seed."""
    data = context.data
    rows = data.rows_by_split()
    target = {name: data.targets(table) for name, table in rows.items()}
    train, test = (
        LabelledSplit(rows[name]["sample_id"].to_pylist(), rows[name]["patient_id"].to_pylist(), target[name])
        for name in (context.spec.splits[0], context.spec.split)
    )
    disease = DiseaseData(data.findings, data.prevalence_F, train, test)
    learners = {
        "linear_probe": _probe_learner(context, rows, target),
        "fine_tuning": _tuned_learner(context, rows, target),
    }
    output, tables = CellOutput([]), []
    largest = max(context.config.label_shares)
    for method in context.config.methods:
        for share in context.config.label_shares:
            found = evaluate_disease_prediction(
                method, learners[method], disease, share, context.cell.seed, context.config
            )
            output.results += found.results
            tables.append(_with_run(found.predictions, method, share))
            output.runs.append(_run_record(method, share, found.predicted, found.draw.sample_id))
            if share == largest and method == context.config.methods[0]:
                output.subgroups = mean_auroc_subgroups(
                    context, rows[context.spec.split], found.predicted.probability_BF, test.target_BF
                )
    output.tables["predictions.parquet"] = pa.concat_tables(tables)
    return output


TASK_RUNS: dict[Task, TaskRun] = {
    "zero_shot": zero_shot,
    "retrieval": retrieval,
    "disease_prediction": disease_prediction,
    "segmentation": segmentation,
    "report_generation": report_generation,
}


def _encoded_split(context: CellContext, rows: pa.Table, findings: list[str]) -> EncodedSplit:
    data, split = context.data, context.spec.split
    return EncodedSplit(
        sample_id=rows["sample_id"].to_pylist(),
        patient_id=rows["patient_id"].to_pylist(),
        report=rows["report"].to_pylist(),
        image_BD=data.encoded(rows, split, "image"),
        text_BD=data.encoded(rows, split, "text"),
        findings=findings,
        target_BF=data.targets(rows) if findings else np.empty((len(rows), 0)),
        prevalence_F=data.prevalence_F if findings else np.empty(0),
    )


def _probe_learner(context: CellContext, rows: dict[Split, pa.Table], target: dict[Split, FloatArray]) -> Learner:
    """From features that were encoded once for all of the checkpoint's benchmarks."""
    name = context.spec.split
    feature: dict[Split, npt.NDArray[np.float32]] = {}

    def learn(row_D: npt.NDArray[np.int64]) -> Predicted:
        for split in rows.keys() - feature.keys():
            feature[split] = context.data.encoded(rows[split], split, "feature")
        return linear_probe(
            (feature["train"][row_D], target["train"][row_D]),
            (feature["validation"], target["validation"]),
            feature[name],
            feature_name(context.checkpoint.model),
        )

    return learn


def _tuned_learner(context: CellContext, rows: dict[Split, pa.Table], target: dict[Split, FloatArray]) -> Learner:
    """From pixels, which are decoded once for all shares."""
    pixels: dict[Split, StoredPixels] = {}

    def learn(row_D: npt.NDArray[np.int64]) -> Predicted:
        for split in rows.keys() - pixels.keys():
            pixels[split] = stored_pixels(context, rows[split], split)
        return fine_tune(
            FeatureTower(context.checkpoint.model),
            LabelledImages(pixels["train"].subset(row_D), target["train"][row_D]),
            LabelledImages(pixels["validation"], target["validation"]),
            pixels[context.spec.split],
            feature_name(context.checkpoint.model),
            context.cell.seed,
            context.config.fine_tuning,
            context.device,
        )

    return learn


def _calibration_record(finding: str, found: Any) -> dict[str, Any]:
    record: dict[str, Any] = finite(
        {
            "finding": finding,
            "error": found.error.value,
            "low": found.error.low,
            "high": found.error.high,
            "brier": found.brier.value,
            "baseline_brier": found.baseline_brier,
            "bins": [asdict(one) for one in found.bins],
        }
    )
    return record


def _with_run(predictions: pa.Table, method: Method, share: float) -> pa.Table:
    count = predictions.num_rows
    return predictions.append_column("method", pa.array([method] * count, pa.string())).append_column(
        "share", pa.array([share] * count, pa.float64())
    )


def _run_record(method: Method, share: float, predicted: Predicted, drawn: tuple[str, ...]) -> dict[str, Any]:
    """What an average over seeds needs to know, and whose labels were used."""
    return {
        "method": method,
        "share": share,
        "protocol": predicted.protocol,
        "undefined": list(predicted.undefined),
        "sample_ids": list(drawn) if share < 1 else "all",
    }


def _examples(split: EncodedSplit, rank_n: FloatArray) -> list[dict[str, Any]]:
    """Some images, evenly spaced over the ranks of their own reports, and the three reports nearest to each."""
    order = np.argsort(rank_n, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, EXAMPLES).astype(int))]
    first = list({report: row for row, report in reversed(list(enumerate(split.report)))}.values())
    candidate = np.sort(np.array(first))
    image = unit_vectors("image", split.image_BD[chosen])
    similarity = image @ unit_vectors("text", split.text_BD[candidate]).T
    found = []
    for row, near in zip(chosen.tolist(), similarity, strict=True):
        best = np.argsort(-near, kind="stable")[:3]
        retrieved = [
            {
                "sample_id": split.sample_id[int(candidate[place])],
                "report": split.report[int(candidate[place])],
                "similarity": round(float(near[place]), 6),
            }
            for place in best
        ]
        found.append(
            {
                "sample_id": split.sample_id[row],
                "report": split.report[row],
                "rank": float(rank_n[row]),
                "retrieved": retrieved,
            }
        )
    return found
