"""`chexray leaderboard`: checkpoints beside each other on all their benchmarks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chexray.platform.cli import Json, app
from chexray.platform.errors import UsageError

if TYPE_CHECKING:
    from chexray.evals.board.leaderboard import BoardRow, Entry, Leaderboard
    from chexray.platform.pages.blocks import Listing

_BENCHMARK_WIDTH, _CHECKPOINT_WIDTH = 26, 17
"""Characters of a terminal's columns: three checkpoints fit 80."""


@app.command()
def leaderboard(
    scores: Annotated[
        list[str], typer.Argument(help="One or more scores; LABEL=URI puts LABEL/ before its checkpoints' names.")
    ],
    baseline: Annotated[str | None, typer.Option(help="The checkpoint with which the others are compared.")] = None,
    markdown: Annotated[str | None, typer.Option(help="Write the table to this Markdown file.")] = None,
    csv: Annotated[str | None, typer.Option(help="Write a line a benchmark and checkpoint to this CSV file.")] = None,
    html: Annotated[
        str | None,
        typer.Option(help="A folder: the table and a page a benchmark, with images and reports. FILE.html: the table."),
    ] = None,
    no_examples: Annotated[
        bool, typer.Option("--no-examples", help="Leave images and reports of patients out of the pages.")
    ] = False,
    draws: Annotated[int, typer.Option(min=10, max=100_000, help="Bootstrap draws of the comparisons.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    json_: Json = False,
) -> None:
    """Put checkpoints beside each other: benchmarks, intervals, significance, subgroup gaps, what was seen before."""
    from chexray.evals.board.files import as_dict, csv_text
    from chexray.evals.board.files import markdown as markdown_text
    from chexray.evals.board.leaderboard import build_leaderboard
    from chexray.evals.board.score_files import read_all
    from chexray.platform import storage

    if no_examples and html is None:
        raise UsageError("--no-examples: is for the pages that --html writes")
    board = build_leaderboard(read_all(scores), baseline, draws, seed)
    written = []
    for uri, text in ((markdown, markdown_text), (csv, csv_text)):
        if uri is not None:
            storage.write_bytes(uri, text(board).encode())
            written.append(uri)
    if html is not None:
        from chexray.evals.board.pages import write_pages

        written += write_pages(board, html, examples=not no_examples)
    if json_:
        typer.echo(json.dumps(as_dict(board) | {"written": written}))
        return
    print_leaderboard(board, Console())
    for uri in written:
        Console().print(f"written: {uri}", highlight=False, soft_wrap=True, markup=False)
    if html is not None and not no_examples and not html.endswith((".html", ".htm")):
        Console().print("The benchmarks' pages may show images and reports of patients.", style="dim")


def print_leaderboard(board: Leaderboard, console: Console) -> None:
    """The table in as many parts as the width needs, its legend, and what a reader must know in short."""
    from chexray.evals.board.words import legend, listings, summary_lines, widest_gaps

    for uri in board.unfinished:
        console.print(Text(f"unfinished: {uri}; more numbers may come", style="yellow"), soft_wrap=True)
    at_once = max(1, (console.width - _BENCHMARK_WIDTH) // _CHECKPOINT_WIDTH)
    for start in range(0, len(board.checkpoints), at_once):
        console.print(_table(board, slice(start, start + at_once)))
    for mark, meaning in legend(board):
        console.print(Text(f"{mark} {meaning}", style="dim"))
    for line in summary_lines(board):
        console.print(Text(line))
    gaps = widest_gaps(board)
    for one in ([gaps] if gaps.rows else []) + listings(board, comparisons=False, reasons=False):
        console.print()
        console.print(_listing(one))


def _table(board: Leaderboard, columns: slice) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True)
    table.add_column("benchmark", max_width=_BENCHMARK_WIDTH, overflow="fold")
    for name in board.checkpoints[columns]:
        head = Text(name)
        if name == board.baseline:
            head.append("\nbaseline", style="dim")
        table.add_column(head, overflow="fold", min_width=_CHECKPOINT_WIDTH - 1)
    for row in board.rows:
        table.add_row(_name(row, board), *(_cell(row, entry) for entry in row.entries[columns]))
    return table


def _name(row: BoardRow, board: Leaderboard) -> Text:
    from chexray.evals.board.words import headline_name, row_name, task_name

    twin = "\nsynthetic images" if row.twin else ""
    return Text.assemble(
        (row_name(row, board), "bold"), (f"\n{headline_name(row) or task_name(row.task)}{twin}", "dim")
    )


def _cell(row: BoardRow, entry: Entry) -> Text:
    from chexray.evals.board.words import marks, other_metric, span, value_text

    if entry.state != "done" or entry.row is None:
        return Text(value_text(entry), style="red" if entry.state == "failed" else "dim")
    colour = {"better": "green", "worse": "red"}.get(entry.verdict or "", "")
    text = Text(f"{value_text(entry)} {marks(entry)}".rstrip(), style=colour)
    text.append(f"\n{span(entry.row.low, entry.row.high)}", style="dim")
    if metric := other_metric(row, entry):
        text.append(f"\n{metric}", style="dim")
    return text


def _listing(one: Listing) -> Table:
    table = Table(title=Text(one.title, style="bold"), title_justify="left", box=None, padding=(0, 1), pad_edge=False)
    for name in one.header:
        table.add_column(Text(name, style="dim"), overflow="fold")
    for row in one.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
