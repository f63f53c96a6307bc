"""Small random changes to training images: each pair's own draw in each epoch, whoever trains on it.

b: pairs; S: image size in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from chexray.platform.corpus.schema import seeded_fraction


def augment(image_bSS: torch.Tensor, sample_ids: Sequence[str], strength: float, seed: int, epoch: int) -> torch.Tensor:
    """[b, S, S] uint8: shifted, scaled, turned (radians) and brightened, each by up to `strength`; never mirrored.

    A mirrored chest has its heart on the right. Draws depend on (seed, epoch, sample id) alone, so they are the same at
    any number of workers. `strength` 0 returns the images as they are.
    """
    if strength == 0:
        return image_bSS
    draw_b5 = strength * (2 * torch.tensor([_draws(seed, epoch, sample) for sample in sample_ids]) - 1)
    scale_b, angle_b = 1 + draw_b5[:, 0], draw_b5[:, 1]
    turn_b23 = torch.zeros(len(image_bSS), 2, 3)
    turn_b23[:, 0, 0] = turn_b23[:, 1, 1] = scale_b * angle_b.cos()
    turn_b23[:, 1, 0] = scale_b * angle_b.sin()
    turn_b23[:, 0, 1] = -turn_b23[:, 1, 0]
    turn_b23[:, :, 2] = draw_b5[:, 2:4]
    pixels = image_bSS[:, None].float()
    grid = F.affine_grid(turn_b23.to(pixels.device), list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, grid, align_corners=False, padding_mode="zeros")
    gain_b111 = (1 + draw_b5[:, 4]).view(-1, 1, 1, 1).to(pixels.device)
    return (moved * gain_b111).clamp(0, 255).round()[:, 0].to(torch.uint8)


def _draws(seed: int, epoch: int, sample_id: str) -> list[float]:
    first = int(seeded_fraction(seed, "augment", str(epoch), sample_id) * 2**32)
    return list(np.random.default_rng(first).random(5))
