"""Selectors by name: each chooses a given number of pairs from a whole corpus at once, by one interface.

They are what the prototype curator (`chexray.curation.selection`, which streams) is compared with. No Ray, no files.
Shapes: N pairs, D embedding width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch

from chexray.curation.baselines import KeepMask, keep_learnable, keep_random, keep_similar, keep_stratified
from chexray.curation.neighbours import grid_features, keep_centers, keep_dissimilar, keep_sparse
from chexray.curation.terms import keep_terms

Need = Literal["features", "stratum", "losses", "reports"]

_UNIT_TOLERANCE = 1e-2
"""Of a row's length: rounding a unit row to float16 moved it by up to 3.3e-4, to bfloat16 by up to 2.9e-3."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """The pairs that a selector may choose from, in any order. What the selector does not need may be None."""

    sample_id: Sequence[str]
    """N distinct ids of 32 hex digits."""
    image_ND: torch.Tensor | None = None
    """float32 or float16, unit rows."""
    text_ND: torch.Tensor | None = None
    """float32 or float16, unit rows."""
    stratum_N: Sequence[str] | None = None
    """For `stratified`: the name of each pair's stratum (see `chexray.curation.baselines.rarest_finding`)."""
    learner_loss_N: torch.Tensor | None = None
    """For `learnability`: see `chexray.curation.baselines.pair_losses`."""
    reference_loss_N: torch.Tensor | None = None
    report_N: Sequence[str] | None = None
    """For `term_coverage`: the text of each pair's report."""


