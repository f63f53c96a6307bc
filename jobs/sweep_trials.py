"""Running a sweep's trials under Ray Tune: those that have not ended yet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import ray
from ray import tune

from chexray.jobs.shared_subsets import start_maker
from chexray.jobs.sweep_schedulers import scheduler_of, searcher_of
from chexray.jobs.sweep_watch import SweepWatch
from chexray.jobs.trial import SweepRun, run_trial
from chexray.platform import storage
from chexray.platform.errors import StoppedError
from chexray.platform.sweep.records import TrialRecord, read_plan, read_trials
from chexray.platform.sweep.space import VALIDATION_LOSS

TUNE_FOLDER = "tune"
"""What Tune itself writes: TensorBoard's files, a CSV and a JSON of every trial's looks. Nothing is read from it."""
_RETRIES = 2
_KEPT = ("done", "stopped", "trained")


def run_trials(sweep: SweepRun, concurrent: int) -> list[TrialRecord]:
    """Run what has not ended, and evaluate what was trained. The records of all, in the plan's order."""
    watch = SweepWatch(sweep)
    kept = [record for record in read_trials(sweep.uri, sweep.plan.trials) if record.state in _KEPT]
    for record in kept:
        if record.state == "trained":
            watch.evaluate(record)
        else:
            watch.ended.add(record.name)
    scheduler = scheduler_of(sweep.plan.space.scheduler)
    scheduler.remember(kept)
    config = _search(sweep, kept)
    if config["num_samples"] > 0:
        maker = start_maker(sweep.plan, sweep.uri, sweep.runtime)
        try:
            settings = config | {"scheduler": scheduler, "max_concurrent_trials": concurrent}
            _tuner(sweep, watch, maker, settings).fit()
        finally:
            ray.kill(maker)  # with what it has started: Ray holds on to it where Tune has written it down
    watch.collect(timeout=None)
    names = read_plan(sweep.uri).trials
    records = read_trials(sweep.uri, names)
    space = sweep.plan.space
    if left := unfinished(names, records, space.trials if space.search == "optuna" else None):
        raise StoppedError(f"{left} trials have not ended; the same command goes on with them")
    return records


def unfinished(names: Sequence[str], records: Sequence[TrialRecord], asked: int | None) -> int:
    """How many trials have not ended, begun or not. `names`: those known. `asked`: how many a search is to ask for."""
    ended = {record.name for record in records if record.state in ("done", "stopped", "failed")}
    return max(len(names), asked or 0) - len(ended)


def _search(sweep: SweepRun, kept: Sequence[TrialRecord]) -> dict[str, Any]:
    """What Tune is asked to look at: the points that are not kept, or as many as are left to be asked for."""
    space = sweep.plan.space
    if space.search == "optuna":
        return {"num_samples": (space.trials or 0) - len(kept), "search_alg": searcher_of(space, kept)}
    names = {record.name for record in kept}
    points = {point.name: point.run().model_dump() for point in space.points() if point.name not in names}
    return {"num_samples": min(1, len(points)), "points": list(points.values())}


def _tuner(sweep: SweepRun, watch: SweepWatch, maker: Any, config: dict[str, Any]) -> tune.Tuner:
    points = config.pop("points", None)
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # whose first lines nothing else silences
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # a trial that fails has no loss, and ends no other
    fs, path = storage.arrow_filesystem(sweep.uri)
    # The run's workers have resources of their own; what starts them and waits for them needs none, which Tune refuses.
    nothing = tune.PlacementGroupFactory([{"memory": 1}])
    trial = tune.with_resources(tune.with_parameters(run_trial, sweep=sweep, maker=maker), nothing)
    return tune.Tuner(
        trial,
        param_space={"point": tune.grid_search(points)} if points else None,
        tune_config=tune.TuneConfig(
            metric=VALIDATION_LOSS,
            mode="min",
            trial_name_creator=sweep.name_of,
            trial_dirname_creator=sweep.name_of,
            **config,
        ),
        run_config=tune.RunConfig(
            name=TUNE_FOLDER,
            storage_path=path,
            storage_filesystem=fs,
            callbacks=[watch],
            failure_config=tune.FailureConfig(max_failures=_RETRIES),
            verbose=0,
        ),
    )
