"""What headline numbers are made of, sample by sample, from the files of cells; several seeds side by side.

B: samples; F: findings; S: seeds; C: columns, the findings of each seed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from chexray.evals.board.score_files import DISEASE_PREDICTION, Cell, ScoreRow
from chexray.evals.statistics import FloatArray
from chexray.platform import storage

TextArray = npt.NDArray[np.str_]
_RETRIEVAL = re.compile(r"(?:(image_to_text|text_to_image)_)?(?:mean_)?(?:recall@(?P<k>\d+)|rank)")
_DIRECTIONS = ("image_to_text", "text_to_image")


class NotCompared(Exception):  # noqa: N818 - says what is so, like `Reject`
    """Why two numbers, or what one is made of, cannot be compared: one sentence without its full stop."""


@dataclass(frozen=True)
class Predictions:
    """Probabilities and labels of a cell, or of the cells of several seeds.

    `sample_B` is sorted. `probability_SBF`: NaN where not learned. `target_BF`: 1, 0 or NaN (unknown).
    """

    sample_B: TextArray
    patient_B: TextArray
    findings: tuple[str, ...]
    probability_SBF: FloatArray
    target_BF: FloatArray

    def taken(self, row_B: npt.NDArray[np.int64], findings: Sequence[str]) -> Predictions:
        """Some of the samples, and the named findings."""
        column_F = [self.findings.index(name) for name in findings]
        return Predictions(
            self.sample_B[row_B],
            self.patient_B[row_B],
            tuple(findings),
            self.probability_SBF[:, row_B][:, :, column_F],
            self.target_BF[row_B][:, column_F],
        )

    def columns(self) -> tuple[FloatArray, FloatArray]:
        """Probabilities and targets [B, C] with the seeds side by side: a mean over columns is one over seeds too."""
        return np.hstack(list(self.probability_SBF)), np.hstack([self.target_BF] * len(self.probability_SBF))


@dataclass(frozen=True)
class SampleValues:
    """A value of each sample, of which a headline number is the mean. `sample_B` is sorted; NaN: left out."""

    sample_B: TextArray
    patient_B: TextArray
    value_B: FloatArray


def read_predictions(row: ScoreRow, cells: Sequence[Cell]) -> Predictions:
    """Of the cells of one checkpoint on one benchmark. Disease prediction: of the row's method, at its largest share.

    Raises `NotCompared` where a file is not there, and where seeds are of different samples.
    """
    parts = []
    for cell in cells:
        table = _required(cell, "predictions.parquet")
        if row.task == DISEASE_PREDICTION:
            table = _largest_share(table, row.method)
        parts += [_pivot(one) for one in _by_seed(table)]
    if not parts:
        raise NotCompared("no predictions were stored")
    first = parts[0]
    if any(not np.array_equal(one.sample_B, first.sample_B) or one.findings != first.findings for one in parts):
        raise NotCompared("its seeds have predictions of different samples")
    probability_SBF = np.concatenate([one.probability_SBF for one in parts])
    return Predictions(first.sample_B, first.patient_B, first.findings, probability_SBF, first.target_BF)


def read_values(row: ScoreRow, cells: Sequence[Cell]) -> SampleValues:
    """The values whose mean the row is, averaged over the cells' seeds. Raises `NotCompared` where it is no mean."""
    read = {"retrieval": _ranks, "segmentation": _overlaps, "report_generation": _report_values}.get(row.task)
    if read is None:
        raise NotCompared(f"task {row.task} has no values of single samples")
    parts = [read(row, cell) for cell in cells]
    if not parts:
        raise NotCompared("no cell of it is done")
    first = parts[0]
    if any(not np.array_equal(one.sample_B, first.sample_B) for one in parts):
        raise NotCompared("its seeds have values of different samples")
    value_B = np.mean([one.value_B for one in parts], axis=0)
    return SampleValues(first.sample_B, first.patient_B, np.asarray(value_B, dtype=np.float64))


def _required(cell: Cell, name: str) -> pa.Table:
    table = cell.table(name)
    if table is None:
        raise NotCompared(f"{name} is not there")
    return table


def _column(table: pa.Table, name: str) -> Any:
    if name not in table.column_names:
        raise NotCompared(f"its file has no column {name!r}")
    return table[name]


def _texts(table: pa.Table, name: str) -> TextArray:
    return np.array(_column(table, name).to_pylist(), dtype=np.str_)


def _numbers(table: pa.Table, name: str) -> FloatArray:
    values = _column(table, name).cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float64)


