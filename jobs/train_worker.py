"""What every worker of a pretraining run does. `chexray.jobs.train_entry` calls it on each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import joblib
import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import nn

from chexray.curation.cursor import CursorAt
from chexray.jobs.best import best_state, look_at_validation
from chexray.jobs.checkpointing import Checkpoints
from chexray.jobs.epoch_batches import publish_weights, worker_batches
from chexray.jobs.metrics import RunMetrics
from chexray.platform import storage
from chexray.platform.config import ModelConfig, RunConfig, TrainConfig
from chexray.platform.errors import ChexrayError
from chexray.platform.model.checkpoint import export_checkpoint, load_checkpoint
from chexray.platform.model.encoder import build_model, build_tokenizer
from chexray.platform.training.batch import Batch
from chexray.platform.training.engine import full_state, start_engine
from chexray.platform.training.loop import Trainer, peak_of
from chexray.platform.training.monitor import WaitClock

HISTORY_FILE = "history.jsonl"


def train_worker(settings: dict[str, Any]) -> None:
    """Train this worker's share of every step, save checkpoints when they are due, and export the model at the end.

    `settings`: `model`, `train` and `run` (the recipe's sections), `flops` (of a pair), `feed`, `validation` (a feed,
    or None), `init` (a checkpoint to start from, or None), `curation` (None, or what `curated_epoch` says),
    `total_steps`, `out` and `reporter`.
    """
    model_config, config = ModelConfig(**settings["model"]), TrainConfig(**settings["train"])
    run = RunConfig(**settings["run"])
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(run.threads or max(1, joblib.cpu_count() // context.get_local_world_size()))
    model = _model(model_config, config, settings["init"]).to(device)
    engine = start_engine(model, config, run, world, device)
    checkpoints = Checkpoints(engine, rank, world, settings["reporter"], choosing=settings["curation"] is not None)
    resumed = checkpoints.resume() or {"next_step": 0, "history": [], "cursor": None}
    history: list[dict[str, Any]] = resumed["history"]
    if settings["curation"] is None and resumed["next_step"] < settings["feed"].first_step:
        raise ChexrayError(
            f"{settings['out']}: the checkpoint after the epoch that chose the pairs is missing or damaged, and the "
            "later epochs cannot go on without it; start the run anew with --overwrite"
        )
    if rank == 0:
        settings["reporter"].started(resumed["next_step"], world)
    tokenize = build_tokenizer(model_config)
    trainer = Trainer(engine, tokenize, settings["total_steps"], config, run, device, settings["flops"])
    batches, cursor_at = worker_batches(settings, trainer, rank, world, resumed["next_step"], resumed["cursor"])
    finished = _train(trainer, batches, cursor_at, checkpoints, history, settings)
    if finished and history[-1]["epoch"] + 1 == config.epochs:
        state = full_state(engine, config.zero_stage)
        if rank == 0:
            if config.choose == "best":
                state = best_state(settings["out"])
            export_checkpoint(settings["out"], state, model_config)
            lines = "".join(json.dumps(line) + "\n" for line in history)
            storage.write_bytes(storage.join(settings["out"], HISTORY_FILE), lines.encode())


def _train(
    trainer: Trainer,
    batches: Iterator[Batch],
    cursor_at: CursorAt,
    checkpoints: Checkpoints,
    history: list[dict[str, Any]],
    settings: dict[str, Any],
) -> bool:
    """Run the batches to their end: True; or to a notice to stop: False."""
    config, run, reporter, curation = trainer.config, trainer.run, settings["reporter"], settings["curation"]
    versions = frozenset(curation["plan"].versions) if curation and curation["mode"] == "streaming" else frozenset()
    rank, world = checkpoints.rank, checkpoints.world
    inline = bool(curation) and curation["mode"] == "paper"  # then it scores while the next batch is asked for
    clock, stop, fresh = WaitClock(trainer.device), False, True
    metrics = RunMetrics(settings["out"], history, reporter, peak_of(trainer)) if rank == 0 else None
    while not stop:
        batch = next(batches, None) if inline else clock.next(batches)
        if batch is None:
            break
        if fresh:  # what it takes until the first pairs are there is no step's time
            fresh = False
            clock.read()
            trainer.restart_clock()
        trainer.step(batch)
        done = batch.step + 1
        if done in versions:
            publish_weights(curation["curator"], trainer.engine, config.zero_stage, done, rank)
        on_time = run.checkpoint_steps is not None and done % run.checkpoint_steps == 0
        if not (batch.last_of_epoch or on_time or done % run.read_steps == 0):
            continue
        records = trainer.read(clock.read())
        history += [{**asdict(record), "workers": world, "time": round(time.time(), 3)} for record in records]
        late, stop = _noticed(run, checkpoints, trainer.device, reporter)
        last_chosen = bool(curation) and batch.last_of_epoch  # its subset follows from it
        save = on_time or late or stop or last_chosen or _ends_saved_epoch(batch, config.epochs, run)
        if settings["validation"] and _ends_saved_epoch(batch, config.epochs, run):
            look_at_validation(trainer, settings, history, rank, world)
        if metrics:
            metrics.add(history[-len(records) :])
            reporter.update(done, f"loss {records[-1].loss:.3f}, {metrics.throughput}")
            reporter.count(len(records))
        if save:
            checkpoints.save(done, history, cursor_at(done))
            if metrics:
                metrics.upload()
        trainer.restart_clock()
    if metrics:
        metrics.close()
    return not stop


def _ends_saved_epoch(batch: Batch, epochs: int, run: RunConfig) -> bool:
    done = batch.epoch + 1
    return batch.last_of_epoch and (done % run.checkpoint_epochs == 0 or done == epochs)


def _noticed(run: RunConfig, checkpoints: Checkpoints, device: torch.device, reporter: Any) -> tuple[bool, bool]:
    """Whether to save now, as it is time or a node is about to go; and whether to stop. The same on all workers."""
    minutes = (time.monotonic() - checkpoints.saved_at) / 60
    late = run.checkpoint_minutes is not None and minutes >= run.checkpoint_minutes
    going = checkpoints.is_first_notice(ray.train.get_preemption_info())
    stop = checkpoints.rank == 0 and reporter.is_stop_requested()
    votes = torch.tensor([float(late or going), float(stop)], device=device)
    if checkpoints.world > 1:
        dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    save, leave = (vote > 0 for vote in votes.tolist())
    return save, leave


def _model(model: ModelConfig, config: TrainConfig, init: str | None) -> nn.Module:
    built: nn.Module = build_model(model, config.seed)
    if init is not None:
        built.load_state_dict(load_checkpoint(init).model.state_dict())
    return built
