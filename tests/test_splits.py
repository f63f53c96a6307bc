"""Splits by patient: shares, and independence from everything but patient and seed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chexray.platform.corpus.schema import SPLITS
from chexray.platform.corpus.splits import SplitFractions, assign_split


@given(st.lists(st.text(), max_size=30, unique=True), st.integers(), st.randoms())
def test_assign_split_in_any_order_and_company_is_the_same(patients: list[str], seed: int, random) -> None:  # type: ignore[no-untyped-def]
    fractions = SplitFractions()
    first = {patient: assign_split(patient, seed, fractions) for patient in patients}
    random.shuffle(patients)
    assert {patient: assign_split(patient, seed, fractions) for patient in patients[:20]} == {
        patient: first[patient] for patient in patients[:20]
    }


@given(st.text(), st.integers(), st.floats(0, 1))
def test_assign_split_without_a_share_never_gives_that_split(patient: str, seed: int, share: float) -> None:
    assert assign_split(patient, seed, SplitFractions(1 - share, share, 0)) != "test"
    assert assign_split(patient, seed, SplitFractions(1 - share, 0, share)) != "validation"


def test_assign_split_of_many_patients_meets_the_fractions() -> None:
    n = 20_000
    given_splits = [assign_split(str(i), 0, SplitFractions(0.6, 0.15, 0.25)) for i in range(n)]
    for split, share in zip(SPLITS, (0.6, 0.15, 0.25), strict=True):
        # Four standard errors of a binomial share: 0.014 at most; worst measured 0.0057.
        assert abs(given_splits.count(split) / n - share) < 4 * math.sqrt(share * (1 - share) / n)


def test_assign_split_with_a_larger_test_share_keeps_test_patients_in_test() -> None:
    small, large = SplitFractions(0.8, 0.1, 0.1), SplitFractions(0.5, 0.1, 0.4)
    for i in range(500):
        if assign_split(str(i), 3, small) == "test":
            assert assign_split(str(i), 3, large) == "test"


def test_assign_split_with_another_seed_moves_patients() -> None:
    patients = [str(i) for i in range(200)]
    assert [assign_split(p, 0, SplitFractions()) for p in patients] != [
        assign_split(p, 1, SplitFractions()) for p in patients
    ]


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((0.7, 0.1, 0.1), "must be 1"),
        ((1.2, -0.2, 0.0), "train is 1.2"),
        ((math.nan, 0.5, 0.5), "train is nan"),
    ],
)
def test_split_fractions_that_are_no_shares_are_refused(shares: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SplitFractions(*shares)
