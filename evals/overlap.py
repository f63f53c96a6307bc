"""How far a predicted mask agrees with the true one: Dice and IoU, by MONAI.

C: classes; H, W: pixels.
"""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt
import torch

from chexray.evals.statistics import FloatArray
from chexray.platform.evaluate_config import Empty

EMPTY: tuple[Empty, ...] = get_args(Empty)
EMPTY_VARIANT = {"one": "empty masks count 1 if predicted empty, else 0", "left out": "empty masks left out"}


def overlap(
    predicted_CHW: npt.NDArray[np.bool_], truth_CHW: npt.NDArray[np.bool_], empty: Empty
) -> tuple[FloatArray, FloatArray]:
    """Dice and IoU of one image's masks: each [C] float64 in [0, 1], NaN where left out.

    Dice is 2 |A and B| / (|A| + |B|), IoU |A and B| / |A or B|. Raises ValueError for masks that are not bool or have
    other shapes, and for an unknown `empty`.
    """
    # MONAI takes seconds to import: all of it is loaded.
    from monai.metrics import compute_dice, compute_iou

    if empty not in EMPTY:
        raise ValueError(f"empty is {empty!r}; allowed: {', '.join(EMPTY)}")
    both = (predicted_CHW, truth_CHW)
    if any(mask.dtype != np.bool_ or mask.ndim != 3 for mask in both) or predicted_CHW.shape != truth_CHW.shape:
        found = ", ".join(f"{mask.dtype} {mask.shape}" for mask in both)
        raise ValueError(f"predicted_CHW, truth_CHW are {found}; allowed: bool, the same (C, H, W)")
    # As integers: MONAI sums in the masks' own type.
    predicted, truth = (torch.from_numpy(mask.astype(np.int64))[None] for mask in both)
    values = [measure(predicted, truth, ignore_empty=empty == "left out")[0] for measure in (compute_dice, compute_iou)]
    dice_C, iou_C = (value.numpy().astype(np.float64) for value in values)
    return dice_C, iou_C
