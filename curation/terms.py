"""Keeping pairs whose reports cover the corpus' terms evenly: the long tail without a scorer.

A rare finding is named by words that few reports use. No Ray, no files.
Shapes: N pairs, T terms, k pairs kept, C candidates for a pick.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from chexray.curation.baselines import KeepMask, id_array

_WORD = r"\b[^\W\d_]{2,}\b"
"""No dates, times, measurements or marks of de-identification: what two reports share of them would pass for rare."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

EPSILON = 0.01
"""Of the objective, what a pick from some candidates instead of all may cost (in expectation)."""


def keep_terms(
    report_N: Sequence[str], sample_id: Sequence[str], count: int, seed: int, least: int = 2, epsilon: float = EPSILON
) -> KeepMask:
    """The `count` pairs whose reports cover the corpus' terms best: a term that n of them use counts log(1 + n).

    A feature-based submodular function (Wei, Bartels, Kirchhoff, Bilmes 2014, "Submodularity for data selection in
    machine translation"), maximised by stochastic greedy picks (Mirzasoleiman et al. 2015, "Lazier than lazy greedy"):
    each pick is the best of N / k * log(1 / `epsilon`) random pairs, and all of them together reach 1 - 1/e - epsilon
    of the best value, in expectation. Terms are words, in lower case, of two letters or more, that `least` reports or
    more use: a word of one report teaches nothing, and is often misspelt. Of equals, the lowest id. Takes time in
    proportion to N.
    """
    keep_N = np.zeros(len(sample_id), dtype=np.bool_)
    if count == 0:
        return keep_N
    order_N = np.argsort(id_array(sample_id))
    first_N, term = _terms([report_N[row] for row in order_N], least)
    keep_N[order_N[_greedy(first_N, term, count, seed, epsilon)]] = True
    return keep_N


def _terms(report_N: list[str], least: int) -> tuple[Ints, Ints]:
    """Which terms a report uses: those of report n are term[first[n] : first[n + 1]]."""
    from sklearn.feature_extraction.text import CountVectorizer  # takes a second to import

    tokens = CountVectorizer(token_pattern=_WORD).build_analyzer()
    known: dict[str, int] = {}
    found = [sorted({known.setdefault(word, len(known)) for word in tokens(report)}) for report in report_N]
    first_N = np.concatenate([[0], np.cumsum([len(terms) for terms in found])])
    term = np.fromiter((number for terms in found for number in terms), np.int64, int(first_N[-1]))
    used_T = np.bincount(term, minlength=len(known))
    often = used_T[term] >= least
    kept_before = np.concatenate([[0], np.cumsum(often)])
    return kept_before[first_N], term[often]


def _greedy(first_N: Ints, term: Ints, count: int, seed: int, epsilon: float) -> Ints:
    """Rows picked, in the order of the picks."""
    pairs = len(first_N) - 1
    candidates = math.ceil(pairs / count * math.log(1 / epsilon))
    rng = np.random.default_rng(seed)
    left = np.arange(pairs)
    count_T = np.zeros(int(term.max(initial=-1)) + 1)
    gain_T = np.log(count_T + 2) - np.log(count_T + 1)
    picked = np.empty(count, np.int64)
    for pick in range(count):
        end = pairs - pick
        if candidates < end:
            place_C = np.unique(rng.integers(0, end, candidates))
            row_C = left[place_C]
        else:
            place_C = np.arange(end)
            row_C = left[:end]
        gain_C = _sums(first_N, term, row_C, gain_T)
        best_C = (gain_C == gain_C.max()).nonzero()[0]
        best = best_C[row_C[best_C].argmin()]
        picked[pick] = row_C[best]
        left[place_C[best]] = left[end - 1]
        own = term[first_N[picked[pick]] : first_N[picked[pick] + 1]]
        count_T[own] += 1
        gain_T[own] = np.log(count_T[own] + 2) - np.log(count_T[own] + 1)
    return picked


def _sums(first_N: Ints, term: Ints, row_C: Ints, gain_T: Floats) -> Floats:
    """What each of the rows would add: the gains of its terms."""
    size_C = first_N[row_C + 1] - first_N[row_C]
    begin_C = np.concatenate([[0], np.cumsum(size_C)])[:-1]
    place = np.arange(size_C.sum()) + np.repeat(first_N[row_C] - begin_C, size_C)
    sum_C = np.bincount(np.repeat(np.arange(len(row_C)), size_C), gain_T[term[place]], minlength=len(row_C))
    return np.round(sum_C, 12)  # the same terms in another order are equals
