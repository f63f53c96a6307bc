"""From five feature maps to masks: a U-Net-style decoder, and a linear one that shows what the features hold.

B: batch; C: classes, or channels of a map; S: image size in pixels; H, W: sides of a map.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import get_args

import torch
from torch import nn
from torch.nn.functional import interpolate

from chexray.platform.evaluate_config import DecoderName

DECODERS: tuple[DecoderName, ...] = get_args(DecoderName)

WIDTHS = (16, 32, 64, 128, 256)
"""Channels of the U-Net's levels, from the finest; those of segmentation_models_pytorch's decoders."""
NORM_GROUPS = 8

Statistics = tuple[torch.Tensor, torch.Tensor]
"""Mean and variance of a map's channels, each [C]."""
VARIANCE_FLOOR = 1e-5
"""Added to variances, as batch normalisation does: channels that are always 0 stay 0."""


class StandardisedDecoder(nn.Module):
    """A decoder of maps whose channels have been brought to mean 0 and deviation 1, by statistics that are given.

    What DINOv2's head does by batch normalisation, but the same in training and after it, and with the images of a
    small data set too, over whose few steps running averages stay far from where they are going.
    """

    def __init__(self, decoder: nn.Module, statistics: Sequence[Statistics]) -> None:
        super().__init__()
        self.decoder = decoder
        for level, (mean_C, variance_C) in enumerate(statistics):
            self.register_buffer(f"mean_{level}", mean_C[:, None, None])
            self.register_buffer(f"scale_{level}", torch.rsqrt(variance_C + VARIANCE_FLOOR)[:, None, None])

    def forward(self, maps: Sequence[torch.Tensor], size: int) -> torch.Tensor:
        """logits_BCSS from maps [B, C, H, W], from shallow to deep, square."""
        standard = [
            (map_BCHW - self.get_buffer(f"mean_{level}")) * self.get_buffer(f"scale_{level}")
            for level, map_BCHW in enumerate(maps)
        ]
        logits_BCSS: torch.Tensor = self.decoder(standard, size)
        return logits_BCSS


class LinearDecoder(nn.Module):
    """One 1x1 convolution over all maps, enlarged to the image and put together.

    DINOv2's linear head over several layers (Oquab et al. 2023, section 7.4, "+ms": a 1x1 convolution on the
    concatenated maps), here of five; the paper's released linear decoder takes the last map alone. A 1x1 convolution
    and a bilinear resize change places, so each map is convolved at its own size and the results are added: the same
    numbers without the concatenated maps, which would take gigabytes at a ResNet's first stage.
    """

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.weights = nn.ModuleList(nn.Conv2d(count, classes, 1, bias=False) for count in channels)
        self.bias = nn.Parameter(torch.zeros(classes))
        for weight in self.weights:
            # As one convolution over all channels would be drawn: the bound is 1 / sqrt(channels in).
            bound = sum(channels) ** -0.5
            nn.init.uniform_(weight.weight, -bound, bound)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[torch.Tensor], size: int) -> torch.Tensor:
        """logits_BCSS from maps [B, C, H, W] of any sides."""
        logits_BCSS = self.bias[:, None, None]
        for map_BCHW, weight in zip(maps, self.weights, strict=True):
            logits_BCSS = logits_BCSS + _enlarge(weight(map_BCHW), size)
        return logits_BCSS


class UNetDecoder(nn.Module):
    """From the deepest map upwards: enlarge, put beside the next shallower map, convolve (Ronneberger et al. 2015).

    A transformer's maps all have one size, so each level is enlarged to twice the side of the one below, at most half
    of the image, and its map with it, as in UNETR (Hatamizadeh et al. 2022) and in the paper's released decoder; maps
    of a convolutional tower are used at their own sizes. Group normalisation, which small batches do not disturb. The
    logits are enlarged to the image bilinearly.
    """

    def __init__(self, channels: Sequence[int], classes: int, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        if len(channels) != len(widths):
            raise ValueError(f"channels are {tuple(channels)}; allowed: one for each of the widths {tuple(widths)}")
        self.laterals = nn.ModuleList(_convolve(count, width, 1) for count, width in zip(channels, widths, strict=True))
        self.merges = nn.ModuleList(_convolve(width + below, width, 3) for width, below in pairwise(widths))
        self.bottom = _convolve(widths[-1], widths[-1], 3)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, maps: Sequence[torch.Tensor], size: int) -> torch.Tensor:
        """logits_BCSS from maps [B, C, H, W], from shallow to deep, square."""
        sides = level_sides([map_BCHW.shape[-1] for map_BCHW in maps], size)
        levels = [
            _enlarge(lateral(map_BCHW), side)
            for map_BCHW, lateral, side in zip(maps, self.laterals, sides, strict=True)
        ]
        merged = self.bottom(levels[-1])
        for level, side, merge in reversed(list(zip(levels[:-1], sides[:-1], self.merges, strict=True))):
            merged = merge(torch.cat([level, _enlarge(merged, side)], dim=1))
        return _enlarge(self.head(merged), size)


def build_decoder(name: DecoderName, statistics: Sequence[Statistics], classes: int) -> StandardisedDecoder:
    """A decoder with drawn weights, for maps whose channels have these statistics. ValueError for an unknown name."""
    if name not in DECODERS:
        raise ValueError(f"decoder is {name!r}; allowed: {', '.join(DECODERS)}")
    if classes < 1:
        raise ValueError(f"classes is {classes}; allowed: 1 or more")
    channels = [len(mean_C) for mean_C, _ in statistics]
    decoder = UNetDecoder(channels, classes) if name == "unet" else LinearDecoder(channels, classes)
    return StandardisedDecoder(decoder, statistics)


def map_statistics(batches: Iterable[Sequence[torch.Tensor]]) -> list[Statistics]:
    """Mean and variance of each channel of each map, over images and places; float32, summed in float64."""
    sums: list[torch.Tensor] = []
    for maps in batches:
        # Count, sum and sum of squares of each channel.
        found = [map_BCHW.double().transpose(0, 1).flatten(1) for map_BCHW in maps]
        added = [torch.stack([torch.ones_like(x).sum(1), x.sum(1), x.square().sum(1)]) for x in found]
        sums = [total + more for total, more in zip(sums, added, strict=True)] if sums else added
    return [
        ((total / count).float(), (squares / count - (total / count).square()).clamp(min=0).float())
        for count, total, squares in sums
    ]


def level_sides(sides: Sequence[int], size: int) -> list[int]:
    """The side at which each map is used: its own where it is finer than the level below, else twice that level's,
    at most half of the image's."""
    used = [sides[-1]]
    for side in reversed(sides[:-1]):
        used.append(side if side > used[-1] else max(used[-1], min(2 * used[-1], -(-size // 2))))
    return used[::-1]


def _convolve(channels: int, width: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False),
        nn.GroupNorm(NORM_GROUPS, width),
        nn.GELU(),
    )


def _enlarge(map_BCHW: torch.Tensor, side: int) -> torch.Tensor:
    if map_BCHW.shape[-2:] == (side, side):
        return map_BCHW
    return interpolate(map_BCHW, (side, side), mode="bilinear", align_corners=False)
