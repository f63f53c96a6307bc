"""Coverage of terms against exact greedy picks, against the best subset there is, and on a long tail."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from made_candidates import ids

from chexray.curation.terms import keep_terms

WORDS = ["clear", "lungs", "normal", "heart", "effusion", "hernia", "nodule", "left"]
ALL = 1e-300
"""An epsilon that makes every pick the best of all pairs that are left."""


def reports(pairs: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, weights=range(8, 0, -1), k=draw.randrange(6))) for _ in range(pairs)]


def terms(report: list[str], least: int) -> list[set[str]]:
    words = [set(text.split()) for text in report]
    return [{word for word in own if sum(word in other for other in words) >= least} for own in words]


def exact_greedy(report: list[str], sample_id: list[str], count: int, least: int) -> set[int]:
    """One pick at a time. exp(gain) is a fraction, so ties are exact."""
    words, used, picked = terms(report, least), dict.fromkeys(WORDS, 0), set[int]()
    for _ in range(count):
        gain = {
            row: math.prod(Fraction(used[word] + 2, used[word] + 1) for word in words[row])
            for row in range(len(report))
            if row not in picked
        }
        best = min(gain, key=lambda row: (-gain[row], sample_id[row]))
        picked.add(best)
        for word in words[best]:
            used[word] += 1
    return picked


@pytest.mark.parametrize("seed", range(100))
def test_keep_terms_with_all_candidates_picks_what_exact_greedy_picks(seed: int) -> None:
    pairs, least = 5 + seed % 20, 1 + seed % 3
    given, sample_id = reports(pairs, seed), ids(pairs, seed)
    count = random.Random(seed).randint(0, pairs)
    keep_N = keep_terms(given, sample_id, count, seed, least, ALL)
    assert set(keep_N.nonzero()[0].tolist()) == exact_greedy(given, sample_id, count, least)


@pytest.mark.parametrize("seed", range(20))
def test_keep_terms_is_near_the_best_subset_there_is(seed: int) -> None:
    pairs, count = 9, 4
    given = reports(pairs, seed)
    words = terms(given, 1)

    def value(rows: tuple[int, ...]) -> float:
        return sum(math.log(1 + sum(word in words[row] for row in rows)) for word in WORDS)

    best = max(value(rows) for rows in combinations(range(pairs), count))
    kept = keep_terms(given, ids(pairs), count, seed, 1, ALL)
    assert value(tuple(kept.nonzero()[0])) >= (1 - 1 / math.e) * best - 1e-9


def test_keep_terms_worked_by_hand() -> None:
    given = ["clear lungs", "Clear, clear lungs.", "hernia lungs", "hernia", "a typo: lunsg"]
    names = ["a", "b", "c", "d", "e"]
    # "lungs" 3, "clear" 2, "hernia" 2; "typo" and "lunsg" are of one report, "a" is a letter. First the gains are
    # log 4, log 4, log 4, log 2, 0: a. Then b gains 2 log 3/2 = log 9/4, c log 3/2 + log 2 = log 3, d log 2: c.
    assert keep_terms(given, names, 1, 0, 2, ALL).nonzero()[0].tolist() == [0]
    assert keep_terms(given, names, 2, 0, 2, ALL).nonzero()[0].tolist() == [0, 2]
    # Then b gains log 4/3 + log 3/2 = log 2, d log 3/2: b; e, which has no term, comes last.
    assert keep_terms(given, names, 3, 0, 2, ALL).nonzero()[0].tolist() == [0, 1, 2]
    assert keep_terms(given, names, 4, 0, 2, ALL).nonzero()[0].tolist() == [0, 1, 2, 3]


def test_keep_terms_from_a_few_candidates_keeps_the_long_tail() -> None:
    draw = random.Random(0)
    common = [" ".join(draw.choices(WORDS[:4], k=6)) for _ in range(2000)]
    rare = ["normal heart pneumoperitoneum"] * 4 + ["dextrocardia"] * 4
    keep_N = keep_terms([*common, *rare], ids(2008), 200, 0)
    assert keep_N.sum() == 200
    assert keep_N[2000:].sum() >= 7
    again_N = keep_terms([*rare, *common], [*ids(2008)[2000:], *ids(2008)[:2000]], 200, 0)
    np.testing.assert_array_equal(np.concatenate([again_N[8:], again_N[:8]]), keep_N)


def test_keep_terms_takes_words_alone_for_terms() -> None:
    # One word against five numbers and a mark: log 2 each, so the lowest id; without the word, nothing.
    assert keep_terms(["12/03/2019 10:32 ___ clear"] * 2 + ["lungs"] * 2, list("cdab"), 1, 0, 2, ALL)[2]
    assert keep_terms(["12/03/2019 10:32 ___ 0012345"] * 2 + ["lungs"] * 2, list("abcd"), 1, 0, 2, ALL)[2]


def test_keep_terms_of_reports_without_any_keeps_the_count() -> None:
    assert keep_terms(["", "", ""], ids(3), 2, 0).sum() == 2
