"""The same image twice: hashes of pixels and of looks, near pairs among a million, and which copy stays.

Shapes: H rows, W columns of one image; N and M hashes of 32 bytes (256 bits).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import PIL.Image
import pyarrow as pa
from scipy.fft import dctn

from chexray.platform.corpus.hamming import BITS, Bytes, matches_within, pairs_within
from chexray.platform.corpus.raster import Image
from chexray.platform.corpus.schema import SPLITS

DuplicateReason = Literal["duplicate image", "near-duplicate image"]

NEAR_DUPLICATE_BITS = 16
"""At most so many bits differ between two copies of an image. Distances are even: every hash has 128 ones.

Measured on the 790 images of NIH ChestX-ray14 at 384 pixels (rerun: `python -m pytest tests/test_duplicates.py -s -m
slow`). Images that are not the same: the nearest of 311,129 pairs of different patients are 56 bits apart, the
nearest of 525 pairs of one patient 42 (the 526th pair is one image under two names). Copies of an image: the median
and the largest distance, and the share (%) found within 8, 16 and 24 bits:

    change                         median  max      8     16     24
    JPEG, quality 50                    2    8  100.0  100.0  100.0
    256, 512 or 1,024 pixels            2    6  100.0  100.0  100.0
    256 pixels, JPEG, quality 50        2   12   99.2  100.0  100.0
    window 5 % wider each side          2    8  100.0  100.0  100.0
    window 5 % narrower each side       4   22   90.6   99.6  100.0
    window 10 % narrower each side      8   34   55.6   87.1   98.0
    gamma 0.8                           8   22   55.9   98.2  100.0
    gamma 1.25                         10   24   47.6   96.7  100.0
    0.5 % cut off each side            12   30   17.3   87.7   99.7
    1 % cut off each side              24   48    0.1    8.5   59.2
    2 % cut off each side              46   86    0.0    0.0    0.3

