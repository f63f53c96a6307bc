"""Batches made ready ahead: all of them, in order, with their tokens; and an end to waiting."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from ranks import MODEL, batch

from chexray.platform.model.encoder import build_tokenizer
from chexray.platform.training.batch import Batch
from chexray.platform.training.prefetch import StalledError, prefetched

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenize() -> Any:
    return build_tokenizer(MODEL)


@pytest.mark.timeout(60)
def test_prefetched_batches_are_all_there_in_order_with_their_tokens(tokenize: Any) -> None:
    found = list(prefetched(iter([batch(step) for step in range(7)]), tokenize, CPU, 2, 30))
    assert [one.step for one in found] == list(range(7))
    assert all(torch.equal(one.token, tokenize(list(one.report))) for one in found)


@pytest.mark.timeout(60)
def test_prefetched_reads_no_further_ahead_than_told(tokenize: Any) -> None:
    asked: list[int] = []
    third = threading.Event()

    def source() -> Iterator[Batch]:
        for step in range(10):
            asked.append(step)
            if step == 3:
                third.set()
            yield batch(step)

    batches = prefetched(source(), tokenize, CPU, 2, 30)
    next(batches)
    # One in hand, two ready, one that waits to be put.
    assert third.wait(30)
    assert max(asked) <= 4
    batches.close()  # type: ignore[attr-defined]


@pytest.mark.timeout(60)
def test_prefetched_raises_what_its_source_raises(tokenize: Any) -> None:
    def source() -> Iterator[Batch]:
        yield batch(0)
        raise ValueError("the shard is gone")

    batches = prefetched(source(), tokenize, CPU, 2, 30)
    assert next(batches).step == 0
    with pytest.raises(ValueError, match="the shard is gone"):
        next(batches)


@pytest.mark.timeout(60)
def test_prefetched_does_not_wait_for_ever_and_says_for_what(tokenize: Any) -> None:
    never = threading.Event()

    def source() -> Iterator[Batch]:
        never.wait()
        yield batch(0)

    with pytest.raises(StalledError, match=r"no pairs came for 0.2 seconds \(run.stall_seconds\)"):
        next(prefetched(source(), tokenize, CPU, 2, 0.2))
    never.set()
