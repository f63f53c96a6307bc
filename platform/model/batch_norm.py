"""Batch normalisation over the global batch, so that a step does not depend on how many workers share it.

torch's own `SyncBatchNorm` does this on GPUs only. b: this worker's images; C: channels; H, W: pixels.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import nn

from chexray.platform.errors import UsageError


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose statistics, and their gradients, are those of all workers' images together."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return normalise_globally(self, input) if _is_shared(self) else super().forward(input)


class GlobalBatchNormAct2d(BatchNormAct2d):  # type: ignore[misc]
    """timm's normalisation with its activation, over all workers' images."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shared = _is_shared(self)
        return cast(torch.Tensor, self.act(self.drop(normalise_globally(self, x))) if shared else super().forward(x))


def _is_shared(norm: nn.BatchNorm2d) -> bool:
    """Whether there are other workers whose images count: in training only."""
    return norm.training and dist.is_initialized() and dist.get_world_size() > 1


def share_batch_statistics(model: nn.Module) -> None:
    """Make every batch normalisation of the model a global one, in place; names of weights and buffers stay.

    Raises `UsageError` for a kind that is not known here.
    """
    replacements = {nn.BatchNorm2d: GlobalBatchNorm2d, BatchNormAct2d: GlobalBatchNormAct2d}
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and type(module) not in replacements.values():
            if type(module) not in replacements:
                raise UsageError(
                    f"model.vision.timm_model: {name} is a {type(module).__name__}, which cannot be shared by workers"
                )
            module.__class__ = replacements[type(module)]


def normalise_globally(norm: nn.BatchNorm2d, image_bCHW: torch.Tensor) -> torch.Tensor:
    """[b, C, H, W] normalised by mean and variance over every worker's images; moves the running statistics.

    Two passes, mean first: sums of squares would lose the digits that make one worker and many agree.
    """
    value_bCHW = image_bCHW.float()
    here_C = value_bCHW.sum((0, 2, 3))
    count = value_bCHW.new_tensor([value_bCHW.numel() / value_bCHW.shape[1]])
    total = _sum_over_workers(torch.cat([here_C, count]))
    mean_C, count = total[:-1] / total[-1], total[-1]
    centred_bCHW = value_bCHW - mean_C[:, None, None]
    variance_C = _sum_over_workers(centred_bCHW.square().sum((0, 2, 3))) / count
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked += 1
        share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean_C.detach(), share)
        norm.running_var.lerp_(variance_C.detach() * (count / (count - 1)), share)
    scaled_bCHW = centred_bCHW * torch.rsqrt(variance_C + norm.eps)[:, None, None]
    if norm.weight is not None:
        scaled_bCHW = scaled_bCHW * norm.weight[:, None, None] + norm.bias[:, None, None]
    return scaled_bCHW.to(image_bCHW.dtype)


class _SumOverWorkers(torch.autograd.Function):
    """A sum that every worker uses: its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _sum_over_workers(value: torch.Tensor) -> torch.Tensor:
    return cast(torch.Tensor, _SumOverWorkers.apply(value))
