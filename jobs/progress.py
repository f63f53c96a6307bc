"""Progress that a person sees: bars on a terminal, nothing elsewhere, fed from wherever the work is done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from chexray.jobs.board import Reporter, start_board

console = Console(stderr=True)
_POLL_SECONDS = 0.5


@contextmanager
def bar(what: str, total: int) -> Iterator[Reporter]:
    """A bar for work done in other processes: hand the reporter to them."""
    board = start_board(what)
    stop = threading.Event()
    with _bars() as bars:
        task = bars.add_task(what, total=total, note="")

        def poll() -> None:
            while not stop.wait(_POLL_SECONDS):
                _show(bars, task, board)

        thread = threading.Thread(target=poll, daemon=True)
        thread.start()
        try:
            yield Reporter(board)
        finally:
            stop.set()
            thread.join()
            _show(bars, task, board)
            ray.kill(board)


def _show(bars: Bars, task: TaskID, board: Any) -> None:
    try:
        done, note, warnings = ray.get(board.read.remote(), timeout=5)
    except ray.exceptions.RayError:  # the board's node is gone: progress is never worth a job
        return
    for warning in warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    bars.update(task, completed=done, note=note)


def _bars() -> Bars:
    return Bars(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )
