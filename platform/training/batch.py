"""What a training step is given. Apart from the loop, so that who only passes batches on does not import the towers.

b: this worker's pairs of a step; S: image size in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Batch:
    """This worker's share of one global step: images [b, S, S] uint8, b reports, b ids; and everyone's shares.

    `place`: of the step in the learning rate's schedule, in steps; its number, unless an epoch has another number of
    steps than was planned.
    """

    step: int
    epoch: int
    image: npt.NDArray[np.uint8]
    report: Sequence[str]
    sample_id: Sequence[str]
    share_sizes: Sequence[int]
    last_of_epoch: bool
    place: float
    token: Any = None
    """[b, L] int64, where the reports have been tokenized already."""
