"""What an image tower sees on its way: five of its intermediate feature maps, as decoders of dense tasks take them.

B: batch; S: image size in pixels; C, H, W: channels and sides of a map, other ones on each level.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import nn

from chexray.platform.evaluate_config import Layers
from chexray.platform.model.preprocess import normalise

LAYERS = 5


class ImageLayers(nn.Module):
    """Five maps of a tower, from shallow to deep: [B, C, H, W] float each, from images [B, S, S] uint8.

    A transformer's are the patch tokens of five blocks, with its final norm applied to each as DINOv2's own evaluation
    does (Oquab et al. 2023, `get_intermediate_layers`); the paper's released segmentation code takes the last five
    blocks, which is `choice="last"`. A convolutional tower's are its stages, the stem among them where timm counts it
    (ResNet). Where there are fewer than five, the deepest is pooled by two, as for the top of a feature pyramid (Lin
    et al. 2017, section 4.1), where a stage halves the side; it is repeated where no stage does.

    The tower stays in eval mode, in training too: batches of segmentation are small, so batch normalisation keeps the
    statistics of pretraining (as when detectors are fine-tuned: He et al. 2016, appendix A).
    """

    def __init__(self, tower: nn.Module, image_size: int, choice: Layers = "spread") -> None:
        """`tower`: open_clip's image tower, `model.visual` (timm's or its own), fitted to `image_size`.

        Raises ValueError for one that tells of no intermediate maps.
        """
        super().__init__()
        if choice not in get_args(Layers):
            raise ValueError(f"choice is {choice!r}; allowed: 'spread', 'last'")
        trunk = getattr(tower, "trunk", tower)
        if not (hasattr(tower, "forward_intermediates") and hasattr(trunk, "forward_intermediates")):
            raise ValueError(
                f"the image tower {type(trunk).__name__} has no forward_intermediates, which gives the maps; take a "
                "timm model that has it (vision transformers, ResNets, ConvNeXts and most others)"
            )
        self.tower = tower
        self.eval()
        device = next(tower.parameters()).device
        with torch.no_grad():
            found = self._intermediates(torch.zeros((1, image_size, image_size), dtype=torch.uint8, device=device))
        self.available = len(found)
        self.taken = taken_layers(self.available, choice)
        self._pooled = found[0].shape[-1] > found[-1].shape[-1]
        self.variant = f"layers {', '.join(str(index + 1) for index in self.taken)} of {self.available}"
        if len(self.taken) < LAYERS:
            self.variant += f" and the last {'pooled' if self._pooled else 'repeated'}"

    def forward(self, image_BSS: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps = self._intermediates(image_BSS, self.taken)
        while len(maps) < LAYERS:
            deepest = maps[-1]
            maps.append(nn.functional.max_pool2d(deepest, 2, ceil_mode=True) if self._pooled else deepest)
        return tuple(maps)

    def train(self, mode: bool = True) -> ImageLayers:
        """Stays in eval mode, whatever `mode` is."""
        super().train(False)
        return self

    def _intermediates(self, image_BSS: torch.Tensor, indices: list[int] | None = None) -> list[torch.Tensor]:
        found = self.tower.forward_intermediates(  # type: ignore[operator]
            normalise(image_BSS),
            indices=indices,
            stop_early=True,
            normalize_intermediates=True,
            intermediates_only=True,
        )
        return list(found["image_intermediates"])


def taken_layers(available: int, choice: Layers) -> list[int]:
    """At most five indices below `available`, ascending and ending with the last one."""
    if available <= LAYERS:
        return list(range(available))
    if choice == "last":
        return list(range(available - LAYERS, available))
    return [round(available * (place + 1) / LAYERS) - 1 for place in range(LAYERS)]
