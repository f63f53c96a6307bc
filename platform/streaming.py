"""Ray Data over a corpus: read and decode on any CPU, encode in an actor pool, blocks in the corpus's own order.

The one place in `platform` that imports Ray beside the SDK: curation, training and evaluation all stream pairs the
same way. What a block holds follows from the windows alone, never from which task was first.

n: pairs of a block; S: image size in pixels; D: embedding width.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import ray.data
import torch

from chexray.platform.config import Runtime
from chexray.platform.corpus.order import EpochSteps, Window
from chexray.platform.corpus.reading import read_window
from chexray.platform.imports import leave_wandb_out

if TYPE_CHECKING:
    from chexray.platform.model.scoring import Precision, Scorer

BLOCK_BYTES = 32 * 2**20
"""A quarter of Ray's own: a consumer holds several blocks at a time, and gets its first one sooner."""


@dataclass(frozen=True)
class Share:
    """Which part of the steps' pairs to read: all of them, or one training worker's."""

    steps: EpochSteps
    rank: int = 0
    world: int = 1


def decoded_pairs(
    corpus: str,
    windows: Sequence[Window],
    share: Share,
    image_size: int,
    cuts: Sequence[int] = (),
    start: int = 0,
    readers: int | None = None,
) -> ray.data.Dataset:
    """Blocks of `image` uint8 [n, S, S], `report`, `sample_id`, `position` in the epoch [n], in the windows' order.

    A task reads a window, or less where one of the `cuts` (positions in the epoch, ascending) divides it; Ray puts its
    pairs together into as few blocks as it likes. `start`: the position from which on the first
    of the windows' epochs is read.
    With `readers`, so many processes do it, for as long as the stream lasts, and none of them asks for a CPU: a task
    on a node whose CPUs are taken would start a process of its own, every time.
    """
    items = []
    for window in windows:
        skipped = start - window.first if window.epoch == windows[0].epoch else 0
        pieces = [(first, end) for first, end in pieces_of(window, cuts) if end > skipped]
        items += [{"window": json.dumps(asdict(window)), "first": max(a, skipped), "end": b} for a, b in pieces]
    dataset = ordered_tasks(items)
    read = {"batch_size": 1, "zero_copy_batch": True}
    if readers is None:
        return dataset.map_batches(_WindowReader(corpus, share, image_size), **read)
    pool = ray.data.ActorPoolStrategy(size=readers)
    arguments = (corpus, share, image_size)
    return dataset.map_batches(_WindowReader, fn_constructor_args=arguments, compute=pool, num_cpus=0, **read)


def ordered_tasks(items: Sequence[dict[str, Any]]) -> ray.data.Dataset:
    """A stream that starts with one task an item, and keeps their order to its end."""
    dataset = ray.data.from_items(list(items), override_num_blocks=len(items))
    context = dataset.context
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    # A consumer may pause for long (a slow step, a checkpoint): that is no failure of the stream.
    context.execution_no_progress_timeout_s = -1
    context.target_max_block_size = BLOCK_BYTES
    return dataset


def pieces_of(window: Window, cuts: Sequence[int]) -> list[tuple[int, int]]:
    """First and one-past-last position within the window of each of its pieces."""
    inside = [cut - window.first for cut in cuts if window.first < cut < window.first + window.pairs]
    return list(pairwise([0, *inside, window.pairs]))


def encoded_pairs(
    checkpoint: str,
    corpus: str,
    windows: Sequence[Window],
    image_size: int,
    batch: int,
    runtime: Runtime,
    precision: Precision = "float32",
    half: bool = False,
) -> ray.data.Dataset:
    """Blocks of `sample_id` [n] and unit embeddings `image` and `text` [n, D], in the order of the windows.

    `half`: embeddings in float16, else in float32. `seconds` [n]: a pair's share of the encoder's time.
    `image_size`: pixels at which images are read and seen, whatever the checkpoint was trained at.
    """
    pairs = sum(window.pairs for window in windows)
    resources: dict[str, Any] = {"num_gpus": 1} if runtime.gpu else {"num_cpus": 1}
    return decoded_pairs(corpus, windows, Share(EpochSteps(pairs, pairs)), image_size).map_batches(
        _Encoder,
        fn_constructor_args=(checkpoint, image_size, precision, half, runtime.gpu, runtime.workers),
        compute=ray.data.ActorPoolStrategy(size=runtime.workers),
        batch_size=batch,
        **resources,
    )


def start_scorer(checkpoint: str, image_size: int | None, precision: Precision, gpu: bool, sharing: int) -> Scorer:
    """The checkpoint's scorer in this process, which shares the machine's cores with `sharing` - 1 others."""
    leave_wandb_out()
    # open_clip takes seconds to import, which the decoding tasks of this module can do without.
    from chexray.platform.model.checkpoint import load_checkpoint
    from chexray.platform.model.scoring import Scorer

    if not gpu:
        torch.set_num_threads(max(1, joblib.cpu_count() // sharing))
    return Scorer(load_checkpoint(checkpoint), "cuda" if gpu else "cpu", image_size, precision)


def window_from_json(text: str) -> Window:
    values = json.loads(text)
    return Window(**{**values, "shards": tuple(values["shards"])})


@dataclass(frozen=True)
class _WindowReader:
    """The decoding task: a window's description in, the pairs of the share out, in blocks."""

    corpus: str
    share: Share
    image_size: int

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        torch.set_num_threads(1)
        for text, first, end in zip(batch["window"], batch["first"], batch["end"], strict=True):
            window = window_from_json(str(text))
            positions = self.share.steps.positions(window, self.share.rank, self.share.world)
            positions = positions[(positions >= first) & (positions < end)]
            done = 0
            for block in read_window(self.corpus, window, positions, self.image_size):
                count = len(block["sample_id"])
                yield {**block, "position": window.first + positions[done : done + count]}
                done += count


class _Encoder:
    """The encoding actor: holds a checkpoint; decoded pairs in, embeddings out."""

    def __init__(
        self, checkpoint: str, image_size: int, precision: Precision, half: bool, gpu: bool, sharing: int
    ) -> None:
        self.scorer = start_scorer(checkpoint, image_size, precision, gpu, sharing)
        self.dtype = np.float16 if half else np.float32

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"sample_id": batch["sample_id"], **embed_block(self.scorer, batch, self.dtype)}


def embed_block(scorer: Scorer, block: dict[str, Any], dtype: Any) -> dict[str, Any]:
    """`image` and `text` [n, D] of a decoded block, and `seconds` [n], each pair's share of the time that it took."""
    started = time.perf_counter()
    image_nD, text_nD = scorer.embed(block["image"], block["report"].tolist())
    seconds = (time.perf_counter() - started) / len(image_nD)
    return {
        "image": image_nD.astype(dtype, copy=False),
        "text": text_nD.astype(dtype, copy=False),
        "seconds": np.full(len(image_nD), seconds, np.float32),
    }
