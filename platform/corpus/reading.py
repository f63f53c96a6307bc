"""Reading and decoding the pairs of a window, for whoever streams a corpus. No Ray here.

n: pairs read; S: the model's image size in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from chexray.platform import storage
from chexray.platform.corpus.order import IntArray, Window
from chexray.platform.corpus.shards import read_table
from chexray.platform.model.preprocess import model_pixels

BLOCK_PAIRS = 256
_COLUMNS = ("sample_id", "image", "report")


def read_window(
    corpus: str, window: Window, positions: IntArray, image_size: int, apply: Callable[..., Iterable[Any]] = map
) -> Iterator[dict[str, Any]]:
    """Yield the pairs at `positions` of a window, in that order, in blocks of at most `BLOCK_PAIRS`.

    `apply`: as `map`, by which images are decoded; a thread pool's decodes several at a time.

    A block: `image` uint8 [n, S, S], `report` and `sample_id` object arrays of str [n].
    """
    table = pa.concat_tables([read_table(storage.join(corpus, shard), _COLUMNS) for shard in window.shards])
    rows = window.permutation()[positions]
    for start in range(0, len(rows), BLOCK_PAIRS):
        block = table.take(pa.array(rows[start : start + BLOCK_PAIRS]))
        yield {
            "image": np.stack(list(apply(partial(model_pixels, size=image_size), block["image"].to_pylist()))),
            "report": np.array(block["report"].to_pylist(), dtype=object),
            "sample_id": np.array(block["sample_id"].to_pylist(), dtype=object),
        }


class RowTaker:
    """Takes runs of rows, of any length, from a stream of blocks (dicts of arrays of one length)."""

    def __init__(self, blocks: Iterator[dict[str, Any]]) -> None:
        self._blocks = blocks
        self._held: dict[str, Any] | None = None
        self._next = 0
        """The first row of the held block that nobody has taken."""

    def take(self, count: int) -> dict[str, Any]:
        """The next `count` rows; what lies in one block is not copied.

        Raises `RuntimeError` where the stream ends before them.
        """
        pieces: list[dict[str, Any]] = []
        while count > 0 or not pieces:
            if self._held is None or (count > 0 and self._next == _rows(self._held)):
                self._held, self._next = self._another(count), 0
            end = min(self._next + count, _rows(self._held))
            pieces.append({name: values[self._next : end] for name, values in self._held.items()})
            count -= end - self._next
            self._next = end
        if len(pieces) == 1:
            return pieces[0]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def _another(self, missing: int) -> dict[str, Any]:
        block = next(self._blocks, None)
        if block is None:
            raise RuntimeError(f"the stream ended {missing} pairs too early")
        return block


def _rows(block: dict[str, Any]) -> int:
    return len(next(iter(block.values())))
