"""Progress that a person sees: bars on a terminal, nothing elsewhere, fed from wherever the work is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from chexray.jobs.board import Reporter, start_board
from chexray.jobs.trackers import Point

console = Console(stderr=True)
_POLL_SECONDS = 0.5


@contextmanager
def bar(what: str, total: int, show: Callable[[Sequence[Point]], None] | None = None) -> Iterator[Reporter]:
    """A bar for work done in other processes: hand the reporter to them. `show` takes the points of their curves."""
    board = start_board(what)
    stop = threading.Event()
    with _bars() as bars:
        view = _View(board, bars, bars.add_task(what, total=total, note=""), show)

        def poll() -> None:
            while not stop.wait(_POLL_SECONDS):
                view.update()

        thread = threading.Thread(target=poll, daemon=True)
        thread.start()
        try:
            yield Reporter(board, tracked=show is not None)
        finally:
            stop.set()
            thread.join()
            view.update()
            ray.kill(board)


def warn(message: str) -> None:
    console.print(f"warning: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)


class _View:
    """What a board says, where it is seen. An answer that is late is waited for again: it is given only once."""

    def __init__(self, board: Any, bars: Bars, task: TaskID, show: Callable[[Sequence[Point]], None] | None) -> None:
        self._board, self._bars, self._task, self._show = board, bars, task, show
        self._answer: Any = None

    def update(self) -> None:
        self._answer = self._answer or self._board.read.remote()
        try:
            done, note, warnings, points = ray.get(self._answer, timeout=5)
        except ray.exceptions.RayError:  # the board's node is gone: progress is never worth a job
            return
        self._answer = None
        for warning in warnings:
            warn(warning)
        self._bars.update(self._task, completed=done, note=note)
        if self._show and points:
            self._show(points)


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
