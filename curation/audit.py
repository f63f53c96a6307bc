"""Audit of a subset: which findings, datasets, views and bands it keeps, and how sure the enrichment is.

A subset is drawn from its corpus without replacement, so the two share pairs, and intervals for the ratio of
two independent proportions (Katz et al. 1978) do not apply. Given the counts of pairs, of kept pairs and of
positives, the number of positives kept is hypergeometric, with the odds ratio of being kept as its parameter
(Fisher's noncentral hypergeometric distribution). The interval inverts its two exact tails (Cornfield 1956),
and states the limits as enrichment: the mean positives kept at that odds ratio over those of a random draw.
It covers at least 95 %, is never beyond what the counts allow, and holds for findings with no positive kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.optimize import brentq
from scipy.special import gammaln, log_softmax

from chexray.curation.selection import Band

AUDIT_COLUMNS = ("sample_id", "dataset", "view", "sex", "split", "labels", "band", "cluster", "kept")
"""`labels`: map or dict of finding to 1, 0 or null (unknown). `band`: a `Band` or its lower-case name; null,
like `cluster`, where the selector has none. `kept`: bool. Other nulls are counted as "unknown"."""

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
    ]
)
_LABEL_LIST = pa.list_(pa.struct([pa.field("key", pa.string()), pa.field("value", pa.int8())]))
_LOG_ODDS = 60.0
"""Beyond any limit: even one positive of 2**32 pairs, always kept, has log odds below 30."""

INTERVAL_METHOD = "exact conditional (Fisher's noncentral hypergeometric, two tails)"


@dataclass(frozen=True)
class Enrichment:
    """How much more frequent a finding is in the subset than in its corpus, among pairs of known label."""

    finding: str
    known: int
    known_kept: int
    positives: int
    positives_kept: int
    prevalence_corpus: float | None
    prevalence_subset: float | None
    factor: float | None
    """prevalence_subset / prevalence_corpus. None without a positive or without a kept pair."""
    low: float | None
    high: float | None


def audit_subset(corpus: pa.Table | Mapping[str, Any], confidence: float = 0.95) -> dict[str, Any]:
    """What a selection did to its corpus, as a JSON-serialisable dict.

    `corpus` has one row a pair, kept or not, with `AUDIT_COLUMNS`; other columns are ignored. Findings come
    rarest first. Raises ValueError for missing columns, repeated sample ids, or nulls in `kept`.
    """
    table = _audit_table(corpus)
    return {
        "pairs": table.num_rows,
        "kept": _kept_count(table),
        "kept_fraction": _ratio(_kept_count(table), table.num_rows),
        "interval": {"method": INTERVAL_METHOD, "confidence": confidence},
        "findings": [asdict(one) for one in audit_findings(table, confidence)],
        "kept_by": {name: _kept_by(table, name) for name in ("dataset", "view", "sex", "split")},
        "bands": _kept_by(table, "band"),
        "clusters": _kept_by(table, "cluster"),
    }


def audit_findings(table: pa.Table, confidence: float = 0.95) -> list[Enrichment]:
    """One `Enrichment` a finding, rarest first, from the columns `labels` (map to int8) and `kept`."""
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
    found = [
        enrichment(
            row["finding"],
            known=row["positive_count"],
            known_kept=row["known_kept_sum"] or 0,
            positives=row["positive_sum"] or 0,
            positives_kept=row["positive_kept_sum"] or 0,
            confidence=confidence,
        )
        for row in counts.to_pylist()
    ]
    return sorted(found, key=lambda one: (one.prevalence_corpus or 0.0, one.finding))


def enrichment(
    finding: str,
    *,
    known: int,
    known_kept: int,
    positives: int,
    positives_kept: int,
    confidence: float = 0.95,
) -> Enrichment:
    """The enrichment of one finding, from counts of pairs whose label is known."""
    corpus, subset = _ratio(positives, known), _ratio(positives_kept, known_kept)
    factor = None if not corpus or subset is None else subset / corpus
    low, high = None, None
    if factor is not None:
        low, high = enrichment_interval(known, known_kept, positives, positives_kept, confidence)
    return Enrichment(finding, known, known_kept, positives, positives_kept, corpus, subset, factor, low, high)


def enrichment_interval(
    known: int, known_kept: int, positives: int, positives_kept: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Limits of the enrichment factor, exact and two-sided (see the module's text).

    All of `known`, `known_kept`, `positives` at least 1, and the four counts those of a 2 x 2 table: anything
    else raises ValueError. Both limits are the factor itself where the counts leave only one value.
    """
    fewest, most = max(0, known_kept + positives - known), min(known_kept, positives)
    if not (0 < known_kept <= known and 0 < positives <= known and fewest <= positives_kept <= most):
        raise ValueError(
            f"known={known}, known_kept={known_kept}, positives={positives}, positives_kept={positives_kept} "
            f"are not the counts of a 2 x 2 table: positives_kept must be from {fewest} to {most}"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} must be between 0 and 1")
    count = np.arange(fewest, most + 1)
    weight = _log_ways(positives, count) + _log_ways(known - positives, known_kept - count)

    def excess(log_odds: float, tail: npt.NDArray[np.bool_]) -> float:
        return float(np.exp(log_softmax(weight + log_odds * count)[tail]).sum() - (1 - confidence) / 2)

    def factor_at(log_odds: float) -> float:
        mean = float(np.exp(log_softmax(weight + log_odds * count)) @ count)
        return mean * known / (known_kept * positives)

    low, high = (float(end * known / (known_kept * positives)) for end in (fewest, most))
    if positives_kept > fewest:
        low = factor_at(brentq(excess, -_LOG_ODDS, _LOG_ODDS, args=(count >= positives_kept,)))
    if positives_kept < most:
        high = factor_at(brentq(excess, -_LOG_ODDS, _LOG_ODDS, args=(count <= positives_kept,)))
    return low, high


