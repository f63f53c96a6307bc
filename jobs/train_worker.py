"""What every worker of a pretraining run does. `chexray.jobs.train_entry` calls it on each."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch

from chexray.jobs.feed import Feed
from chexray.platform import storage
from chexray.platform.config import ModelConfig, TrainConfig
from chexray.platform.corpus.shards import require_shards
from chexray.platform.errors import ChexrayError
from chexray.platform.model.checkpoint import export_checkpoint
from chexray.platform.model.encoder import build_model, build_tokenizer
from chexray.platform.training.engine import full_state, load_state, save_state, start_engine
from chexray.platform.training.loop import Batch, StepRecord, train_steps

HISTORY_FILE = "history.jsonl"
WORLD_FILE = "world_size.txt"


def train_worker(settings: dict[str, Any]) -> None:
    """Train this worker's share of every step, checkpoint after epochs, and export the model at the end.

    `settings`: `model` and `train` (the recipe's sections), `pairs` (the corpus to read), `out`, `reporter`.
    """
    model_config, config = ModelConfig(**settings["model"]), TrainConfig(**settings["train"])
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    feed = feed_of(settings["pairs"], model_config, config)
    engine = start_engine(build_model(model_config, config.seed).to(device), config, world, device)
    history: list[dict[str, Any]] = []
    first_epoch = _resume(engine, world, history)
    # Dropout, in towers that have it, draws anew on every worker and after every start.
    torch.manual_seed(hash((config.seed, rank, first_epoch)) % 2**32)

    def on_step(record: StepRecord, batch: Batch) -> None:
        history.append(asdict(record))
        if rank == 0:
            settings["reporter"].update(record.step + 1, f"loss {record.loss:.3f}")
        done = record.epoch + 1
        last_of_epoch = (record.step + 1) % feed.epoch_steps.steps == 0
        if last_of_epoch and (done % config.checkpoint_epochs == 0 or done == config.epochs):
            _checkpoint(engine, record, world, history)

    batches = feed.batches(rank, world, first_epoch)
    train_steps(engine, build_tokenizer(model_config), batches, feed.total_steps, config, device, on_step)
    state = full_state(engine, config.zero_stage)
    if rank == 0:
        export_checkpoint(settings["out"], state, model_config)
        lines = "".join(json.dumps(line) + "\n" for line in history)
        storage.write_bytes(storage.join(settings["out"], HISTORY_FILE), lines.encode())


def feed_of(pairs: str, model: ModelConfig, config: TrainConfig) -> Feed:
    """The batches of a run over the train split of the corpus at `pairs`."""
    return Feed(
        corpus=pairs,
        shards=require_shards(pairs, "train"),
        global_batch=config.global_batch,
        epochs=config.epochs,
        seed=config.seed,
        shuffle_shards=config.shuffle_shards,
        image_size=model.vision.image_size,
    )


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
