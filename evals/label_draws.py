"""A share of the training labels: which patients' samples a probe or a fine-tuned model may learn from.

B: samples; F: findings; P: patients; D: drawn samples; C: what is balanced: F positives, F negatives, samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chexray.evals.statistics import FloatArray

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LabelDraw:
    """The samples whose labels may be used: their ids, sorted (to publish), and their rows, ascending.

    `samples` and `patients` are those of the whole train split. `share` is what was asked for; `len(sample_id)` may be
    more of it where every finding needs a positive and a negative.
    """

    share: float
    seed: int
    sample_id: tuple[str, ...]
    row_D: npt.NDArray[np.int64]
    samples: int
    patients: int

    @property
    def name(self) -> str:
        """The draw as a result's variant names it."""
        return f"labels={self.share:.4g} of train ({len(self.row_D)} of {self.samples} samples); label seed={self.seed}"


def draw_labels(
    sample_id: Sequence[str],
    patient_id: Sequence[str],
    target_BF: FloatArray,
    share: float,
    seed: int,
) -> LabelDraw:
    """Draw whole patients, so that about `share` of the samples and of each finding's labels is drawn.

    First each finding gets a positive and a negative sample, where the train split has them: with few labels this
    alone can be more than `share`. Then the patients left are dealt out by iterative stratification (Sechidis,
    Tsoumakas & Vlahavas 2011, On the stratification of multi-label data, algorithm 1): the rarest label first, each
    patient to the side, drawn or not, that lacks more of that label. Here a patient is dealt out as one, with the
    counts of all their samples, and absences count as labels too, because other findings may be unknown.

    `target_BF`: 1, 0 or NaN (unknown). The draw depends on the seed and on the set of samples, not on their order;
    with `share` 1 everything is drawn. Raises ValueError on shapes, shares and targets that are not allowed, and on
    a sample id that comes twice.
    """
    _check(sample_id, patient_id, target_BF, share)
    patients, patient_B = np.unique(np.asarray(patient_id, dtype=str), return_inverse=True)
    if share == 1:
        drawn_P = np.ones(len(patients), dtype=np.bool_)
    else:
        count_PC = _counts(target_BF, patient_B, len(patients))
        generator = np.random.default_rng(seed)
        drawn_P = _deal(count_PC, _one_of_each(count_PC, share, generator), share, generator)
    row_D = np.flatnonzero(drawn_P[patient_B])
    ids = tuple(sorted(sample_id[row] for row in row_D.tolist()))
    return LabelDraw(share, seed, ids, row_D, len(sample_id), len(patients))


def _counts(target_BF: FloatArray, patient_B: npt.NDArray[np.intp], patients: int) -> FloatArray:
    """count_PC: how many positives and negatives of each finding, and samples, a patient has."""
    held_BC = np.column_stack([target_BF == 1, target_BF == 0, np.ones(len(target_BF), dtype=np.bool_)])
    count_PC = np.zeros((patients, held_BC.shape[1]))
    np.add.at(count_PC, patient_B, held_BC.astype(np.float64))
    return count_PC


def _one_of_each(count_PC: FloatArray, share: float, generator: np.random.Generator) -> BoolArray:
    """drawn_P: few patients who together have every label that there is, the labels of fewest patients served first.

    A random one of the patients with whom nothing exceeds its share, rounded up; where there is none, of those with
    whom the excess, relative to the shares, is least.
    """
    total_C = count_PC.sum(axis=0)
    room_C = np.maximum(np.ceil(share * total_C), 1.0)
    drawn_P = np.zeros(len(count_PC), dtype=np.bool_)
    for column in np.argsort((count_PC > 0).sum(axis=0), kind="stable"):
        if total_C[column] == 0 or count_PC[drawn_P, column].any():
            continue
        holder_P = generator.permutation(np.flatnonzero(count_PC[:, column]))
        taken_C = count_PC[drawn_P].sum(axis=0)
        excess_P = (np.maximum(taken_C + count_PC[holder_P] - room_C, 0) / room_C).sum(axis=1)
        drawn_P[holder_P[np.argmin(excess_P)]] = True
    return drawn_P


def _deal(count_PC: FloatArray, drawn_P: BoolArray, share: float, generator: np.random.Generator) -> BoolArray:
    """drawn_P after iterative stratification of the patients who are not drawn yet."""
    drawn_P = drawn_P.copy()
    open_P = ~drawn_P
    total_C = count_PC.sum(axis=0)
    lacks_2C = np.stack([(1 - share) * total_C, share * total_C - count_PC[drawn_P].sum(axis=0)])
    order_P = generator.permutation(len(count_PC))
    while open_P.any():
        holders_C = (count_PC[open_P] > 0).sum(axis=0)
        column = int(np.argmin(np.where(holders_C > 0, holders_C, np.inf)))
        for patient in order_P[open_P[order_P] & (count_PC[order_P, column] > 0)]:
            side = _needier(lacks_2C, column, generator)
            lacks_2C[side] -= count_PC[patient]
            drawn_P[patient] = side == 1
            open_P[patient] = False
    return drawn_P


def _needier(lacks_2C: FloatArray, column: int, generator: np.random.Generator) -> int:
    """The side (1: drawn) that lacks more of the column; where both lack the same, more samples; else either."""
    for each in (column, -1):
        rest, drawn = lacks_2C[:, each]
        if rest != drawn:
            return int(drawn > rest)
    return int(generator.integers(2))


def _check(sample_id: Sequence[str], patient_id: Sequence[str], target_BF: FloatArray, share: float) -> None:
    count = len(sample_id)
    if target_BF.ndim != 2 or not count == len(patient_id) == len(target_BF) or count == 0:
        raise ValueError(
            f"sample_id, patient_id, target_BF have shapes ({count},), ({len(patient_id)},), {target_BF.shape}; "
            "allowed: (B,), (B,), (B, F) with B >= 1"
        )
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; allowed: above 0, up to 1")
    if len(set(sample_id)) < count:
        raise ValueError(f"sample_id holds {count - len(set(sample_id))} ids twice; allowed: each once")
    check_targets(target_BF)


def check_targets(target_BF: FloatArray) -> None:
    """ValueError unless every target is 1 (present), 0 (absent) or NaN (unknown)."""
    wrong = target_BF[~(np.isnan(target_BF) | (target_BF == 0) | (target_BF == 1))]
    if wrong.size:
        raise ValueError(f"target is {wrong[0]:g}; allowed: 1 (present), 0 (absent), NaN (unknown)")
