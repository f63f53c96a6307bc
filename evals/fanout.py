"""Evaluation on Ray: every image is encoded once a checkpoint, and cells are done side by side.

What comes out depends on neither the number of workers nor their order: an encoder takes a shard at a time, in batches
that are cut alike everywhere, and encoders and cells compute with the threads that they are told.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from safetensors.numpy import save

from chexray.evals.benchmark_data import encoding_file
from chexray.evals.cells import Cell, finished, not_done, run_cell
from chexray.platform import storage
from chexray.platform.config import Runtime
from chexray.platform.corpus.order import Window, epoch_windows
from chexray.platform.corpus.reading import read_window
from chexray.platform.corpus.schema import Split
from chexray.platform.corpus.shards import list_shards
from chexray.platform.evaluate_config import EvaluateConfig
from chexray.platform.imports import leave_wandb_out
from chexray.platform.streaming import ordered_tasks, start_scorer, window_from_json

RETRIES = 2
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Encoding:
    """A split of a corpus as a checkpoint sees it, to be kept in `file`."""

    checkpoint: str
    corpus: str
    split: Split
    image_size: int
    file: str


Show = Callable[[dict[str, Any]], None]
"""Is told of a cell's record as soon as it has one; of state 'running' when it starts."""


def needed_encodings(cell: Cell, image_size: int) -> list[Encoding]:
    """What must be encoded before the cell is done; nothing for cells that look at feature maps."""
    if cell.spec.task in ("segmentation", "report_generation"):
        return []
    return [
        Encoding(cell.uri, corpus, split, image_size, encoding_file(cell.encodings, dataset, split))
        for dataset, corpus in cell.corpora.items()
        for split in cell.spec.splits
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
    see there; `encoded` is told of pairs as they are encoded.
    """
    records: dict[str, dict[str, Any]] = {}
    waiting: dict[str, tuple[Cell, set[str]]] = {}
    encodings: dict[str, Encoding] = {}
    for cell in cells:
        if (found := finished(cell, out)) is not None:
            records[cell.path] = found
            show(found)
            continue
        needed = [one for one in needed_encodings(cell, image_sizes[cell.uri]) if not storage.exists(one.file)]
        encodings |= {one.file: one for one in needed}
        waiting[cell.path] = (cell, {one.file for one in needed})
    running: dict[Any, Cell] = {}
    try:
        for file in encode(list(encodings.values()), config.batch, runtime, encoded):
            for _, missing in waiting.values():
                missing.discard(file)
            # Cells that only look at feature maps would take the encoders' cores: they come when these are done.
            _start_ready(waiting, running, out, config, runtime, show, only_encoded=True)
            _collect(running, records, show, block=False)
        _start_ready(waiting, running, out, config, runtime, show, only_encoded=False)
        while running:
            _collect(running, records, show, block=True)
    finally:
        for task in running:
            ray.cancel(task, force=True)
    return [records[cell.path] for cell in cells]


def encode(
    encodings: Sequence[Encoding], batch: int, runtime: Runtime, encoded: Callable[[int], None]
) -> Iterator[str]:
    """Encode them by one pool of encoders, in their order; yields each one's file when it is written, whole."""
    items = [
        {"number": number, "window": json.dumps(asdict(window))}
        for number, one in enumerate(encodings)
        for window in _windows(one)
    ]
    if not items:
        return
    pairs = sum(window.pairs for one in encodings for window in _windows(one))
    dataset = ordered_tasks(items).map_batches(
        _Encoder,
        # As text: Ray keeps other arguments in its object store, and warns that they can be lost there.
        fn_constructor_args=(json.dumps([asdict(one) for one in encodings]), batch, runtime.gpu),
        compute=ray.data.ActorPoolStrategy(size=_encoders(runtime, pairs, len(items), batch)),
        batch_size=1,
        **({"num_gpus": 1} if runtime.gpu else {"num_cpus": 1}),
    )
    parts: list[dict[str, Any]] = []
    current = 0
    for block in dataset.iter_batches(batch_size=None):
        for number in np.unique(block["number"]).tolist():
            for done in range(current, number):
                _write(encodings[done], parts)
                parts = []
                yield encodings[done].file
            current = number
            inside = block["number"] == number
            parts.append({name: column[inside] for name, column in block.items()})
            encoded(int(inside.sum()))
    _write(encodings[current], parts)
    yield encodings[current].file


def _windows(one: Encoding) -> list[Window]:
    return epoch_windows(list_shards(one.corpus, one.split), 0, None, shuffle_shards=1)


def _encoders(runtime: Runtime, pairs: int, items: int, batch: int) -> int:
    """Of one core each, so that the bits do not depend on how many there are: all cores but one, where it pays."""
    if runtime.gpu:
        return runtime.workers
    cores = int(ray.cluster_resources().get("CPU", 1)) - 1
    return max(1, min(max(runtime.workers, cores), math.ceil(pairs / (4 * batch)), items))


def _write(one: Encoding, parts: Sequence[dict[str, Any]]) -> None:
    """The encodings of a whole split, in the corpus's order; the file is there whole or not at all."""
    arrays = {}
    for name in ("image", "text", "feature"):
        rows = [np.frombuffer(row, np.float32) for part in parts for row in part[name]]
        if rows and rows[0].size:
            arrays[name] = np.stack(rows)
    storage.write_bytes(one.file, save(arrays))


class _Encoder:
    """The encoding actor: a shard's description in; ids, unit embeddings and features out, as float32 bytes.

    As bytes, because checkpoints differ in their widths and go through the same stream.
    """

    def __init__(self, encodings: str, batch: int, gpu: bool) -> None:
        self._encodings = [Encoding(**one) for one in json.loads(encodings)]
        self._batch, self._gpu = batch, gpu
        self._loaded: tuple[str, Any] | None = None
        self._reader = ThreadPoolExecutor(1)

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for number, text in zip(batch["number"].tolist(), batch["window"], strict=True):
            one = self._encodings[number]
            scorer = self._scorer(one)
            for block in self._blocks(one, window_from_json(str(text))):
                count = len(block["sample_id"])
                columns: dict[str, list[bytes]] = {"image": [], "text": [], "feature": []}
                for start in range(0, count, self._batch):
                    rows = slice(start, start + self._batch)
                    found = scorer.embed_with_features(block["image"][rows], block["report"][rows].tolist())
                    for name, value_nD in zip(columns, found, strict=True):
                        columns[name] += [row.tobytes() for row in value_nD]
                made = {name: np.array(values, dtype=object) for name, values in columns.items()}
                yield {"number": np.full(count, number), **made}

    def _scorer(self, one: Encoding) -> Any:
        if self._loaded is None or self._loaded[0] != one.checkpoint:
            self._loaded = None  # before the next one is loaded: not both in memory
            self._loaded = (one.checkpoint, start_scorer(one.checkpoint, None, "float32", self._gpu, 1))
            if not self._gpu:
                torch.set_num_threads(1)
        return self._loaded[1]

    def _blocks(self, one: Encoding, window: Window) -> Iterator[dict[str, Any]]:
        """Of the shard, each decoded while the one before is encoded."""
        blocks = read_window(one.corpus, window, np.arange(window.pairs), one.image_size)
        ahead = self._reader.submit(next, blocks, None)
        while (block := ahead.result()) is not None:
            ahead = self._reader.submit(next, blocks, None)
            yield block


def _start_ready(
    waiting: dict[str, tuple[Cell, set[str]]],
    running: dict[Any, Cell],
    out: str,
    config: EvaluateConfig,
    runtime: Runtime,
    show: Show,
    only_encoded: bool,
) -> None:
    ready = [
        path
        for path, (cell, missing) in waiting.items()
        if not missing and (not only_encoded or needed_encodings(cell, 0))
    ]
    for path in ready:
        cell, _ = waiting.pop(path)
        task = _do_cell.options(
            num_cpus=cell.spec.resources.cpus,
            num_gpus=cell.spec.resources.gpus if runtime.gpu else 0,
            max_retries=RETRIES,
            name=cell.name,
        ).remote(cell, out, config, runtime.gpu and cell.spec.resources.gpus > 0)
        running[task] = cell
        show(not_done(cell, "running", ""))


def _collect(running: dict[Any, Cell], records: dict[str, dict[str, Any]], show: Show, block: bool) -> None:
    """Take the records of cells that have ended, after a short wait for one where `block`."""
    if not running:
        return
    ended, _ = ray.wait(list(running), num_returns=len(running), timeout=_POLL_SECONDS if block else 0)
    for task in ended:
        cell = running.pop(task)
        try:
            records[cell.path] = ray.get(task)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            records[cell.path] = not_done(cell, "failed", f"{type(cause).__name__}: {str(cause).splitlines()[0]}")
        show(records[cell.path])


@ray.remote  # type: ignore[untyped-decorator]
def _do_cell(cell: Cell, out: str, config: EvaluateConfig, gpu: bool) -> dict[str, Any]:
    """The cell's record. What a user can mend is in its reason; other errors are raised."""
    leave_wandb_out()
    torch.set_num_threads(max(1, int(cell.spec.resources.cpus)))
    from chexray.evals.tasks import TASK_RUNS
    from chexray.platform.errors import ChexrayError

    try:
        return run_cell(cell, out, config, TASK_RUNS[cell.spec.task], "cuda" if gpu else "cpu")
    except (ChexrayError, ValueError) as error:
        return not_done(cell, "failed", str(error))
