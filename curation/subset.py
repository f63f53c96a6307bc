"""The table of a subset: which pairs were kept, and why; and the algebra and the files of subsets."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from chexray.curation.curator import Curated
from chexray.curation.selection import Band
from chexray.curation.stability import jaccard
from chexray.platform import storage
from chexray.platform.artifacts import read_manifest
from chexray.platform.corpus.shards import read_table, write_table
from chexray.platform.corpus.uids import id_suffix, write_uids
from chexray.platform.errors import UsageError

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

EXPORTED = ("sample_id", "dataset", "band", "cluster", "distance")
"""The columns of an exported table."""

Operation = Literal["intersect", "union", "diff"]


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


def chosen_table(pairs: pa.Table, kept: Collection[str], scored: pa.Table | None = None) -> pa.Table:
    """The rows of a subset that keeps the ids `kept` of `pairs` (columns `sample_id`, `dataset`), in their order.

    Cluster, distance and band are those of `scored`, another subset's table, where it has the pair; else null.
    """
    ids = pairs["sample_id"]
    columns = {name: pairs[name] for name in ("sample_id", "dataset")}
    columns["kept"] = pc.is_in(ids, value_set=pa.array(sorted(kept), pa.string()))
    row = None if scored is None else pc.index_in(ids, value_set=scored["sample_id"].combine_chunks())
    for field in SUBSET_SCHEMA:
        if field.name not in columns:
            values = pa.nulls(len(ids), field.type) if scored is None else scored[field.name].take(row)
            columns[field.name] = values
    return pa.table({field.name: columns[field.name] for field in SUBSET_SCHEMA}, schema=SUBSET_SCHEMA)


def read_subset(uri: str) -> pa.Table:
    """The table of a finished subset. Raises `UsageError` where there is none."""
    read_manifest(uri, "subset")
    return read_table(storage.join(uri, "subset.parquet"))


def kept_ids(table: pa.Table) -> frozenset[str]:
    return frozenset(table.filter(table["kept"])["sample_id"].to_pylist())


def combine_kept(operation: Operation, kept: Sequence[frozenset[str]]) -> frozenset[str]:
    """Ids in all of them, in any of them, or (diff) in the first and in none of the others."""
    first, *others = kept
    if operation == "diff":
        return first.difference(*others)
    return reduce(frozenset.intersection if operation == "intersect" else frozenset.union, others, first)


def compare_kept(kept: Sequence[frozenset[str]]) -> dict[str, Any]:
    """How many ids are in any and in all of the subsets, and of each two of them how much they share.

    `first` and `second` are positions in `kept`. `jaccard` is the share of the ids in both among those in either.
    """
    pairs = []
    for (first, one), (second, other) in combinations(enumerate(kept), 2):
        both = len(one & other)
        pairs.append(
            {
                "first": first,
                "second": second,
                "both": both,
                "only_first": len(one) - both,
                "only_second": len(other) - both,
                "jaccard": jaccard(one, other),
            }
        )
    sizes = {"any": len(combine_kept("union", kept)), "all": len(combine_kept("intersect", kept))}
    return {**sizes, "overlaps": pairs}


def compare_subsets(uris: Sequence[str]) -> dict[str, Any]:
    """`compare_kept` of finished subsets, and of each its size and its corpus's fingerprint.

    They need not be of one corpus: ids survive ingestion.
    """
    tables = [read_subset(uri) for uri in uris]
    kept = [kept_ids(table) for table in tables]
    about = [
        {
            "uri": storage.resolve(uri),
            "corpus": read_manifest(uri).input_fingerprints.get("corpus"),
            "pairs": len(table),
            "kept": len(ids),
        }
        for uri, table, ids in zip(uris, tables, kept, strict=True)
    ]
    return {"subsets": about, **compare_kept(kept)}


def export_subset(subset: str, to: str, overwrite: bool = False) -> int:
    """Write the kept ids of a subset to a file, sorted; its suffix says how. Returns how many there are.

    `.npy`: DataComp's convention. `.txt`: one id a line. `.csv`, `.parquet`: the columns `EXPORTED`.
    """
    suffix = id_suffix(to, "--to")
    if storage.is_dir(to):
        raise UsageError(f"--to {to}: is a folder; name a file in it")
    if storage.exists(to) and not overwrite:
        raise UsageError(f"--to {to}: is there already; name another file, or give --overwrite to replace it")
    table = read_subset(subset)
    table = table.filter(table["kept"]).select(EXPORTED).sort_by("sample_id")
    _EXPORTS[suffix](to, table)
    return len(table)


def _export_npy(to: str, table: pa.Table) -> None:
    write_uids(to, table["sample_id"].to_pylist())


def _export_txt(to: str, table: pa.Table) -> None:
    storage.write_bytes(to, "".join(f"{sample}\n" for sample in table["sample_id"].to_pylist()).encode())


def _export_csv(to: str, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pa.csv.write_csv(table, buffer)
    storage.write_bytes(to, buffer.getvalue())


_EXPORTS: Mapping[str, Callable[[str, pa.Table], None]] = {
    ".npy": _export_npy,
    ".txt": _export_txt,
    ".csv": _export_csv,
    ".parquet": write_table,
}
