"""Taking runs of rows from a stream of blocks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chexray.platform.corpus.reading import RowTaker


def blocks_of(sizes: list[int]) -> Iterator[dict[str, Any]]:
    ends = np.cumsum(sizes)
    for size, end in zip(sizes, ends, strict=True):
        numbers = np.arange(end - size, end)
        yield {"number": numbers, "name": np.array([f"row {n}" for n in numbers], dtype=object)}


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.data())
def test_row_taker_gives_the_stream_cut_at_any_places(sizes: list[int], data: st.DataObject) -> None:
    whole = np.concatenate([block["number"] for block in blocks_of(sizes)])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    taker = RowTaker(blocks_of(sizes))
    for first, end in itertools.pairwise([0, *cuts, len(whole)]):
        taken = taker.take(end - first)
        np.testing.assert_array_equal(taken["number"], whole[first:end])
        assert taken["name"].tolist() == [f"row {n}" for n in whole[first:end]]
    with pytest.raises(RuntimeError, match="ended 1 pairs too early"):
        taker.take(1)


def test_row_taker_asked_for_more_than_there_is_says_how_many_are_missing() -> None:
    with pytest.raises(RuntimeError, match="ended 3 pairs too early"):
        RowTaker(blocks_of([2, 5])).take(10)
