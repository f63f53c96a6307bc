"""Evaluation on Ray: every image is encoded once a checkpoint, and cells are done side by side.

What comes out depends on neither the number of workers nor their order: see `chexray.evals.encoding`; and cells compute
with the threads that their benchmark says.
"""

from __future__ import annotations

import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import ray
import torch

from chexray.evals.benchmark_data import encoding_file
from chexray.evals.cells import Cell, finished, not_done, run_cell
from chexray.evals.encoding import Encoded, Encoding, encode, first_line
from chexray.evals.seed_means import kept_means, seed_means
from chexray.platform import storage
from chexray.platform.config import Runtime
from chexray.platform.corpus.schema import Split
from chexray.platform.corpus.shards import Shard, list_shards
from chexray.platform.errors import ChexrayError
from chexray.platform.evaluate_config import EvaluateConfig
from chexray.platform.imports import leave_wandb_out

RETRIES = 2
KEPT = "kept from before"
ERROR_FILE = "error.txt"
_POLL_SECONDS = 0.5

Shards = Callable[[str, Split], list[Shard]]
Show = Callable[[dict[str, Any]], None]
"""Is told of a cell's record as soon as it has one; of state 'running' when it starts."""


def needed_encodings(cell: Cell, image_size: int, shards: Shards = list_shards) -> list[Encoding]:
    """What must be encoded before the cell is done; nothing for cells that look at feature maps."""
    if cell.spec.looks_at_maps:
        return []
    return [
        Encoding(
            cell.uri, corpus, shard.path, shard.pairs, image_size, encoding_file(cell.encodings, dataset, shard.path)
        )
        for dataset, corpus in cell.corpora.items()
        for split in cell.spec.splits
        for shard in shards(corpus, split)
        if shard.pairs
    ]


