"""Folders of scores as an evaluation leaves them, from numbers made here."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

MANIFEST = {
    "kind": "scores",
    "fingerprint": "0" * 16,
    "config": {},
    "inputs": {},
    "input_fingerprints": {},
    "counts": {},
    "cost": {},
    "started": "",
    "finished": "",
    "seconds": 1.0,
    "packages": {},
    "git_commit": None,
}


def score_row(
    checkpoint: str = "a", benchmark: str = "zs", value: float | None = 0.8, **changes: Any
) -> dict[str, Any]:
    """A headline row of mean AUROC, with an interval of 0.05 to either side."""
    row = {
        "checkpoint": checkpoint,
        "benchmark": benchmark,
        "task": "zero_shot",
        "title": f"Title of {benchmark}",
        "version": "1",
        "twin": False,
        "datasets": ["made"],
        "split": "test",
        "metric": "mean_auroc",
        "variant": "prompts=presence; 2 findings with >= 1 positives",
        "finding": None,
        "value": value,
        "low": None if value is None else round(value - 0.05, 6),
        "high": None if value is None else round(value + 0.05, 6),
        "n": 40,
        "patients": 40,
        "positives": None,
        "prevalence": None,
        "headline": True,
        "higher_is_better": True,
        "seen_in_training": 0.0,
        "seen_patients": 0.0,
    }
    return row | changes


def cell(checkpoint: str = "a", benchmark: str = "zs", **changes: Any) -> dict[str, Any]:
    one = {
        "checkpoint": checkpoint,
        "benchmark": benchmark,
        "seed": 0,
        "state": "done",
        "reason": None,
        "seconds": 1.0,
        "path": f"cells/{checkpoint}-{benchmark}",
        "corpora": {},
        "not_run": [],
        "subgroups": [],
        "calibration": [],
    }
    return one | changes


def write_scores(
    folder: Path,
    rows: list[dict[str, Any]],
    cells: list[dict[str, Any]],
    files: dict[str, pa.Table | list[Any]] | None = None,
    finished: bool = True,
) -> str:
    """`files`: Parquet tables, or lists for JSON, by their path below the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(rows))
    (folder / "cells.json").write_text(json.dumps(cells))
    if finished:
        (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    for name, content in (files or {}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        else:
            path.write_text(json.dumps(content))
    return str(folder)


def predictions(probability_BF: Any, target_BF: Any, findings: list[str], first: int = 0, **columns: Any) -> pa.Table:
    """Rows sample by sample; samples are numbered from `first`, each of a patient of its own."""
    target = np.asarray(target_BF, dtype=np.float64)
    probability = np.asarray(probability_BF, dtype=np.float64)
    count = len(findings)
    ids = [f"{number:032x}" for number in range(first, first + len(target)) for _ in range(count)]
    table = {
        "sample_id": ids,
        "patient_id": [f"p{one}" for one in ids],
        "finding": findings * len(target),
        "probability": pa.array(probability.ravel(), pa.float32(), mask=np.isnan(probability.ravel())),
        "target": pa.array(target.ravel(), pa.float64(), mask=np.isnan(target.ravel())).cast(pa.int8()),
    }
    return pa.table(table | {name: [value] * len(ids) for name, value in columns.items()})


def drawn_predictions(
    strength: float, findings: list[str], count: int = 60, seed: int = 0, noise: int = 1, first: int = 0, **columns: Any
) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Table, probabilities and targets of `count` samples; the labels depend on `seed`, the scores on `noise` too."""
    target_BF = (np.random.default_rng(seed).random((count, len(findings))) < 0.4).astype(float)
    logit_BF = strength * (target_BF - 0.5) + np.random.default_rng(noise).normal(size=target_BF.shape)
    probability_BF = (1 / (1 + np.exp(-logit_BF))).astype(np.float32)
    return predictions(probability_BF, target_BF, findings, first, **columns), probability_BF, target_BF


def ids(count: int) -> dict[str, list[str]]:
    names = [f"{number:032x}" for number in range(count)]
    return {"sample_id": names, "patient_id": [f"p{one}" for one in names]}


def png(mask_HW: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(mask_HW.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
