"""A sweep: Ray Tune runs pretraining over methods, kept fractions, budgets and seeds, and the sweep says what follows.

As a cluster job: `ray job submit ... -- python -m chexray.jobs.sweep --corpus s3://... --out s3://... --space s3://...`.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import joblib
import ray

from chexray.cluster.local import SPARE_CPUS, ray_session
from chexray.jobs.progress import console
from chexray.jobs.shared_subsets import shared_flops
from chexray.jobs.sweep_conclusions import device_of, write_conclusions
from chexray.jobs.sweep_scores import sweep_specs
from chexray.jobs.sweep_trials import run_trials
from chexray.jobs.trial import SweepRun
from chexray.platform.artifacts import Manifest, Stage, read_manifest
from chexray.platform.cli import run_job
from chexray.platform.config import Recipe, Runtime
from chexray.platform.errors import ChexrayError
from chexray.platform.sweep.records import SweepPlan, TrialRecord, read_plan, write_plan
from chexray.platform.sweep.space import SweepSpace


def sweep(
    recipe: Recipe,
    corpus: str,
    out: str,
    space: SweepSpace,
    data: Mapping[str, str] | None = None,
    runtime: Runtime | None = None,
    overwrite: bool = False,
    concurrent: int | None = None,
) -> Manifest:
    """Pretrain and evaluate every point of `space` on `corpus`; write records, conclusions, the winner's test scores.

    `data`: corpora of the registry's benchmarks, where `space.benchmarks` are from it. `concurrent`: trials at once;
    None for as many as there are CPUs or GPUs for. An unfinished sweep goes on: trials that have ended are kept, others
    go on from their checkpoints. Raises `ChexrayError` at the end where trials failed.
    """
    runtime = runtime or Runtime()
    points = space.points()
    for point in points:
        point.recipe(recipe)
    sweep_specs(space.benchmarks, data or {})
    device_of(space.full_size)
    inputs: dict[str, Any] = {"corpus": (corpus, "corpus")}
    inputs |= {f"corpus {name}": (uri, "corpus") for name, uri in (data or {}).items()}
    sections = {"model", "train", "curate", "evaluate"}
    settings = {
        "space": space.model_dump(mode="json", exclude={"full_size"}),
        **recipe.model_dump(mode="json", include=sections),
    }
    stage = Stage(out, "sweep", settings, inputs, overwrite=overwrite)
    if done := stage.begin():
        return done
    names = tuple(dict.fromkeys(point.name for point in points))
    plan = _plan(stage, recipe, space, names, data or {})
    write_plan(stage.uri, plan)
    starts_ray = not (ray.is_initialized() or runtime.address or os.environ.get("RAY_ADDRESS"))
    with ray_session(_with_room(runtime, concurrent)):
        trials = concurrent or trials_at_once(runtime)
        threads = max(1, joblib.cpu_count() // (trials * runtime.workers)) if starts_ray else None
        run = SweepRun(stage.uri, plan, runtime, threads)
        return _conclude(stage, run, run_trials(run, trials))


def resume(uri: str, runtime: Runtime | None = None, concurrent: int | None = None) -> Manifest:
    """Go on with the sweep at `uri`, whose folder says all about it."""
    plan = read_plan(uri)
    return sweep(plan.recipe, plan.corpus, uri, plan.space, plan.data, runtime, concurrent=concurrent)


def trials_at_once(runtime: Runtime) -> int:
    """As many as Ray has room for, beside the processes that feed them."""
    name, each = ("GPU", runtime.workers) if runtime.gpu else ("CPU", runtime.workers + SPARE_CPUS)
    return max(1, int(ray.cluster_resources().get(name, 0)) // each)


def _with_room(runtime: Runtime, concurrent: int | None) -> Runtime:
    """For a Ray started here: logical CPUs for every trial, what feeds it, and evaluations beside them."""
    cores = joblib.cpu_count()
    trials = concurrent or max(1, cores // runtime.workers)
    return runtime.model_copy(update={"cpus": runtime.cpus or trials * (runtime.workers + SPARE_CPUS) + SPARE_CPUS})


def _plan(
    stage: Stage, recipe: Recipe, space: SweepSpace, names: tuple[str, ...], data: Mapping[str, str]
) -> SweepPlan:
    corpus = stage.inputs["corpus"]
    plan = SweepPlan(
        corpus=corpus,
        train_pairs=int(read_manifest(corpus).counts["pairs_by_split"]["train"]),
        data=dict(data),
        recipe=recipe,
        space=space,
        trials=names,
        started=round(time.time(), 3),
    )
    if stage.resumed:
        before = read_plan(stage.uri)
        plan = plan.model_copy(update={"started": before.started, "trials": before.trials})
    return plan


def _conclude(stage: Stage, run: SweepRun, records: Sequence[TrialRecord]) -> Manifest:
    """What the trials that are done say, also where others failed; then the manifest, where none did."""
    write_conclusions(run, records)
    if failed := [record for record in records if record.state == "failed"]:
        raise ChexrayError(
            f"{len(failed)} of {len(records)} trials failed, the others are in {stage.uri}; first {failed[0].name}: "
            f"{failed[0].reason}; the same command tries the failed ones again"
        )
    states: Counter[str] = Counter(record.state for record in records)
    shared = shared_flops(stage.uri)
    training = sum(record.training_flops for record in records)
    alone = sum(record.curation_flops for record in records)
    cost = {
        "training_flops": training,
        "curation_flops": shared,
        "total_flops": training + shared,
        "unshared_curation_flops": alone,
        "saved_by_sharing": 1 - (training + shared) / (training + alone),
        "worker_seconds": sum(record.worker_seconds for record in records),
    }
    console.print(
        f"Pairs were scored once for all trials: {cost['saved_by_sharing']:.1%} less compute than by each for itself",
        highlight=False,
        soft_wrap=True,
    )
    counts = {"points": len(run.plan.space.points()) or len(records), "trials": len(records)} | states
    plan = read_plan(stage.uri).model_copy(update={"finished": round(time.time(), 3), "shared_curation_flops": shared})
    write_plan(stage.uri, plan)
    return stage.finish(counts, cost)


if __name__ == "__main__":
    run_job("sweep")