def _log_ways(of: int, taken: npt.NDArray[np.int_]) -> npt.NDArray[np.float64]:
    """log of the binomial coefficients, "of" over "taken"."""
    ways: npt.NDArray[np.float64] = gammaln(of + 1) - gammaln(taken + 1) - gammaln(of - taken + 1)
    return ways


def _audit_table(corpus: pa.Table | Mapping[str, Any]) -> pa.Table:
    """`AUDIT_COLUMNS` alone, checked, in the types of `_AUDIT_SCHEMA`."""
    present = corpus.column_names if isinstance(corpus, pa.Table) else list(corpus)
    missing = [name for name in AUDIT_COLUMNS if name not in present]
    if missing:
        raise ValueError(f"corpus lacks the columns {missing}; it must have {list(AUDIT_COLUMNS)}")
    columns = {name: _column(name, corpus[name]) for name in AUDIT_COLUMNS}
    table = pa.table(columns, schema=_AUDIT_SCHEMA)
    if table["kept"].null_count:
        raise ValueError(f"kept is null for {table['kept'].null_count} pairs; it must be true or false")
    repeated = table.num_rows - pc.count_distinct(table["sample_id"], mode="all").as_py()
    if repeated:
        raise ValueError(f"sample_id repeats for {repeated} of {table.num_rows} rows; each must come once")
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
    values = pc.fill_null(text, "unknown")
    order = table[name] if name == "cluster" else values
    named = pa.table({"value": values, "order": order, "kept": table["kept"]})
    counts = named.group_by(["order", "value"]).aggregate([("kept", "count"), ("kept", "sum")])
    return {
        row["value"]: {
            "pairs": row["kept_count"],
            "kept": row["kept_sum"],
            "fraction": _ratio(row["kept_sum"], row["kept_count"]),
        }
        for row in counts.sort_by("order").to_pylist()
    }


def _kept_count(table: pa.Table) -> int:
    return int(pc.sum(table["kept"]).as_py() or 0)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
