"""Stability of a selector: how much the subsets of several seeds share, and how much random ones would.

Shapes: N pairs of the corpus, S subsets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import hypergeom

Keep = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Stability:
    """Jaccard similarities, 0 to 1: pairs in both over pairs in either."""

    jaccard_SS: npt.NDArray[np.float64]
    """Symmetric, 1 on the diagonal."""
    mean: float | None
    """Over every two different subsets; None with fewer than two."""
    expected_random: float | None
    """The same mean for random subsets of the same sizes, each drawn on its own."""


def jaccard(a: Iterable[Any], b: Iterable[Any]) -> float:
    """|a and b| / |a or b| of two collections of ids (strings, or the uids of a subset's file); 1 for two empty ones.

    Repeats count once (Jaccard 1901).
    """
    one, other = _id_set(a), _id_set(b)
    return _ratio(len(one & other), len(one), len(other))


def pairwise_jaccard(keeps: Sequence[Keep]) -> Stability:
    """Every two of the subsets of one corpus, each bool [N]. Raises ValueError where their lengths or types differ."""
    keep_SN = [np.asarray(keep) for keep in keeps]
    if any(keep.dtype != np.bool_ or keep.ndim != 1 or len(keep) != len(keep_SN[0]) for keep in keep_SN):
        shapes = [(str(keep.dtype), keep.shape) for keep in keep_SN]
        raise ValueError(f"keeps={shapes} must all be bool [N] with the same N")
    size_S = [int(keep.sum()) for keep in keep_SN]
    jaccard_SS = np.eye(len(keep_SN))
    expected = []
    for i, j in combinations(range(len(keep_SN)), 2):
        both = int(np.count_nonzero(keep_SN[i] & keep_SN[j]))
        jaccard_SS[i, j] = jaccard_SS[j, i] = _ratio(both, size_S[i], size_S[j])
        expected.append(expected_jaccard(len(keep_SN[0]), size_S[i], size_S[j]))
    found = jaccard_SS[np.triu_indices(len(keep_SN), 1)]
    return Stability(
        jaccard_SS,
        float(found.mean()) if len(found) else None,
        float(np.mean(expected)) if expected else None,
    )


def expected_jaccard(pairs: int, kept_a: int, kept_b: int) -> float:
    """The mean Jaccard similarity of two random subsets of `pairs`, of these sizes, drawn independently. Exact.

    The pairs in both, X, are hypergeometric, and the similarity is X / (a + b - X): its mean is the sum over X's
    support. (The quick k / (2N - k) for a = b = k puts X at its mean k * k / N. As X / (a + b - X) is convex in X,
    that is a little too low: for 20 of 100 by 0.002.)
    """
    if not (0 <= kept_a <= pairs and 0 <= kept_b <= pairs):
        raise ValueError(f"kept_a={kept_a} and kept_b={kept_b} must be from 0 to pairs={pairs}")
    if kept_a + kept_b == 0:
        return 1.0
    both = np.arange(max(0, kept_a + kept_b - pairs), min(kept_a, kept_b) + 1)
    chance = hypergeom.pmf(both, pairs, kept_a, kept_b)
    return float(chance @ (both / (kept_a + kept_b - both)) / chance.sum())


def _id_set(ids: Iterable[Any]) -> set[Any]:
    # Rows of a structured array are not hashable; the tuples of its list are.
    return set(ids.tolist() if isinstance(ids, np.ndarray) else ids)


def _ratio(both: int, size_a: int, size_b: int) -> float:
    either = size_a + size_b - both
    return both / either if either else 1.0
