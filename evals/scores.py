"""The results of an evaluation: a row for every number, which of them stands for a benchmark, and what was seen.

F: findings; n: rows of a split.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from chexray.evals.benchmark_data import BenchmarkData
from chexray.evals.cells import Cell
from chexray.evals.seed_means import kept_means
from chexray.evals.seen import seen_in_training
from chexray.evals.specs import BenchmarkSpec
from chexray.platform.evaluate_config import EvaluateConfig

LOWER_IS_BETTER = ("mean_rank", "deviation", "radcliq")
Record = dict[str, Any]


def score_rows(cells: Sequence[Cell], records: Sequence[Record], out: str, config: EvaluateConfig) -> list[Record]:
    """Every result of the cells that are done, and the means over the label seeds of those that all are."""
    groups: defaultdict[tuple[str, str], list[tuple[Cell, Record]]] = defaultdict(list)
    for cell, record in zip(cells, records, strict=True):
        if record["state"] == "done":
            groups[cell.checkpoint, cell.spec.name].append((cell, record))
    rows: list[Record] = []
    for (checkpoint, benchmark), done in groups.items():
        cell = done[0][0]
        found = [_row(cell, result, record["seed"]) for cell, record in done for result in record["results"]]
        wanted = len([one for one in cells if (one.checkpoint, one.spec.name) == (checkpoint, benchmark)])
        if len(done) == wanted:
            found += [_row(cell, result, None) for result in kept_means(cell, out) or ()]
        _mark_headline(found, cell.spec, config)
        seen = seen_in_training(cell.uri, BenchmarkData(cell.spec, cell.corpora, cell.encodings))
        rows += [row | seen for row in found]
    return rows


def _row(cell: Cell, result: Mapping[str, Any], seed: int | None) -> Record:
    spec = cell.spec
    lower = any(part in result["metric"] for part in LOWER_IS_BETTER)
    return {
        "checkpoint": cell.checkpoint,
        "benchmark": spec.name,
        "task": spec.task,
        "title": spec.title,
        "version": str(spec.version),
        "twin": spec.is_twin,
        "datasets": list(cell.corpora),
        "split": spec.split,
        "seed": seed,
        **result,
        "headline": False,
        "higher_is_better": not lower,
    }


def _mark_headline(rows: list[Record], spec: BenchmarkSpec, config: EvaluateConfig) -> None:
    """One row stands for the benchmark: its metric and variant; with most labels, over all seeds, where it learns.

    Where some seeds failed, there is no such mean, and so no headline.
    """
    learned = spec.task == "disease_prediction"
    for row in rows:
        if row["metric"] != spec.metric or spec.variant not in row["variant"]:
            continue
        if row["finding"] is not None and row["finding"] != (spec.masks or (None,))[0]:
            continue
        share = f"labels={max(config.label_shares):.4g} of train; mean of"
        if learned and (row["method"] != config.methods[0] or share not in row["variant"]):
            continue
        row["headline"] = True
        return
