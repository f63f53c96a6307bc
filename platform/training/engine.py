"""DeepSpeed around the model: its configuration, its start and its weights."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

from chexray.platform.config import RunConfig, TrainConfig
from chexray.platform.errors import UsageError
from chexray.platform.model.batch_norm import share_batch_statistics
from chexray.platform.training.optimizer import GuardedAdamW, parameter_groups

_NO_CLIPPING = 1e30


def engine_config(config: TrainConfig, world: int) -> dict[str, Any]:
    """DeepSpeed's configuration. Its batch sizes are bookkeeping only: the loss already covers the global batch."""
    micro_batch = -(-config.global_batch // world)
    return {
        "train_batch_size": micro_batch * world,
        "train_micro_batch_size_per_gpu": micro_batch,
        # Without clipping, a bound that no finite gradient meets: the norm is then computed, and found not finite.
        "gradient_clipping": config.clip_norm or _NO_CLIPPING,
        "zero_optimization": {"stage": config.zero_stage},
        # Our AdamW is torch's own; DeepSpeed's CPU one would be compiled at the first start.
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }


def start_engine(model: nn.Module, config: TrainConfig, run: RunConfig, world: int, device: torch.device) -> Any:
    """A DeepSpeed engine around `model` with AdamW. The process group must be there already.

    Batch normalisation becomes one over all workers, or a step would depend on how it is shared out.
    """
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    if device.type == "cpu":
        _leave_shared_memory_op_out()
    share_batch_statistics(model)
    _require_divisible(model, run)
    if run.recompute_activations:
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    if run.compile:
        for tower in (model.visual, model.text):
            tower.compile()  # type: ignore[union-attr]
    groups = parameter_groups(model, config.weight_decay)
    betas = (config.beta1, config.beta2)
    optimizer = GuardedAdamW(groups, lr=config.lr, betas=betas)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=engine_config(config, world), dist_init_required=False
    )
    return engine


def _require_divisible(model: nn.Module, run: RunConfig) -> None:
    """Raise `UsageError` where a part of a share would not be normalised as the whole is."""
    named = [name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if run.micro_batch and named:
        raise UsageError(
            f"run.micro_batch={run.micro_batch}: {named[0]} normalises over the whole batch, which then cannot be "
            "cut; use a tower without batch normalisation, more workers or a smaller train.global_batch"
        )


def full_state(engine: Any, zero_stage: int) -> dict[str, torch.Tensor]:
    """The model's whole state dict on every worker, gathered first where ZeRO-3 keeps it in pieces."""
    module: nn.Module = engine.module
    if zero_stage < 3:
        return {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(module.parameters())):
        return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


def _leave_shared_memory_op_out() -> None:
    """Gloo does the collectives: DeepSpeed's own shared-memory kernel would be compiled for a minute at first start.

    Its build is gated by this table of usable ops alone (deepspeed/comm/torch.py), which is filled lazily, by probing
    every op for seconds, unless it is there already.
    """
    import deepspeed.ops

    deepspeed.ops.__dict__["__compatible_ops__"] = {"deepspeed_shm_comm": False}
