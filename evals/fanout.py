"""Encoding a split on Ray, once for all benchmarks that use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chexray.evals.benchmarks import EncodedSplit
from chexray.platform.config import EvaluateConfig, Runtime
from chexray.platform.corpus.order import epoch_windows
from chexray.platform.corpus.schema import NO_FINDING
from chexray.platform.corpus.shards import read_columns, require_shards
from chexray.platform.streaming import encoded_pairs


def encode_split(
    checkpoint: str, corpus: str, image_size: int, config: EvaluateConfig, runtime: Runtime, reporter: Any
) -> EncodedSplit:
    """Embed every image and report of `config.split` with the checkpoint, and join what the corpus knows of them."""
    windows = epoch_windows(require_shards(corpus, config.split), 0, None, shuffle_shards=1)
    blocks: list[dict[str, Any]] = []
    done = 0
    dataset = encoded_pairs(checkpoint, corpus, windows, image_size, config.batch, runtime)
    for block in dataset.iter_batches(batch_size=None):
        blocks.append(block)
        done += len(block["sample_id"])
        reporter.update(done)
    known = read_columns(corpus, ["sample_id", "patient_id", "report", "labels"], config.split)
    sample_id = np.concatenate([block["sample_id"] for block in blocks]).tolist()
    if sample_id != known["sample_id"].to_pylist():
        raise RuntimeError("the encoded pairs do not come in the corpus's order")
    all_labels = [dict(labels or []) for labels in read_columns(corpus, ["labels"])["labels"].to_pylist()]
    findings = sorted({name for labels in all_labels for name in labels}, key=lambda name: (name == NO_FINDING, name))
    return EncodedSplit(
        sample_id=sample_id,
        patient_id=known["patient_id"].to_pylist(),
        report=known["report"].to_pylist(),
        image_BD=np.concatenate([block["image"] for block in blocks]),
        text_BD=np.concatenate([block["text"] for block in blocks]),
        findings=findings,
        target_BF=_targets([dict(labels or []) for labels in known["labels"].to_pylist()], findings),
        prevalence_F=_prevalence(_targets(all_labels, findings)),
    )


def _targets(labels: Sequence[dict[str, int | None]], findings: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[B, F] float64: 1, 0, or NaN where the label is unknown or not one of the pair's dataset."""
    rows = [[np.nan if row.get(finding) is None else row[finding] for finding in findings] for row in labels]
    return np.array(rows, dtype=np.float64).reshape(len(labels), len(findings))


def _prevalence(target_BF: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    known_F = (~np.isnan(target_BF)).sum(axis=0)
    return np.where(known_F > 0, np.nansum(target_BF, axis=0) / np.maximum(known_F, 1), np.nan)
