"""Dice and IoU: hand-made masks, empty ones by either convention, and counting pixel by pixel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.evals.overlap import EMPTY, overlap
from chexray.platform.evaluate_config import Empty

Mask = npt.NDArray[np.bool_]


def mask(*rows: str) -> Mask:
    """One class; '#' is inside."""
    return np.array([[[letter == "#" for letter in row] for row in rows]])


def brute_force(predicted: list[bool], truth: list[bool], empty: Empty) -> tuple[float, float]:
    both = sum(p and t for p, t in zip(predicted, truth, strict=True))
    either = sum(p or t for p, t in zip(predicted, truth, strict=True))
    if not any(truth) and empty == "left out":
        return float("nan"), float("nan")
    if not either:
        return 1.0, 1.0
    return 2 * both / (sum(predicted) + sum(truth)), both / either


def test_overlap_of_hand_made_masks_is_as_counted() -> None:
    # 3 inside each, 2 in common: Dice 4/6, IoU 2/4.
    dice_C, iou_C = overlap(mask("##.", "#.."), mask("##.", "..#"), "one")
    # Measured worst error: 2e-8, of MONAI's float32.
    np.testing.assert_allclose([dice_C, iou_C], [[2 / 3], [1 / 2]], rtol=0, atol=1e-7)


@pytest.mark.parametrize("empty", EMPTY)
def test_overlap_of_equal_and_of_disjoint_masks_is_one_and_zero(empty: Empty) -> None:
    shape = mask("##.", "#..")
    assert [value.tolist() for value in overlap(shape, shape, empty)] == [[1.0], [1.0]]
    assert [value.tolist() for value in overlap(~shape, shape, empty)] == [[0.0], [0.0]]
    assert [value.tolist() for value in overlap(mask("...", "..."), shape, empty)] == [[0.0], [0.0]]


def test_overlap_of_empty_masks_follows_the_convention() -> None:
    none, one = mask("...", "..."), mask("..#", "...")
    assert [value.tolist() for value in overlap(none, none, "one")] == [[1.0], [1.0]]
    assert [value.tolist() for value in overlap(one, none, "one")] == [[0.0], [0.0]]
    for predicted in (none, one):
        assert np.isnan(overlap(predicted, none, "left out")).all()


@pytest.mark.parametrize("empty", EMPTY)
@settings(max_examples=80, deadline=None)
@given(data=st.data(), classes=st.integers(1, 3), height=st.integers(1, 4), width=st.integers(1, 4))
def test_overlap_of_any_masks_equals_counting(
    empty: Empty, data: st.DataObject, classes: int, height: int, width: int
) -> None:
    bits = st.lists(st.booleans(), min_size=classes * height * width, max_size=classes * height * width)
    predicted, truth = (np.array(data.draw(bits)).reshape(classes, height, width) for _ in range(2))
    dice_C, iou_C = overlap(predicted, truth, empty)
    expected = [
        brute_force(p.ravel().tolist(), t.ravel().tolist(), empty) for p, t in zip(predicted, truth, strict=True)
    ]
    # Measured worst error: 3e-8, of MONAI's float32.
    np.testing.assert_allclose(np.column_stack([dice_C, iou_C]), expected, rtol=0, atol=1e-7)
    # Each is a function of the other: Dice = 2 IoU / (1 + IoU).
    np.testing.assert_allclose(dice_C, 2 * iou_C / (1 + iou_C), rtol=0, atol=1e-6)


def test_overlap_of_masks_that_do_not_fit_raises() -> None:
    shape = mask("##.", "#..")
    with pytest.raises(ValueError, match=r"bool \(1, 2, 3\), bool \(1, 3, 2\); allowed: bool, the same"):
        overlap(shape, shape.transpose(0, 2, 1), "one")
    with pytest.raises(ValueError, match="are uint8"):
        overlap(shape.astype(np.uint8), shape, "one")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="empty is 'zero'; allowed: one, left out"):
        overlap(shape, shape, "zero")  # type: ignore[arg-type]
