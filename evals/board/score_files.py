"""Scores as an evaluation leaves them in a folder: results, cells, and the files of each cell.

SCORES/manifest.json    where all cells are done; without it the scores are unfinished, and are read all the same
SCORES/results.json     a list of `ScoreRow`
SCORES/cells.json       a list of `Cell`
SCORES/<cell's path>/   its predictions, ranks, masks or reports
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chexray.platform import storage
from chexray.platform.artifacts import MANIFEST, read_manifest
from chexray.platform.corpus.shards import read_table
from chexray.platform.errors import UsageError, first_line

RESULTS, CELLS = "results.json", "cells.json"
DISEASE_PREDICTION = "disease_prediction"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class ScoreRow(_Record):
    """One number. `headline`: the one that the leaderboard shows of this checkpoint on this benchmark.

    `seen_in_training`: share of the benchmark's images that the checkpoint was trained on; `seen_patients`: of its
    patients. None: not known.
    """

    checkpoint: str
    benchmark: str
    task: str
    method: str | None = None
    title: str
    version: str
    twin: bool = Field(False, description="measured on synthetic images in the benchmark's place")
    datasets: tuple[str, ...] = ()
    split: str | None = None
    metric: str
    variant: str = ""
    finding: str | None = None
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int
    patients: int | None = None
    positives: int | None = None
    prevalence: float | None = None
    headline: bool = False
    higher_is_better: bool = True
    seen_in_training: float | None = None
    seen_patients: float | None = None


class NotRunMetric(_Record):
    metric: str
    variant: str = ""
    reason: str


class GapRecord(_Record):
    """The best group's score less the worst's."""

    best: str
    worst: str
    value: float
    low: float | None = None
    high: float | None = None


class GroupRecord(_Record):
    name: str
    n: int
    patients: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    left_out: str | None = None


class SubgroupRecord(_Record):
    """The groups of one attribute (sex, age ...), by one metric."""

    attribute: str
    metric: str
    gap: GapRecord | None = None
    groups: tuple[GroupRecord, ...] = ()


class BinRecord(_Record):
    low: float
    high: float
    predicted: float
    observed: float
    n: int


class CalibrationRecord(_Record):
    """One finding's expected calibration error with its interval, its Brier score, and the bins."""

    finding: str
    error: float | None = None
    low: float | None = None
    high: float | None = None
    brier: float | None = None
    baseline_brier: float | None = None
    bins: tuple[BinRecord, ...] = ()


class Cell(_Record):
    """One checkpoint on one benchmark with one seed. `folder`: the URI of its files; `corpora`: of each dataset's."""

    checkpoint: str
    benchmark: str
    seed: int | None = None
    state: str
    reason: str | None = None
    seconds: float | None = None
    path: str | None = None
    corpora: dict[str, str] = Field(default_factory=dict)
    not_run: tuple[NotRunMetric, ...] = ()
    subgroups: tuple[SubgroupRecord, ...] = ()
    calibration: tuple[CalibrationRecord, ...] = ()
    folder: str = ""

    @property
    def done(self) -> bool:
        return self.state == "done"

    def file(self, name: str) -> str:
        return storage.join(self.folder, name)

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table | None:
        """One of its Parquet files; None where it is not there. UsageError where it is none, or lacks a column."""
        if not self.folder or not storage.is_file(self.file(name)):
            return None
        try:
            return read_table(self.file(name), columns)
        except pa.ArrowException as error:
            raise UsageError(f"{self.file(name)}: not the Parquet file of a cell ({first_line(error)})") from error


@dataclass(frozen=True)
class Scores:
    """What one folder holds, or several joined. `unfinished`: the folders of which some cells are still to come."""

    rows: tuple[ScoreRow, ...]
    cells: tuple[Cell, ...]
    unfinished: tuple[str, ...]


