"""Audit of a subset: which findings, datasets, views, people and bands it keeps, how well it covers its corpus, how
many copies it keeps, and whether another seed would have kept the same.

Shapes: N pairs of the corpus, E feature width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from chexray.curation.coverage import (
    MAX_PRODUCTS,
    coverage,
    coverage_of_random,
    near_features,
    near_images,
    random_keep_like,
    same_pixels,
)
from chexray.curation.enrichment import INTERVAL_METHOD, Enrichment, enrichment, ratio
from chexray.curation.selection import Band
from chexray.curation.stability import Keep, pairwise_jaccard
from chexray.platform.corpus.duplicates import NEAR_DUPLICATE_BITS

AUDIT_COLUMNS = ("sample_id", "dataset", "view", "sex", "split", "labels", "band", "cluster", "kept")
"""`labels`: map or dict of finding to 1, 0 or null (unknown). `band`: a `Band` or its lower-case name; null,
like `cluster`, where the selector has none. `kept`: bool. Other nulls are counted as "unknown"."""

OPTIONAL_COLUMNS = ("age_years", "pixel_hash", "perceptual_hash")
"""As in `chexray.platform.corpus.schema.CORPUS_SCHEMA`. An unknown age is null or NaN."""

UNKNOWN = "unknown"

_LABELS = pa.map_(pa.string(), pa.int8())
_AUDIT_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string()),
        pa.field("dataset", pa.string()),
        pa.field("view", pa.string()),
        pa.field("sex", pa.string()),
        pa.field("split", pa.string()),
        pa.field("labels", _LABELS),
        pa.field("band", pa.string()),
        pa.field("cluster", pa.int64()),
        pa.field("kept", pa.bool_()),
        pa.field("age_years", pa.float32()),
        pa.field("pixel_hash", pa.string()),
        pa.field("perceptual_hash", pa.binary(32)),
    ]
)
_LABEL_LIST = pa.list_(pa.struct([pa.field("key", pa.string()), pa.field("value", pa.int8())]))
_FINDING_GROUPS = ("dataset", "view", "sex", "age")
_OLDEST_DECADE = 9


def audit_subset(
    corpus: pa.Table | Mapping[str, Any],
    confidence: float = 0.95,
    *,
    feature_NE: torch.Tensor | None = None,
    other_keeps: Sequence[Keep] = (),
    seed: int = 0,
    max_products: int = MAX_PRODUCTS,
) -> dict[str, Any]:
    """What a selection did to its corpus, as a JSON-serialisable dict.

    `corpus` has one row a pair, kept or not, with `AUDIT_COLUMNS` and any of `OPTIONAL_COLUMNS`; others are ignored.
    `feature_NE`: each row's pair feature (see `chexray.curation.coverage`). `other_keeps`: what other seeds kept, bool
    [N] each. `seed` draws the random subset to compare with, and samples where there are more than `max_products`
    products of features. Always there:

    - `pairs`, `kept`, `kept_fraction`, `interval` (its `method` and `confidence`);
    - `findings`: a list of `Enrichment`, rarest first; `findings_by`: the same within each known `dataset`, `view`,
      `sex` and `age`, of findings with a positive there;
    - `kept_by`: `pairs`, `kept` and `fraction` for each value of `dataset`, `view`, `sex`, `split`; `clusters`: alike;
    - `bands`: alike, and each finding's `known`, `positives` and `prevalence` there.

    Only with what it needs:

    - `kept_by.age` and `findings_by.age`, with `age_years`: '0-9' to '80-89', '90+';
    - `coverage`, with features and a kept pair: a `Coverage` each of the `subset` and of a `random` one;
    - `duplicates`, with a hash or features: of `same_pixels` (`pixel_hash`), `near_images` (`perceptual_hash`; a
      `Copies` each, and `bits`) and `near_features` (features; a `NearFeatures` of the `subset` and the `random` one);
    - `stability`, with other keeps: `subsets`, `jaccard` (a matrix, this subset first), `mean`, `expected_random`.

    Raises ValueError for missing columns, repeated sample ids, nulls in `kept`, and rows that do not match.
    """
    table = _audit_table(corpus)
    keep_N = np.asarray(table["kept"].to_numpy(), dtype=bool)
    kept_by = ("dataset", "view", "sex", "split", *(["age"] if "age" in table.column_names else []))
    report: dict[str, Any] = {
        "pairs": table.num_rows,
        "kept": int(keep_N.sum()),
        "kept_fraction": ratio(int(keep_N.sum()), table.num_rows),
        "interval": {"method": INTERVAL_METHOD, "confidence": confidence},
        "findings": [asdict(one) for one in audit_findings(table, confidence)],
        "findings_by": {name: _findings_by(table, name, confidence) for name in kept_by if name in _FINDING_GROUPS},
        "kept_by": {name: _kept_by(table, name) for name in kept_by},
        "bands": _bands(table),
        "clusters": _kept_by(table, "cluster"),
    }
    if feature_NE is not None and keep_N.any():
        report["coverage"] = _coverage(feature_NE, keep_N, seed, max_products)
    if duplicates := _duplicates(table, keep_N, feature_NE, seed, max_products):
        report["duplicates"] = duplicates
    if other_keeps:
        report["stability"] = _stability(keep_N, other_keeps)
    return report


def audit_findings(table: pa.Table, confidence: float = 0.95) -> list[Enrichment]:
    """One `Enrichment` a finding, rarest first, from the columns `labels` (map to int8) and `kept`."""
    found = [enrichment(**counts, confidence=confidence) for counts in _label_counts(table)]
    return sorted(found, key=lambda one: (one.prevalence_corpus or 0.0, one.finding))


def age_groups(age_years_N: npt.NDArray[np.floating]) -> list[str]:
    """Decades: '0-9' to '80-89', '90+' (some datasets give no age above 89); 'unknown' for NaN.

    Raises ValueError for a negative or infinite age.
    """
    known_N = ~np.isnan(age_years_N)
    if not ((age_years_N[known_N] >= 0) & np.isfinite(age_years_N[known_N])).all():
        raise ValueError(f"age_years has values from {np.nanmin(age_years_N)} to {np.nanmax(age_years_N)}: 0 or more")
    decade_N = np.where(known_N, age_years_N, -1) // 10
    names = [f"{10 * decade}-{10 * decade + 9}" for decade in range(_OLDEST_DECADE)]
    names += [f"{10 * _OLDEST_DECADE}+", UNKNOWN]
    return [names[-1 if decade < 0 else min(int(decade), _OLDEST_DECADE)] for decade in decade_N]


def _label_counts(table: pa.Table) -> list[dict[str, Any]]:
    """Counts of each finding: known, known and kept, positives, positives kept."""
    pairs: Any = table["labels"].cast(_LABEL_LIST)
    entry = pc.list_flatten(pairs)
    positive = pc.struct_field(entry, "value")
    if not set(pc.unique(positive).to_pylist()) <= {0, 1, None}:
        raise ValueError(f"labels={pc.unique(positive).to_pylist()} must be 1, 0 or null")
    kept_too = pc.take(table["kept"], pc.list_parent_indices(pairs)).cast(pa.int8())
    flat = pa.table(
        {
            "finding": pc.struct_field(entry, "key"),
            "positive": positive,
            "known_kept": pc.if_else(pc.is_valid(positive), kept_too, pa.scalar(None, pa.int8())),
            "positive_kept": pc.multiply(positive, kept_too),
        }
    )
    counts = flat.group_by("finding").aggregate(
        [("positive", "count"), ("known_kept", "sum"), ("positive", "sum"), ("positive_kept", "sum")]
    )
    return [
        {
            "finding": row["finding"],
            "known": row["positive_count"],
            "known_kept": row["known_kept_sum"] or 0,
            "positives": row["positive_sum"] or 0,
            "positives_kept": row["positive_kept_sum"] or 0,
        }
        for row in counts.to_pylist()
    ]


def _findings_by(table: pa.Table, name: str, confidence: float) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for value, part in _parts(table, name):
        if value != UNKNOWN:
            findings = audit_findings(part, confidence)
            found[value] = [asdict(one) for one in findings if one.positives]
    return found


def _bands(table: pa.Table) -> dict[str, dict[str, Any]]:
    findings = {}
    for band, part in _parts(table, "band"):
        findings[band] = {
            counts["finding"]: {
                "known": counts["known"],
                "positives": counts["positives"],
                "prevalence": ratio(counts["positives"], counts["known"]),
            }
            for counts in sorted(_label_counts(part), key=lambda counts: str(counts["finding"]))
        }
    return {band: {**kept, "findings": findings[band]} for band, kept in _kept_by(table, "band").items()}


def _parts(table: pa.Table, name: str) -> list[tuple[str, pa.Table]]:
    """The rows of each value of a column, in the order of values; nulls are "unknown"."""
    value_N: Any = pc.fill_null(table[name], UNKNOWN)
    return [(value, table.filter(pc.equal(value_N, value))) for value in sorted(pc.unique(value_N).to_pylist())]


def _coverage(
    feature_NE: torch.Tensor, keep_N: npt.NDArray[np.bool_], seed: int, max_products: int
) -> dict[str, dict[str, Any]]:
    keep = torch.from_numpy(keep_N)
    return {
        "subset": asdict(coverage(feature_NE, keep, seed, max_products=max_products)),
        "random": asdict(coverage_of_random(feature_NE, keep, seed, max_products=max_products)),
    }


def _duplicates(
    table: pa.Table,
    keep_N: npt.NDArray[np.bool_],
    feature_NE: torch.Tensor | None,
    seed: int,
    max_products: int,
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "pixel_hash" in table.column_names:
        found["same_pixels"] = asdict(same_pixels(table["pixel_hash"], keep_N))
    if "perceptual_hash" in table.column_names:
        found["near_images"] = asdict(near_images(table["perceptual_hash"], keep_N)) | {"bits": NEAR_DUPLICATE_BITS}
    if feature_NE is not None:
        keep = torch.from_numpy(keep_N)
        found["near_features"] = {
            name: asdict(near_features(feature_NE, one, seed=seed, max_products=max_products))
            for name, one in (("subset", keep), ("random", random_keep_like(keep, seed)))
        }
    return found


def _stability(keep_N: Keep, other_keeps: Sequence[Keep]) -> dict[str, Any]:
    found = pairwise_jaccard([keep_N, *other_keeps])
    return {
        "subsets": len(found.jaccard_SS),
        "jaccard": found.jaccard_SS.tolist(),
        "mean": found.mean,
        "expected_random": found.expected_random,
    }


def _audit_table(corpus: pa.Table | Mapping[str, Any]) -> pa.Table:
    """The columns that the audit knows, checked, in the types of `_AUDIT_SCHEMA`; `age_years` as groups, `age`."""
    present = corpus.column_names if isinstance(corpus, pa.Table) else list(corpus)
    missing = [name for name in AUDIT_COLUMNS if name not in present]
    if missing:
        raise ValueError(f"corpus lacks the columns {missing}; it must have {list(AUDIT_COLUMNS)}")
    names = [*AUDIT_COLUMNS, *(name for name in OPTIONAL_COLUMNS if name in present)]
    columns = {name: _column(name, corpus[name]) for name in names}
    table = pa.table(columns, schema=pa.schema([_AUDIT_SCHEMA.field(name) for name in names]))
    if table["kept"].null_count:
        raise ValueError(f"kept is null for {table['kept'].null_count} pairs; it must be true or false")
    repeated = table.num_rows - pc.count_distinct(table["sample_id"], mode="all").as_py()
    if repeated:
        raise ValueError(f"sample_id repeats for {repeated} of {table.num_rows} rows; each must come once")
    if "age_years" in names:
        age_years_N = table["age_years"].to_numpy().astype(np.float64)
        table = table.drop_columns(["age_years"]).append_column("age", pa.array(age_groups(age_years_N), pa.string()))
    return table


def _column(name: str, values: Any) -> Any:
    """One Arrow column. Labels may be dicts that hold booleans; bands may be numbers or names."""
    if name == "labels" and not isinstance(values, pa.Array | pa.ChunkedArray):
        values = pa.array([one and {key: _as_label(one[key]) for key in one} for one in values], _LABELS)
    column = pa.table({name: values})[name]
    if name == "band" and pa.types.is_integer(column.type):
        numbers: list[Any] = column.to_pylist()
        names = [None if number is None else Band(number).name.lower() for number in numbers]
        return pa.array(names, pa.string())
    return column.cast(_AUDIT_SCHEMA.field(name).type)


def _as_label(value: bool | int | None) -> int | None:
    return None if value is None else int(value)


def _kept_by(table: pa.Table, name: str) -> dict[str, dict[str, int | float | None]]:
    """Pairs, kept pairs and their ratio for each value of a column, in the order of values."""
    text: Any = table[name].cast(pa.string())
    values = pc.fill_null(text, UNKNOWN)
    order = table[name] if name == "cluster" else values
    named = pa.table({"value": values, "order": order, "kept": table["kept"]})
    counts = named.group_by(["order", "value"]).aggregate([("kept", "count"), ("kept", "sum")])
    return {
        row["value"]: {
            "pairs": row["kept_count"],
            "kept": row["kept_sum"],
            "fraction": ratio(row["kept_sum"], row["kept_count"]),
        }
        for row in counts.sort_by("order").to_pylist()
    }
