"""The evaluation of a sweep's checkpoints, on validation data or at the end on test data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chexray.evals.specs import OWN, BenchmarkSpec, choose_specs, plain_specs
from chexray.jobs.evaluate import evaluate_many, read_results
from chexray.jobs.trial import SweepRun
from chexray.platform import storage
from chexray.platform.artifacts import Manifest
from chexray.platform.config import with_settings
from chexray.platform.errors import UsageError
from chexray.platform.sweep.records import CHECKPOINT, SCORES, trial_folder


def evaluate_trial(sweep: SweepRun, name: str) -> dict[str, Any]:
    """The headline numbers of a trial's checkpoint on validation data, by benchmark.metric."""
    folder = trial_folder(sweep.uri, name)
    scores = storage.join(folder, SCORES)
    evaluate_on(sweep, {name: storage.join(folder, CHECKPOINT)}, "validation", scores)
    return headline_metrics(scores, name)


def evaluate_on(sweep: SweepRun, checkpoints: Mapping[str, str], split: str, out: str) -> Manifest:
    """Score checkpoints of the sweep on its benchmarks' validation or test data."""
    plan = sweep.plan
    recipe = with_settings(plan.recipe, {"evaluate.split": split})
    specs = sweep_specs(plan.space.benchmarks, plan.data)
    return evaluate_many(recipe, checkpoints, specs, plan.data or {OWN: plan.corpus}, out, sweep.runtime)


def sweep_specs(names: Sequence[str], data: Mapping[str, str]) -> dict[str, BenchmarkSpec]:
    """The benchmarks: of the registry where `data` is given, else plain tasks on the sweep's own corpus.

    Raises `UsageError` for those that learn: they choose by the validation data, so they cannot be judged on it.
    """
    specs = choose_specs(list(names)) if data else plain_specs(list(names))
    for name, spec in specs.items():
        if spec.learns:
            raise UsageError(
                f"benchmarks: {name} is of {spec.task}, which chooses by validation data; a sweep is judged by "
                "zero_shot and retrieval, and what it chose can be evaluated on all others"
            )
    return specs


def headline_metrics(scores: str, checkpoint: str) -> dict[str, Any]:
    """`Measured` of a checkpoint: its benchmarks' headlines, and what each has once of all findings together."""
    rows = [row for row in read_results(scores) if row["checkpoint"] == checkpoint]
    whole = [f"{row['benchmark']}.{row['metric']}" for row in rows if row["finding"] is None]
    fields = ("value", "low", "high", "higher_is_better")
    found = {}
    for row in rows:
        name = f"{row['benchmark']}.{row['metric']}"
        if row["headline"] or (row["finding"] is None and whole.count(name) == 1):
            found[name] = {field: row[field] for field in fields}
    return found
