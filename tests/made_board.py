"""Made-up scores of every task, for tests of the pages and to look at: `python tests/made_board.py OUT`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from corpora import blobs, encoded
from score_folders import cell, drawn_predictions, ids, png, score_row, write_scores
from sklearn.metrics import roc_auc_score

FINDINGS = ["Cardiomegaly", "Pleural Effusion", "Pneumothorax"]
REPORTS = [
    "The heart is of normal size. The lungs are clear. No pleural effusion or pneumothorax is seen.",
    "Moderate cardiomegaly. Small left pleural effusion with adjacent atelectasis. No pneumothorax.",
    "Large right pneumothorax. The mediastinum is shifted to the left. Urgent drainage is advised.",
]
ROUGE = "rouge_l (rouge_score 0.1.2: mean F1, Porter stemmer)"
SAMPLES = 12


def made_corpus(folder: Path, text: str = "") -> str:
    """Shards with no more columns than pages read: blobs, reports, and a mask of the lungs as two ellipses."""
    rows = []
    for number, sample in enumerate(ids(SAMPLES)["sample_id"]):
        mask = lungs(number, 0)
        masks = [("lungs", encoded(mask)), (text or "heart", encoded(np.zeros_like(mask)))]
        rows.append({"sample_id": sample, "image": encoded(blobs(number, 160, 160)), "masks": masks})
    kind = pa.schema([("sample_id", pa.string()), ("image", pa.binary()), ("masks", pa.map_(pa.string(), pa.binary()))])
    write_scores(folder, [], [], {"shards/test-00000.parquet": pa.Table.from_pylist(rows, kind)})
    return str(folder)


def lungs(number: int, error: int, size: int = 160) -> np.ndarray:
    """mask_HW of 0 and 255."""
    y, x = np.mgrid[:size, :size]
    left = ((x - 50 - error) / 26) ** 2 + ((y - 82) / (50 + number)) ** 2 < 1
    right = ((x - 112) / 26) ** 2 + ((y - 82 + error) / (50 + number)) ** 2 < 1
    return np.where(left | right, 255, 0).astype(np.uint8)


def made_board(
    folder: Path,
    checkpoints: Sequence[str] = ("full data", "curated 22.7 %"),
    text: str = "",
    corpus: str | None = None,
) -> str:
    """`text`: put wherever other people's text goes."""
    corpora = {"made": made_corpus(folder.parent / "corpus", text) if corpus is None else corpus}
    rows: list[dict[str, Any]] = []
    cells: list[dict[str, Any]] = []
    files: dict[str, Any] = {}
    for place, name in enumerate(checkpoints):
        for benchmark in (_zero_shot, _disease, _retrieval, _segmentation, _reports):
            some_rows, some_cells, some_files = benchmark(name, place, text, corpora)
            folders = {f"{one['path']}": f"cells/{place}-{one['benchmark']}-{one['seed']}" for one in some_cells}
            rows += some_rows
            cells += [one | {"path": folders[one["path"]]} for one in some_cells]
            files |= {f"{folders[path]}/{file}": content for (path, file), content in some_files.items()}
    cells.append(cell(checkpoints[-1], "xl", state="failed", reason=text or "CUDA out of memory on 2 of 2 tries"))
    rows.append(score_row(checkpoints[0], "xl", 0.71, title=f"External hospital {text}".strip(), twin=True))
    cells.append(cell(checkpoints[0], "xl", path=None))
    return write_scores(folder, rows, cells, files, finished=False)


def _zero_shot(name: str, place: int, text: str, corpora: dict[str, str]) -> Any:
    findings = [*FINDINGS[:2], text or FINDINGS[2]]
    table, score_BF, target_BF = drawn_predictions(1.2 + 0.7 * place, findings, 300, noise=place + 1)
    aurocs = [float(roc_auc_score(target_BF[:, f], score_BF[:, f])) for f in range(3)]
    common = {"n": 300, "patients": 300, "title": f"NIH chest X-rays, official test split {text}".strip()}
    seen = {"seen_in_training": 0.031 * place, "seen_patients": 0.042 * place}
    variant = "prompts=presence; 3 findings with >= 5 positives"
    rows = [score_row(name, "nih", float(np.mean(aurocs)), variant=variant, **common, **seen)]
    rows += [
        score_row(name, "nih", value, metric="auroc", finding=finding, headline=False, variant=text, **common, **seen)
        for finding, value in zip(findings, aurocs, strict=True)
    ]
    groups = [
        {"name": text or "F", "n": 150, "patients": 150, "value": 0.81, "low": 0.75, "high": 0.87, "left_out": None},
        {"name": "M", "n": 140, "patients": 140, "value": 0.74, "low": 0.68, "high": 0.81, "left_out": None},
        {"name": "X", "n": 10, "patients": 10, "value": None, "low": None, "high": None, "left_out": text or "few"},
    ]
    gap = {"best": text or "F", "worst": "M", "value": 0.07, "low": -0.01, "high": 0.15}
    bins = [{"low": x, "high": x + 0.2, "predicted": x + 0.1, "observed": x, "n": 60} for x in (0.1, 0.3, 0.5, 0.7)]
    record = {"error": 0.1, "low": 0.08, "high": 0.13, "brier": 0.2, "baseline_brier": 0.24, "bins": bins}
    one = cell(
        name,
        "nih",
        subgroups=[{"attribute": text or "sex", "metric": "mean_auroc", "gap": gap, "groups": groups}],
        calibration=[{"finding": finding, **record} for finding in findings],
    )
    return rows, [one], {(one["path"], "predictions.parquet"): table}


