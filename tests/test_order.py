"""The order of an epoch: every pair once, the same steps at any number of workers; by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chexray.platform.corpus.order import EpochSteps, epoch_windows
from chexray.platform.corpus.shards import Shard

Pair = tuple[str, int]
"""A shard's path and a row of it."""

shard_lists = st.lists(st.integers(0, 12), min_size=1, max_size=9).map(
    lambda sizes: [Shard(f"shards/train-{i:05d}.parquet", "train", size) for i, size in enumerate(sizes)]
)
seeds = st.none() | st.integers(0, 2**32 - 1)
worlds = st.integers(1, 9)


def read_order(
    shards: list[Shard], epoch: int, seed: int | None, together: int, steps: EpochSteps, rank: int = 0, world: int = 1
) -> list[Pair]:
    """The pairs that a worker reads in an epoch, row by row."""
    sizes = {shard.path: shard.pairs for shard in shards}
    read: list[Pair] = []
    for window in epoch_windows(shards, epoch, seed, together):
        rows = [(path, row) for path in window.shards for row in range(sizes[path])]
        assert len(rows) == window.pairs
        permutation = window.permutation()
        read += [rows[permutation[position]] for position in steps.positions(window, rank, world)]
    return read


def all_pairs(shards: list[Shard]) -> list[Pair]:
    return [(shard.path, row) for shard in shards for row in range(shard.pairs)]


def even_shards(count: int = 6, pairs: int = 10) -> list[Shard]:
    return [Shard(f"shards/train-{i:05d}.parquet", "train", pairs) for i in range(count)]


@given(shard_lists, st.integers(0, 5), seeds, st.integers(1, 10))
def test_windows_of_an_epoch_hold_each_pair_once(
    shards: list[Shard], epoch: int, seed: int | None, together: int
) -> None:
    pairs = all_pairs(shards)
    read = read_order(shards, epoch, seed, together, EpochSteps(len(pairs), 4))
    assert sorted(read) == sorted(pairs)


@given(shard_lists, st.integers(0, 5), seeds, st.integers(1, 10))
def test_windows_follow_each_other_without_gap_and_bound_the_shards_held(
    shards: list[Shard], epoch: int, seed: int | None, together: int
) -> None:
    windows = epoch_windows(shards, epoch, seed, together)
    ends = np.cumsum([window.pairs for window in windows])
    assert [window.first for window in windows] == [0, *ends[:-1]]
    assert [window.index for window in windows] == list(range(len(windows)))
    assert all(1 <= len(window.shards) <= together for window in windows)
    assert sorted(path for window in windows for path in window.shards) == [shard.path for shard in shards]


@given(st.integers(1, 500), st.integers(1, 70))
def test_steps_cover_the_epoch_with_sizes_even_to_one_pair_and_never_above_the_batch(pairs: int, batch: int) -> None:
    steps = EpochSteps(pairs, batch)
    bounds = [steps.bounds(step) for step in range(steps.steps)]
    assert [position for first, end in bounds for position in range(first, end)] == list(range(pairs))
    sizes = [end - first for first, end in bounds]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch
    # No fewer steps could hold all pairs.
    assert (steps.steps - 1) * batch < pairs <= steps.steps * batch


@given(st.integers(1, 300), st.integers(1, 70), worlds)
def test_shares_of_a_step_partition_it_evenly_at_any_number_of_workers(pairs: int, batch: int, world: int) -> None:
    steps = EpochSteps(pairs, batch)
    for step in range(steps.steps):
        shares = [steps.share(step, rank, world) for rank in range(world)]
        first, end = steps.bounds(step)
        assert [position for a, b in shares for position in range(a, b)] == list(range(first, end))
        sizes = [b - a for a, b in shares]
        assert sizes == steps.share_sizes(step, world)
        assert max(sizes) - min(sizes) <= 1


@given(shard_lists, st.integers(0, 3), seeds, st.integers(1, 4), st.integers(1, 20), worlds)
def test_step_holds_the_same_pairs_in_the_same_order_at_any_number_of_workers(
    shards: list[Shard], epoch: int, seed: int | None, together: int, batch: int, world: int
) -> None:
    steps = EpochSteps(len(all_pairs(shards)), batch)
    alone = read_order(shards, epoch, seed, together, steps)
    streams = [iter(read_order(shards, epoch, seed, together, steps, rank, world)) for rank in range(world)]
    for step in range(steps.steps):
        first, end = steps.bounds(step)
        sizes = steps.share_sizes(step, world)
        shared = [next(stream) for stream, size in zip(streams, sizes, strict=True) for _ in range(size)]
        assert shared == alone[first:end]
    assert all(next(stream, None) is None for stream in streams)


def test_order_of_different_epochs_and_seeds_differs() -> None:
    shards, steps = even_shards(), EpochSteps(60, 8)
    orders = {tuple(read_order(shards, epoch, seed, 2, steps)) for epoch in range(5) for seed in range(5)}
    assert len(orders) == 25


def test_order_of_the_same_seed_is_the_same_and_known() -> None:
    shards, steps = even_shards(3, 2), EpochSteps(6, 4)
    first = read_order(shards, 1, 7, 2, steps)
    assert first == read_order(list(shards), 1, 7, 2, steps)
    # By numpy alone: a run that is resumed with a newer chexray must go on with the order that it began.
    by_shard = [shards[i].path for i in np.random.default_rng([7, 1]).permutation(3)]
    groups = [[(p, r) for p in by_shard[:2] for r in (0, 1)], [(p, r) for p in by_shard[2:] for r in (0, 1)]]
    expected = [
        group[i]
        for index, group in enumerate(groups)
        for i in np.random.default_rng([7, 1, index]).permutation(len(group))
    ]
    assert first == expected


def test_order_without_a_seed_is_the_corpus_own() -> None:
    shards = even_shards(5, 3)
    assert read_order(shards, 4, None, 2, EpochSteps(15, 4)) == all_pairs(shards)


def test_pairs_of_one_shard_spread_over_the_window_not_the_epoch() -> None:
    """Shuffling is bounded by the window: a shard's pairs are read within it, mixed with its neighbours'."""
    shards = even_shards(6, 50)
    read = read_order(shards, 0, 0, 2, EpochSteps(300, 10))
    for start in range(0, 300, 100):
        members = [path for path, _ in read[start : start + 100]]
        assert len(set(members)) == 2
        assert members != sorted(members)
        assert members != sorted(members, reverse=True)


@pytest.mark.parametrize(("pairs", "batch", "sizes"), [(10, 4, [3, 3, 4]), (8, 4, [4, 4]), (3, 8, [3]), (0, 8, [])])
def test_steps_of_known_epochs_have_hand_computed_sizes(pairs: int, batch: int, sizes: list[int]) -> None:
    steps = EpochSteps(pairs, batch)
    assert [end - first for first, end in (steps.bounds(step) for step in range(steps.steps))] == sizes
