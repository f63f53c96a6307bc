"""Embeddings of a corpus on storage, so that other rules can choose from them without scoring again.

    FEATURES/embeddings.npy   float16 [N, 2, D]: unit embeddings of the image and of the report
    FEATURES/ids.npy          sample ids, bytes of 32 hex digits [N], in the same order: that of the stream
    FEATURES/features.json    what else is known: pairs, width, the scorer's inverse temperature

A subset that was chosen by its pairs' features has them in its folder `features`.
N: pairs; D: embedding width; n: pairs of a block. float16 moves a distance by less than 1e-3, and halves all else.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from chexray.curation.curator import ID_BYTES, Block
from chexray.platform import storage
from chexray.platform.errors import UsageError

FEATURES_FOLDER = "features"
_DESCRIPTION = "features.json"
_BLOCK_PAIRS = 4096


@dataclass(frozen=True)
class Features:
    """Embeddings that lie in a file: rows are read when they are asked for."""

    sample_id: list[str]
    embedding_N2D: npt.NDArray[np.float16]
    logit_scale: float | None
    """The scorer's inverse temperature; None for a scorer that changed meanwhile."""

    @property
    def image_ND(self) -> torch.Tensor:
        return _tensor(self.embedding_N2D[:, 0])

    @property
    def text_ND(self) -> torch.Tensor:
        return _tensor(self.embedding_N2D[:, 1])

    @property
    def feature_NE(self) -> torch.Tensor:
        """Pair features but for their length, which is the square root of 2: float16 [N, 2D]."""
        return _tensor(self.embedding_N2D.reshape(len(self.sample_id), -1))

    def blocks(self, shuffle: int | None = None) -> Iterator[Block]:
        """The stream once more, as the curator takes it; in another order with a seed to `shuffle` by."""
        ids = np.array(self.sample_id, dtype=object)
        order = np.arange(len(ids)) if shuffle is None else np.random.default_rng(shuffle).permutation(len(ids))
        for start in range(0, len(ids), _BLOCK_PAIRS):
            rows = order[start : start + _BLOCK_PAIRS]
            embedding = self.embedding_N2D[rows]
            yield {"sample_id": ids[rows], "image": embedding[:, 0], "text": embedding[:, 1]}


class FeatureWriter:
    """Takes a stream's blocks into a file on this machine, which goes to storage when it is complete. To be closed."""

    def __init__(self, uri: str, pairs: int) -> None:
        self._uri, self._pairs = uri, pairs
        self._folder = tempfile.TemporaryDirectory(prefix="chexray-")
        self._file: Any = None  # a memory map
        self._ids = np.zeros(pairs, ID_BYTES)
        self._done = 0

    def take(self, block: Block) -> Block:
        """Append the block, and pass it on."""
        rows = slice(self._done, self._done + len(block["sample_id"]))
        if self._file is None:
            shape = (self._pairs, 2, block["image"].shape[1])
            path = Path(self._folder.name, "embeddings.npy")
            self._file = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        self._file[rows, 0], self._file[rows, 1] = block["image"], block["text"]
        self._ids[rows] = block["sample_id"].astype(ID_BYTES)
        self._done = rows.stop
        return block

    def first(self, pairs: int) -> npt.NDArray[np.float16]:
        """The first rows [pairs, 2, D] again, copied."""
        if self._file is None:
            return np.empty((0, 2, 0), np.float16)
        return np.array(self._file[:pairs])

    def finish(self, logit_scale: float | None) -> None:
        """Put it onto storage, the description last. RuntimeError where pairs are missing."""
        if self._file is None or self._done != self._pairs:
            raise RuntimeError(f"the stream ended after {self._done} of {self._pairs} pairs")
        self._file.flush()
        np.save(Path(self._folder.name, "ids.npy"), self._ids, allow_pickle=False)
        storage.upload_tree(Path(self._folder.name), self._uri)
        about = {"pairs": self._pairs, "width": self._file.shape[2], "logit_scale": logit_scale}
        storage.write_json(storage.join(self._uri, _DESCRIPTION), about)

    def close(self) -> None:
        """Remove what lies on this machine."""
        self._file = None
        self._folder.cleanup()


def has_features(uri: str) -> bool:
    return storage.exists(storage.join(uri, _DESCRIPTION))


@contextmanager
def open_features(uri: str) -> Iterator[Features]:
    """The features at `uri`, by memory map. UsageError where there are none."""
    if not has_features(uri):
        raise UsageError(f"{uri}: holds no features; give a subset that was chosen by its pairs' features")
    about: dict[str, Any] = storage.read_json(storage.join(uri, _DESCRIPTION))
    with storage.local_copy(uri, (".npy",)) as folder:
        embedding = np.load(folder / "embeddings.npy", mmap_mode="r", allow_pickle=False)
        ids = np.load(folder / "ids.npy", allow_pickle=False)
        if len(ids) != len(embedding):
            raise UsageError(f"{uri}: {len(ids)} ids for {len(embedding)} embeddings; score the corpus again")
        yield Features(ids.astype(str).tolist(), embedding, about["logit_scale"])


def _tensor(rows: npt.NDArray[np.float16]) -> torch.Tensor:
    """The rows where they lie. torch warns that they cannot be written to, which nobody does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.from_numpy(rows)
