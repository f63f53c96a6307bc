"""The smallest fraction that is not worse than all pairs by more than delta, with 95 % confidence on one side.

A non-inferiority test: a fraction passes where the lower bound of its difference from full is above -delta. Both are
paired by seed, and scored on the same patients. Two things make the difference uncertain: which patients were there,
and which seeds were drawn. A bootstrap draw takes the patients' part from the paired bootstrap (the same resampled
patients for every seed), averaged over the seeds, and adds a draw of the seeds' part: Student's t with S - 1 degrees of
freedom times the standard error of the S seeds' differences. Drawing seeds themselves, with replacement, would be too
sure of itself: of three seeds it has sqrt(2/3) of the width, and no tails; 8 % false claims in a simulation.

Shapes: S seeds, R bootstrap draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from chexray.evals.statistics import DRAWS, FloatArray

LEVEL = 0.95
"""Of the one-sided bound."""
Over = Literal["patients and seeds", "patients only", "seeds only"]


@dataclass(frozen=True)
class Differences:
    """A kept fraction less full, in the metric, with the sign by which more is better.

    `difference_S`: of each seed, on the patients as they are. `draw_SR`: of each seed in R paired bootstrap draws, draw
    r being of the same resampled patients for every seed, NaN where undefined; None where there are no draws. Raises
    ValueError on shapes that do not agree, and on a fraction that is none.
    """

    keep: float
    difference_S: FloatArray
    draw_SR: FloatArray | None
    missing_seeds: int = 0
    """Of those swept, that either has not been done or scored with."""

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1:
            raise ValueError(f"keep is {self.keep}; allowed: between 0 and 1, both excluded")
        if self.difference_S.ndim != 1 or not len(self.difference_S) or not np.isfinite(self.difference_S).all():
            raise ValueError(f"difference_S is {self.difference_S}; allowed: one finite number a seed, (S,)")
        if self.draw_SR is not None and (
            self.draw_SR.ndim != 2 or len(self.draw_SR) != len(self.difference_S) or not self.draw_SR.size
        ):
            raise ValueError(f"draw_SR has shape {self.draw_SR.shape}; allowed: ({len(self.difference_S)}, R)")


@dataclass(frozen=True)
class FractionTest:
    """A kept fraction less full: mean over seeds, one-sided 95 % lower bound, and whether that is above -delta.

    `over`: what the bound allows for. `draws`: those with a value. `p_value`: of its being worse by delta or more.
    `missing_seeds`: those that were not compared; where they were stopped early for a high loss, the others flatter.
    """

    keep: float
    difference: float
    lower: float
    p_value: float
    passed: bool
    over: Over
    seeds: int
    draws: int
    missing_seeds: int = 0


@dataclass(frozen=True)
class Smallest:
    """The smallest fraction that is not worse than full; None for the `reason`.

    `tested`: from the largest fraction down, as far as the tests went. `untested`: smaller ones, after one that failed.
    """

    keep: float | None
    tested: tuple[FractionTest, ...]
    untested: tuple[float, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class MethodSmallest:
    """A method's smallest fraction at one budget. `not_compared`: fractions without a full run to pair with."""

    method: str
    settings: str
    budget: float
    result: Smallest
    not_compared: tuple[float, ...] = ()


def smallest_fraction(candidates: Sequence[Differences], delta: float, seed: int = 0) -> Smallest:
    """Tests fractions from the largest down, until one fails; the last that passed is the smallest.

    Raises ValueError on a `delta` that is not above 0, and on a fraction that is given twice.
    """
    if not 0 < delta < math.inf:
        raise ValueError(f"delta is {delta}; allowed: above 0, and finite")
    falling = sorted(candidates, key=lambda one: -one.keep)
    keeps = [one.keep for one in falling]
    if len(set(keeps)) < len(keeps):
        raise ValueError(f"keep is {keeps}; allowed: each fraction once")
    # A fixed sequence (Maurer, Hothorn & Lehmacher 1995; Westfall & Krishen 2001): each test at 5 %, none after the
    # first that fails. A false claim needs the first fraction of the sequence that is worse to pass its own test, so
    # the chance of any is 5 % however many there are, with no correction. The order is fixed before the data, as it
    # must be: the fewer pairs, the likelier the harm. A small fraction that happens to look well below one that failed
    # is not claimed.
    tested: list[FractionTest] = []
    for one in falling:
        found = compare_to_full(one, delta, seed)
        if found is None:
            return _concluded(tested, keeps, "one seed, and no draws over patients: nothing says how sure it is")
        tested.append(found)
        if not found.passed:
            return _concluded(tested, keeps, None)
    return _concluded(tested, keeps, None)


def compare_to_full(candidate: Differences, delta: float, seed: int = 0) -> FractionTest | None:
    """One fraction's test; None where there is neither a second seed nor a draw over patients."""
    seeds = len(candidate.difference_S)
    if candidate.draw_SR is None and seeds == 1:
        return None
    draw_R, over = _draws(candidate, np.random.default_rng(seed))
    defined_R = draw_R[~np.isnan(draw_R)]
    if not defined_R.size:
        return None
    difference, lower = float(candidate.difference_S.mean()), float(np.quantile(defined_R, 1 - LEVEL))
    # The sample itself counts among the draws (Phipson & Smyth 2010), as in `chexray.evals.comparison`.
    p_value = (1 + int((defined_R <= -delta).sum())) / (1 + defined_R.size)
    return FractionTest(
        candidate.keep,
        difference,
        lower,
        p_value,
        lower > -delta,
        over,
        seeds,
        int(defined_R.size),
        candidate.missing_seeds,
    )


def _draws(candidate: Differences, generator: np.random.Generator) -> tuple[FloatArray, Over]:
    """Draws [R] of the mean difference, and what they are over."""
    difference_S, draw_SR = candidate.difference_S, candidate.draw_SR
    seeds = len(difference_S)
    patients_R = np.full(DRAWS, difference_S.mean()) if draw_SR is None else draw_SR.mean(axis=0)
    if seeds == 1:
        return patients_R, "patients only"
    error = float(difference_S.std(ddof=1)) / math.sqrt(seeds)
    draw_R = patients_R + error * generator.standard_t(seeds - 1, size=len(patients_R))
    return draw_R, "seeds only" if draw_SR is None else "patients and seeds"


def _concluded(tested: Sequence[FractionTest], keeps: Sequence[float], stopped: str | None) -> Smallest:
    passed = [one.keep for one in tested if one.passed]
    untested = tuple(keeps[len(tested) :])
    if passed:
        return Smallest(passed[-1], tuple(tested), untested, stopped)
    if stopped:
        return Smallest(None, tuple(tested), untested, stopped)
    reason = (
        f"{tested[0].keep:g} of the pairs is not shown to be as good" if tested else "no fraction could be compared"
    )
    return Smallest(None, tuple(tested), untested, reason)