Copies that someone cropped by more, or equalised, are found by no distance that spares follow-up images. Drawn chests
(`chexray.platform.corpus.synthetic`) are more alike than real ones: of 2,000, no other image is within 12 bits, but 11
have one within 16 and 130 within 24.
"""

Survivors = dict[str, tuple[DuplicateReason, str]]
"""From the id of a dropped pair to the reason and the id of the pair that stays."""

_HASH_SIDE = 16
_THUMBNAIL = 64
_SOURCES = ("radiologist", "template")


def pixel_hash(image_HW: Image) -> str:
    """32 hex digits, 128 bits of SHA-256 over shape and pixels: the same for the same pixels only."""
    height, width = image_HW.shape
    digest = hashlib.sha256(f"{height}x{width}\0".encode())
    digest.update(np.ascontiguousarray(image_HW).data)
    return digest.hexdigest()[:32]


def perceptual_hash(image_HW: Image) -> bytes:
    """32 bytes: which of the 16 x 16 lowest DCT coefficients of a 64 x 64 thumbnail are above their median.

    ImageHash's `phash(hash_size=16)` row by row, but for one thing: the thumbnail is first reduced by averaging
    (Pillow's reducing gap 2), five times as fast. At most 8 bits differ from ImageHash's, on the 790 images described
    at `NEAR_DUPLICATE_BITS`; their median is 2.
    """
    thumbnail = PIL.Image.fromarray(image_HW).resize(
        (_THUMBNAIL, _THUMBNAIL), PIL.Image.Resampling.LANCZOS, reducing_gap=2.0
    )
    low = dctn(np.asarray(thumbnail, np.float64))[:_HASH_SIDE, :_HASH_SIDE]
    return np.packbits(low > np.median(low)).tobytes()


def hash_matrix(perceptual_hashes: pa.ChunkedArray) -> Bytes:
    """A column of perceptual hashes as uint8 [N, 32]. ValueError where one has another length, or is null."""
    values = perceptual_hashes.to_pylist()
    wrong = {None if value is None else len(value) for value in values} - {BITS // 8}
    if wrong:
        raise ValueError(f"perceptual_hash has values of {wrong} bytes: all must have {BITS // 8}")
    return np.frombuffer(b"".join(values), np.uint8).reshape(-1, BITS // 8)


def near_duplicates(hashes_N32: Bytes, max_distance: int = NEAR_DUPLICATE_BITS) -> list[tuple[int, int, int]]:
    """Every (row i, row j, distance) with i < j and at most `max_distance` (0 to 256) differing bits, sorted.

    Exact. 1.2 million hashes of chests take half a minute at 16 bits, on one core, in half a gigabyte
    (`benchmarks/duplicates.py`). ChexrayError above 20 million pairs.
    """
    return [(i, j, distance) for i, j, distance in pairs_within(hashes_N32, max_distance).tolist()]


def near_matches(a_N32: Bytes, b_M32: Bytes, max_distance: int = NEAR_DUPLICATE_BITS) -> list[tuple[int, int, int]]:
    """Every (row of a, row of b, distance) with at most `max_distance` differing bits, sorted. Exact."""
    return [(i, j, distance) for i, j, distance in matches_within(a_N32, b_M32, max_distance).tolist()]


def choose_survivors(pairs: pa.Table, near: Iterable[tuple[int, int, int]]) -> Survivors:
    """Which pairs are dropped because their image is there already, why, and in favour of which.

    `pairs` has sample_id (unique), split, report_source and pixel_hash; `near` has rows of it. Pairs are taken in
    the order test, validation, train; report by a radiologist, from a template; sample id. The first stays, its
    exact copies are dropped, and its near-duplicates; then the next that is left. So no two that stay are near, every
    dropped one is near the one that stays (there are no chains), and the order of rows does not matter. Copies with
    different reports are copies too.
    """
    sample_ids = pairs["sample_id"].to_pylist()
    if len(set(sample_ids)) < len(sample_ids):
        raise ValueError(f"sample_id has {len(sample_ids) - len(set(sample_ids))} repeated values: it must be unique")
    first, copies = _exact_groups(_in_order(pairs, sample_ids), pairs["pixel_hash"].to_pylist())
    neighbours: dict[int, set[int]] = defaultdict(set)
    for i, j, _ in near:
        if first[i] != first[j]:
            neighbours[first[i]].add(first[j])
            neighbours[first[j]].add(first[i])
    return _drop_copies(sample_ids, first, copies, neighbours)


def _in_order(pairs: pa.Table, sample_ids: Sequence[str]) -> list[int]:
    """Rows from the most to the least wanted."""
    split_rank = {name: rank for rank, name in enumerate(reversed(SPLITS))}
    source_rank = {name: rank for rank, name in enumerate(_SOURCES)}
    splits = [split_rank[name] for name in pairs["split"].to_pylist()]
    sources = [source_rank[name] for name in pairs["report_source"].to_pylist()]
    return sorted(range(len(sample_ids)), key=lambda row: (splits[row], sources[row], sample_ids[row]))


def _exact_groups(order: Sequence[int], pixel_hashes: Sequence[str]) -> tuple[list[int], dict[int, list[int]]]:
    """For each row the most wanted row with the same pixels; and for these, most wanted first, the others."""
    best: dict[str, int] = {}
    first = [0] * len(order)
    copies: dict[int, list[int]] = {}
    for row in order:
        first[row] = best.setdefault(pixel_hashes[row], row)
        copies.setdefault(first[row], []).extend([row] if first[row] != row else [])
    return first, copies


def _drop_copies(
    sample_ids: Sequence[str], first: Sequence[int], copies: dict[int, list[int]], neighbours: dict[int, set[int]]
) -> Survivors:
    dropped: Survivors = {}
    gone: set[int] = set()
    for row in copies:
        if row in gone:
            continue
        kept = sample_ids[row]
        dropped.update({sample_ids[copy]: ("duplicate image", kept) for copy in copies[row]})
        for near in neighbours.get(row, set()) - gone:
            gone.add(near)
            dropped.update({sample_ids[copy]: ("near-duplicate image", kept) for copy in (near, *copies[near])})
    return dropped
