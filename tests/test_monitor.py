"""What bounds a run: waiting is timed, exchange is seen, and the shares add up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from ranks import PAIRS, batch, run_ranks, trainer

from chexray.platform.config import RunConfig, TrainConfig
from chexray.platform.ledger import PairFlops
from chexray.platform.training.batch import Batch
from chexray.platform.training.monitor import Throughput, WaitClock, alone, throughput, watched

SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)).map(lambda s: (s[0], s[0] + s[1])), max_size=12)


@given(SPANS, SPANS)
def test_time_alone_counts_as_by_single_ticks(spans: list[tuple[int, int]], others: list[tuple[int, int]]) -> None:
    def lasting(some: list[tuple[int, int]]) -> set[int]:
        return {tick for first, end in some for tick in range(first, end)}

    assert alone(spans, others) == len(lasting(spans) - lasting(others))


def test_wait_clock_counts_what_pairs_take_to_come_and_nothing_else() -> None:
    def slowly() -> Iterator[Batch]:
        for step in range(3):
            time.sleep(0.1)
            yield batch(step)

    clock, batches = WaitClock(torch.device("cpu")), slowly()
    while clock.next(batches) is not None:
        time.sleep(0.05)  # the step
    found = clock.read()
    assert found >= 0.3
    assert clock.read() == 0.0


def exchange(rank: int, world: int, seconds: float) -> float:
    """The share of exchange in a step that computes for a while, and in which the other worker comes late."""

    def step() -> None:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            torch.ones(64, 64) @ torch.ones(64, 64)
        if rank == 1:
            time.sleep(2 * seconds)
        dist.all_reduce(torch.ones(10))

    step()  # torch's profiler takes its time at first
    return watched(step, torch.device("cpu"))[1]


def test_exchange_that_waits_for_a_slow_worker_is_seen_as_communication(tmp_path: Path) -> None:
    waiting, late = run_ranks(exchange, 2, tmp_path, 0.3)
    print(f"communication: {waiting:.2f} of the step of who waits, {late:.2f} of the other's")
    assert waiting > 0.3  # two thirds but for the profiler's own time
    assert late < waiting


def steps_looked_into(rank: int, world: int) -> list[tuple[float | None, int]]:
    made = trainer(TrainConfig(), world, RunConfig(profile_steps=10, micro_batch=2))
    made.flops = PairFlops(1, 1, 1000, 160)
    for step in range(17):
        made.step(batch(step, rank, world))
    return [(record.communication, record.flops) for record in made.read()]


def test_steps_are_looked_into_now_and_then_on_the_first_worker_and_count_their_flops(tmp_path: Path) -> None:
    first, second = run_ranks(steps_looked_into, 2, tmp_path)
    assert [step for step, (share, _) in enumerate(first) if share is not None] == [5, 15]
    assert all(0 < share <= 1 for share, _ in first if share is not None)
    assert all(share is None for share, _ in second)
    # The plain text tower takes all of its 16 tokens: 10 a token.
    assert {flops for _, flops in first + second} == {PAIRS * (1000 + 160)}


def line(**given: Any) -> dict[str, Any]:
    plain = {"seconds": 2.0, "data_seconds": 0.5, "pairs": 10, "workers": 4, "flops": 80, "communication": None}
    return plain | given


def test_throughput_of_steps_names_what_bounds_them() -> None:
    found = throughput([line(), line(communication=0.1)], peak_flops=20.0)
    assert found == Throughput(pairs_per_second=5.0, data=0.25, communication=0.1, utilisation=160 / (16 * 20))
    assert found.bound == "compute"
    assert str(found) == "5 pairs/s, bound by compute (65%), 50% of peak FLOP/s"
    assert throughput([line(data_seconds=1.2)], None).bound == "data"
    slow = throughput([line(communication=0.6)], None)
    assert str(slow) == "5 pairs/s, bound by communication (60%)"
    assert slow.utilisation is None


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_throughput_without_time_or_looks_is_defined(seconds: float) -> None:
    found = throughput([line(seconds=seconds, data_seconds=0.0)], None)
    assert found.data == 0.0
    assert found.communication is None
