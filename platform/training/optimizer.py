"""AdamW that leaves the weights alone where gradients are not finite, and which weights decay."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: decayed matrices and filters; and biases, norms, gains and the temperature, which are not."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if p.ndim >= 2 and not name.endswith("pos_embed")]
    kept = {id(p) for p in decayed}
    rest = [p for _, p in named if id(p) not in kept]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


class GuardedAdamW(torch.optim.AdamW):
    """Fused AdamW which skips a step whose gradients are not all finite, on whichever worker, and says so.

    Neither weights nor moments move then, and the host does not wait to find out: the fused kernel is told on the
    device, as by torch's own gradient scaler.
    """

    found_inf: torch.Tensor
    """0.0 or 1.0, of the latest step."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, fused=True, **settings)
        first = self.param_groups[0]["params"][0]
        self.found_inf = torch.zeros((), dtype=torch.float32, device=first.device)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        largest = [gradient.abs().max().float() for gradient in gradients if gradient.numel()]
        finite = torch.isfinite(torch.stack(largest)).all() if largest else torch.ones((), dtype=torch.bool)
        found = 1.0 - finite.float().to(self.found_inf.device)
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(found, op=dist.ReduceOp.MAX)
        self.found_inf = found
        return super().step(closure)
