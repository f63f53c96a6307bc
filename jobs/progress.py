"""Progress that a person sees: bars on a terminal, nothing elsewhere, fed from wherever the work is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

console = Console(stderr=True)
_POLL_SECONDS = 0.5


class _Board:
    """Holds what a job's processes tell each other: how far it is, what to say, whether to stop."""

    def __init__(self) -> None:
        self.state = (0, "")
        self.warnings: list[str] = []
        self.steps = 0
        self.starts: list[dict[str, Any]] = []
        self.stop = False
        self.failure: BaseException | None = None

    def write(self, done: int, note: str) -> None:
        self.state = (done, note)

    def read(self) -> tuple[int, str, list[str]]:
        """The state, and the warnings since the last time."""
        warnings, self.warnings = self.warnings, []
        return *self.state, warnings

    def put(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    def get(self, name: str) -> Any:
        return getattr(self, name)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def count(self, steps: int) -> None:
        self.steps += steps

    def started(self, step: int, workers: int) -> None:
        self.starts.append({"time": round(time.time(), 3), "step": step, "workers": workers})


_BoardActor = ray.remote(num_cpus=0)(_Board)


class Reporter:
    """The worker's end: tells the board, without waiting for it."""

    def __init__(self, board: Any) -> None:
        self._board = board

    def update(self, done: int, note: str = "") -> None:
        self._board.write.remote(done, note)

    def warn(self, message: str) -> None:
        """Something that the person who waits should read."""
        self._board.warn.remote(message)

    def count(self, steps: int) -> None:
        """Steps that were run, whether or not they are run again."""
        self._board.count.remote(steps)

    def counted(self) -> int:
        return int(ray.get(self._board.get.remote("steps")))

    def started(self, step: int, workers: int) -> None:
        """Workers have started, or started again, and go on with this step."""
        self._board.started.remote(step, workers)

    def starts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = ray.get(self._board.get.remote("starts"))
        return found

    def request_stop(self) -> None:
        self._board.put.remote("stop", True)

    def is_stop_requested(self) -> bool:
        return bool(ray.get(self._board.get.remote("stop")))

    def fail(self, error: BaseException) -> None:
        """End the job with this error. Waits until it is known."""
        ray.get(self._board.put.remote("failure", error))

    def failure(self) -> BaseException | None:
        error: BaseException | None = ray.get(self._board.get.remote("failure"))
        return error


@contextmanager
def bar(what: str, total: int) -> Iterator[Reporter]:
    """A bar for work done in other processes: hand the reporter to them."""
    board = _BoardActor.remote()
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
