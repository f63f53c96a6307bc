"""The batches of a run through Ray Data: the same pairs in every step at any number of workers and from any step on."""

from __future__ import annotations

import numpy as np
import pytest
from small_runs import small

from chexray.jobs.feed import feed_of
from chexray.platform.corpus.shards import read_columns
from chexray.platform.training.loop import digest_ids

EPOCHS = 2


@pytest.fixture(scope="module")
def steps(small_corpus: str) -> list[list[str]]:
    """Sample ids of every step, by one worker from the start."""
    return [list(batch.sample_id) for batch in feed_of(small(f"train.epochs={EPOCHS}"), small_corpus).batches(0, 1)]


def test_feed_serves_every_pair_of_the_corpus_once_an_epoch(small_corpus: str, steps: list[list[str]]) -> None:
    ids = sorted(read_columns(small_corpus, ["sample_id"], "train")["sample_id"].to_pylist())
    half = len(steps) // EPOCHS
    for epoch in (steps[:half], steps[half:]):
        assert sorted(sample for step in epoch for sample in step) == ids
        assert (sum(digest_ids(step) for step in epoch) - digest_ids(ids)) % 2**64 == 0
    assert steps[:half] != steps[half:]


@pytest.mark.parametrize(("world", "cursor"), [(1, 1), (2, 3), (3, 5), (1, "epoch"), (2, "last"), (1, "end")])
def test_feed_from_a_cursor_serves_exactly_the_rest(
    small_corpus: str, steps: list[list[str]], world: int, cursor: int | str
) -> None:
    named = {"epoch": len(steps) // EPOCHS, "last": len(steps) - 1, "end": len(steps)}
    first = named[cursor] if isinstance(cursor, str) else cursor
    feed = feed_of(small(f"train.epochs={EPOCHS}"), small_corpus)
    shares = [list(feed.batches(rank, world, first)) for rank in range(world)]
    assert [[batch.step for batch in share] for share in shares] == [list(range(first, len(steps)))] * world
    found = [[sample for batch in step for sample in batch.sample_id] for step in zip(*shares, strict=True)]
    assert found == steps[first:]
    assert all(batch.image.dtype == np.uint8 for batch in shares[0])
