"""From stored images to what a tower takes.

H, W: pixels; B: batch. The picture is made to fit the tower's square by its longer side and padded with black (a
radiograph's borders are black, its aspect carries the heart's size), stays 8-bit and grey until it is on the device,
and is normalised there with CLIP's mean and deviation. open_clip's own transform with `resize_mode="longest"`, which
exported checkpoints name, does the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from chexray.platform.errors import UsageError

# CLIP's (Radford et al. 2021). Written out: open_clip takes seconds to import, and decoding tasks start often.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

PREPROCESS_CFG = {
    "mean": list(CLIP_MEAN),
    "std": list(CLIP_STD),
    "interpolation": "bicubic",
    "resize_mode": "longest",
    "fill_color": 0,
}
"""open_clip's name for this preprocessing, written into exported checkpoints."""


def require_clip_normalisation(file: Path, mean: str, std: str, name: str, section: str | None = None) -> None:
    """Raise `UsageError`, which calls the model `name`, where a published model's images are normalised otherwise.

    `file`: JSON that says so under the keys `mean` and `std`, in `section` if it has one. Where there is none, or it is
    silent, CLIP's are taken for granted. How it fits pictures into its square is not looked at: here it is always as
    above.
    """
    found = json.loads(file.read_text()) if file.is_file() else {}
    found = found.get(section, {}) if section else found
    for key, ours in ((mean, CLIP_MEAN), (std, CLIP_STD)):
        theirs = found.get(key) or ours
        if max(abs(one - other) for one, other in zip(theirs, ours, strict=True)) > 1e-4:
            raise UsageError(
                f"{name}: {file.name} normalises images with {key} {theirs}; supported: CLIP's, {list(ours)}"
            )


def model_pixels(image: bytes, size: int) -> npt.NDArray[np.uint8]:
    """[size, size] uint8: a stored JPEG or PNG, grey, fitted by its longer side and padded with 0."""
    # torchvision takes seconds to import, and many of Ray's processes load this module without decoding anything.
    from torchvision.io import ImageReadMode, decode_image

    buffer = torch.frombuffer(bytearray(image), dtype=torch.uint8)
    return fit_square(decode_image(buffer, ImageReadMode.GRAY), size).squeeze(0).numpy()


def fit_square(image_1HW: torch.Tensor, size: int) -> torch.Tensor:
    """[1, size, size] of the same dtype: antialiased bicubic resize of the longer side, centred on black."""
    from torchvision.transforms.v2.functional import InterpolationMode, resize

    height, width = image_1HW.shape[-2:]
    placed = place_in_square(height, width, size)
    new = [placed.height, placed.width]
    fitted = resize(image_1HW, new, interpolation=InterpolationMode.BICUBIC, antialias=True)
    return torch.nn.functional.pad(fitted, placed.padding(size), value=0)


@dataclass(frozen=True)
class Placement:
    """Where an image lies in the tower's square, in its pixels: from row `top` and column `left` on."""

    top: int
    left: int
    height: int
    width: int

    def padding(self, size: int) -> tuple[int, int, int, int]:
        """What is black on the left, the right, above and below."""
        return self.left, size - self.width - self.left, self.top, size - self.height - self.top


def place_in_square(height: int, width: int, size: int) -> Placement:
    """The longer side fills the square, the shorter one is centred."""
    scale = size / max(height, width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    return Placement((size - new_height) // 2, (size - new_width) // 2, new_height, new_width)


def fit_mask(mask_CHW: torch.Tensor, size: int) -> torch.Tensor:
    """[C, size, size] of the same dtype: a mask where `fit_square` puts its image, by nearest centres, 0 around."""
    placed = place_in_square(mask_CHW.shape[-2], mask_CHW.shape[-1], size)
    fitted = _interpolate(mask_CHW, placed.height, placed.width, "nearest-exact")
    return torch.nn.functional.pad(fitted, placed.padding(size), value=0)


def unfit_square(
    map_CSS: torch.Tensor, height: int, width: int, mode: Literal["bilinear", "nearest-exact"]
) -> torch.Tensor:
    """[C, height, width]: what lies in the square where an image of this size was put, at the image's own size.

    Undoes `fit_mask` with `mode="nearest-exact"`: exactly where the square is no smaller than the image.
    """
    placed = place_in_square(height, width, map_CSS.shape[-1])
    rows = slice(placed.top, placed.top + placed.height)
    return _interpolate(map_CSS[:, rows, placed.left : placed.left + placed.width], height, width, mode)


def _interpolate(map_CHW: torch.Tensor, height: int, width: int, mode: str) -> torch.Tensor:
    return torch.nn.functional.interpolate(map_CHW[None], (height, width), mode=mode)[0]


def normalise(image_BHW: torch.Tensor) -> torch.Tensor:
    """[B, 3, H, W] float32 from [B, H, W] uint8, on the device that the pixels are on."""
    mean = torch.tensor(CLIP_MEAN, device=image_BHW.device).view(1, 3, 1, 1)
    std = torch.tensor(CLIP_STD, device=image_BHW.device).view(1, 3, 1, 1)
    grey_B1HW = image_BHW.unsqueeze(1).to(torch.float32) / 255
    return (grey_B1HW - mean) / std
