"""A sweep's folder as one JSON value: what the dashboard shows, live or exported. Nothing is judged here.

It is read while others write: what is not there yet is None, what cannot be read is named under `problems`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from chexray.evals.board.score_files import RESULTS, ScoreRow, read_scores
from chexray.evals.json_values import finite
from chexray.platform import storage
from chexray.platform.errors import UsageError
from chexray.platform.sweep.points import Point
from chexray.platform.sweep.records import (
    CONCLUSIONS,
    SCORES,
    Look,
    Measured,
    SweepPlan,
    TrialRecord,
    read_plan,
    read_trial,
    trial_folder,
)
from chexray.platform.sweep.space import VALIDATION_LOSS

RARE = 0.02
"""Findings of a lower prevalence in a benchmark are shown as rare."""
READERS = 16
"""Files that are read at once: an object store answers each after some 20 ms."""

T = TypeVar("T")
S = TypeVar("S")


class SweepReader:
    """Reads one sweep again and again. What cannot change, as a trial that is done, is read once."""

    def __init__(self, uri: str) -> None:
        self.uri = storage.resolve(uri)
        self._done: dict[str, dict[str, Any]] = {}
        self._started: float | None = None

    def snapshot(self, now: float | None = None) -> dict[str, Any]:
        """Raises `UsageError` where there is no sweep. `now`: seconds since 1970."""
        plan = read_plan(self.uri)
        if plan.started != self._started:  # another sweep has taken the folder
            self._done, self._started = {}, plan.started
        points = _points(plan)
        found = parallel(lambda name: self._trial(name, plan, points.get(name, [])), plan.trials)
        conclusions, problem = self._conclusions()
        problems = [*(problem for _, problem in found), problem]
        value: dict[str, Any] = finite(
            {
                "sweep": _last_part(self.uri),
                "read": time.time() if now is None else now,
                "plan": _plan_entry(plan),
                "conclusions": conclusions,
                "trials": [trial for trial, _ in found],
                "problems": [one for one in problems if one],
            }
        )
        return value

    def _trial(self, name: str, plan: SweepPlan, points: Sequence[Point]) -> tuple[dict[str, Any], str | None]:
        """Its entry, and what could not be read of it."""
        if name in self._done:
            return self._done[name], None
        try:
            record = read_trial(self.uri, name)
        except (UsageError, FileNotFoundError) as error:
            return _waiting_entry(name, points, plan.space.metric) | {"state": "unreadable"}, str(error)
        if record is None:
            return _waiting_entry(name, points, plan.space.metric), None
        rows, problem = self._scores(record)
        entry = _trial_entry(record, plan.space.metric) | {"rare": _rare_rows(rows)}
        if record.state == "done" and problem is None:
            self._done[name] = entry
        return entry, problem

    def _scores(self, record: TrialRecord) -> tuple[Sequence[ScoreRow], str | None]:
        if record.state not in ("done", "stopped"):
            return (), None
        folder = storage.join(trial_folder(self.uri, record.name), SCORES)
        try:
            return (read_scores(folder).rows if storage.exists(storage.join(folder, RESULTS)) else ()), None
        except UsageError as error:
            return (), str(error)

    def _conclusions(self) -> tuple[dict[str, Any] | None, str | None]:
        uri = storage.join(self.uri, CONCLUSIONS)
        if not storage.exists(uri):
            return None, None
        try:
            found = storage.read_json(uri)
        except UsageError as error:
            return None, str(error)
        if not isinstance(found, dict):
            return None, f"{uri}: holds a {type(found).__name__}, expected an object"
        table = [row for row in _list(found.get("table")) if isinstance(row, dict)]
        return {"lines": [str(line) for line in _list(found.get("lines"))], "table": table}, None


def parallel(read: Callable[[S], T], names: Iterable[S]) -> list[T]:
    """Each read in its turn or beside others, in the order of `names`."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(read, names))


