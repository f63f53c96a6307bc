"""Kept pairs between the curator and the workers: every pair once, in order, whoever is faster."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.curation.handout import Handout
from chexray.platform.corpus.order import EpochSteps


def block(first: int, end: int) -> dict[str, np.ndarray]:
    return {"sample_id": np.arange(first, end), "pixels": np.arange(first, end)[:, None] * 10}


@pytest.mark.timeout(60)
@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=20).filter(lambda sizes: sum(sizes) >= 3),
    step=st.integers(3, 40),
    world=st.integers(1, 3),
    limit=st.integers(1, 60),
)
def test_handout_gives_every_worker_its_share_of_every_step_in_order(
    sizes: list[int], step: int, world: int, limit: int
) -> None:
    steps = EpochSteps(sum(sizes), step)
    handout = Handout(steps, limit)
    ends = np.cumsum(sizes).tolist()

    def put() -> None:
        for first, end in zip([0, *ends], ends, strict=False):
            handout.put(block(first, end))

    def take(rank: int) -> list[list[int]]:
        taken = [handout.take(number, rank, world) for number in range(steps.steps)]
        assert all((one["pixels"][:, 0] == one["sample_id"] * 10).all() for one in taken)
        return [one["sample_id"].tolist() for one in taken]

    with ThreadPoolExecutor(world + 1) as pool:
        feeding = pool.submit(put)
        workers = list(pool.map(take, range(world)))
        feeding.result(timeout=20)
    for number in range(steps.steps):
        first, end = steps.bounds(number)
        assert [sample for worker in workers for sample in worker[number]] == list(range(first, end))
        assert [len(worker[number]) for worker in workers] == steps.share_sizes(number, world)


@pytest.mark.timeout(30)
def test_handout_makes_the_curator_wait_for_the_workers() -> None:
    handout = Handout(EpochSteps(100, 10), limit=20)
    done: list[int] = []

    def put() -> None:
        for first in range(0, 100, 10):
            handout.put(block(first, first + 10))
            done.append(first)

    feeding = threading.Thread(target=put)
    feeding.start()
    feeding.join(0.5)
    # The step that is next, 20 pairs beyond it, and the block that was let in when there were 20.
    assert feeding.is_alive()
    assert len(done) <= 4
    for step in range(10):
        handout.take(step, 0, 1)
    feeding.join(20)
    assert not feeding.is_alive()


def test_handout_steps_do_not_hold_the_blocks_they_came_in() -> None:
    """A view of a few rows would keep the whole super-batch in memory."""
    handout, put = Handout(EpochSteps(4, 2), limit=10), block(0, 4)
    handout.put(put)
    taken = handout.take(0, 0, 1)
    assert taken["sample_id"].tolist() == [0, 1]
    assert not any(np.shares_memory(taken[name], put[name]) for name in put)


@pytest.mark.timeout(30)
def test_handout_failure_wakes_whoever_waits() -> None:
    handout = Handout(EpochSteps(10, 10), limit=10)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(handout.take, 0, 0, 1)
        handout.fail(ValueError("the stream broke"))
        with pytest.raises(ValueError, match="the stream broke"):
            waiting.result(timeout=20)
    with pytest.raises(ValueError, match="the stream broke"):
        handout.put(block(0, 1))
