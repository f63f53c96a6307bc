"""InfoNCE over the global batch, with the gradients that one worker would have computed on all of it.

B: pairs of the global batch; b: pairs of this worker; D: embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.nn.functional import all_gather


def info_nce(image_BD: torch.Tensor, text_BD: torch.Tensor, logit_scale: torch.Tensor) -> torch.Tensor:
    """Scalar: mean of image-to-text and text-to-image cross entropy (Radford et al. 2021, figure 3).

    Embeddings are unit rows; `logit_scale` multiplies their cosine similarity (already exponentiated).
    """
    logits_BB = logit_scale * image_BD @ text_BD.T
    target_B = torch.arange(len(image_BD), device=image_BD.device)
    return (F.cross_entropy(logits_BB, target_B) + F.cross_entropy(logits_BB.T, target_B)) / 2


def global_info_nce(
    image_bD: torch.Tensor, text_bD: torch.Tensor, logit_scale: torch.Tensor, share_sizes: Sequence[int]
) -> torch.Tensor:
    """Scalar: this worker's part of the global batch's InfoNCE, times the number of workers.

    `share_sizes[r]` is how many pairs worker r holds (shares may be uneven); each worker takes the loss of its own
    rows against everyone's columns. Summed over workers and divided by their number, as data-parallel training
    averages gradients, the parts are `info_nce` of the joined batch, in value and in every gradient: the gather is
    differentiable, so an embedding also receives the gradient of the losses in which it is another's negative.
    """
    world = len(share_sizes)
    if world == 1:
        return info_nce(image_bD, text_bD, logit_scale)
    image_BD, text_BD = _gather(image_bD, share_sizes), _gather(text_bD, share_sizes)
    first = sum(share_sizes[: dist.get_rank()])
    target_b = torch.arange(first, first + len(image_bD), device=image_bD.device)
    image_loss = F.cross_entropy(logit_scale * image_bD @ text_BD.T, target_b, reduction="sum")
    text_loss = F.cross_entropy(logit_scale * text_bD @ image_BD.T, target_b, reduction="sum")
    return (image_loss + text_loss) / 2 * (world / sum(share_sizes))


def _gather(embedding_bD: torch.Tensor, share_sizes: Sequence[int]) -> torch.Tensor:
    """[B, D]: every worker's rows in the order of ranks. Collectives need equal shapes, so short shares are padded."""
    longest = max(share_sizes)
    padded = F.pad(embedding_bD, (0, 0, 0, longest - len(embedding_bD)))
    return torch.cat([part[:size] for part, size in zip(all_gather(padded), share_sizes, strict=True)])  # type: ignore[no-untyped-call]
