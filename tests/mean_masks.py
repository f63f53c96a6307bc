"""What a segmenter must beat: one mask for all images, the training masks' mean in the tower's square."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from chexray.evals.masked_images import MaskedImages
from chexray.evals.overlap import overlap
from chexray.evals.segmentation import mask_at


def best_mean_mask_dice(train: MaskedImages, test: MaskedImages, size: int) -> npt.NDArray[np.float64]:
    """Dice of each test image and class [B, C], at the cut of the mean that is the best for the test images."""
    share_CSS = train.targets(range(len(train)), size).float().mean(0)
    truths = [test.truth(row).astype(bool) for row in range(len(test))]
    tried = [
        np.stack([overlap(mask_at(share_CSS - cut, truth.shape[1:]), truth, "one")[0] for truth in truths])
        for cut in np.linspace(0.0, 0.95, 20)
    ]
    return max(tried, key=np.mean)
