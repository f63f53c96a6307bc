"""What every worker of a pretraining run does. `chexray.jobs.train_entry` calls it on each."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import joblib
import ray.train
import ray.train.torch
import torch
from torch import nn

from chexray.jobs.epoch_batches import batches_ahead, batches_inline, publish_weights
from chexray.jobs.feed import Feed
from chexray.platform import storage
from chexray.platform.config import ModelConfig, TrainConfig
from chexray.platform.errors import ChexrayError
from chexray.platform.model.checkpoint import export_checkpoint, load_checkpoint
from chexray.platform.model.encoder import build_model, build_tokenizer
from chexray.platform.training.batch import Batch
from chexray.platform.training.engine import full_state, load_state, save_state, start_engine
from chexray.platform.training.loop import StepRecord, train_steps

HISTORY_FILE = "history.jsonl"
WORLD_FILE = "world_size.txt"


def train_worker(settings: dict[str, Any]) -> None:
    """Train this worker's share of every step, checkpoint after epochs, and export the model at the end.

    `settings`: `model` and `train` (the recipe's sections), `feed`, `total_steps`, `init` (a checkpoint to start from,
    or None), `out`, `reporter`; and `curation` (None, or what `chexray.jobs.curated_epoch` says) for an epoch that
    chooses its pairs.
    """
    model_config, config = ModelConfig(**settings["model"]), TrainConfig(**settings["train"])
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, joblib.cpu_count() // context.get_local_world_size()))
    engine = start_engine(_model(model_config, config, settings["init"]).to(device), config, world, device)
    history: list[dict[str, Any]] = []
    first_epoch = _resume(engine, world, history)
    # Dropout, in towers that have it, draws anew on every worker and after every start.
    torch.manual_seed(hash((config.seed, rank, first_epoch)) % 2**32)
    curation = settings["curation"]
    versions = frozenset(curation["plan"].versions) if curation and curation["mode"] == "streaming" else frozenset()

    def on_step(record: StepRecord, batch: Batch) -> None:
        history.append(asdict(record))
        if rank == 0:
            settings["reporter"].update(record.step + 1, f"loss {record.loss:.3f}")
        if record.step + 1 in versions:
            publish_weights(curation["curator"], engine, config.zero_stage, record.step + 1, rank)
        done = record.epoch + 1
        if batch.last_of_epoch and (curation or done % config.checkpoint_epochs == 0 or done == config.epochs):
            _checkpoint(engine, record, world, history)

    tokenize = build_tokenizer(model_config)
    batches = _batches(settings, engine, tokenize, rank, world, first_epoch)
    train_steps(engine, tokenize, batches, settings["total_steps"], config, device, on_step)
    if history[-1]["epoch"] + 1 < config.epochs:
        return
    state = full_state(engine, config.zero_stage)
    if rank == 0:
        export_checkpoint(settings["out"], state, model_config)
        lines = "".join(json.dumps(line) + "\n" for line in history)
        storage.write_bytes(storage.join(settings["out"], HISTORY_FILE), lines.encode())


def _model(model: ModelConfig, config: TrainConfig, init: str | None) -> nn.Module:
    built: nn.Module = build_model(model, config.seed)
    if init is not None:
        built.load_state_dict(load_checkpoint(init).model.state_dict())
    return built


def _batches(
    settings: dict[str, Any], engine: Any, tokenize: Any, rank: int, world: int, first_epoch: int
) -> Iterator[Batch]:
    feed: Feed = settings["feed"]
    curation = settings["curation"]
    if curation is None:
        return feed.batches(rank, world, first_epoch)
    if first_epoch > 0:
        return iter(())
    if curation["mode"] == "streaming":
        return batches_ahead(curation["curator"], curation["plan"], rank, world)
    outcome, subset = curation["curator"], curation["subset"]
    return batches_inline(feed, curation["plan"], engine, tokenize, outcome, subset, rank, world)


def _checkpoint(engine: Any, record: StepRecord, world: int, history: list[dict[str, Any]]) -> None:
    """Hand DeepSpeed's state to Ray Train, which puts the workers' parts together on the run's storage."""
    with tempfile.TemporaryDirectory(prefix="chexray-") as name:
        save_state(engine, Path(name), {"next_epoch": record.epoch + 1, "history": history})
        (Path(name) / WORLD_FILE).write_text(str(world))
        metrics = {"step": record.step, "epoch": record.epoch, "loss": record.loss}
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(name))


def _resume(engine: Any, world: int, history: list[dict[str, Any]]) -> int:
    """Load the latest checkpoint of this run, if there is one. Returns the epoch to go on with."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        saved = int((Path(folder) / WORLD_FILE).read_text())
        if saved != world:  # DeepSpeed's state is cut for one number of workers, and it refuses another
            raise ChexrayError(
                f"the run's last checkpoint is of {saved} workers, this start has {world}; "
                f"resume with --workers {saved}"
            )
        client = load_state(engine, Path(folder))
    history.extend(client["history"])
    return int(client["next_epoch"])