def fan_out(
    cells: Sequence[Cell],
    image_sizes: dict[str, int],
    out: str,
    config: EvaluateConfig,
    runtime: Runtime,
    show: Show,
    encoded: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Do the cells that are not done yet, and return the records of all, in their order.

    `image_sizes`: of the checkpoints, by URI. A cell that fails has a record that says why, and stops no other. `show`:
    see there; `encoded` is told of pairs as they are encoded. At the end the means over seeds are computed, once.
    """
    board = _Board(out, config, runtime, show)
    encodings: dict[str, Encoding] = {}
    # Corpora do not change, and may be far away.
    shards, is_there = cache(list_shards), cache(storage.exists)
    for cell in cells:
        if (found := finished(cell, out)) is not None:
            board.records[cell.path] = found
            show({**found, "reason": KEPT})
        elif reason := _more_than_there_is(cell, runtime):
            board.record(not_done(cell, "failed", reason))
        else:
            needed = needed_encodings(cell, image_sizes[cell.uri], shards)
            missing = {one.file: one for one in needed if not is_there(one.file)}
            encodings |= missing
            board.waiting[cell.path] = (cell, set(missing))
    try:
        # Cells that only look at feature maps would take the encoders' cores: they come when these are done.
        board.start(only_encoded=True)
        for one in encode(list(encodings.values()), config.batch, runtime):
            encoded(one.encoding.pairs)
            board.arrived(one)
            board.start(only_encoded=True)
            board.collect(block=False)
        board.start(only_encoded=False)
        while board.running:
            board.collect(block=True)
        _means(cells, board.records, out, config)
    finally:
        for task in board.running:
            ray.cancel(task, force=True)
    return [board.records[cell.path] for cell in cells]


@dataclass
class _Board:
    """Which cells wait, and for which files; which run; and the records of those that have ended."""

    out: str
    config: EvaluateConfig
    runtime: Runtime
    show: Show
    waiting: dict[str, tuple[Cell, set[str]]] = field(default_factory=dict)
    running: dict[Any, Cell] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def record(self, record: dict[str, Any]) -> None:
        self.records[record["path"]] = record
        self.show(record)

    def arrived(self, one: Encoded) -> None:
        """A shard is encoded; or it is not, and neither are the cells that need it."""
        for path, (cell, missing) in list(self.waiting.items()):
            if one.encoding.file in missing:
                missing.discard(one.encoding.file)
                if one.error:
                    del self.waiting[path]
                    self.record(not_done(cell, "failed", f"{one.encoding.shard} could not be encoded: {one.error}"))

    def start(self, only_encoded: bool) -> None:
        for path, (cell, missing) in list(self.waiting.items()):
            if missing or (only_encoded and cell.spec.looks_at_maps):
                continue
            del self.waiting[path]
            gpu = self.runtime.gpu and cell.spec.resources.gpus > 0
            options: dict[str, Any] = {"num_cpus": cell.spec.resources.cpus, "max_retries": RETRIES, "name": cell.name}
            if gpu:
                options["num_gpus"] = cell.spec.resources.gpus
            task = (_do_gpu_cell if gpu else _do_cell).options(**options).remote(cell, self.out, self.config, gpu)
            self.running[task] = cell
            self.show(not_done(cell, "running", ""))

    def collect(self, block: bool) -> None:
        """Take the records of cells that have ended, after a short wait for one where `block`."""
        if not self.running:
            return
        timeout = _POLL_SECONDS if block else 0
        ended, _ = ray.wait(list(self.running), num_returns=len(self.running), timeout=timeout)
        for task in ended:
            cell = self.running.pop(task)
            try:
                self.record(ray.get(task))
            except ray.exceptions.RayError as error:
                self.record(not_done(cell, "failed", f"its process was lost ({first_line(error)})"))


def _more_than_there_is(cell: Cell, runtime: Runtime) -> str | None:
    """Why the cell would wait for ever; None where Ray has what it asks for."""
    have = ray.cluster_resources()
    wanted = {"CPU": cell.spec.resources.cpus, "GPU": cell.spec.resources.gpus if runtime.gpu else 0}
    lacking = [
        f"{count:g} {name}s, Ray has {have.get(name, 0):g}"
        for name, count in wanted.items()
        if count > have.get(name, 0)
    ]
    return f"its file asks for {', '.join(lacking)}" if lacking else None


def _means(cells: Sequence[Cell], records: dict[str, dict[str, Any]], out: str, config: EvaluateConfig) -> None:
    """The means over label seeds of each checkpoint and benchmark whose seeds are all done, side by side."""
    groups: defaultdict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.spec.task == "disease_prediction":
            groups[cell.checkpoint, cell.spec.name].append(cell)
    ray.get(
        [
            _do_means.remote(group, [records[cell.path] for cell in group], out, config)
            for group in groups.values()
            if all(records[cell.path]["state"] == "done" for cell in group) and kept_means(group[0], out) is None
        ]
    )


def _cell(cell: Cell, out: str, config: EvaluateConfig, gpu: bool) -> dict[str, Any]:
    """The cell's record. Of what is not the user's to mend, the whole story is kept in the cell's folder."""
    leave_wandb_out()
    torch.set_num_threads(max(1, int(cell.spec.resources.cpus)))
    from chexray.evals.tasks import TASK_RUNS

    try:
        return run_cell(cell, out, config, TASK_RUNS[cell.spec.task], "cuda" if gpu else "cpu")
    except ChexrayError as error:
        return not_done(cell, "failed", str(error))
    except Exception as error:  # noqa: BLE001 - one cell: the others are done all the same
        storage.write_bytes(storage.join(out, cell.path, ERROR_FILE), traceback.format_exc().encode())
        return not_done(cell, "failed", f"{first_line(error)} (all of it: {cell.path}/{ERROR_FILE})")


def _seed_means(cells: Sequence[Cell], records: Sequence[dict[str, Any]], out: str, config: EvaluateConfig) -> None:
    torch.set_num_threads(1)
    seed_means(cells, records, out, config)


_do_cell = ray.remote(_cell)
# A process that has had a GPU keeps memory there, and the number of its GPU: it does one cell.
_do_gpu_cell = ray.remote(num_gpus=1, max_calls=1)(_cell)
_do_means = ray.remote(_seed_means)
