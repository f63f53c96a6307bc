"""Ray Data over a corpus: read and decode on any CPU, encode in an actor pool, blocks in the corpus's own order.

The one place in `platform` that imports Ray beside the SDK: curation, training and evaluation all stream pairs the
same way. What a block holds follows from the windows alone, never from which task was first.

n: pairs of a block; S: image size in pixels; D: embedding width.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ray.data
import torch

from chexray.platform.config import Runtime
from chexray.platform.corpus.order import EpochSteps, Window
from chexray.platform.corpus.reading import read_window


@dataclass(frozen=True)
class Share:
    """Which part of the steps' pairs to read: all of them, or one training worker's."""

    steps: EpochSteps
    rank: int = 0
    world: int = 1


def decoded_pairs(corpus: str, windows: Sequence[Window], share: Share, image_size: int) -> ray.data.Dataset:
    """Blocks of `image` uint8 [n, S, S], `report` and `sample_id` [n], in the order of the windows."""
    items = [{"window": json.dumps(asdict(window))} for window in windows]
    dataset = ray.data.from_items(items, override_num_blocks=len(items))
    dataset.context.execution_options.preserve_order = True
    dataset.context.enable_progress_bars = False
    # A consumer may pause for long (a slow step, a checkpoint): that is no failure of the stream.
    dataset.context.execution_no_progress_timeout_s = -1
    return dataset.map_batches(_WindowReader(corpus, share, image_size), batch_size=1, zero_copy_batch=True)


def encoded_pairs(
    checkpoint: str, corpus: str, windows: Sequence[Window], image_size: int, batch: int, runtime: Runtime
) -> ray.data.Dataset:
    """Blocks of `sample_id` [n] and unit embeddings `image` and `text`, float32 [n, D], in the order of the windows."""
    pairs = sum(window.pairs for window in windows)
    resources: dict[str, Any] = {"num_gpus": 1} if runtime.gpu else {"num_cpus": 1}
    return decoded_pairs(corpus, windows, Share(EpochSteps(pairs, pairs)), image_size).map_batches(
        _Encoder,
        fn_constructor_kwargs={"checkpoint": checkpoint, "gpu": runtime.gpu, "sharing": runtime.workers},
        compute=ray.data.ActorPoolStrategy(size=runtime.workers),
        batch_size=batch,
        **resources,
    )


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
        for text in batch["window"]:
            window = window_from_json(str(text))
            positions = self.share.steps.positions(window, self.share.rank, self.share.world)
            yield from read_window(self.corpus, window, positions, self.image_size)


class _Encoder:
    """The encoding actor: holds a checkpoint; decoded pairs in, embeddings out."""

    def __init__(self, checkpoint: str, gpu: bool, sharing: int) -> None:
        # open_clip takes seconds to import, which the decoding tasks of this module can do without.
        from chexray.platform.model.checkpoint import load_checkpoint

        self.device = "cuda" if gpu else "cpu"
        if not gpu:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // sharing))
        self.checkpoint = load_checkpoint(checkpoint, self.device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        from chexray.platform.model.encoder import encode

        image = torch.from_numpy(batch["image"]).to(self.device)
        token = self.checkpoint.tokenize(batch["report"].tolist()).to(self.device)
        with torch.inference_mode():
            image_nD, text_nD = encode(self.checkpoint.model, image, token)
        return {
            "sample_id": batch["sample_id"],
            "image": image_nD.float().cpu().numpy(),
            "text": text_nD.float().cpu().numpy(),
        }
