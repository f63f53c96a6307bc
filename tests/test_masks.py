"""Masks: run-length text, boxes and unions against loops over pixels, and all of SIIM-ACR's real masks."""

import csv
import gzip
import math

import numpy as np
import numpy.typing as npt
import pytest
from dataset_files import label_file
from hypothesis import given
from hypothesis import strategies as st

from chexray.platform.corpus.masks import Box, build_mask, combine_masks, decode_absolute_runs, decode_runs, draw_boxes
from chexray.platform.corpus.schema import MaskSource

Mask = npt.NDArray[np.uint8]

SIDES = st.integers(1, 12)


def encoded(mask_HW: Mask) -> str:
    """The challenge's encoding, pixel by pixel down the columns."""
    numbers: list[int] = []
    gap = length = 0
    for value in [*mask_HW.T.reshape(-1).tolist(), 0]:
        if value:
            length += 1
        elif length:
            numbers += [gap, length]
            gap, length = 1, 0
        else:
            gap += 1
    return " ".join(map(str, numbers))


def encoded_absolutely(mask_HW: Mask) -> str:
    """Kaggle's usual encoding, pixel by pixel down the columns, the first is 1."""
    numbers: list[int] = []
    inside = False
    for place, value in enumerate(mask_HW.T.reshape(-1).tolist(), start=1):
        if value and not inside:
            numbers += [place, 0]
        if value:
            numbers[-1] += 1
        inside = bool(value)
    return " ".join(map(str, numbers))


def masks(height: int, width: int) -> st.SearchStrategy[Mask]:
    pixels = st.lists(st.sampled_from([0, 255]), min_size=height * width, max_size=height * width)
    return pixels.map(lambda values: np.array(values, np.uint8).reshape(height, width))


@given(data=st.data(), height=SIDES, width=SIDES)
def test_decode_runs_of_an_encoded_mask_gives_the_mask(data: st.DataObject, height: int, width: int) -> None:
    mask_HW = data.draw(masks(height, width))
    np.testing.assert_array_equal(decode_runs(encoded(mask_HW), height, width), mask_HW)


def test_decode_runs_goes_down_the_columns() -> None:
    # 3 rows, 2 columns: pixel 1 is row 1 of column 0; 2 further on, pixels 4 and 5 are rows 1 and 2 of column 1.
    expected = np.array([[0, 0], [255, 255], [0, 255]], np.uint8)
    np.testing.assert_array_equal(decode_runs("1 1 2 2", 3, 2), expected)
    np.testing.assert_array_equal(decode_runs("1 1 2 1 0 1", 3, 2), expected)


