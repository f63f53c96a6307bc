"""The leaderboard as HTML: one page of the table, and in a folder a page of each benchmark too."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import replace

from chexray.evals.board.benchmark_blocks import (
    against_baseline,
    all_results,
    calibration_table,
    curve_plots,
    headlines,
    subgroup_tables,
)
from chexray.evals.board.example_blocks import example_blocks
from chexray.evals.board.leaderboard import BoardRow, Entry, Leaderboard
from chexray.evals.board.score_files import DISEASE_PREDICTION
from chexray.evals.board.words import (
    headline_name,
    legend,
    listings,
    marks,
    other_metric,
    row_name,
    span,
    summary_lines,
    task_name,
    value_text,
)
from chexray.platform import storage
from chexray.platform.errors import UsageError
from chexray.platform.pages.blocks import Block, BoardCell, BoardLine
from chexray.platform.pages.board_page import benchmark_page, board_page

INDEX = "index.html"


def write_pages(board: Leaderboard, to: str, examples: bool = True) -> list[str]:
    """Write the pages, and return the table's URI first. `to` ends in .html: that one page; else a folder.

    With `examples` the benchmarks' pages hold images and reports of patients. UsageError where `to` is a file that is
    not called so.
    """
    if to.lower().endswith((".html", ".htm")) and not storage.is_dir(to):
        storage.write_bytes(to, table_page(board, {}).encode())
        return [to]
    if storage.is_file(to):
        raise UsageError(f"--html {to}: is a file; give a folder, or a file that ends in .html")
    names = page_names(board.rows)
    pages = {names[place]: single_page(row, board, examples) for place, row in enumerate(board.rows)}
    # The table last: its links lead to pages that are there.
    for name, page in (pages | {INDEX: table_page(board, names)}).items():
        storage.write_bytes(storage.join(to, name), page.encode())
    return [storage.join(to, name) for name in (INDEX, *pages)]


def page_names(rows: Sequence[BoardRow]) -> dict[int, str]:
    """A file name for each benchmark, of letters, digits and hyphens, whatever it is called."""
    names: dict[int, str] = {}
    for place, row in enumerate(rows):
        slug = re.sub(r"[^a-z0-9]+", "-", row.benchmark.lower()).strip("-")[:60]
        name = f"benchmark-{slug}.html"
        if not slug or name in names.values():
            digest = hashlib.sha256(f"{row.benchmark}\x00{row.version}".encode()).hexdigest()[:8]
            name = f"benchmark-{slug}-{digest}.html"
        names[place] = name
    return names


def table_page(board: Leaderboard, links: dict[int, str]) -> str:
    """The table with its lists. It holds no images and no reports."""
    by_task: dict[str, list[BoardLine]] = {}
    for place, row in enumerate(board.rows):
        by_task.setdefault(row.task, []).append(_line(row, board, links.get(place)))
    lead = f"{_count(len(board.checkpoints), 'checkpoint')} on {_count(len(board.rows), 'benchmark')}"
    if board.baseline:
        lead += f", compared with {board.baseline}"
    return board_page(
        "Leaderboard",
        lead,
        [f"{uri} is unfinished: more numbers may come." for uri in board.unfinished],
        [(name, "baseline" if name == board.baseline else "") for name in board.checkpoints],
        [(_capital(task_name(task)), lines) for task, lines in by_task.items()],
        legend(board),
        summary_lines(board),
        listings(board),
    )


def single_page(row: BoardRow, board: Leaderboard, examples: bool = True) -> str:
    """The page of one benchmark."""
    blocks: list[Block] = [headlines(row, board)]
    warnings = []
    if row.twin:
        warnings.append(
            "Measured on synthetic images that stand in for this benchmark's: these numbers say nothing of it."
        )
    if row.task in ("zero_shot", DISEASE_PREDICTION):
        plots, problems = curve_plots(row)
        blocks += [plots] if plots else []
        warnings += problems
        blocks += against_baseline(row, board)
        table = calibration_table(row)
        blocks += [table] if table else []
    blocks += subgroup_tables(row)
    if examples:
        shown, problems = example_blocks(row)
        blocks += shown
        warnings += problems
    results = all_results(row)
    blocks += [results] if results.rows else []
    blocks += listings(replace(board, rows=(row,)), comparisons=False)
    parts = [
        task_name(row.task),
        ", ".join(row.datasets),
        f"split {row.split}" if row.split else "",
        f"version {row.version}" if row.version else "",
    ]
    lead = " · ".join(part for part in parts if part)
    return benchmark_page(row.title, lead, warnings, board.checkpoints, blocks, INDEX)


def _line(row: BoardRow, board: Leaderboard, link: str | None) -> BoardLine:
    scale = _scale(row)
    twin = "synthetic images" if row.twin else ""
    note = " · ".join(part for part in (headline_name(row), twin) if part)
    return BoardLine(row_name(row, board), note, link, [_cell(row, entry, scale) for entry in row.entries])


def _cell(row: BoardRow, entry: Entry, scale: tuple[float, float] | None) -> BoardCell:
    if entry.state != "done" or entry.row is None or entry.row.value is None:
        return BoardCell(value_text(entry), "", "", "", "failed" if entry.state == "failed" else "soft")
    first, verdict = entry.row, entry.verdict or ""
    colour = verdict if verdict in ("better", "worse") else ""
    words = BoardCell(value_text(entry), span(first.low, first.high), marks(entry), other_metric(row, entry), colour)
    if scale is None or first.low is None or first.high is None or other_metric(row, entry):
        return words
    low, at, high = (100 * (x - scale[0]) / (scale[1] - scale[0]) for x in (first.low, entry.row.value, first.high))
    return replace(words, low=low, high=high, at=at)


def _scale(row: BoardRow) -> tuple[float, float] | None:
    """The ends of the line's bars: its lowest and highest limits."""
    rows = [entry.row for entry in row.entries if entry.row and not other_metric(row, entry)]
    ends = [x for one in rows for x in (one.low, one.high, one.value) if x is not None and not math.isnan(x)]
    return (min(ends), max(ends)) if ends and max(ends) > min(ends) else None


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
