"""The table of a subset: which pairs were kept, and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from chexray.curation.selection import Band
from chexray.curation.stream import Curated

SUBSET_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("cluster", pa.int32()),
        pa.field("distance", pa.float32()),
        pa.field("band", pa.string()),
        pa.field("kept", pa.bool_(), nullable=False),
    ]
)
"""One row a pair of the train split, in the corpus's order. A selector without clusters leaves them null."""


def subset_table(
    pairs: pa.Table, kept: np.ndarray[Any, np.dtype[np.bool_]] | None = None, curated: Curated | None = None
) -> pa.Table:
    """The subset's rows in the order of `pairs` (columns `sample_id`, `dataset`), from a selector's result."""
    rows: dict[str, Any] = {name: pairs[name] for name in ("sample_id", "dataset")}
    if curated is None:
        empty = {name: pa.nulls(len(pairs), SUBSET_SCHEMA.field(name).type) for name in ("cluster", "distance", "band")}
        return pa.table({**rows, **empty, "kept": kept}, schema=SUBSET_SCHEMA)
    place = {sample: row for row, sample in enumerate(curated.sample_id)}
    order = np.array([place[sample] for sample in pairs["sample_id"].to_pylist()])
    selection = curated.selection
    names = np.array([band.name.lower() for band in Band])
    values = {
        "cluster": selection.cluster_B.numpy()[order].astype(np.int32),
        "distance": selection.distance_B.numpy()[order],
        "band": names[selection.band_B.numpy()[order]],
        "kept": selection.keep_B.numpy()[order],
    }
    return pa.table({**rows, **values}, schema=SUBSET_SCHEMA)