@pytest.mark.parametrize("runs", ["", "0 0", "6 0"])
def test_decode_runs_without_length_is_empty(runs: str) -> None:
    mask_HW = decode_runs(runs, 3, 2)
    assert (mask_HW.shape, mask_HW.dtype, mask_HW.max()) == ((3, 2), np.uint8, 0)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ("-1", "pairs"),
        ("1 2 3", "pairs"),
        ("-1 2", "at least 0"),
        ("1 -2", "at least 0"),
        ("0 7", "end at pixel 7: 3 x 2 pixels have 6"),
        ("5 1 0 1", "end at pixel 7"),
        (f"0 {10**30}", "end at pixel"),
        ("a 1", "invalid literal"),
        ("1.5 1", "invalid literal"),
    ],
)
def test_decode_runs_that_are_broken_raises(runs: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_runs(runs, 3, 2)


@given(data=st.data(), height=SIDES, width=SIDES)
def test_decode_absolute_runs_of_an_encoded_mask_gives_the_mask(data: st.DataObject, height: int, width: int) -> None:
    mask_HW = data.draw(masks(height, width))
    np.testing.assert_array_equal(decode_absolute_runs(encoded_absolutely(mask_HW), height, width), mask_HW)


def test_decode_absolute_runs_hand_made_text_differs_from_the_relative_reading() -> None:
    # 3 rows, 2 columns: pixel 2 is row 1 of column 0, pixels 5 and 6 are rows 1 and 2 of column 1, in any order.
    expected = np.array([[0, 0], [255, 255], [0, 255]], np.uint8)
    for runs in ("2 1 5 2", "5 2 2 1", "5 1 2 1 5 2"):
        np.testing.assert_array_equal(decode_absolute_runs(runs, 3, 2), expected)
    assert np.count_nonzero(decode_absolute_runs("", 3, 2)) == 0
    with pytest.raises(ValueError, match="end at pixel 10"):
        decode_runs("2 1 5 2", 3, 2)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ("0 2", "a start must be at least 1"),
        ("1 -2", "a length at least 0"),
        ("1 2 3", "pairs of a start and a length"),
        ("6 2", "end at pixel 7: 3 x 2 pixels have 6"),
        ("a 1", "invalid literal"),
    ],
)
def test_decode_absolute_runs_that_are_broken_raises(runs: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_absolute_runs(runs, 3, 2)


def test_decode_runs_for_no_image_raises() -> None:
    with pytest.raises(ValueError, match="height and width are 0 and 2"):
        decode_runs("", 0, 2)


def test_decode_runs_of_every_real_mask_has_as_many_pixels_as_its_lengths_add_up_to() -> None:
    with gzip.open(label_file("siim-pneumothorax-train-rle.csv.gz"), "rt") as stream:
        rows = [row[1].strip() for row in csv.reader(stream)][1:]
    runs = [text for text in rows if text != "-1"]
    assert (len(rows), len(runs)) == (12_954, 3_576)
    for text in runs:
        lengths = [int(number) for number in text.split()][1::2]
        assert np.count_nonzero(decode_runs(text, 1024, 1024)) == sum(lengths)


def test_decode_runs_of_a_real_mask_equals_the_challenges_loop() -> None:
    with gzip.open(label_file("siim-pneumothorax-train-rle.csv.gz"), "rt") as stream:
        text = next(row[1].strip() for row in csv.reader(stream) if row[1].strip().startswith("557374 2 1015 8"))
    numbers = [int(number) for number in text.split()]
    flat = np.zeros(1024 * 1024, np.uint8)
    position = 0
    for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
        position += gap
        flat[position : position + length] = 255
        position += length
    mask_HW = decode_runs(text, 1024, 1024)
    np.testing.assert_array_equal(mask_HW, flat.reshape(1024, 1024).T)
    # 557,374 = 544 columns of 1,024 and 318 rows.
    assert (mask_HW[318, 544], mask_HW[317, 544], mask_HW[:, :544].max()) == (255, 0, 0)


EDGE = st.floats(-3, 15, allow_nan=False)


@given(height=SIDES, width=SIDES, x=st.tuples(EDGE, EDGE), y=st.tuples(EDGE, EDGE))
def test_draw_boxes_covers_the_pixels_whose_centres_are_inside(
    height: int, width: int, x: tuple[float, float], y: tuple[float, float]
) -> None:
    left, right, top, bottom = *sorted(x), *sorted(y)
    if left == right or top == bottom or left >= width or top >= height or right <= 0 or bottom <= 0:
        return
    expected = [
        [255 * (left <= column + 0.5 < right and top <= row + 0.5 < bottom) for column in range(width)]
        for row in range(height)
    ]
    np.testing.assert_array_equal(draw_boxes([(left, top, right, bottom)], height, width), expected)


def test_draw_boxes_of_several_boxes_is_their_union() -> None:
    expected = np.array([[255, 255, 0, 0], [255, 255, 0, 0], [0, 0, 0, 255]], np.uint8)
    np.testing.assert_array_equal(draw_boxes([(0, 0, 2, 2), (3, 2, 9, 9), (1, 1, 2, 2)], 3, 4), expected)
    assert draw_boxes([], 3, 4).max() == 0


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((2, 0, 2, 1), "left below right"),
        ((0, 3, 1, 2), "top below bottom"),
        ((math.nan, 0, 1, 1), "finite"),
        ((0, 0, math.inf, 1), "finite"),
        ((4, 0, 5, 1), "the image has 3 x 4 pixels"),
        ((0, 3, 1, 4), "the image has 3 x 4 pixels"),
        ((-2, 0, 0, 1), "the image has 3 x 4 pixels"),
    ],
)
def test_draw_boxes_of_no_box_of_the_image_raises(box: Box, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_boxes([box], 3, 4)


@given(data=st.data())
def test_combine_masks_is_inside_where_any_mask_is(data: st.DataObject) -> None:
    drawn = data.draw(st.lists(masks(3, 4), min_size=1, max_size=4))
    expected = [[255 * any(mask[row, column] for mask in drawn) for column in range(4)] for row in range(3)]
    np.testing.assert_array_equal(combine_masks(drawn), expected)


def test_combine_masks_of_no_or_unlike_masks_raises() -> None:
    with pytest.raises(ValueError, match=r"sizes \[\]"):
        combine_masks([])
    with pytest.raises(ValueError, match=r"\(2, 3\), \(3, 2\)"):
        combine_masks([np.zeros((3, 2), np.uint8), np.zeros((2, 3), np.uint8)])


def test_build_mask_joins_files_runs_and_boxes_at_the_stored_size() -> None:
    file_HW = np.zeros((8, 8), np.uint8)
    file_HW[:4, :4] = 255
    source = MaskSource(files=("a.png",), runs=("0 2",), runs_size=(4, 4), boxes=((30.0, 30.0, 40.0, 40.0),))
    # To 4 x 4: the file fills 2 x 2; the run is rows 0 and 1 of column 0; the box is the last pixel of 40 x 40.
    expected = np.zeros((4, 4), np.uint8)
    expected[:2, :2] = expected[3, 3] = 255
    np.testing.assert_array_equal(build_mask(source, [file_HW], (40, 40), (4, 4)), expected)


def test_build_mask_of_absolute_runs_starts_at_pixel_one() -> None:
    source = MaskSource(runs=("1 2",), runs_size=(2, 2), run_form="absolute")
    np.testing.assert_array_equal(build_mask(source, [], (2, 2), (2, 2)), np.array([[255, 0], [255, 0]], np.uint8))


def test_build_mask_without_parts_is_empty_and_runs_without_size_raise() -> None:
    mask_HW = build_mask(MaskSource(), [], (5, 5), (2, 3))
    assert (mask_HW.shape, mask_HW.dtype, mask_HW.max()) == ((2, 3), np.uint8, 0)
    with pytest.raises(ValueError, match="runs_size is None"):
        build_mask(MaskSource(runs=("0 1",)), [], (5, 5), (2, 3))
