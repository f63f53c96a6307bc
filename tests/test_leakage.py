"""Leaks between training and evaluation pairs; oracles are hand-made rows and brute force."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.platform.corpus.leakage import COLUMNS, find_leaks

BASE = np.random.default_rng(0).integers(0, 256, 32).astype(np.uint8)


def looks(flipped: int, base: np.ndarray = BASE) -> bytes:
    """A hash that differs from `base` in the first `flipped` bits."""
    bits = np.unpackbits(base)
    bits[:flipped] ^= 1
    return np.packbits(bits).tobytes()


def table(*rows: tuple[str, str, str, str, bytes]) -> pa.Table:
    types = [pa.string()] * 4 + [pa.binary(32)]
    columns = [pa.array([row[place] for row in rows], kind) for place, kind in enumerate(types)]
    return pa.table(dict(zip(COLUMNS, columns, strict=True)))


FAR = looks(0, np.random.default_rng(1).integers(0, 256, 32).astype(np.uint8))


def test_leak_gives_the_strongest_reason_and_the_nearest_evaluation_pair() -> None:
    training = table(
        ("same pixels", "P1", "a", "X", looks(0)),
        ("near", "P1", "a", "Y", looks(9)),
        ("same patient", "P1", "a", "Z", FAR),
        ("clean", "P9", "a", "V", looks(200)),
    )
    first = table(("e2", "P1", "openi", "X", looks(0)), ("e1", "P1", "openi", "X", looks(0)))
    second = table(("e3", "P2", "jsrt", "W", looks(8)))
    assert find_leaks(training, [first, second], 16) == {
        "same pixels": ("image of an evaluation set", "openi e1"),
        "near": ("near-duplicate of an evaluation image", "jsrt e3"),
        "same patient": ("patient of an evaluation set", "openi e1"),
    }


@pytest.mark.parametrize(("distance", "leaks"), [(16, True), (17, False)])
def test_leak_of_near_images_ends_at_the_distance(distance: int, leaks: bool) -> None:
    training = table(("t", "P1", "a", "X", looks(distance)))
    assert bool(find_leaks(training, [table(("e", "P2", "b", "Y", looks(0)))], 16)) is leaks


def test_leaks_without_evaluation_sets_or_rows_are_none() -> None:
    row = ("t", "P", "a", "X", looks(0))
    assert find_leaks(table(row), [], 16) == {}
    assert find_leaks(table(row), [table()], 16) == {}
    assert find_leaks(table(), [table(row)], 16) == {}


def test_leaks_never_name_a_patient() -> None:
    row = ("t", "salted-patient", "a", "X", looks(0))
    (leak,) = find_leaks(table(row), [table(("e", "salted-patient", "b", "Y", FAR))], 16).values()
    assert leak == ("patient of an evaluation set", "b e")


def test_leaks_of_a_table_without_a_column_raises() -> None:
    row = table(("t", "P", "a", "X", looks(0)))
    with pytest.raises(ValueError, match="no column patient_id"):
        find_leaks(row, [row.drop_columns(["patient_id"])], 16)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_leaks_equal_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def rows(prefix: str, count: int) -> list[tuple[str, str, str, str, bytes]]:
        return [
            (f"{prefix}{i}", f"P{rng.integers(30)}", prefix, f"X{rng.integers(30)}", looks(int(rng.integers(60))))
            for i in range(count)
        ]

    training, *evaluation = rows("t", 20), rows("e", 6), rows("f", 6)
    held_out = evaluation[0] + evaluation[1]
    expected = {}
    for sample, patient, _, pixels, look in training:
        gap = min(int.bit_count(int.from_bytes(look) ^ int.from_bytes(other[4])) for other in held_out)
        if pixels in {other[3] for other in held_out}:
            expected[sample] = "image of an evaluation set"
        elif gap <= 4:
            expected[sample] = "near-duplicate of an evaluation image"
        elif patient in {other[1] for other in held_out}:
            expected[sample] = "patient of an evaluation set"
    with_image = {row[1] for row in training if "image" in expected.get(row[0], "")}
    for sample, patient, *_ in training:
        if patient in with_image:
            expected.setdefault(sample, "patient of an evaluation set")
    found = find_leaks(table(*training), [table(*part) for part in evaluation], 4)
    assert {sample: reason for sample, (reason, _) in found.items()} == expected
