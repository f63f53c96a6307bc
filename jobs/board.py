"""What a job's processes tell each other: how far it is, what to say, whether to stop, why it failed."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from chexray.jobs.trackers import Point


class _Board:
    """Holds what a job's processes tell each other: how far it is, what to say, whether to stop."""

    def __init__(self) -> None:
        self.state = (0, "")
        self.warnings: list[str] = []
        self.points: list[Point] = []
        self.steps = 0
        self.starts: list[dict[str, Any]] = []
        self.stop = False
        self.failure: BaseException | None = None

    def write(self, done: int, note: str) -> None:
        self.state = (done, note)

    def read(self) -> tuple[int, str, list[str], list[Point]]:
        """The state, and the warnings and points of the curves since the last time."""
        warnings, self.warnings = self.warnings, []
        points, self.points = self.points, []
        return *self.state, warnings, points

    def put(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    def get(self, name: str) -> Any:
        return getattr(self, name)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def show(self, points: Sequence[Point]) -> None:
        self.points += points

    def count(self, steps: int) -> None:
        self.steps += steps

    def started(self, step: int, workers: int) -> None:
        self.starts.append({"time": round(time.time(), 3), "step": step, "workers": workers})


_BoardActor = ray.remote(num_cpus=0)(_Board)


class Reporter:
    """The worker's end: tells the board, without waiting for it. `tracked`: someone takes the points of the curves."""

    def __init__(self, board: Any, tracked: bool = False) -> None:
        self._board, self._tracked = board, tracked

    def update(self, done: int, note: str = "") -> None:
        self._board.write.remote(done, note)

    def warn(self, message: str) -> None:
        """Something that the person who waits should read."""
        self._board.warn.remote(message)

    def show(self, points: Sequence[Point]) -> None:
        """Points of the curves, for the run's trackers."""
        if self._tracked:
            self._board.show.remote(points)

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


def start_board(what: str) -> Any:
    """The board of a job, which ends with `ray.kill`."""
    # With the driver: on another node it could go away while the job goes on.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return _BoardActor.options(name=f"{_prefix(what)}{uuid.uuid4().hex}", scheduling_strategy=here).remote()


def find_reporter(what: str) -> Reporter | None:
    """The reporter of such a job that is running in this process's Ray namespace, if one is."""
    found = [name for name in ray.util.list_named_actors() if name.startswith(_prefix(what))]
    return Reporter(ray.get_actor(found[0])) if found else None


def _prefix(what: str) -> str:
    return f"chexray-{what}-"