def read_scores(uri: str, label: str | None = None) -> Scores:
    """The scores at `uri`; with a `label`, its checkpoints are called `label/NAME`. UsageError where there are none."""
    finished = storage.exists(storage.join(uri, MANIFEST))
    if finished:
        read_manifest(uri, "scores")
    present = [storage.exists(storage.join(uri, name)) for name in (RESULTS, CELLS)]
    if not any(present):
        missing = f"neither {RESULTS} nor {CELLS}" if storage.exists(uri) else "no such folder"
        raise UsageError(f"{uri}: {missing}; give the --out of a chexray evaluate that has ended")
    rows = _records(uri, RESULTS, ScoreRow) if present[0] else []
    cells = _records(uri, CELLS, Cell) if present[1] else []
    _check_headlines(uri, rows)
    return Scores(
        tuple(row.model_copy(update={"checkpoint": _labelled(row.checkpoint, label)}) for row in rows),
        tuple(
            cell.model_copy(update={"checkpoint": _labelled(cell.checkpoint, label), "folder": _folder(uri, cell)})
            for cell in cells
        ),
        () if finished else (uri,),
    )


def read_all(sources: Sequence[str]) -> Scores:
    """Several scores as one. Each source is a URI, or LABEL=URI (see `read_scores`).

    Raises UsageError where a folder is given twice, and where two hold the same checkpoint on the same benchmark.
    """
    named = [_split_label(source) for source in sources]
    resolved = [storage.resolve(uri) for _, uri in named]
    for place, uri in enumerate(resolved):
        if uri in resolved[:place]:
            raise UsageError(f"{uri}: given twice; give each scores once")
    parts = [read_scores(uri, label) for label, uri in named]
    _check_apart(resolved, parts)
    return Scores(
        tuple(row for part in parts for row in part.rows),
        tuple(cell for part in parts for cell in part.cells),
        tuple(uri for part in parts for uri in part.unfinished),
    )


_R = TypeVar("_R", bound=_Record)


def _records(uri: str, name: str, kind: type[_R]) -> list[_R]:
    found = storage.read_json(storage.join(uri, name))
    if not isinstance(found, list):
        raise UsageError(f"{uri}/{name}: holds a {type(found).__name__}, expected a list")
    records = []
    for place, one in enumerate(found):
        try:
            records.append(kind.model_validate(_printable(one)))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "entry"
            raise UsageError(
                f"{uri}/{name}: entry {place}, {field}: {first['msg']}; give scores of chexray evaluate's benchmarks"
            ) from error
    return records


def _printable(value: Any) -> Any:
    """The same without control characters: names are printed to terminals, which obey some."""
    if isinstance(value, dict):
        return {_printable(name): _printable(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_printable(one) for one in value]
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", value) if isinstance(value, str) else value


def _check_headlines(uri: str, rows: Sequence[ScoreRow]) -> None:
    seen: set[tuple[str, str]] = set()
    for row in rows:
        if row.headline:
            key = (row.checkpoint, row.benchmark)
            if key in seen:
                raise UsageError(f"{uri}/{RESULTS}: two headline rows of checkpoint {key[0]!r} on {key[1]!r}")
            seen.add(key)


def _check_apart(uris: Sequence[str], parts: Sequence[Scores]) -> None:
    where: dict[tuple[str, str], str] = {}
    for uri, part in zip(uris, parts, strict=True):
        every: list[ScoreRow | Cell] = [*part.rows, *part.cells]
        pairs = {(one.checkpoint, one.benchmark) for one in every}
        for pair in sorted(pairs):
            if pair in where:
                raise UsageError(
                    f"checkpoint {pair[0]!r} on benchmark {pair[1]!r}: in {where[pair]} and in {uri}; leave one out, "
                    f"or give the second as LABEL={uri}, and its checkpoints are shown as LABEL/NAME"
                )
        where |= dict.fromkeys(pairs, uri)


def _split_label(source: str) -> tuple[str | None, str]:
    label, separator, uri = source.partition("=")
    if not separator or not label or not uri or "/" in label or storage.exists(source):
        return None, source
    return label, uri


def _labelled(checkpoint: str, label: str | None) -> str:
    return checkpoint if label is None else f"{label}/{checkpoint}"


def _folder(uri: str, cell: Cell) -> str:
    """Where the cell's files lie. UsageError where that is not below the scores: paths in files may be anyone's."""
    if cell.path is None:
        return ""
    parts = cell.path.split("/")
    if ".." in parts or cell.path.startswith("/") or "://" in cell.path or "\\" in cell.path:
        raise UsageError(f"{uri}/{CELLS}: path {cell.path!r} leads out of the scores")
    return storage.join(uri, cell.path)
