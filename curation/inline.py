"""Curation inside the training step, as the paper's released code does it: no scorer beside the trainers.

Every worker embeds its share of the global batch without gradient; rank 0 chooses from all of it; the kept pairs are
shared out anew, evenly, and only they go through backward. Any number of workers keeps the same pairs.

b: this worker's pairs of a global batch; D: embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from chexray.curation.curator import Block, Curator, Record, block_features
from chexray.curation.cursor import CurationCursor
from chexray.platform.corpus.order import EpochSteps
from chexray.platform.errors import ChexrayError
from chexray.platform.training.batch import Batch

Embed = Callable[[Batch], tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]
"""From a worker's share to unit embeddings of its images and reports, [b, D] each."""
_ROWS = ("image", "report", "sample_id")


class InlineCurator:
    """One worker's part in choosing. `embed` must leave the model as it was."""

    def __init__(self, curator: Curator, embed: Embed, rank: int, world: int) -> None:
        self.curator, self.embed = curator, embed
        self.rank, self.world = rank, world
        self.record = Record(curator.cut.pairs)

    def restore(self, cursor: CurationCursor) -> None:
        """Go on after the global batches that ended with the cursor, which rank 0 alone needs."""
        if self.rank == 0:
            self.curator.restore(cursor)
            self.record.add(cursor.rows["sample_id"], cursor.selection)

    def start(self, batches: Iterable[Batch]) -> None:
        """Start the prototypes from these batches, a random sample of the corpus."""
        features = [block_features(self._scored(batch)) for batch in batches]
        if self.rank == 0:
            self.curator.start(torch.cat(features)[: self.curator.config.kmeans_sample])

    def choose_all(self, batches: Iterable[Batch], on_scored: Callable[[Block], Any]) -> Iterator[Batch]:
        """This worker's shares of what is kept, one batch a global batch. `on_scored` is told on rank 0."""
        for batch in batches:
            block = self._scored(batch)
            kept: list[Any] = [None]
            if self.rank == 0:
                selection = self.curator.choose(block, block_features(block))
                self.record.add(block["sample_id"], selection)
                on_scored(block)
                kept = [selection.keep_B.numpy()]
            if self.world > 1:
                dist.broadcast_object_list(kept, src=0)
            yield self._share(batch, kept[0])

    def _scored(self, batch: Batch) -> Block:
        """The whole global batch as the curator takes it, on every worker."""
        image_bD, text_bD = self.embed(batch)
        ids = np.array(batch.sample_id, dtype=object)
        own = {"sample_id": ids, "image": image_bD.astype(np.float16), "text": text_bD.astype(np.float16)}
        return self._gathered(own)

    def _share(self, batch: Batch, keep_B: np.ndarray[Any, Any]) -> Batch:
        """An even, contiguous share of the kept pairs, from whoever holds them."""
        first = sum(batch.share_sizes[: self.rank])
        keep_b = keep_B[first : first + len(batch.sample_id)]
        rows = {name: np.asarray(getattr(batch, name), object if name != "image" else None)[keep_b] for name in _ROWS}
        kept = self._gathered(rows)
        steps = EpochSteps(len(kept["sample_id"]), max(1, len(kept["sample_id"])))
        if steps.pairs < self.world:
            raise ChexrayError(
                f"step {batch.step}: {steps.pairs} pairs are kept for {self.world} workers; use fewer workers, a "
                "larger train.global_batch or a larger curate.keep"
            )
        begin, end = steps.share(0, self.rank, self.world)
        return replace(
            batch,
            image=kept["image"][begin:end],
            report=kept["report"][begin:end].tolist(),
            sample_id=kept["sample_id"][begin:end].tolist(),
            share_sizes=steps.share_sizes(0, self.world),
        )

    def _gathered(self, own: Block) -> Block:
        """Everyone's rows, in the order of ranks."""
        if self.world == 1:
            return own
        parts: list[Any] = [None] * self.world
        dist.all_gather_object(parts, own)
        return {name: np.concatenate([part[name] for part in parts]) for name in own}
