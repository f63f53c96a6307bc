"""What a segmenter must beat: one mask for all images, the training masks' mean in the tower's square."""

from __future__ import annotations

import numpy as np

from chexray.evals.masked_images import MaskedImages
from chexray.evals.overlap import overlap
from chexray.evals.segmentation import mask_at


def best_mean_mask_dice(train: MaskedImages, test: MaskedImages, size: int) -> float:
    """Mean Dice over test images and classes, at the share of training images that is best for the test images."""
    share_CSS = train.targets(range(len(train)), size).float().mean(0)
    truths = [test.truth(row).astype(bool) for row in range(len(test))]
    return max(
        float(np.mean([overlap(mask_at(share_CSS - least, mask.shape[1:]), mask, "one")[0] for mask in truths]))
        for least in np.linspace(0.0, 0.95, 20)
    )
