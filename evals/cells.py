"""A cell: one checkpoint on one benchmark with one seed. What goes in, what comes out, and how it is kept.

A cell's folder holds its tables, and last `cell.json`: where that is, the cell is finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from chexray.evals.benchmark_data import BenchmarkData
from chexray.evals.results import NotRun, Result
from chexray.evals.specs import BenchmarkSpec
from chexray.platform import storage
from chexray.platform.artifacts import read_manifest
from chexray.platform.corpus.shards import write_table
from chexray.platform.evaluate_config import EvaluateConfig
from chexray.platform.model.checkpoint import Checkpoint, load_checkpoint

CELL_FILE = "cell.json"


@dataclass(frozen=True)
class Cell:
    """What is to be done. `checkpoint`: its name in the results; `path`: the cell's folder below the scores."""

    checkpoint: str
    uri: str
    spec: BenchmarkSpec
    seed: int
    corpora: dict[str, str]
    encodings: str

    @property
    def path(self) -> str:
        return f"cells/{self.checkpoint}/{self.spec.name}/{self.seed}"

    @property
    def name(self) -> str:
        return f"{self.checkpoint} on {self.spec.name}, seed {self.seed}"


@dataclass
class CellOutput:
    """What a task gives: results, and beside them what pages and comparisons are made of.

    `tables`: by file name. `files`: JSON by file name. `runs`: of several protocols in one cell, what each was.
    """

    results: list[Result]
    tables: dict[str, pa.Table] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)
    not_run: list[NotRun] = field(default_factory=list)
    subgroups: list[dict[str, Any]] = field(default_factory=list)
    calibration: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class CellContext:
    """What a task works with. `config` has the prompts that count; seeds of what is learned are the cell's."""

    cell: Cell
    config: EvaluateConfig
    device: str

    @property
    def spec(self) -> BenchmarkSpec:
        return self.cell.spec

    @cached_property
    def data(self) -> BenchmarkData:
        return BenchmarkData(self.cell.spec, self.cell.corpora, self.cell.encodings)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return _loaded(self.cell.uri, read_manifest(self.cell.uri).fingerprint, self.device)

    def encode_texts(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """[len(texts), D] float32 unit rows."""
        with torch.inference_mode():
            token = self.checkpoint.tokenize(texts).to(self.device)
            text_ND = self.checkpoint.model.encode_text(token, normalize=True)
        embedding: npt.NDArray[np.float32] = text_ND.float().cpu().numpy()
        return embedding


@lru_cache(maxsize=1)
def _loaded(uri: str, fingerprint: str, device: str) -> Checkpoint:
    """Kept for the next cell of this process: tasks leave it as it is. The fingerprint tells when it was replaced."""
    return load_checkpoint(uri, device)


TaskRun = Callable[[CellContext], CellOutput]


def plan_cells(
    checkpoints: Mapping[str, str],
    specs: Sequence[BenchmarkSpec],
    corpora: Mapping[str, str],
    encodings: str,
    config: EvaluateConfig,
) -> list[Cell]:
    """A benchmark after the other for each checkpoint (by name), and within it a seed after the other."""
    return [
        Cell(
            name,
            uri,
            spec,
            seed,
            {dataset: corpora[dataset] for dataset in spec.datasets},
            storage.join(encodings, name),
        )
        for name, uri in checkpoints.items()
        for spec in specs
        for seed in (config.label_seeds if spec.task == "disease_prediction" else (config.seed,))
    ]


def run_cell(cell: Cell, out: str, config: EvaluateConfig, run: TaskRun, device: str = "cpu") -> dict[str, Any]:
    """Do the cell, keep what it gave below `out`, and return its record. A finished one is read, not done again."""
    folder = storage.join(out, cell.path)
    if (found := finished(cell, out)) is not None:
        return found
    started = time.perf_counter()
    prompts = config.prompts or cell.spec.prompts
    output = run(CellContext(cell, config.model_copy(update={"prompts": prompts}), device))
    for name, table in output.tables.items():
        write_table(storage.join(folder, name), table)
    for name, content in output.files.items():
        storage.write_json(storage.join(folder, name), content)
    record = {
        **heading(cell),
        "state": "done",
        "reason": None,
        "seconds": round(time.perf_counter() - started, 3),
        "results": [result.as_dict() for result in output.results],
        "not_run": [one.as_dict() for one in output.not_run],
        "subgroups": output.subgroups,
        "calibration": output.calibration,
        "runs": output.runs,
    }
    storage.write_json(storage.join(folder, CELL_FILE), record)
    return record


def finished(cell: Cell, out: str) -> dict[str, Any] | None:
    """The record of a cell that is done; None where it is not."""
    file = storage.join(out, cell.path, CELL_FILE)
    if not storage.exists(file):
        return None
    record: dict[str, Any] = storage.read_json(file)
    return record


def not_done(cell: Cell, state: str, reason: str) -> dict[str, Any]:
    """The record of a cell that failed or was left out. It is not kept: another run tries again."""
    lists = dict.fromkeys(("results", "not_run", "subgroups", "calibration", "runs"), ())
    return {**heading(cell), "state": state, "reason": reason, "seconds": 0.0} | {k: list(v) for k, v in lists.items()}


def heading(cell: Cell) -> dict[str, Any]:
    return {
        "checkpoint": cell.checkpoint,
        "benchmark": cell.spec.name,
        "seed": cell.seed,
        "path": cell.path,
        "corpora": cell.corpora,
    }
