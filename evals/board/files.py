"""The leaderboard as Markdown, CSV and JSON. Names and reasons are other people's: they cannot break out of a cell."""

from __future__ import annotations

import csv
import html
import io
import math
import re
from typing import Any

from chexray.evals.board.leaderboard import BoardRow, Entry, Leaderboard
from chexray.evals.board.words import (
    gap_text,
    headline_name,
    legend,
    listings,
    marks,
    other_metric,
    outcome_notes,
    row_name,
    span,
    summary_lines,
    task_name,
    value_text,
)

_NUMBER = (
    "metric",
    "finding",
    "variant",
    "higher_is_better",
    "value",
    "low",
    "high",
    "n",
    "patients",
    "seen_in_training",
    "seen_patients",
)
"""What a row says of its number."""
CSV_COLUMNS = (
    "benchmark",
    "title",
    "version",
    "task",
    "method",
    "datasets",
    "split",
    "twin",
    "checkpoint",
    "state",
    "reason",
    *_NUMBER,
    "baseline",
    "verdict",
    "difference",
    "difference_low",
    "difference_high",
    "p_value",
    "p_value_corrected",
    "compared_samples",
    "comparison_notes",
    "gaps",
    "not_run",
    "failures",
)
_ROW_FIELDS = ("method", *_NUMBER)
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""What a spreadsheet may take for the start of a formula, also behind spaces (OWASP, CSV injection)."""


def markdown(board: Leaderboard) -> str:
    """A table, its legend, and the lists below it, in GitHub's Markdown."""
    lines = ["# Leaderboard", ""]
    lines += [f"Unfinished: {escape(uri)}. More numbers may come.\n" for uri in board.unfinished]
    lines += _table(["benchmark", *map(_head(board), board.checkpoints)], [_cells(row, board) for row in board.rows])
    lines += ["", *(f"- {escape(mark)} {escape(meaning)}" for mark, meaning in legend(board))]
    lines += [f"- {escape(line)}" for line in summary_lines(board)]
    for one in listings(board):
        lines += ["", f"## {escape(one.title)}", ""]
        lines += [escape(one.lead), ""] if one.lead else []
        lines += _table(list(one.header), [list(row) for row in one.rows])
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """One line of text in which Markdown and HTML see nothing: no markup, no cell's end, no link, no mention."""
    line = html.escape(" ".join(text.split()), quote=False)
    line = re.sub(r"([\\`*_\[\]|~#!$])", r"\\\1", line)
    line = re.sub(r"^([+-]|\d+[.)])(?=\s|$)", r"\\\1", line)
    return line.replace("://", "&#58;//").replace("www.", "www&#46;").replace("@", "&#64;")


def csv_text(board: Leaderboard) -> str:
    """A line for each benchmark and checkpoint, numbers in full. Text that a spreadsheet would run gets a ' first."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    for record in records(board):
        flat = record | {
            "datasets": "; ".join(record["datasets"]),
            "gaps": "; ".join(f"{one['attribute']}: {one['text']}" for one in record["gaps"]),
            "not_run": "; ".join(f"{one['metric']} ({one['variant']}): {one['reason']}" for one in record["not_run"]),
            "failures": "; ".join(
                f"seed {one['seed']} {one['state']}: {one['reason'] or 'no reason given'}" for one in record["failures"]
            ),
        }
        writer.writerow({name: _csv_cell(flat[name]) for name in CSV_COLUMNS})
    return stream.getvalue()


def as_dict(board: Leaderboard) -> dict[str, Any]:
    """The board for `--json`: what the CSV has, with lists as lists."""
    return {
        "checkpoints": list(board.checkpoints),
        "baseline": board.baseline,
        "draws": board.draws if board.baseline else None,
        "unfinished": list(board.unfinished),
        "summary": board.summary(),
        "entries": records(board),
    }


def records(board: Leaderboard) -> list[dict[str, Any]]:
    """One record for each benchmark and checkpoint; None for what is not known."""
    return [_record(row, entry, board) for row in board.rows for entry in row.entries]


def _record(row: BoardRow, entry: Entry, board: Leaderboard) -> dict[str, Any]:
    found = entry.outcome
    made = found.comparison if found else None
    return {
        **{name: getattr(row, name) for name in ("benchmark", "title", "version", "task", "split", "twin")},
        "datasets": list(row.datasets),
        "checkpoint": entry.checkpoint,
        "state": entry.state,
        "reason": entry.reason,
        **{name: getattr(entry.row, name) if entry.row else None for name in _ROW_FIELDS},
        "baseline": board.baseline,
        "verdict": entry.verdict,
        "difference": _defined(made.difference if made else None),
        "difference_low": _defined(made.low if made else None),
        "difference_high": _defined(made.high if made else None),
        "p_value": _defined(made.p_value if made else None),
        "p_value_corrected": _defined(found.p_holm if found else None),
        "compared_samples": found.samples if found and made else None,
        "comparison_notes": outcome_notes(entry) or None,
        "gaps": [
            {"attribute": one.attribute, "metric": one.metric, "text": gap_text(one), **one.gap.model_dump()}
            for one in entry.subgroups
            if one.gap
        ],
        "not_run": [one.model_dump() for one in entry.not_run],
        "failures": [{"seed": cell.seed, "state": cell.state, "reason": cell.reason} for cell in entry.failures],
    }


def _head(board: Leaderboard) -> Any:
    return lambda name: f"{name} (baseline)" if name == board.baseline else name


def _cells(row: BoardRow, board: Leaderboard) -> list[str]:
    twin = ", synthetic images" if row.twin else ""
    name = f"{row_name(row, board)}: {headline_name(row) or task_name(row.task)}{twin}"
    return [name, *(_cell(row, entry) for entry in row.entries)]


def _cell(row: BoardRow, entry: Entry) -> str:
    """'0.812 (0.771 to 0.853) ▲', and of which metric where that is not the row's."""
    if entry.state != "done" or entry.row is None:
        return value_text(entry)
    interval = "" if entry.row.low is None else f" ({span(entry.row.low, entry.row.high)})"
    return " ".join(part for part in (value_text(entry) + interval, other_metric(row, entry), marks(entry)) if part)


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    def line(cells: list[str]) -> str:
        return f"| {' | '.join(escape(cell) for cell in cells)} |"

    return [line(header), f"|{' --- |' * len(header)}", *(line(row) for row in rows)]


def _csv_cell(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value


def _defined(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 6)
