"""Tables with several rows an image: a box, a mask or a radiologist's reading each."""

from __future__ import annotations

import math
from collections.abc import Sequence

from chexray.platform.corpus.adapters.table import Table
from chexray.platform.corpus.masks import Box
from chexray.platform.corpus.schema import MaskSource
from chexray.platform.errors import UsageError

Row = dict[str, str]

NO_MASK = "-1"
"""What a column of run-length strings says where the finding is absent."""


def rows_by(table: Table, column: str) -> dict[str, list[Row]]:
    """The rows of each value of `column`, both in the table's order."""
    groups: dict[str, list[Row]] = {}
    for row in table.rows:
        groups.setdefault(row[column], []).append(row)
    return groups


def read_box(where: str, row: Row, columns: Sequence[str], *, sized: bool) -> Box | None:
    """Left, top, right, bottom of four `columns`, the last two of which are width and height where `sized`.

    None where all four are empty. UsageError, with `where`, for anything but four numbers.
    """
    texts = [row[column] for column in columns]
    if all(text.lower() in ("", "nan") for text in texts):
        return None
    try:
        left, top, right, bottom = (float(text) for text in texts)
    except ValueError as error:
        raise UsageError(f"{where}: box {texts}: {', '.join(columns)} must be numbers, or all empty") from error
    if not all(math.isfinite(edge) for edge in (left, top, right, bottom)):
        raise UsageError(f"{where}: box {texts}: {', '.join(columns)} must be finite")
    return (left, top, left + right, top + bottom) if sized else (left, top, right, bottom)


def read_boxes(
    table: Table, image: str, finding: str, columns: Sequence[str], *, sized: bool
) -> dict[str, dict[str, tuple[Box, ...]]]:
    """Boxes by image and finding, named by the columns `image` and `finding`; rows without a box are passed over."""
    found: dict[str, dict[str, tuple[Box, ...]]] = {}
    for number, row in enumerate(table.rows, start=1):
        box = read_box(f"{table.uri}, row {number}", row, columns, sized=sized)
        if box is not None:
            boxes = found.setdefault(row[image], {})
            boxes[row[finding]] = (*boxes.get(row[finding], ()), box)
    return found


def run_mask(runs: tuple[str, ...], size: tuple[int, int]) -> MaskSource:
    """The union of run-length strings, of an image of `size` (height, width); empty without any."""
    return MaskSource(runs=runs, runs_size=size) if runs else MaskSource()


def box_masks(boxes: dict[str, tuple[Box, ...]]) -> dict[str, MaskSource]:
    return {finding: MaskSource(boxes=drawn) for finding, drawn in boxes.items()}
