"""One trial of a sweep: a pretraining run inside Ray Tune, which tells Tune of every look at the validation split."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import ceil
from typing import Any

import ray
from ray import tune

from chexray.jobs.looks import TellLooks
from chexray.jobs.pretrain import pretrain
from chexray.jobs.shared_subsets import Made
from chexray.platform import storage
from chexray.platform.artifacts import Manifest
from chexray.platform.config import Recipe, Runtime, with_settings
from chexray.platform.errors import ChexrayError, LostWorkersError
from chexray.platform.ledger import model_flops
from chexray.platform.sweep.points import Point, whole_epochs
from chexray.platform.sweep.records import (
    CHECKPOINT,
    SUBSETS,
    SweepPlan,
    TrialRecord,
    read_trial,
    trial_folder,
    write_trial,
)


@dataclass(frozen=True)
class SweepRun:
    """What every trial of a sweep needs to know."""

    uri: str
    plan: SweepPlan
    runtime: Runtime
    threads: int | None = None
    """Of a worker on CPUs, where the recipe says nothing: trials side by side share the cores."""

    def name_of(self, trial: Any) -> str:
        """Of Tune's trial, here."""
        return trial_name(self.plan, Point.model_validate(trial.config["point"]), trial.trial_id)


def run_trial(config: dict[str, Any], sweep: SweepRun, maker: Any) -> None:
    """What Tune runs. A trial whose settings are wrong is recorded as failed, and not tried again."""
    point = Point.model_validate(config["point"])
    name = trial_name(sweep.plan, point, tune.get_context().get_trial_id())
    before = read_trial(sweep.uri, name)
    record = TrialRecord(
        name=name,
        point=point.run(),
        methods=sweep.plan.space.methods if point.run().method == "full" else (point.method,),
        state="running",
        looks=before.looks if before else (),
        started=before.started if before and before.started else time.time(),
        tries=1 + (before.tries if before else 0),
    )
    write_trial(sweep.uri, record)
    try:
        made: Made = ray.get(maker.subset_of.remote(point))
        recipe, record = planned(sweep, point, made, record)
        write_trial(sweep.uri, record)
        out = storage.join(trial_folder(sweep.uri, name), CHECKPOINT)
        tell = TellLooks(made.pairs * recipe.train.epochs)
        manifest = pretrain(recipe, sweep.plan.corpus, out, made.uri, sweep.runtime, callbacks=[tell])
    except LostWorkersError:
        raise
    except ChexrayError as error:
        now = read_trial(sweep.uri, name) or record
        write_trial(sweep.uri, now.model_copy(update={"state": "failed", "reason": str(error)}))
        return
    write_trial(sweep.uri, trained(read_trial(sweep.uri, name) or record, manifest))


def trial_name(plan: SweepPlan, point: Point, tune_id: str) -> str:
    """The point's; where the search may ask for a point again, with Tune's own name for the trial."""
    return f"{point.name}-{tune_id}" if plan.space.search == "optuna" else point.name


def planned(sweep: SweepRun, point: Point, made: Made, record: TrialRecord) -> tuple[Recipe, TrialRecord]:
    """The recipe of the trial's run, and its record with how long the run is to be."""
    plan = sweep.plan
    recipe = point.recipe(plan.recipe)
    per_pair = model_flops(recipe.model)
    epochs = whole_epochs(point, plan.train_pairs, made.pairs, per_pair, made.curation_flops)
    recipe = with_settings(
        recipe,
        {
            "train.epochs": epochs,
            "run.validation": True,
            "run.threads": recipe.run.threads or sweep.threads,
            "run.checkpoint_epochs": ceil(epochs / plan.space.scheduler.looks),
        },
    )
    known = {
        "epochs": epochs,
        "pairs_kept": made.pairs,
        "subset": made.uri and storage.join(SUBSETS, made.uri.rsplit("/", 1)[-1]),
        "curation_flops": made.curation_flops,
        "train_flops_per_pair": per_pair.train,
    }
    return recipe, record.model_copy(update=known)


def trained(record: TrialRecord, manifest: Manifest) -> TrialRecord:
    """The record with what the finished run's ledger says."""
    cost = manifest.cost
    known = {
        "state": "trained",
        "pairs_seen": int(cost["pairs_trained"]),
        "training_flops": int(cost["total_flops"]) - int(cost["curation_flops"]),
        "worker_seconds": float(cost["training_device_seconds"]),
    }
    return record.model_copy(update=known)
