"""The validation loss of a run while it goes on, and the weights of the epoch where it is the lowest."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file

from chexray.platform import storage
from chexray.platform.config import ModelConfig
from chexray.platform.model.checkpoint import WEIGHTS_FILE, export_checkpoint
from chexray.platform.training.engine import full_state
from chexray.platform.training.loop import Trainer

BEST_FOLDER = "best"


def look_at_validation(
    trainer: Trainer, settings: dict[str, Any], history: list[dict[str, Any]], rank: int, world: int
) -> None:
    """Note the validation loss after the last step of `history`.

    Where the run is to end with its best weights, those are kept where it is the lowest so far; equal losses keep the
    earlier epoch. Every worker calls it.
    """
    loss = trainer.loss_of(settings["validation"].batches(rank, world))
    before = [step["validation_loss"] for step in history if "validation_loss" in step]
    history[-1]["validation_loss"] = loss
    if trainer.config.choose == "best" and all(loss < earlier for earlier in before):
        state = full_state(trainer.engine, trainer.config.zero_stage)
        if rank == 0:
            folder = storage.join(settings["out"], BEST_FOLDER)
            export_checkpoint(folder, state, ModelConfig(**settings["model"]))


def best_state(out: str) -> dict[str, torch.Tensor]:
    with storage.local_copy(storage.join(out, BEST_FOLDER), (".safetensors",)) as folder:
        state: dict[str, torch.Tensor] = load_file(folder / WEIGHTS_FILE)
    return state
