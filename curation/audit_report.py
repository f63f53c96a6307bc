"""The audit of a subset, written beside it: `audit.json`, the page `audit.html`, and with features `map.json`.

N: pairs of the train split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chexray.curation.audit import audit_subset
from chexray.curation.audit_page import Example, audit_page
from chexray.curation.feature_map import FeatureMap, feature_map
from chexray.curation.features import open_features
from chexray.platform import storage
from chexray.platform.corpus import raster
from chexray.platform.corpus.shards import read_table

_THUMBNAIL_PIXELS = 192
_SHARDS_FOR_EXAMPLES = 4
"""Shards are random samples: a few hold pairs of every band."""


@dataclass(frozen=True, eq=False)
class Audited:
    """A subset and what it was chosen from. `pairs` and `table` have the same rows; `others`: kept by other seeds."""

    uri: str
    corpus: str
    shards: tuple[str, ...]
    pairs: pa.Table
    table: pa.Table
    features: str | None
    others: Sequence[frozenset[str]]


def write_audit(audited: Audited, examples: int, seed: int) -> None:
    """Measure, and write the files. `examples`: pairs of each band, kept and not, that the page shows."""
    rows = audited.pairs
    for name in ("band", "cluster", "kept"):
        rows = rows.append_column(name, audited.table[name])
    if audited.features is None:
        audit, plane = audit_subset(rows, seed=seed), None
    else:
        audit, plane = _with_features(rows, audited, seed)
    storage.write_json(storage.join(audited.uri, "audit.json"), audit)
    if plane is not None:
        storage.write_json(storage.join(audited.uri, "map.json"), map_columns(plane))
    name = audited.uri.rsplit("/", 1)[-1]
    page = audit_page(name, audit, plane, _examples(audited, examples) if examples else ())
    storage.write_bytes(storage.join(audited.uri, "audit.html"), page.encode())


def map_columns(plane: FeatureMap) -> dict[str, Any]:
    """The map for other pages, which show no more of a pair than its band. Four digits place a point."""
    x, y = ([float(f"{one:.4g}") for one in plane.xy_M2[:, axis]] for axis in (0, 1))
    columns = {"x": x, "y": y, "band": list(plane.band), "kept": list(plane.kept)}
    return {**columns, "explained": list(plane.explained), "pairs": plane.pairs}


def _with_features(rows: pa.Table, audited: Audited, seed: int) -> tuple[dict[str, Any], FeatureMap]:
    """The audit in the order of the features, which are the larger."""
    assert audited.features is not None
    with open_features(audited.features) as found:
        order = pc.index_in(pa.array(found.sample_id), value_set=rows["sample_id"].combine_chunks())
        rows = rows.take(order)
        others = [np.array([sample in kept for sample in found.sample_id]) for kept in audited.others]
        audit = audit_subset(rows, feature_NE=found.feature_NE, other_keeps=others, seed=seed)
        return audit, feature_map(found.feature_NE, rows, seed)


def _examples(audited: Audited, wanted: int) -> list[Example]:
    """The first pairs of each band, kept and not, in the corpus's random order."""
    taken: dict[tuple[str | None, bool], int] = {}
    band_of = dict(zip(audited.table["sample_id"].to_pylist(), audited.table["band"].to_pylist(), strict=True))
    kept_of = dict(zip(audited.table["sample_id"].to_pylist(), audited.table["kept"].to_pylist(), strict=True))
    chosen: list[Example] = []
    for shard in audited.shards[:_SHARDS_FOR_EXAMPLES]:
        ids = read_table(storage.join(audited.corpus, shard), ["sample_id"])["sample_id"].to_pylist()
        rows = []
        for row, sample in enumerate(ids):
            group = (band_of[sample], kept_of[sample])
            if taken.get(group, 0) < wanted:
                taken[group] = taken.get(group, 0) + 1
                rows.append(row)
        if rows:
            columns = ["sample_id", "image", "report", "labels"]
            table = read_table(storage.join(audited.corpus, shard), columns).take(pa.array(rows))
            chosen += [_example(one, band_of, kept_of) for one in table.to_pylist()]
    return chosen


def _example(row: dict[str, Any], band_of: dict[str, str | None], kept_of: dict[str, bool]) -> Example:
    sample = row["sample_id"]
    findings = [name for name, value in dict(row["labels"] or []).items() if value == 1]
    small = raster.shrink(raster.decode_raster(row["image"]), _THUMBNAIL_PIXELS)
    image = raster.encode_image(small, "jpeg", quality=85)
    return Example(sample, band_of[sample], kept_of[sample], image, row["report"], findings)
