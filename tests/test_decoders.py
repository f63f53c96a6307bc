"""Decoders: shapes for every kind of tower, the linear one against one convolution, the levels of the U-Net."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, interpolate

from chexray.evals.decoders import (
    DECODERS,
    DecoderName,
    LinearDecoder,
    StandardisedDecoder,
    UNetDecoder,
    build_decoder,
    level_sides,
    map_statistics,
)

RESNET = [(64, 48), (64, 24), (128, 12), (256, 6), (512, 3)]
CONVNEXT = [(40, 24), (80, 12), (160, 6), (320, 3), (320, 2)]
TRANSFORMER = [(48, 6)] * 5
DINOV2 = [(24, 9)] * 5
TINY = [(24, 16), (32, 8), (48, 4), (64, 2), (64, 1)]


def drawn_maps(shapes: list[tuple[int, int]], batch: int = 2, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, channels, side, side, generator=generator) for channels, side in shapes]


def drawn_decoder(name: DecoderName, shapes: list[tuple[int, int]], classes: int) -> StandardisedDecoder:
    torch.manual_seed(0)
    return build_decoder(name, map_statistics([drawn_maps(shapes, batch=4, seed=1)]), classes)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize(
    ("shapes", "size"), [(RESNET, 96), (CONVNEXT, 96), (TRANSFORMER, 96), (DINOV2, 126), (TINY, 64)]
)
def test_decoder_of_any_towers_maps_gives_logits_of_the_image(
    name: DecoderName, classes: int, shapes: list[tuple[int, int]], size: int
) -> None:
    maps = [map_BCHW.requires_grad_() for map_BCHW in drawn_maps(shapes)]
    decoder = drawn_decoder(name, shapes, classes)
    logits_BCSS = decoder(maps, size)
    assert logits_BCSS.shape == (2, classes, size, size)
    logits_BCSS.square().mean().backward()
    for tensor in [*maps, *decoder.parameters()]:
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
    assert all(map_BCHW.grad.abs().sum() > 0 for map_BCHW in maps)  # type: ignore[union-attr]


@torch.no_grad()
def test_linear_decoder_equals_one_convolution_of_the_enlarged_and_joined_maps() -> None:
    maps = drawn_maps(RESNET)
    decoder = LinearDecoder([channels for channels, _ in RESNET], 3)
    nn.init.normal_(decoder.bias)
    joined_BCSS = torch.cat([interpolate(found, (96, 96), mode="bilinear", align_corners=False) for found in maps], 1)
    weight = torch.cat([layer.weight for layer in decoder.weights], dim=1)  # type: ignore[misc]
    # Measured worst error: 5.0e-6, of logits up to 2.3.
    torch.testing.assert_close(decoder(maps, 96), conv2d(joined_BCSS, weight, decoder.bias), rtol=0, atol=2e-5)


def test_linear_decoder_learns_one_weight_a_channel_and_class_and_a_bias() -> None:
    decoder = drawn_decoder("linear", RESNET, 3)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == 3 * (sum(n for n, _ in RESNET) + 1)


def test_map_statistics_of_several_batches_equal_numpys_over_all() -> None:
    batches = [[10 + 3 * found for found in drawn_maps(TINY, batch, seed)] for seed, batch in enumerate((3, 1, 4))]
    for level, (mean_C, variance_C) in enumerate(map_statistics(batches)):
        together = np.concatenate([maps[level].numpy() for maps in batches]).astype(np.float64)
        # Measured worst error: 4.8e-7 and 8.6e-7, of 12 and 17.
        np.testing.assert_allclose(mean_C, together.mean((0, 2, 3)), rtol=1e-6)
        np.testing.assert_allclose(variance_C, together.var((0, 2, 3)), rtol=1e-6)


def test_standardised_decoder_gives_its_decoder_mean_zero_and_deviation_one() -> None:
    maps = [5 - 2 * found for found in drawn_maps(TINY, batch=16)]
    maps[1][:, 3] = 0.0  # a channel that is never on
    seen: list[torch.Tensor] = []

    class Seeing(nn.Module):
        def forward(self, found: list[torch.Tensor], size: int) -> torch.Tensor:
            seen.extend(found)
            return found[0]

    StandardisedDecoder(Seeing(), map_statistics([maps]))(maps, 64)
    for level, found in enumerate(seen):
        deviation = torch.ones(found.shape[1])
        if level == 1:
            deviation[3] = 0
        # Measured worst error: 2.7e-6.
        torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(found.shape[1]), rtol=0, atol=1e-4)
        torch.testing.assert_close(found.std((0, 2, 3), correction=0), deviation, rtol=0, atol=1e-4)


@torch.no_grad()
def test_unet_decoder_of_one_image_does_not_depend_on_its_batch() -> None:
    maps = drawn_maps(RESNET, batch=3)
    decoder = drawn_decoder("unet", RESNET, 2).train()
    together, alone = decoder(maps, 96), decoder([map_BCHW[1:2] for map_BCHW in maps], 96)
    # Measured worst error: 8.3e-7.
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("sides", "size", "used"),
    [
        ([48, 24, 12, 6, 3], 96, [48, 24, 12, 6, 3]),
        ([24, 12, 6, 3, 2], 96, [24, 12, 6, 3, 2]),
        ([6, 6, 6, 6, 6], 96, [48, 48, 24, 12, 6]),
        ([27, 27, 27, 27, 27], 378, [189, 189, 108, 54, 27]),
        ([5, 5, 5, 5, 5], 75, [38, 38, 20, 10, 5]),
        ([60, 60, 60, 60, 60], 64, [60, 60, 60, 60, 60]),
        ([32, 16, 8, 8, 8], 64, [32, 32, 32, 16, 8]),
        ([32, 8, 4, 4, 4], 64, [32, 32, 16, 8, 4]),
        ([32, 24, 4, 4, 4], 64, [32, 24, 16, 8, 4]),
    ],
)
def test_level_sides_keep_a_pyramid_and_make_one_of_equal_maps(sides: list[int], size: int, used: list[int]) -> None:
    assert level_sides(sides, size) == used


def test_build_decoder_of_what_is_not_allowed_raises() -> None:
    statistics = map_statistics([drawn_maps(TINY)])
    with pytest.raises(ValueError, match="decoder is 'segformer'; allowed: unet, linear"):
        build_decoder("segformer", statistics, 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="classes is 0; allowed: 1 or more"):
        build_decoder("unet", statistics, 0)
    with pytest.raises(ValueError, match=r"channels are \(8, 8\); allowed: one for each"):
        UNetDecoder([8, 8], 1)
