"""Which split a patient is in: a hash decides, so it never depends on order, count or machine."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from chexray.platform.corpus.schema import Split, seeded_fraction


@dataclass(frozen=True)
class SplitFractions:
    """Shares of patients per split, each in [0, 1]. Raises ValueError where they do not sum to 1."""

    train: float = 0.7
    validation: float = 0.1
    test: float = 0.2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{field.name} is {value}: it must be 0 to 1")
        total = self.train + self.validation + self.test
        if not math.isclose(total, 1.0, abs_tol=1e-9):
            raise ValueError(f"train + validation + test is {total}: it must be 1")


def assign_split(patient: str, seed: int, fractions: SplitFractions) -> Split:
    """The split of all of the patient's images, by a draw from `seed` and `patient` alone.

    Shares are laid out test, validation, train: a patient in test stays there while `test` does not shrink.
    """
    draw = seeded_fraction(seed, "split", patient)
    if draw < fractions.test:
        return "test"
    return "validation" if draw < fractions.test + fractions.validation else "train"


def assign_train_or_validation(patient: str, seed: int, validation_share: float) -> Split:
    """The split of a patient who is not in the dataset's official test set."""
    return assign_split(patient, seed, SplitFractions(1.0 - validation_share, validation_share, 0.0))
