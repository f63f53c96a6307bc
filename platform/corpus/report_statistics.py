"""How long the reports of a corpus are and how often they repeat each other. Never prints any of their text."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NEAR_SAMPLE = 50_000
"""Near-duplicates are sought among at most so many reports."""
NEAR_JACCARD = 0.8
SHINGLE_WORDS = 3
LARGEST_GROUPS = 10

_BANDS, _ROWS = 21, 6
"""Of 126 permutations: finds a pair of Jaccard 0.8 with 99.8 %, of 0.9 always. What is found is then compared."""
_WORD = re.compile(r"[^\W_]+")

Shingles = frozenset[tuple[str, ...]]


@dataclass(frozen=True)
class WordQuantiles:
    """Words (runs of letters and digits) a report: the smallest, percentiles interpolated linearly, the largest."""

    minimum: float
    p5: float
    median: float
    p95: float
    maximum: float


@dataclass(frozen=True)
class ReportStatistics:
    """`duplicate_share`: of reports that equal an earlier one, case and punctuation aside. `largest_groups`: how many
    reports the most repeated ones have, largest first, from 2. `near_duplicate_share`: of reports with another (equal
    or not) whose sets of 3-word shingles have a Jaccard similarity of at least 0.8, among `near_sample` of them.
    Null where there are no reports.
    """

    number: int
    distinct: int
    words: WordQuantiles | None
    duplicate_share: float | None
    largest_groups: tuple[int, ...]
    near_duplicate_share: float | None
    near_sample: int


def report_statistics(reports: Sequence[str], seed: int = 0) -> ReportStatistics:
    """The statistics of `reports`. Above 50,000 the near-duplicates are those of a sample drawn with `seed`."""
    words = [tuple(_WORD.findall(report.lower())) for report in reports]
    number = len(words)
    if not number:
        return ReportStatistics(0, 0, None, None, (), None, 0)
    groups = Counter(words)
    sample = words if number <= NEAR_SAMPLE else random.Random(seed).sample(words, NEAR_SAMPLE)
    return ReportStatistics(
        number=number,
        distinct=len(groups),
        words=_word_quantiles([len(report) for report in words]),
        duplicate_share=(number - len(groups)) / number,
        largest_groups=tuple(size for _, size in groups.most_common(LARGEST_GROUPS) if size > 1),
        near_duplicate_share=_near_duplicate_share(Counter(sample)),
        near_sample=len(sample),
    )


def _word_quantiles(counts: Sequence[int]) -> WordQuantiles:
    return WordQuantiles(*(float(value) for value in np.percentile(counts, [0, 5, 50, 95, 100])))


def _near_duplicate_share(groups: Counter[tuple[str, ...]]) -> float:
    """Of the reports counted in `groups`, those that are repeated or have a near-duplicate in another group."""
    shingles = [_shingles(words) for words in groups]
    near = {index for index, count in enumerate(groups.values()) if count > 1}
    near |= _near_another(shingles)
    return sum(count for index, count in enumerate(groups.values()) if index in near) / groups.total()


def _shingles(words: tuple[str, ...]) -> Shingles:
    """Every run of 3 words; a shorter report is one shingle."""
    return frozenset(words[i : i + SHINGLE_WORDS] for i in range(max(1, len(words) - SHINGLE_WORDS + 1)))


def _near_another(shingles: Sequence[Shingles]) -> set[int]:
    """The positions with a Jaccard similarity of at least `NEAR_JACCARD` to another, by MinHash LSH (Broder 1997)."""
    from datasketch import MinHash

    near: set[int] = set()
    encoded = ([" ".join(shingle).encode() for shingle in each] for each in shingles)
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for index, minhash in enumerate(MinHash.generator(encoded, num_perm=_BANDS * _ROWS, seed=1)):
        for band in range(_BANDS):
            values = minhash.hashvalues[band * _ROWS : (band + 1) * _ROWS]
            buckets[band, values.tobytes()].append(index)
    for bucket in buckets.values():
        _compare_bucket(bucket, shingles, near)
    return near


def _compare_bucket(bucket: Sequence[int], shingles: Sequence[Shingles], near: set[int]) -> None:
    """Add to `near` those of a bucket that are near another of it. Each looks for one partner only."""
    for index in bucket:
        if index not in near:
            partner = next(
                (
                    other
                    for other in bucket
                    if other != index and _jaccard(shingles[index], shingles[other]) >= NEAR_JACCARD
                ),
                None,
            )
            near |= {index, partner} if partner is not None else set()


def _jaccard(a: Shingles, b: Shingles) -> float:
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)