def _disease(name: str, place: int, text: str, corpora: dict[str, str]) -> Any:
    cells, files, means = [], {}, []
    for seed in (42, 0):
        table, score_BF, target_BF = drawn_predictions(
            1.5, FINDINGS, 200, noise=10 * place + seed, method="linear_probe", share=1.0
        )
        means += [float(roc_auc_score(target_BF[:, f], score_BF[:, f])) for f in range(3)]
        one = cell(name, "disease", seed=seed, path=f"{name}-{seed}")
        cells.append(one)
        files[one["path"], "predictions.parquet"] = table
    variant = "features; labels=1 of train; mean of label seeds 42,0; 3 findings with >= 5 positives"
    row = score_row(
        name,
        "disease",
        float(np.mean(means)),
        task="disease_prediction",
        method="linear_probe",
        variant=variant,
        title="SIIM-ACR pneumothorax",
        seen_in_training=None,
        seen_patients=None,
        n=200,
    )
    return [row], cells, files


def _retrieval(name: str, place: int, text: str, corpora: dict[str, str]) -> Any:
    rank_B = np.arange(SAMPLES, dtype=float) + 2 - place
    rank_B[:4] = 1
    retrieved = [
        {"sample_id": ids(3)["sample_id"][n], "report": f"{REPORTS[n]} {text}", "similarity": 0.6 - 0.1 * n}
        for n in range(3)
    ]
    examples = [
        {"sample_id": one, "report": f"{REPORTS[n % 3]} {text}", "rank": rank_B[n], "retrieved": retrieved}
        for n, one in enumerate(ids(3)["sample_id"])
    ]
    one = cell(name, "ret", corpora=corpora)
    row = score_row(
        name,
        "ret",
        float((rank_B <= 5).mean()),
        task="retrieval",
        metric="image_to_text_recall@5",
        variant=text,
        title="Open-i reports",
        n=SAMPLES,
    )
    table = pa.table(ids(SAMPLES) | {"image_to_text_rank": rank_B, "text_to_image_rank": rank_B})
    return [row], [one], {(one["path"], "ranks.parquet"): table, (one["path"], "examples.json"): examples}


def _segmentation(name: str, place: int, text: str, corpora: dict[str, str]) -> Any:
    rows = []
    for number, sample in enumerate(ids(SAMPLES)["sample_id"]):
        truth, predicted = lungs(number, 0) > 0, lungs(number, (number + 2) // (place + 1)) > 0
        dice = 2 * (truth & predicted).sum() / (truth.sum() + predicted.sum())
        of = {"sample_id": sample, "patient_id": f"p{sample}", "iou": float(dice / (2 - dice))}
        rows.append(of | {"class": "lungs", "dice": float(dice), "mask": png(255 * predicted)})
        rows.append(of | {"class": text or "heart", "dice": None, "iou": None, "mask": png(0 * predicted)})
    one = cell(name, "seg", corpora=corpora)
    dice = float(np.mean([row["dice"] for row in rows if row["dice"] is not None]))
    changes = {
        "task": "segmentation",
        "metric": "mean_dice",
        "variant": text,
        "title": "Montgomery lungs",
        "n": SAMPLES,
    }
    return (
        [score_row(name, "seg", dice, **changes)],
        [one],
        {(one["path"], "masks.parquet"): pa.Table.from_pylist(rows)},
    )


def _reports(name: str, place: int, text: str, corpora: dict[str, str]) -> Any:
    generated = [f"{REPORTS[(n + place) % 3]} {text}" for n in range(SAMPLES)]
    value_B = np.linspace(0.1, 0.5 + 0.1 * place, SAMPLES)
    table = pa.table(
        ids(SAMPLES)
        | {"generated": generated, "reference": [f"{REPORTS[n % 3]} {text}" for n in range(SAMPLES)], ROUGE: value_B}
    )
    reason = text or "the package radeval is not installed; pip install chexray[radeval]"
    missing = [{"metric": "radgraph_f1", "variant": "greedy; partial", "reason": reason}]
    one = cell(name, "rep", corpora=corpora, not_run=missing)
    row = score_row(
        name,
        "rep",
        float(value_B.mean()),
        task="report_generation",
        metric="rouge_l",
        variant="greedy; rouge_score 0.1.2: mean F1, Porter stemmer",
        title="MIMIC-CXR findings section",
        n=SAMPLES,
    )
    return [row], [one], {(one["path"], "reports-greedy.parquet"): table}


if __name__ == "__main__":
    sys.stdout.write(made_board(Path(sys.argv[1]) / "scores") + "\n")
