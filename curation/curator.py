"""The curator: takes a stream of embedded pairs, super-batch after super-batch, and chooses from each. No Ray here.

n: pairs of a block; N: pairs of the corpus; D: embedding width; E = 2D; K prototypes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from chexray.curation.cursor import CurationCursor
from chexray.curation.prototypes import kmeans, pair_features, update_prototypes
from chexray.curation.selection import HASH_DIGITS, Selection, SelectionRule, select, superbatch_budget
from chexray.platform.config import CurateConfig
from chexray.platform.corpus.order import EpochSteps
from chexray.platform.corpus.reading import RowTaker

ID_BYTES = f"S{HASH_DIGITS}"
"""How numpy holds sample ids."""

Block = dict[str, Any]
"""Arrays of one length, by name: `sample_id`, unit embeddings `image` and `text` [n, D], and whatever rides along."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """A super-batch and what became of its pairs, row by row."""

    block: Block
    selection: Selection


@dataclass(frozen=True, eq=False)
class Curated:
    """What became of every pair, in the order of the stream; and the prototypes at its end (float32 [K, E])."""

    sample_id: list[str]
    selection: Selection
    prototype_KE: torch.Tensor


class Curator:
    """Holds the prototypes, which follow what is kept."""

    def __init__(self, config: CurateConfig, pairs: int) -> None:
        self.config = config
        self.cut = EpochSteps(pairs, config.super_batch)
        self.rule = SelectionRule(
            config.outlier, config.support, config.mode, config.central_per_cluster, config.central_quota
        )
        self.prototype_KE: torch.Tensor | None = None
        self.seen = 0

    def restore(self, cursor: CurationCursor) -> None:
        """Go on after the super-batches that ended with the cursor."""
        self.prototype_KE, self.seen = cursor.prototype_KE, cursor.position

    def choose_all(self, blocks: Iterator[Block]) -> Iterator[Chosen]:
        """Cut the stream into super-batches and choose from each, once the prototypes have started.

        They start from the first `kmeans_sample` pairs, which wait for that: the stream's order is random. After
        `restore` the stream must begin where the cursor stands.
        """
        rows = RowTaker(blocks)
        waiting: list[tuple[Block, torch.Tensor]] = []
        sample = min(self.config.kmeans_sample, self.cut.pairs)
        bounds = [self.cut.bounds(step) for step in range(self.cut.steps)]
        for first, end in [(first, end) for first, end in bounds if first >= self.seen]:
            block = rows.take(end - first)
            waiting.append((block, block_features(block)))
            if self.prototype_KE is None:
                if end < sample:
                    # A copy: what waits long must not hold the stream's own blocks.
                    waiting[-1] = ({name: values.copy() for name, values in block.items()}, waiting[-1][1])
                    continue
                self.start(torch.cat([feature for _, feature in waiting])[:sample])
            yield from (Chosen(block, self.choose(block, feature_BE)) for block, feature_BE in waiting)
            waiting = []

    def start(self, feature_NE: torch.Tensor) -> None:
        """The first prototypes: k-means on the features of a random sample of the corpus."""
        self.prototype_KE = kmeans(feature_NE, self.config.prototypes, self.config.seed)

    def choose(self, block: Block, feature_BE: torch.Tensor) -> Selection:
        """Choose from the next super-batch, and let the prototypes follow."""
        assert self.prototype_KE is not None  # `start` comes first
        config = self.config
        size = len(feature_BE)
        budget = superbatch_budget(config.keep, self.seen, size) if config.mode == "budget" else None
        selection = select(feature_BE, self.prototype_KE, self.rule, budget, block["sample_id"].tolist())
        self.seen += size
        kept_BE = feature_BE[selection.keep_B]
        self.prototype_KE = update_prototypes(
            self.prototype_KE, kept_BE, config.momentum, config.sinkhorn_epsilon, config.sinkhorn_iterations
        )
        return selection


class Record:
    """Gathers what was chosen, for the end, in arrays as long as the corpus.

    Many small pieces would leave holes in memory, between large blocks that come and go, where nothing fits any more.
    """

    def __init__(self, pairs: int) -> None:
        self._done = 0
        self._id_N = np.zeros(pairs, ID_BYTES)
        self._selection = Selection(
            torch.zeros(pairs, dtype=torch.int64),
            torch.zeros(pairs, dtype=torch.float32),
            torch.zeros(pairs, dtype=torch.int8),
            torch.zeros(pairs, dtype=torch.bool),
        )

    def add(self, sample_id: np.ndarray[Any, Any], selection: Selection) -> int:
        """Returns the number of pairs so far."""
        rows = slice(self._done, self._done + len(sample_id))
        self._id_N[rows] = sample_id.astype(ID_BYTES)
        for name, values in vars(self._selection).items():
            values[rows] = getattr(selection, name)
        self._done = rows.stop
        return self._done

    def first(self, pairs: int) -> tuple[np.ndarray[Any, Any], Selection]:
        """Ids (bytes) and choice of the first `pairs`, copied."""
        found = {name: values[:pairs].clone() for name, values in vars(self._selection).items()}
        return self._id_N[:pairs].copy(), Selection(**found)

    def kept(self, start: int) -> np.ndarray[Any, Any]:
        """Ids (bytes) of the kept pairs from this place on."""
        found: np.ndarray[Any, Any] = self._id_N[start : self._done][self._selection.keep_B[start : self._done].numpy()]
        return found

    @property
    def sample_id(self) -> list[str]:
        ids: list[str] = self._id_N[: self._done].astype(str).tolist()
        return ids

    def curated(self, prototype_KE: torch.Tensor) -> Curated:
        """RuntimeError where a pair was looked at twice."""
        if len(np.unique(self._id_N[: self._done])) != self._done:
            raise RuntimeError("the stream that was chosen from held a pair twice")
        selection = Selection(**{name: values[: self._done] for name, values in vars(self._selection).items()})
        return Curated(self.sample_id, selection, prototype_KE.cpu())


def block_features(block: Block) -> torch.Tensor:
    """Pair features [n, E] float32 of a block's embeddings."""
    return pair_features(torch.from_numpy(block["image"]), torch.from_numpy(block["text"]))
