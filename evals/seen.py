"""What a checkpoint's training has seen of a benchmark: its images, by their ids, and its patients."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from chexray.evals.benchmark_data import BenchmarkData
from chexray.platform import storage
from chexray.platform.artifacts import MANIFEST, read_manifest
from chexray.platform.corpus.shards import read_columns
from chexray.platform.corpus.uids import read_uids, sample_uids
from chexray.platform.model.checkpoint import TRAINED_ON_FILE, share_trained_on


def seen_in_training(checkpoint: str, data: BenchmarkData) -> dict[str, Any]:
    """`seen_in_training` and `seen_patients`: shares of the scored split, in [0, 1]; None where it cannot be told.

    Images by the checkpoint's list of ids. Patients by the corpus that it was trained on, where that is still there: a
    corpus of private data has salted patients, who are never found in another corpus.
    """
    rows = data.rows(data.spec.split)
    patients = set(rows["patient_id"].to_pylist())
    trained = patients_trained_on(checkpoint)
    share = None if trained is None else len(patients & trained) / len(patients)
    return {
        "seen_in_training": share_trained_on(checkpoint, rows["sample_id"].to_pylist()),
        "seen_patients": share,
    }


@cache
def patients_trained_on(checkpoint: str) -> frozenset[str] | None:
    """The patients of the pairs that a checkpoint was trained on; None where that cannot be told any more."""
    file = storage.join(checkpoint, TRAINED_ON_FILE)
    if not storage.exists(file) or not storage.exists(storage.join(checkpoint, MANIFEST)):
        return None
    corpus = read_manifest(checkpoint).inputs.get("corpus")
    if corpus is None or not storage.exists(storage.join(corpus, MANIFEST)):
        return None
    table: pa.Table = read_columns(corpus, ["sample_id", "patient_id"], "train")
    trained_n = np.isin(sample_uids(table["sample_id"].to_pylist()), read_uids(file))
    return frozenset(table.filter(pa.array(trained_n))["patient_id"].to_pylist())
