"""The training steps of one worker. Knows the engine, the batches and the schedule; nothing of Ray.

b: this worker's pairs of a step; S: image size in pixels; L: tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from chexray.platform.config import TrainConfig
from chexray.platform.errors import ChexrayError
from chexray.platform.model.contrastive import global_info_nce
from chexray.platform.model.encoder import Tokenizer
from chexray.platform.model.preprocess import normalise
from chexray.platform.training.augment import augment
from chexray.platform.training.batch import Batch
from chexray.platform.training.schedule import learning_rate


@dataclass(frozen=True)
class StepRecord:
    """What a step is known by: `loss` is the global batch's, the same on every worker."""

    step: int
    epoch: int
    loss: float
    lr: float
    logit_scale: float
    pairs: int
    seconds: float


def train_steps(
    engine: Any,
    tokenize: Tokenizer,
    batches: Iterable[Batch],
    total_steps: int,
    config: TrainConfig,
    device: torch.device,
    on_step: Callable[[StepRecord, Batch], None],
) -> None:
    """Run the batches through the engine, one optimizer step each, and tell `on_step` of every one.

    Raises `ChexrayError` naming the step where the loss is not finite.
    """
    autocast = autocast_of(config, device)
    clock = time.monotonic()
    engine.train()
    for batch in batches:
        lr = learning_rate(batch.place, total_steps, config)
        for group in engine.optimizer.param_groups:
            group["lr"] = lr
        loss, scale = _step(engine, tokenize, batch, config, device, autocast)
        if not np.isfinite(loss):
            raise ChexrayError(
                f"step {batch.step}: the loss is {loss}; lower train.lr, or look at the batch's pairs: "
                f"{', '.join(batch.sample_id[:8])} ..."
            )
        now = time.monotonic()
        record = StepRecord(batch.step, batch.epoch, loss, lr, scale, sum(batch.share_sizes), now - clock)
        clock = now
        on_step(record, batch)


def autocast_of(config: TrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 autocast where the configuration, or the GPU under 'auto', asks for it. Weights stay float32."""
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if config.precision == "bfloat16" or (config.precision == "auto" and has_bfloat16):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def _step(
    engine: Any, tokenize: Tokenizer, batch: Batch, config: TrainConfig, device: torch.device, autocast: Any
) -> tuple[float, float]:
    """One optimizer step on the global batch. Returns its loss and the inverse temperature before the step."""
    image = torch.from_numpy(batch.image).to(device, non_blocking=True)
    image = augment(image, batch.sample_id, config.augment, config.seed, batch.epoch)
    token = tokenize(list(batch.report)).to(device, non_blocking=True)
    with autocast:
        image_bD, text_bD, logit_scale = engine(normalise(image), token)
    part = global_info_nce(image_bD.float(), text_bD.float(), logit_scale, batch.share_sizes)
    engine.backward(part)
    engine.step()
    world = len(batch.share_sizes)
    loss = part.detach() / world
    if world > 1:
        dist.all_reduce(loss)
    return float(loss), float(logit_scale.detach())