def _largest_share(table: pa.Table, method: str | None) -> pa.Table:
    if method is not None:
        table = table.filter(pc.equal(_column(table, "method"), method))
    if not len(table):
        raise NotCompared(f"no predictions of method {method} were stored")
    return table.filter(pc.equal(_column(table, "share"), pc.max(table["share"])))


def _by_seed(table: pa.Table) -> list[pa.Table]:
    """A cell that holds several seeds of labels tells them apart by a column."""
    if "seed" not in table.column_names:
        return [table]
    return [table.filter(pc.equal(table["seed"], seed)) for seed in pc.unique(table["seed"]).to_pylist()]


def _pivot(table: pa.Table) -> Predictions:
    sample_N, finding_N = _texts(table, "sample_id"), _texts(table, "finding")
    sample_B, first_B, row_N = np.unique(sample_N, return_index=True, return_inverse=True)
    findings = tuple(dict.fromkeys(finding_N.tolist()))
    place = {name: number for number, name in enumerate(findings)}
    column_N = np.array([place[name] for name in finding_N.tolist()], dtype=np.int64)
    if len(np.unique(row_N * max(1, len(findings)) + column_N)) < len(row_N):
        raise NotCompared("predictions.parquet has several rows of one sample and finding")
    probability_BF, target_BF = (np.full((len(sample_B), len(findings)), np.nan) for _ in range(2))
    probability_BF[row_N, column_N] = _numbers(table, "probability")
    target_BF[row_N, column_N] = _numbers(table, "target")
    return Predictions(sample_B, _texts(table, "patient_id")[first_B], findings, probability_BF[None], target_BF)


def _sorted(table: pa.Table, value_B: FloatArray) -> SampleValues:
    sample_B, patient_B = _texts(table, "sample_id"), _texts(table, "patient_id")
    order = np.argsort(sample_B, kind="stable")
    if len(np.unique(sample_B)) < len(sample_B):
        raise NotCompared("its file has several rows of one sample")
    return SampleValues(sample_B[order], patient_B[order], value_B[order])


def _ranks(row: ScoreRow, cell: Cell) -> SampleValues:
    """Hits or ranks of a direction, or the mean of both where the metric names none."""
    asked = _RETRIEVAL.fullmatch(row.metric)
    if asked is None:
        raise NotCompared(f"how {row.metric} follows from ranks is not known")
    table = _required(cell, "ranks.parquet")
    rank_DB = np.array([_numbers(table, f"{one}_rank") for one in ([asked[1]] if asked[1] else _DIRECTIONS)])
    value_DB = rank_DB if asked["k"] is None else (rank_DB <= int(asked["k"])).astype(np.float64)
    return _sorted(table, np.asarray(value_DB.mean(axis=0)))


def _overlaps(row: ScoreRow, cell: Cell) -> SampleValues:
    """Dice or IoU of a class, or an image's mean over its classes."""
    metric = row.metric.removeprefix("mean_")
    if metric not in ("dice", "iou"):
        raise NotCompared(f"how {row.metric} follows from masks is not known")
    columns = ("sample_id", "patient_id", "class", metric)
    table = cell.table("masks.parquet", columns)
    if table is None:
        raise NotCompared("masks.parquet is not there")
    if row.finding is not None:
        table = table.filter(pc.equal(table["class"], row.finding))
    grouped = table.group_by(["sample_id", "patient_id"]).aggregate([(metric, "mean")])
    return _sorted(grouped, _numbers(grouped, f"{metric}_mean"))


def _report_values(row: ScoreRow, cell: Cell) -> SampleValues:
    if row.metric.startswith("bleu"):
        raise NotCompared("BLEU is of the whole corpus and no mean over reports")
    for name in report_files(cell):
        table = _required(cell, name)
        for column in table.column_names:
            inner = column.removeprefix(f"{row.metric} (").removesuffix(")")
            if inner != column and _is_decoding(row.variant, inner, name):
                return _sorted(table, _numbers(table, column))
    raise NotCompared(f"{row.metric} has no values of single reports")


def report_files(cell: Cell) -> list[str]:
    """The names of its files of generated reports, one a decoding."""
    if not cell.folder:
        return []
    names = storage.list_files(cell.folder, (".parquet",))
    return [name for name in names if name.startswith("reports-") and "/" not in name]


def decoding_name(file: str) -> str:
    return file.removeprefix("reports-").removesuffix(".parquet")


def _is_decoding(variant: str, inner: str, file: str) -> bool:
    """Whether a variant, 'greedy; rouge_score 0.1.2: ...', is a column's with the file's decoding before it."""
    if variant == inner:
        return True
    prefix = variant.removesuffix(f"; {inner}")
    return prefix != variant and _slug(prefix) == _slug(decoding_name(file))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
