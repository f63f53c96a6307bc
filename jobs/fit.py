"""Running Ray Train: the same run, with the same checkpoints, however often it is started."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from chexray.jobs.failures import cause_of
from chexray.jobs.feed import Feed
from chexray.jobs.train_entry import train_entry
from chexray.platform import storage
from chexray.platform.artifacts import Stage
from chexray.platform.config import Recipe, Runtime
from chexray.platform.corpus.order import EpochSteps
from chexray.platform.corpus.shards import list_shards, require_shards
from chexray.platform.errors import ChexrayError, UsageError

STATE_FOLDER = "state"
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
) -> None:
    """Train the epochs of `feed` that the run's last checkpoint does not have, or the one that `curation` describes.

    With `validation`, the weights of the epoch that loses least on it are kept too.

    Ray Train's checkpoints lie below the artifact, where the same run finds them again.
    """
    settings = {
        "model": recipe.model.model_dump(),
        "train": recipe.train.model_dump(),
        "run": recipe.run.model_dump(),
        # On CPUs the trainers may have taken them all, and readers that wait for one would wait for ever.
        "feed": feed if runtime.gpu else replace(feed, readers=_READERS),
        "validation": validation if runtime.gpu or validation is None else replace(validation, readers=_READERS),
        "total_steps": total_steps,
        "init": init,
        "out": stage.uri,
        "reporter": reporter,
        "curation": curation,
    }
    fs, path = storage.arrow_filesystem(stage.path(STATE_FOLDER))
    run = recipe.run
    resources = {"GPU": 1.0} if runtime.gpu else {"CPU": 1.0}
    fewest = runtime.min_workers or runtime.workers
    if fewest < runtime.workers:
        # Right after a node has died Ray still counts on it: how long it waits for that, of a minute by default.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
    trainer = TorchTrainer(
        train_entry,
        train_loop_config=settings,
        torch_config=TorchConfig(backend="nccl" if runtime.gpu else "gloo", timeout_s=int(run.stall_seconds)),
        scaling_config=ray.train.ScalingConfig(
            num_workers=runtime.workers if fewest == runtime.workers else (fewest, runtime.workers),
            use_gpu=runtime.gpu,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=run.resize_seconds,
        ),
        run_config=ray.train.RunConfig(
            name="run",
            storage_path=path,
            storage_filesystem=fs,
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=run.checkpoints_kept),
            # An epoch that chooses its pairs is one piece: a part of it is not to be had again.
            failure_config=ray.train.FailureConfig(max_failures=0 if curation else run.max_failures),
        ),
    )
    try:
        with _stopping_on_request(reporter):
            trainer.fit()
    except TrainingFailedError as error:
        cause = cause_of(error)
        if isinstance(cause, ChexrayError):
            raise cause from None
        raise ChexrayError(f"pretraining failed: {type(cause).__name__}: {cause}") from error
    if failure := reporter.failure():
        raise failure


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


def feed_of(recipe: Recipe, pairs: str, **place: Any) -> Feed:
    """The batches of a run over the train split of the corpus at `pairs`; `place`: where it takes over (see `Feed`)."""
    train = recipe.train
    return Feed(
        corpus=pairs,
        shards=require_shards(pairs, "train"),
        global_batch=train.global_batch,
        epochs=train.epochs,
        seed=train.seed,
        shuffle_shards=train.shuffle_shards,
        image_size=recipe.model.vision.image_size,
        **place,
    )


def validation_feed(recipe: Recipe, corpus: str) -> Feed | None:
    """The validation split in its own order, where the run's weights are chosen by it. `UsageError` without one."""
    if recipe.train.choose == "last":
        return None
    shards = [shard for shard in list_shards(corpus) if shard.split == "validation" and shard.pairs]
    if not shards:
        raise UsageError(f"train.choose=best: {corpus} has no validation split to choose by (ingest.validation_share)")
    whole = feed_of(recipe, corpus)
    return replace(whole, shards=shards, epochs=1, seed=None, shuffle_shards=1)


def require_workers(steps: EpochSteps, workers: int) -> None:
    """Raise `UsageError` where a step has less than a pair for each worker."""
    smallest = steps.pairs // steps.steps if steps.steps else 0
    if smallest < workers:
        raise UsageError(
            f"--workers {workers}: a step has only {smallest} pairs; use fewer workers or a larger train.global_batch"
        )
