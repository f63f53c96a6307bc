"""The mean over the label seeds of a checkpoint on a benchmark, from the predictions that its cells have kept.

n: samples of the test split; F: findings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chexray.evals.benchmark_data import BenchmarkData
from chexray.evals.cells import Cell
from chexray.evals.disease_prediction import DiseaseData, LabelledSplit, Predicted, average_over_seeds
from chexray.evals.results import Result
from chexray.platform import storage
from chexray.platform.corpus.shards import read_table
from chexray.platform.evaluate_config import EvaluateConfig

Record = dict[str, Any]


def kept_means(cell: Cell, out: str) -> list[Record] | None:
    """The results that `seed_means` has kept for the cell's benchmark and checkpoint; None where it has none."""
    file = _file(cell, out)
    if not storage.exists(file):
        return None
    found: list[Record] = storage.read_json(file)
    return found


def seed_means(cells: Sequence[Cell], records: Sequence[Record], out: str, config: EvaluateConfig) -> None:
    """Of each method and share, the mean of the seeds' AUROCs. `cells`: of one checkpoint and benchmark, all done."""
    tables = {cell.seed: read_table(storage.join(out, cell.path, "predictions.parquet")) for cell in cells}
    runs = records[0]["runs"]
    data = _disease_data(cells[0], _of_run(tables[cells[0].seed], runs[0]))
    results: list[Result] = []
    for run in runs:
        chosen = {
            record["seed"]: Predicted(
                _matrix(_of_run(tables[record["seed"]], run), "probability", len(data.findings)),
                tuple(other["undefined"]),
                other["protocol"],
            )
            for record in records
            for other in record["runs"]
            if (other["method"], other["share"]) == (run["method"], run["share"])
        }
        results += average_over_seeds(run["method"], chosen, run["share"], data, config)
    storage.write_json(_file(cells[0], out), [result.as_dict() for result in results])


def _file(cell: Cell, out: str) -> str:
    return storage.join(out, "cells", cell.checkpoint, cell.spec.name, "means.json")


def _disease_data(cell: Cell, table: pa.Table) -> DiseaseData:
    """What was known of the test split, from the predictions of any run."""
    data = BenchmarkData(cell.spec, cell.corpora, cell.encodings)
    step = len(data.findings)
    sample_id, patient_id = (table[name].to_pylist()[::step] for name in ("sample_id", "patient_id"))
    split = LabelledSplit(sample_id, patient_id, _matrix(table, "target", step))
    return DiseaseData(data.findings, data.prevalence_F, split, split)


def _of_run(table: pa.Table, run: Mapping[str, Any]) -> pa.Table:
    return table.filter(pc.and_(pc.equal(table["method"], run["method"]), pc.equal(table["share"], run["share"])))


def _matrix(table: pa.Table, column: str, findings: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[n, F] float64 of a column whose rows go sample by sample; NaN where it is null."""
    value_N: np.ndarray[Any, np.dtype[np.float64]] = table[column].cast(pa.float64()).to_numpy()
    return value_N.reshape(-1, findings)
