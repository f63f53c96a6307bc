"""Enrichment: how much more frequent a finding is in a subset than in its corpus, and how sure that is.

A subset is drawn from its corpus without replacement, so the two share pairs, and intervals for the ratio of
two independent proportions (Katz et al. 1978) do not apply. Given the counts of pairs, of kept pairs and of
positives, the number of positives kept is hypergeometric, with the odds ratio of being kept as its parameter
(Fisher's noncentral hypergeometric distribution). The interval inverts its two exact tails (Cornfield 1956),
and states the limits as enrichment: the mean positives kept at that odds ratio over those of a random draw.
It covers at least 95 %, is never beyond what the counts allow, and holds for findings with no positive kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import gammaln, log_softmax

INTERVAL_METHOD = "exact conditional (Fisher's noncentral hypergeometric, two tails)"

_LOG_ODDS = 60.0
"""Beyond any limit: even one positive of 2**32 pairs, always kept, has log odds below 30."""


@dataclass(frozen=True)
class Enrichment:
    """How much more frequent a finding is in the subset than in its corpus, among pairs of known label."""

    finding: str
    known: int
    known_kept: int
    positives: int
    positives_kept: int
    prevalence_corpus: float | None
    prevalence_subset: float | None
    factor: float | None
    """prevalence_subset / prevalence_corpus. None without a positive or without a kept pair."""
    low: float | None
    high: float | None


def enrichment(
    finding: str,
    *,
    known: int,
    known_kept: int,
    positives: int,
    positives_kept: int,
    confidence: float = 0.95,
) -> Enrichment:
    """The enrichment of one finding, from counts of pairs whose label is known."""
    corpus, subset = ratio(positives, known), ratio(positives_kept, known_kept)
    factor = None if not corpus or subset is None else subset / corpus
    low, high = None, None
    if factor is not None:
        low, high = enrichment_interval(known, known_kept, positives, positives_kept, confidence)
    return Enrichment(finding, known, known_kept, positives, positives_kept, corpus, subset, factor, low, high)


def enrichment_interval(
    known: int, known_kept: int, positives: int, positives_kept: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Limits of the enrichment factor, exact and two-sided (see the module's text).

    All of `known`, `known_kept`, `positives` at least 1, and the four counts those of a 2 x 2 table: anything
    else raises ValueError. Both limits are the factor itself where the counts leave only one value.
    """
    fewest, most = max(0, known_kept + positives - known), min(known_kept, positives)
    if not (0 < known_kept <= known and 0 < positives <= known and fewest <= positives_kept <= most):
        raise ValueError(
            f"known={known}, known_kept={known_kept}, positives={positives}, positives_kept={positives_kept} "
            f"are not the counts of a 2 x 2 table: positives_kept must be from {fewest} to {most}"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} must be between 0 and 1")
    count = np.arange(fewest, most + 1)
    weight = _log_ways(positives, count) + _log_ways(known - positives, known_kept - count)

    def excess(log_odds: float, tail: npt.NDArray[np.bool_]) -> float:
        return float(np.exp(log_softmax(weight + log_odds * count)[tail]).sum() - (1 - confidence) / 2)

    def factor_at(log_odds: float) -> float:
        mean = float(np.exp(log_softmax(weight + log_odds * count)) @ count)
        return mean * known / (known_kept * positives)

    low, high = (float(end * known / (known_kept * positives)) for end in (fewest, most))
    if positives_kept > fewest:
        low = factor_at(brentq(excess, -_LOG_ODDS, _LOG_ODDS, args=(count >= positives_kept,)))
    if positives_kept < most:
        high = factor_at(brentq(excess, -_LOG_ODDS, _LOG_ODDS, args=(count <= positives_kept,)))
    return low, high


def _log_ways(of: int, taken: npt.NDArray[np.int_]) -> npt.NDArray[np.float64]:
    """log of the binomial coefficients, "of" over "taken"."""
    ways: npt.NDArray[np.float64] = gammaln(of + 1) - gammaln(taken + 1) - gammaln(of - taken + 1)
    return ways


def ratio(part: int, whole: int) -> float | None:
    """part / whole; None of nothing."""
    return part / whole if whole else None