def _plan_entry(plan: SweepPlan) -> dict[str, Any]:
    space = plan.space
    return {
        "corpus": _last_part(plan.corpus),
        "train_pairs": plan.train_pairs,
        "recipe": plan.recipe.name,
        "metric": space.metric,
        "benchmarks": space.benchmarks,
        "delta": space.delta,
        "budget_unit": space.budget_unit,
        "search": space.search,
        "scheduler": space.scheduler.name,
        "trials": space.trials,
        "started": plan.started,
        "finished": plan.finished,
        "shared_curation_flops": plan.shared_curation_flops,
    }


def _trial_entry(record: TrialRecord, metric: str) -> dict[str, Any]:
    return {
        **_point_entry(record.name, record.point, record.methods),
        "state": record.state,
        "reason": record.reason,
        "epochs": record.epochs,
        "epochs_done": _epochs_done(record),
        "pairs_kept": record.pairs_kept,
        "subset": record.subset,
        "looks": [_look_entry(look) for look in record.looks],
        "pairs_seen": record.pairs_seen,
        "training_flops": record.training_flops,
        "curation_flops": record.curation_flops,
        "metrics": {name: one.model_dump() for name, one in record.metrics.items()},
        "metric": _headline(record, metric),
        "worker_seconds": record.worker_seconds,
        "started": record.started,
        "finished": record.finished,
        "tries": record.tries,
        "rare": [],
    }


def _waiting_entry(name: str, points: Sequence[Point], metric: str) -> dict[str, Any]:
    """Of a trial that has not begun: what the space says of it, if it is a grid's."""
    if points:
        methods = tuple(point.method for point in points)
        return _trial_entry(TrialRecord(name=name, point=points[0].run(), methods=methods), metric)
    blank = TrialRecord(name=name, point=Point(method="full", keep=1, budget=1), methods=())
    return _trial_entry(blank, metric) | dict.fromkeys(("method", "keep", "budget", "seed"))


def _point_entry(name: str, point: Point, methods: Sequence[str]) -> dict[str, Any]:
    return {
        "name": name,
        "method": point.run().method,
        "methods": list(methods),
        "keep": 1.0 if point.run().method == "full" else point.keep,
        "budget": point.budget,
        "seed": point.seed,
        "settings": point.settings,
    }


def _look_entry(look: Look) -> dict[str, Any]:
    return {
        "epoch": look.epoch,
        "step": look.step,
        "pairs": look.pairs_seen,
        "flops": look.flops,
        "loss": look.loss,
        "validation": look.validation_loss,
        "seconds": look.seconds,
        "workers": look.workers,
    }


def _epochs_done(record: TrialRecord) -> float | None:
    """In tenths, rounded down: a run is at 20 of 20 when it is there."""
    if not record.pairs_kept:
        return None
    return math.floor(10 * record.pairs_seen / record.pairs_kept) / 10


def _headline(record: TrialRecord, metric: str) -> dict[str, Any] | None:
    """The number that the sweep concludes by."""
    if metric == VALIDATION_LOSS:
        losses = [look.validation_loss for look in record.looks if look.validation_loss is not None]
        return Measured(value=losses[-1], higher_is_better=False).model_dump() if losses else None
    found = record.metrics.get(metric)
    return found.model_dump() if found else None


def _rare_rows(rows: Iterable[ScoreRow]) -> list[dict[str, Any]]:
    """AUROC of each rare finding, as each benchmark has it."""
    return [
        row.model_dump(include={"benchmark", "finding", "value", "low", "high", "prevalence", "positives"})
        for row in rows
        if row.finding and row.metric == "auroc" and row.prevalence is not None and row.prevalence < RARE
    ]


def _points(plan: SweepPlan) -> dict[str, list[Point]]:
    """The space's points by the name of their run."""
    by_name: dict[str, list[Point]] = {}
    for point in plan.space.points():
        by_name.setdefault(point.name, []).append(point)
    return by_name


def _last_part(uri: str) -> str:
    return uri.rstrip("/").rsplit("/", 1)[-1]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
