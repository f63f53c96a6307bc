"""DeepSpeed around the model: its configuration, its start and its state on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from chexray.platform.config import TrainConfig
from chexray.platform.model.batch_norm import share_batch_statistics


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: decayed matrices and filters; and biases, norms, gains and the temperature, which are not."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if p.ndim >= 2 and not name.endswith("pos_embed")]
    kept = {id(p) for p in decayed}
    rest = [p for _, p in named if id(p) not in kept]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def engine_config(config: TrainConfig, world: int) -> dict[str, Any]:
    """DeepSpeed's configuration. Its batch sizes are bookkeeping only: the loss already covers the global batch."""
    micro_batch = -(-config.global_batch // world)
    return {
        "train_batch_size": micro_batch * world,
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_clipping": config.clip_norm or 0.0,
        "zero_optimization": {"stage": config.zero_stage},
        # Our AdamW is torch's own; DeepSpeed's CPU one would be compiled at the first start.
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }


def start_engine(model: nn.Module, config: TrainConfig, world: int, device: torch.device) -> Any:
    """A DeepSpeed engine around `model` with AdamW. The process group must be there already.

    Batch normalisation becomes one over all workers, or a step would depend on how it is shared out.
    """
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    if device.type == "cpu":
        _leave_shared_memory_op_out()
    share_batch_statistics(model)
    groups = parameter_groups(model, config.weight_decay)
    betas = (config.beta1, config.beta2)
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=True)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=engine_config(config, world), dist_init_required=False
    )
    return engine


def full_state(engine: Any, zero_stage: int) -> dict[str, torch.Tensor]:
    """The model's whole state dict on every worker, gathered first where ZeRO-3 keeps it in pieces."""
    module: nn.Module = engine.module
    if zero_stage < 3:
        return {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(module.parameters())):
        return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


def save_state(engine: Any, folder: Path, client_state: dict[str, Any]) -> None:
    """DeepSpeed's resumable state; every worker calls it and writes its part."""
    engine.save_checkpoint(str(folder), tag="state", client_state=client_state)


def load_state(engine: Any, folder: Path) -> dict[str, Any]:
    """Load what `save_state` wrote at the same number of workers. Returns the client state."""
    _, client_state = engine.load_checkpoint(str(folder), tag="state")
    return dict(client_state)


def _leave_shared_memory_op_out() -> None:
    """Gloo does the collectives: DeepSpeed's own shared-memory kernel would be compiled for a minute at first start.

    Its build is gated by this table of usable ops alone (deepspeed/comm/torch.py), which is filled lazily, by probing
    every op for seconds, unless it is there already.
    """
    import deepspeed.ops

    deepspeed.ops.__dict__["__compatible_ops__"] = {"deepspeed_shm_comm": False}
