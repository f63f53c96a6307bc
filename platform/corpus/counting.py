"""What a corpus's manifest says of its pairs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from chexray.platform.corpus.schema import SPLITS
from chexray.platform.corpus.shards import read_columns


def count_pairs(corpus: str, listed: int, reasons: Counter[str]) -> dict[str, Any]:
    """Counts of a written corpus, of which `listed` pairs were looked at and `reasons` left out."""
    table = read_columns(corpus, ["split", "dataset", "patient_id", "report_source", "language", "view"])
    by_split = tally(table, "split")
    patients = {
        split: pc.count_distinct(table.filter(pc.equal(table["split"], split))["patient_id"]).as_py()
        for split in by_split
    }
    return {
        "listed": listed,
        "pairs": table.num_rows,
        "rejected": sum(reasons.values()),
        "rejected_by_reason": dict(sorted(reasons.items())),
        "pairs_by_split": {split: by_split.get(split, 0) for split in SPLITS},
        "pairs_by_dataset": tally(table, "dataset"),
        "pairs_by_view": tally(table, "view"),
        "pairs_by_language": tally(table, "language"),
        "patients": pc.count_distinct(table["patient_id"]).as_py(),
        "patients_by_split": patients,
        "report_source": tally(table, "report_source"),
    }


def tally(table: pa.Table, column: str) -> dict[str, int]:
    """How many rows have each value of a text column, in the order of values; nulls are "unknown"."""
    return dict(sorted(Counter(str(value or "unknown") for value in table[column].to_pylist()).items()))
