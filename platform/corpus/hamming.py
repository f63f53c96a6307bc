"""Exact pairs of near 256-bit hashes among a million, without comparing all with all.

Cut the bits into d + 1 disjoint bands: two hashes that differ in at most d bits agree in one band at least. Pairs that
agree in a band are found by sorting, and only these are compared in full (Norouzi, Punjani and Fleet, CVPR 2012).

Shapes: N hashes, M hashes of another set, 32 bytes, P pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from chexray.platform.errors import ChexrayError

BITS = 256

MAX_PAIRS = 20_000_000
"""More near pairs than this are an error: what is compared are then not images, or the distance is too large."""

_CHUNK = 2**20
"""How many pairs are compared at once: about 100 MB."""
_MAX_KEY_BITS = 31

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]


class _Words(NamedTuple):
    """Hashes as four 64-bit words, sorted by `key`; `row` is where they were."""

    key: npt.NDArray[np.uint32]
    row: Integers
    words_N4: npt.NDArray[np.uint64]


def pairs_within(hashes_N32: Bytes, max_distance: int) -> Integers:
    """Every pair within `max_distance` bits as pair_P3 (row i, row j > i, distance), sorted. See `near_duplicates`."""
    check_hashes("hashes_N32", hashes_N32, max_distance)
    return _join(hashes_N32, None, max_distance)


def matches_within(a_N32: Bytes, b_M32: Bytes, max_distance: int) -> Integers:
    """Every pair of the two sets as pair_P3 (row of a, row of b, distance), sorted. See `near_matches`."""
    check_hashes("a_N32", a_N32, max_distance)
    check_hashes("b_M32", b_M32, max_distance)
    return _join(a_N32, b_M32, max_distance)


def check_hashes(name: str, hashes_N32: Bytes, max_distance: int) -> None:
    """ValueError where these are no hashes, or no distance between hashes."""
    if hashes_N32.dtype != np.uint8 or hashes_N32.ndim != 2 or hashes_N32.shape[1] != BITS // 8:
        raise ValueError(f"{name} is {hashes_N32.dtype} of shape {hashes_N32.shape}: it must be uint8 [N, {BITS // 8}]")
    if not 0 <= max_distance <= BITS:
        raise ValueError(f"max_distance is {max_distance}: it must be 0 to {BITS}")


def _join(a_N32: Bytes, b_M32: Bytes | None, max_distance: int) -> Integers:
    """Pairs of a with b, or i < j within a where b is None. Sorted."""
    found = _Found(len(a_N32) if b_M32 is None else len(b_M32))
    if not len(a_N32) or not found.columns:
        return found.pairs()
    for bits in _bands(a_N32, max_distance):
        left = _sort(a_N32, bits)
        right = None if b_M32 is None else _sort(b_M32, bits)
        for pairs_P3 in _compare_buckets(left, right, max_distance):
            found.add(pairs_P3)
    return found.pairs()


def _bands(hashes_N32: Bytes, max_distance: int) -> list[Integers]:
    """Which bits are in each band. The most even bits of these hashes are dealt out first.

    Low frequencies of a perceptual hash are the same in almost every chest: a band of them alone would be one bucket.
    """
    bands = max_distance + 1
    width = min(BITS // bands, _MAX_KEY_BITS)
    if width == 0:
        return [np.zeros(0, np.int64)]  # one band without bits: all are compared with all
    ones = sum(np.unpackbits(part, axis=1).sum(0, dtype=np.int64) for part in np.array_split(hashes_N32, 64))
    order = np.argsort(np.abs(ones / len(hashes_N32) - 0.5), kind="stable")
    return [order[band::bands][:width] for band in range(bands)]


def _sort(hashes_N32: Bytes, bits: Integers) -> _Words:
    """The hashes by the value of these bits."""
    key_N = np.zeros(len(hashes_N32), np.uint32)
    for position, bit in enumerate(bits):
        key_N |= ((hashes_N32[:, bit >> 3] >> (7 - bit % 8)) & 1).astype(np.uint32) << np.uint32(position)
    # Stable: of two rows with one key the smaller comes first, so that a pair is always found as (i, j), i < j.
    row = np.argsort(key_N, kind="stable")
    return _Words(key_N[row], row, np.ascontiguousarray(hashes_N32).view(np.uint64)[row])


def _compare_buckets(left: _Words, right: _Words | None, max_distance: int) -> Iterator[Integers]:
    """pair_P3 within `max_distance` of each two hashes with the same key, a bounded number at a time."""
    target = left if right is None else right
    stop = np.searchsorted(target.key, left.key, "right")
    start = np.searchsorted(target.key, left.key, "left") if right else np.arange(1, len(left.key) + 1)
    count = stop - start
    with_partner = np.flatnonzero(count > 0)
    ends = np.cumsum(count[with_partner])
    done = 0
    while done < len(with_partner):
        base = ends[done - 1] if done else 0
        until = max(done + 1, int(np.searchsorted(ends, base + _CHUNK, "right")))
        part = with_partner[done:until]
        i = np.repeat(part, count[part])
        # Each partner's position: the run's start plus the place within the run.
        j = np.arange(len(i)) + np.repeat(start[part] - (ends[done:until] - count[part] - base), count[part])
        yield _compare(left, target, i, j, max_distance)
        done = until


def _compare(left: _Words, right: _Words, i: Integers, j: Integers, max_distance: int) -> Integers:
    """Pairs i, j of sorted positions within `max_distance`, as rows. Most end after the first 64 bits."""
    distance = np.zeros(len(i), np.int64)
    for word in range(BITS // 64):
        distance += np.bitwise_count(left.words_N4[i, word] ^ right.words_N4[j, word])
        near = distance <= max_distance
        i, j, distance = i[near], j[near], distance[near]
    return np.stack([left.row[i], right.row[j], distance], 1)


class _Found:
    """Pairs found so far, each once: a pair may turn up in many bands."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._code = np.zeros(0, np.int64)
        self._distance = np.zeros(0, np.int64)
        self._waiting: list[Integers] = []
        self._waiting_count = 0

    def add(self, pairs_P3: Integers) -> None:
        if len(pairs_P3):
            self._waiting.append(pairs_P3)
            self._waiting_count += len(pairs_P3)
            if self._waiting_count > max(_CHUNK, len(self._code)):
                self._merge()

    def pairs(self) -> Integers:
        self._merge()
        columns = max(self.columns, 1)
        return np.stack([self._code // columns, self._code % columns, self._distance], 1)

    def _merge(self) -> None:
        new = [pairs_P3[:, 0] * self.columns + pairs_P3[:, 1] for pairs_P3 in self._waiting]
        code, first = np.unique(np.concatenate([self._code, *new]), return_index=True)
        self._distance = np.concatenate([self._distance, *(pairs_P3[:, 2] for pairs_P3 in self._waiting)])[first]
        self._code, self._waiting, self._waiting_count = code, [], 0
        _check_count(len(code))


def _check_count(count: int) -> None:
    if count > MAX_PAIRS:
        raise ChexrayError(
            f"more than {MAX_PAIRS} pairs of images look alike; lower the distance, or look at what these images are"
        )
