"""Every image once a checkpoint: a pool of encoders on Ray, and a file of encodings for each shard of a corpus.

An encoder takes a whole shard, in batches that are cut alike everywhere, and on one core: so the bits do not depend on
how many encoders there are. It writes the shard's file itself, atomically.

n: pairs of a batch; S: image size in pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from safetensors.numpy import save

from chexray.evals.benchmark_data import id_bytes
from chexray.platform import storage
from chexray.platform.config import Runtime
from chexray.platform.corpus.order import Window
from chexray.platform.corpus.reading import read_window
from chexray.platform.streaming import ordered_tasks, start_scorer

DECODING_THREADS = 8
"""Of a GPU's encoder, which would wait for a single one."""


@dataclass(frozen=True)
class Encoding:
    """A shard of a corpus as a checkpoint sees it, to be kept in `file`."""

    checkpoint: str
    corpus: str
    shard: str
    pairs: int
    image_size: int
    file: str


@dataclass(frozen=True)
class Encoded:
    """A shard that is done, or why it is not."""

    encoding: Encoding
    error: str | None


def encode(encodings: Sequence[Encoding], batch: int, runtime: Runtime) -> Iterator[Encoded]:
    """Encode them by one pool of encoders; each is told of as soon as it is done.

    One that fails does not stop the others. Where the pool itself is lost, all that are left have failed for that.
    """
    left = {one.file: one for one in encodings}
    if not left:
        return
    items = [{"encoding": json.dumps(asdict(one))} for one in left.values()]
    size = encoders(runtime, sum(one.pairs for one in left.values()), len(items), batch)
    dataset = ordered_tasks(items).map_batches(
        _Encoder,
        fn_constructor_args=(batch, runtime.gpu),
        compute=ray.data.ActorPoolStrategy(size=size),
        batch_size=1,
        **({"num_gpus": 1} if runtime.gpu else {"num_cpus": 1}),
    )
    lost = "the encoders ended before it"
    try:
        for block in dataset.iter_batches(batch_size=None):
            for file, error in zip(block["file"].tolist(), block["error"].tolist(), strict=True):
                yield Encoded(left.pop(file), error or None)
    except ray.exceptions.RayError as error:
        lost = f"the encoders were lost ({first_line(error)})"
    for one in left.values():
        yield Encoded(one, lost)


def encoders(runtime: Runtime, pairs: int, items: int, batch: int) -> int:
    """How many: one a GPU as told, or all cores but one, where it pays."""
    if runtime.gpu:
        return runtime.workers
    cores = int(ray.cluster_resources().get("CPU", 1)) - 1
    return max(1, min(max(runtime.workers, cores), math.ceil(pairs / (4 * batch)), items))


def first_line(error: BaseException) -> str:
    """An error's kind and the first line of what it says."""
    said = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


class _Encoder:
    """The encoding actor: shards' descriptions in, the names of their files out, and errors."""

    def __init__(self, batch: int, gpu: bool) -> None:
        self._batch, self._gpu = batch, gpu
        self._loaded: tuple[str, Any] | None = None
        self._ahead = ThreadPoolExecutor(1)
        self._decoders = ThreadPoolExecutor(DECODING_THREADS if gpu else 1)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        found = [self._encode(Encoding(**json.loads(str(text)))) for text in batch["encoding"]]
        return {
            "file": np.array([file for file, _ in found], dtype=object),
            "error": np.array([error for _, error in found], dtype=object),
        }

    def _encode(self, one: Encoding) -> tuple[str, str]:
        try:
            storage.write_bytes(one.file, save(self._arrays(one)))
        except Exception as error:  # noqa: BLE001 - one shard, one checkpoint: the others are encoded all the same
            return one.file, first_line(error)
        return one.file, ""

    def _arrays(self, one: Encoding) -> dict[str, np.ndarray[Any, Any]]:
        scorer = self._scorer(one.checkpoint)
        parts: dict[str, list[np.ndarray[Any, Any]]] = {"sample_id": [], "image": [], "text": [], "feature": []}
        for block in self._blocks(one):
            parts["sample_id"].append(id_bytes(block["sample_id"].tolist()))
            for start in range(0, len(block["sample_id"]), self._batch):
                rows = slice(start, start + self._batch)
                encoded = scorer.embed_with_features(block["image"][rows], block["report"][rows].tolist())
                for name, value_nD in zip(("image", "text", "feature"), encoded, strict=True):
                    parts[name].append(value_nD)
        arrays = {name: np.concatenate(values) for name, values in parts.items()}
        return {name: array for name, array in arrays.items() if array.shape[1]}

    def _scorer(self, checkpoint: str) -> Any:
        if self._loaded is None or self._loaded[0] != checkpoint:
            self._loaded = None  # before the next one is loaded: not both in memory
            self._loaded = (checkpoint, start_scorer(checkpoint, None, "float32", self._gpu, 1))
            if not self._gpu:
                torch.set_num_threads(1)
        return self._loaded[1]

    def _blocks(self, one: Encoding) -> Iterator[dict[str, Any]]:
        """Of the shard, each decoded while the one before is encoded."""
        window = Window(epoch=0, index=0, first=0, shards=(one.shard,), pairs=one.pairs, seed=None)
        blocks = read_window(one.corpus, window, np.arange(one.pairs), one.image_size, self._decoders.map)
        ahead = self._ahead.submit(next, blocks, None)
        while (block := ahead.result()) is not None:
            ahead = self._ahead.submit(next, blocks, None)
            yield block