@dataclass(frozen=True)
class SelectorSettings:
    """What selectors may be told besides the count. Raises ValueError for settings out of range.

    `neighbours`: k of `density`. `clusters`: of `semdedup`, found on `kmeans_sample` random pairs. `block`: rows
    handled at once; bounds memory (a block of distances takes 8 * block ** 2 bytes) and does not change the result.
    `term_reports`: words that fewer reports use are no terms of `term_coverage`.
    """

    seed: int = 0
    neighbours: int = 10
    clusters: int = 64
    kmeans_sample: int = 4096
    block: int = 2048
    term_reports: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed={self.seed} must be from 0 to 2**32 - 1")
        for name in ("neighbours", "clusters", "kmeans_sample", "block", "term_reports"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.kmeans_sample < self.clusters:
            raise ValueError(f"kmeans_sample={self.kmeans_sample} must be at least clusters={self.clusters}")


Selector = Callable[[Candidates, int, SelectorSettings], KeepMask]
"""From candidates, the number of pairs to keep and settings to bool [N] with exactly that many True."""


@dataclass(frozen=True)
class NamedSelector:
    """A selector, which of the candidates' optional fields it needs, and one line on it with its source."""

    select: Selector
    needs: Need | None
    description: str


def select_whole(name: str, candidates: Candidates, count: int, settings: SelectorSettings) -> KeepMask:
    """bool [N], exactly `count` True, in the order of `candidates`: the choice of the selector called `name`.

    The result depends on the set of pairs alone: not on their order, and not on `settings.block`. Raises ValueError
    for an unknown name, repeated ids, a count that is not from 0 to N, and for fields that the selector needs and that
    are missing, have another shape than the ids ask for, are not finite or not unit rows (naming sample ids).
    """
    if name not in SELECTORS:
        raise ValueError(f"selector={name!r} must be one of {', '.join(SELECTORS)}")
    pairs = len(candidates.sample_id)
    twice = [sample for sample, times in Counter(candidates.sample_id).items() if times > 1]
    if twice:
        raise ValueError(f"sample_id must be distinct; {_named(twice)} more than once")
    if not 0 <= count <= pairs:
        raise ValueError(f"count={count} must be from 0 to the number of pairs, {pairs}")
    selector = SELECTORS[name]
    if selector.needs:
        _CHECKS[selector.needs](name, candidates)
    return selector.select(candidates, count, settings)


def _full(candidates: Candidates, count: int, _: SelectorSettings) -> KeepMask:
    pairs = len(candidates.sample_id)
    if count != pairs:
        raise ValueError(f"count={count} must be the number of pairs, {pairs}, for the selector full")
    return np.ones(pairs, dtype=np.bool_)


def _random(candidates: Candidates, count: int, settings: SelectorSettings) -> KeepMask:
    return keep_random(candidates.sample_id, count, settings.seed)


def _stratified(candidates: Candidates, count: int, settings: SelectorSettings) -> KeepMask:
    assert candidates.stratum_N is not None
    return keep_stratified(candidates.sample_id, candidates.stratum_N, count, settings.seed)


def _similarity(candidates: Candidates, count: int, settings: SelectorSettings) -> KeepMask:
    assert candidates.image_ND is not None
    assert candidates.text_ND is not None
    return keep_similar(candidates.image_ND, candidates.text_ND, candidates.sample_id, count, settings.block)


def _density(candidates: Candidates, count: int, settings: SelectorSettings) -> KeepMask:
    feature_NE = _features(candidates, settings)
    return keep_sparse(feature_NE, candidates.sample_id, count, settings.neighbours, settings.block)


def _semdedup(candidates: Candidates, count: int, settings: SelectorSettings) -> KeepMask:
    return keep_dissimilar(
        _features(candidates, settings),
        candidates.sample_id,
        count,
        settings.clusters,
        settings.kmeans_sample,
        settings.seed,
        settings.block,
    )


def _k_center(candidates: Candidates, count: int, settings: SelectorSettings) -> KeepMask:
    return keep_centers(_features(candidates, settings), candidates.sample_id, count)


def _learnability(candidates: Candidates, count: int, _: SelectorSettings) -> KeepMask:
    assert candidates.learner_loss_N is not None
    assert candidates.reference_loss_N is not None
    return keep_learnable(candidates.learner_loss_N, candidates.reference_loss_N, candidates.sample_id, count)


def _term_coverage(candidates: Candidates, count: int, settings: SelectorSettings) -> KeepMask:
    assert candidates.report_N is not None
    return keep_terms(candidates.report_N, candidates.sample_id, count, settings.seed, settings.term_reports)


SELECTORS: dict[str, NamedSelector] = {
    "full": NamedSelector(_full, None, "every pair"),
    "random": NamedSelector(_random, None, "a seeded random draw"),
    "stratified": NamedSelector(_stratified, "stratum", "equal shares of strata, random within each (Cochran 1977)"),
    "similarity": NamedSelector(
        _similarity, "features", "highest cosine of image and text (CLIP score; Gadre et al. 2023, Hessel et al. 2021)"
    ),
    "density": NamedSelector(
        _density, "features", "farthest from the k-th nearest neighbour (Loftsgaarden and Quesenberry 1965)"
    ),
    "semdedup": NamedSelector(
        _semdedup, "features", "least like an earlier pair of the same cluster (SemDeDup; Abbas et al. 2023)"
    ),
    "k_center": NamedSelector(
        _k_center, "features", "farthest from all picks so far (Gonzalez 1985; Sener and Savarese 2018)"
    ),
    "learnability": NamedSelector(
        _learnability, "losses", "learner loss less reference loss (Evans et al. 2024; Mindermann et al. 2022)"
    ),
    "term_coverage": NamedSelector(
        _term_coverage, "reports", "reports that cover the corpus' terms evenly (Wei et al. 2014)"
    ),
}


def _features(candidates: Candidates, settings: SelectorSettings) -> torch.Tensor:
    assert candidates.image_ND is not None
    assert candidates.text_ND is not None
    return grid_features(candidates.image_ND, candidates.text_ND, settings.block)


def _check_features(name: str, candidates: Candidates) -> None:
    image_ND, text_ND = candidates.image_ND, candidates.text_ND
    if image_ND is None or text_ND is None:
        raise ValueError(f"image_ND and text_ND must be given for the selector {name}")
    pairs = len(candidates.sample_id)
    if image_ND.dim() != 2 or image_ND.shape != text_ND.shape or len(image_ND) != pairs:
        shapes = f"image_ND {tuple(image_ND.shape)} and text_ND {tuple(text_ND.shape)}"
        raise ValueError(f"{shapes} must be equal, [N, D], with a row for each of {pairs} sample ids")
    for field, row_ND in (("image_ND", image_ND), ("text_ND", text_ND)):
        # A length is finite exactly where all of its row is: float16 and unit rows cannot overflow float32.
        length_N = torch.linalg.vector_norm(row_ND, dim=1, dtype=torch.float32)
        _refuse(field, "must be finite", ~torch.isfinite(length_N), candidates.sample_id)
        _refuse(field, "must have unit rows", (length_N - 1).abs() > _UNIT_TOLERANCE, candidates.sample_id)


def _check_texts(field: str, name: str, candidates: Candidates) -> None:
    text_N: Sequence[str] | None = getattr(candidates, field)
    pairs = len(candidates.sample_id)
    if text_N is None:
        raise ValueError(f"{field} must be given for the selector {name}")
    if len(text_N) != pairs:
        raise ValueError(f"{field} has {len(text_N)} entries; there must be one for each of {pairs} sample ids")
    missing_N = torch.tensor([not isinstance(text, str) for text in text_N], dtype=torch.bool)
    _refuse(field, "must be strings", missing_N, candidates.sample_id)


def _check_losses(name: str, candidates: Candidates) -> None:
    pairs = len(candidates.sample_id)
    for field in ("learner_loss_N", "reference_loss_N"):
        loss_N: torch.Tensor | None = getattr(candidates, field)
        if loss_N is None:
            raise ValueError(f"{field} must be given for the selector {name}")
        if loss_N.shape != (pairs,):
            raise ValueError(f"{field} {tuple(loss_N.shape)} must be [N], one for each of {pairs} sample ids")
        _refuse(field, "must be finite", ~torch.isfinite(loss_N), candidates.sample_id)


_CHECKS: dict[Need, Callable[[str, Candidates], None]] = {
    "features": _check_features,
    "stratum": partial(_check_texts, "stratum_N"),
    "losses": _check_losses,
    "reports": partial(_check_texts, "report_N"),
}


def _refuse(field: str, rule: str, bad_N: torch.Tensor, sample_id: Sequence[str]) -> None:
    bad = [sample_id[row] for row in bad_N.nonzero()[:, 0].tolist()]
    if bad:
        raise ValueError(f"{field} {rule}; {_named(bad)} not so")


def _named(sample_ids: Sequence[str]) -> str:
    """'2 sample ids (a, b) are'"""
    plural = "sample id" if len(sample_ids) == 1 else "sample ids"
    listed = ", ".join(sample_ids[:5]) + (", ..." if len(sample_ids) > 5 else "")
    return f"{len(sample_ids)} {plural} ({listed}) {'is' if len(sample_ids) == 1 else 'are'}"
