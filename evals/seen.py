"""What a checkpoint's training has seen of a benchmark: its images, by their ids, and its patients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from chexray.evals.benchmark_data import BenchmarkData
from chexray.platform import storage
from chexray.platform.artifacts import MANIFEST, read_manifest
from chexray.platform.corpus.adapters import ADAPTERS, adapter_class
from chexray.platform.corpus.salt import salt_of
from chexray.platform.corpus.shards import read_columns
from chexray.platform.corpus.uids import read_uids, sample_uids
from chexray.platform.model.checkpoint import TRAINED_ON_FILE, share_trained_on


@dataclass(frozen=True)
class TrainedOn:
    """The patients of the pairs that a checkpoint was trained on, and the name of the salt of their ids."""

    patients: frozenset[str]
    salt: str | None


def seen_in_training(checkpoint: str, data: BenchmarkData) -> dict[str, Any]:
    """`seen_in_training` and `seen_patients`: shares of the scored split, in [0, 1]; None where it cannot be told.

    Images by the checkpoint's list of ids. Patients by the corpus that it was trained on, where that is still there.
    Ids that were salted otherwise never match: of those nothing is said (patients', and the images' of data that is
    not public; see CHEXRAY_SALT).
    """
    rows = data.rows(data.spec.split)
    trained = trained_on(checkpoint)
    salts = {salt_of(uri) for uri in data.corpora.values()}
    one_salt = trained is not None and trained.salt is not None and salts == {trained.salt}
    images = None
    if one_salt or all(_is_public(uri) for uri in data.corpora.values()):
        images = share_trained_on(checkpoint, rows["sample_id"].to_pylist())
    patients = set(rows["patient_id"].to_pylist())
    share = len(patients & trained.patients) / len(patients) if one_salt and trained else None
    return {"seen_in_training": images, "seen_patients": share}


def trained_on(checkpoint: str) -> TrainedOn | None:
    """None where it cannot be told: the corpus is gone, or another one lies in its place."""
    if not storage.exists(storage.join(checkpoint, TRAINED_ON_FILE)):
        return None
    if not storage.exists(storage.join(checkpoint, MANIFEST)):
        return None
    manifest = read_manifest(checkpoint)
    corpus = manifest.inputs.get("corpus")
    if corpus is None or not storage.exists(storage.join(corpus, MANIFEST)):
        return None
    if read_manifest(corpus).fingerprint != manifest.input_fingerprints["corpus"]:
        return None
    return _trained_on(checkpoint, manifest.fingerprint, corpus)


@lru_cache(maxsize=8)
def _trained_on(checkpoint: str, fingerprint: str, corpus: str) -> TrainedOn | None:
    table: pa.Table = read_columns(corpus, ["sample_id", "patient_id"], "train")
    uids = read_uids(storage.join(checkpoint, TRAINED_ON_FILE))
    trained_n = np.isin(sample_uids(table["sample_id"].to_pylist()), uids)
    if int(trained_n.sum()) != len(uids):
        return None
    return TrainedOn(frozenset(table.filter(pa.array(trained_n))["patient_id"].to_pylist()), salt_of(corpus))


def _is_public(corpus: str) -> bool:
    """Whether the pairs' ids are those of the dataset, and not salted."""
    adapter = read_manifest(corpus, "corpus").config.get("adapter")
    return adapter in ADAPTERS and bool(adapter_class(str(adapter)).card.public)
