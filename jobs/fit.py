"""Running Ray Train: the same run, with the same checkpoints, however often it is started."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
import ray.train
from ray.train import UserCallback
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from chexray.cluster.local import SPARE_CPUS
from chexray.jobs.failures import cause_of
from chexray.jobs.feed import Feed
from chexray.jobs.train_entry import train_entry
from chexray.platform import storage
from chexray.platform.artifacts import Stage
from chexray.platform.config import Recipe, Runtime
from chexray.platform.errors import ChexrayError, LostWorkersError, StoppedError
from chexray.platform.ledger import model_flops

STATE_FOLDER = "state"
_NEVER = 1e9
_READERS = 1
"""Processes that read for each trainer on CPUs."""


def fit(
    recipe: Recipe,
    stage: Stage,
    runtime: Runtime,
    feed: Feed,
    total_steps: int,
    reporter: Any,
    init: str | None = None,
    curation: dict[str, Any] | None = None,
    validation: Feed | None = None,
    callbacks: Sequence[UserCallback] = (),
) -> None:
    """Train the epochs of `feed` that the run's last checkpoint does not have, or the one that `curation` describes.

    With `validation`, its loss is noted after epochs, and the weights of the best may be kept. `callbacks` are told of
    every checkpoint, in Ray Train's controller.

    Ray Train's checkpoints lie below the artifact, where the same run finds them again.
    """
    settings = {
        "model": recipe.model.model_dump(),
        "train": recipe.train.model_dump(),
        "run": recipe.run.model_dump(),
        # On CPUs the trainers may have taken them all, and readers that wait for one would wait for ever.
        "feed": feed if runtime.gpu else replace(feed, readers=_READERS),
        "validation": validation if runtime.gpu or validation is None else replace(validation, readers=_READERS),
        "flops": model_flops(recipe.model),
        "total_steps": total_steps,
        "init": init,
        "out": stage.uri,
        "reporter": reporter,
        "curation": curation,
    }
    fs, path = storage.arrow_filesystem(stage.path(STATE_FOLDER))
    run = recipe.run
    resources = {"GPU": 1.0} if runtime.gpu else {"CPU": 1.0}
    numbers = _worker_numbers(runtime, curation)
    if isinstance(numbers, tuple):
        # Right after a node has died Ray still counts on it: how long it waits for that, of a minute by default.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
    trainer = TorchTrainer(
        train_entry,
        train_loop_config=settings,
        torch_config=TorchConfig(backend="nccl" if runtime.gpu else "gloo", timeout_s=int(run.stall_seconds)),
        scaling_config=ray.train.ScalingConfig(
            num_workers=numbers,
            use_gpu=runtime.gpu,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=_NEVER if curation else run.resize_seconds,
        ),
        run_config=ray.train.RunConfig(
            name="run",
            callbacks=list(callbacks),
            storage_path=path,
            storage_filesystem=fs,
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=run.checkpoints_kept),
            # Of an epoch that chooses its pairs the stream starts anew too: `train_curated_epoch` does it.
            failure_config=ray.train.FailureConfig(
                max_failures=0 if curation else run.max_failures, max_preemption_failures=0 if curation else -1
            ),
        ),
    )
    try:
        with _stopping_on_request(reporter):
            trainer.fit()
    except TrainingFailedError as error:
        cause = cause_of(error)
        if isinstance(cause, ChexrayError):
            raise cause from None
        what = (str(cause).splitlines() or ["no message"])[0]
        raise LostWorkersError(f"pretraining failed: {type(cause).__name__}: {what}") from error
    if failure := reporter.failure():
        raise failure
    if reporter.is_stop_requested():
        raise StoppedError(f"stopped on request; the same command goes on from the last checkpoint in {stage.uri}")


def _worker_numbers(runtime: Runtime, curation: dict[str, Any] | None) -> int | tuple[int, int]:
    """As many as there are to be, or the fewest and the most: of an epoch that chooses its pairs, at its start."""
    fewest = runtime.min_workers or runtime.workers
    if fewest == runtime.workers or curation is None:
        return runtime.workers if fewest == runtime.workers else (fewest, runtime.workers)
    scorers = runtime.scorers if curation["mode"] == "streaming" else 0
    name, others = ("GPU", scorers) if runtime.gpu else ("CPU", SPARE_CPUS)
    there = int(ray.available_resources().get(name, 0)) - others
    most = max(fewest, min(runtime.workers, there))  # what a dead node had may still be counted
    return most if most == fewest else (fewest, most)


@contextmanager
def _stopping_on_request(reporter: Any) -> Iterator[None]:
    """On SIGTERM (a stopped cluster job, a Slurm limit) the workers save a checkpoint and leave."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: reporter.request_stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
