"""The learning rate of every step, fixed before the first one."""

from __future__ import annotations

import math

from chexray.platform.config import TrainConfig


def learning_rate(step: float, total: int, config: TrainConfig) -> float:
    """Linear warm-up over `warmup_share` of the `total` steps, then a cosine from `lr` to `min_lr`.

    The last step (total - 1) has `min_lr`. `total` is known up front and never recomputed, so the curve has no jumps.
    """
    warmup = round(config.warmup_share * total)
    if step < warmup:
        return config.lr * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - 1 - warmup)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
