"""Carries a run's curves to the services of `run.trackers`, from the command's own process. No step waits for them.

Workers come and go, the command stays: it has the user's environment, and it sees how the run ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from chexray.jobs.mlflow_tracker import MlflowTracker
from chexray.jobs.progress import warn
from chexray.jobs.trackers import End, Point, TrackedRun, Tracker, describe, tracked_run
from chexray.jobs.wandb_tracker import WandbTracker
from chexray.platform.artifacts import Stage
from chexray.platform.config import RunConfig
from chexray.platform.errors import StoppedError

PATIENCE = 30.0
"""Seconds for which the end of a run waits for its trackers."""
_TRACKERS: dict[str, Callable[[], Tracker]] = {"mlflow": MlflowTracker, "wandb": WandbTracker}
_BETWEEN, _LONGEST_PAUSE = 2.0, 60.0
_AT_ONCE = 500


def build_trackers(names: Sequence[str]) -> list[Tracker]:
    """Raises `UsageError` where a package is missing, or has not been told where to report."""
    return [_TRACKERS[name]() for name in dict.fromkeys(names)]


class Line(threading.Thread):
    """Carries points to one tracker. What it does not take is offered again; the first time there is a warning."""

    def __init__(self, tracker: Tracker, run: TrackedRun, warn: Callable[[str], None]) -> None:
        super().__init__(name=f"tracking {tracker.name}", daemon=True)
        self._tracker, self._shown, self._warn = tracker, run, warn
        self._lock, self._points, self._next = threading.Lock(), list[Point](), 0
        self._end: tuple[End, Mapping[str, float]] | None = None
        self._ending, self._given_up = threading.Event(), threading.Event()
        self._open = self._warned = False

    def put(self, points: Sequence[Point]) -> None:
        """What was put before is left out: a restart repeats steps, with the same pairs."""
        with self._lock:
            for point in points:
                if point.step >= self._next:
                    self._points.append(point)
                    self._next = point.step + 1

    def end(self, end: End, totals: Mapping[str, float]) -> None:
        self._end = (end, totals)
        self._ending.set()

    def leave(self, seconds: float) -> None:
        self.join(max(0.0, seconds))
        if self.is_alive():
            self._given_up.set()
            self._warn(f"{self._tracker.name} has not taken all of this run's curves")

    def run(self) -> None:
        pause = _BETWEEN
        while not self._given_up.is_set():
            try:
                if self._carry():
                    return
                pause = _BETWEEN
            except Exception as error:  # noqa: BLE001 - clients raise what they like, and curves are not worth a run
                self._complain(error)
                pause = min(2 * pause, _LONGEST_PAUSE)
                if self._ending.is_set():
                    self._given_up.wait(_BETWEEN)
            self._ending.wait(pause)

    def _carry(self) -> bool:
        """Offer all that is there. True where the run has ended and the tracker has everything."""
        end = self._end
        if not self._open:
            self._forget_before(self._tracker.open(self._shown))
            self._open = True
        while points := self._points[:_AT_ONCE]:
            self._tracker.log(points)
            self._forget_before(points[-1].step + 1)
        if end:
            self._tracker.close(*end)
        return end is not None

    def _forget_before(self, step: int) -> None:
        with self._lock:
            self._points = [point for point in self._points if point.step >= step]
            self._next = max(self._next, step)

    def _complain(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            self._warn(f"{self._tracker.name} does not take this run's curves, and is asked again: {describe(error)}")


class Tracking:
    """A run's lines to its trackers. `totals`: what they are told at its end."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.totals: dict[str, float] = {}
        self._lines = lines
        for line in lines:
            line.start()

    @property
    def show(self) -> Callable[[Sequence[Point]], None] | None:
        """What takes points, in the order of their steps; None where no one looks at them."""
        return self._put if self._lines else None

    def close(self, end: End, patience: float = PATIENCE) -> None:
        """Wait so many seconds at most for the rest to be taken."""
        for line in self._lines:
            line.end(end, self.totals)
        deadline = time.monotonic() + patience
        for line in self._lines:
            line.leave(deadline - time.monotonic())

    def _put(self, points: Sequence[Point]) -> None:
        for line in self._lines:
            line.put(points)


@contextmanager
def tracked(trackers: Sequence[Tracker], stage: Stage, config: RunConfig) -> Iterator[Tracking]:
    """Show the run that writes `stage`, under an id that is kept beside it as long as it is the same run."""
    run = tracked_run(stage, config) if trackers else None
    tracking = Tracking([Line(tracker, run, warn) for tracker in trackers] if run else [])
    end: End = "failed"
    try:
        yield tracking
        end = "finished"
    except (StoppedError, KeyboardInterrupt):
        end = "stopped"
        raise
    finally:
        tracking.close(end)
