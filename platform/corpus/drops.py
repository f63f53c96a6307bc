"""The second look at a corpus: pairs that are in it twice, or that an evaluation set holds, are dropped.

What is dropped is written down before any shard is rewritten, and stays beside the corpus; rewriting a shard twice
changes nothing. So an interrupted run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from chexray.platform import storage
from chexray.platform.config import IngestConfig
from chexray.platform.corpus.duplicates import choose_survivors, hash_matrix, near_duplicates
from chexray.platform.corpus.leakage import find_leaks
from chexray.platform.corpus.schema import REJECT_SCHEMA
from chexray.platform.corpus.shards import read_columns, read_table, write_table

DROPS_FILE = "drops.parquet"
LEAKS_FILE = "leaks.parquet"
"""Which pairs an evaluation set holds, and why, whether they are dropped or only reported."""
COLUMNS = (
    "sample_id",
    "dataset",
    "patient_id",
    "split",
    "report_source",
    "pixel_hash",
    "perceptual_hash",
    "source_uri",
)
DROP_SCHEMA = pa.schema([pa.field("sample_id", pa.string(), nullable=False), *REJECT_SCHEMA])
NO_FAULT = frozenset(
    {
        "duplicate image",
        "near-duplicate image",
        "image of an evaluation set",
        "near-duplicate of an evaluation image",
        "patient of an evaluation set",
        "patient in two splits",
        "duplicate source id",
        "duplicate row",
        "not a radiograph",
        "not a chest",
        "not a DICOM file",
        "frontal view",
        "lateral view",
    }
)
"""Reasons that say nothing against the data: copies, leaks, and what is filtered out on purpose. They do not count
towards `ingest.max_reject_rate`."""

Drops = dict[str, tuple[str, str | None]]
"""From sample id to why it is dropped: reason and detail."""


def find_drops(pairs: pa.Table, evaluation: Sequence[pa.Table], config: IngestConfig) -> tuple[Drops, Drops]:
    """What of `pairs` is dropped, and what is a leak (dropped too, unless `ingest.leaks` is 'report').

    Tables have `COLUMNS`. Test pairs are never leaks: they train nothing.
    """
    drops: Drops = {}
    if config.duplicates == "drop":
        for sample, (reason, kept) in choose_survivors(pairs, _near(pairs, config.near_duplicate_bits)).items():
            drops[sample] = (reason, f"of {kept}")
    training = pairs.filter(pc.not_equal(pairs["split"], "test"))
    leaks: Drops = {**find_leaks(training, evaluation, config.near_duplicate_bits)}
    return (drops if config.leaks == "report" else {**drops, **leaks}), leaks


def _near(pairs: pa.Table, max_distance: int) -> list[tuple[int, int, int]]:
    """Near-duplicates as rows of `pairs`, among one of each group of exact copies."""
    rows = np.flatnonzero(is_first(pairs["pixel_hash"])).tolist()
    near = near_duplicates(hash_matrix(pairs["perceptual_hash"].take(pa.array(rows, pa.int64()))), max_distance)
    return [(rows[i], rows[j], distance) for i, j, distance in near]


def is_first(values: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """[N] bool: whether a value is the first of its kind."""
    _, first = np.unique(np.array(values.to_pylist()), return_index=True)
    mask = np.zeros(len(values), np.bool_)
    mask[first] = True
    return mask


def without(pairs: pa.Table, drops: Drops) -> pa.Table:
    """The pairs that are not dropped."""
    return pairs.filter(pc.invert(pc.is_in(pairs["sample_id"], value_set=pa.array(list(drops), pa.string()))))


def drop_table(pairs: pa.Table, drops: Drops) -> pa.Table:
    """The drops with their source, of `DROP_SCHEMA`, sorted by sample id."""
    source = dict(zip(pairs["sample_id"].to_pylist(), pairs["source_uri"].to_pylist(), strict=True))
    rows: list[dict[str, Any]] = [
        {"sample_id": sample, "source_uri": source[sample], "reason": reason, "detail": detail}
        for sample, (reason, detail) in sorted(drops.items())
    ]
    return pa.Table.from_pylist(rows, schema=DROP_SCHEMA)


def decide_drops(corpus: str, evaluation: Sequence[str], config: IngestConfig) -> pa.Table:
    """Write down what of an ingested corpus is dropped, or read what an interrupted run wrote. Of `DROP_SCHEMA`."""
    uri = storage.join(corpus, DROPS_FILE)
    if not storage.exists(uri):
        pairs = read_columns(corpus, COLUMNS)
        drops, leaks = find_drops(pairs, [read_columns(other, COLUMNS) for other in evaluation], config)
        if evaluation:
            write_table(storage.join(corpus, LEAKS_FILE), drop_table(pairs, leaks))
        write_table(uri, drop_table(pairs, drops))
    return read_table(uri)


def drop_from_shard(corpus: str, shard: str, dropped: pa.Table) -> None:
    """Rewrite one shard without the dropped pairs."""
    uri = storage.join(corpus, shard)
    ids = read_table(uri, ["sample_id"])["sample_id"]
    is_dropped = pc.is_in(ids, value_set=dropped["sample_id"].combine_chunks())
    if pc.any(is_dropped).as_py():
        write_table(uri, read_table(uri).filter(pc.invert(is_dropped)))
