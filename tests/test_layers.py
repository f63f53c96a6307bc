"""Five maps of an image tower, against hooks on its blocks and stages called one by one."""

from __future__ import annotations

import pytest
import timm
import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from chexray.platform.model.layers import ImageLayers, taken_layers
from chexray.platform.model.preprocess import normalise
from chexray.platform.model.towers import fit_input_size


def tower(name: str, size: int) -> TimmModel:
    """As the dual encoder builds it."""
    torch.manual_seed(0)
    return TimmModel(name, 32, size, pool="", proj="linear").eval()


def small_dinov2(size: int) -> TimmModel:
    """DINOv2's kind, of 12 thin blocks: patches of 14, registers, layer scale; made for 518 pixels and fitted."""
    visual = tower("test_vit", 64)
    visual.trunk = timm.models.VisionTransformer(
        518, 14, num_classes=0, embed_dim=24, depth=12, num_heads=2, init_values=0.1, reg_tokens=4, no_embed_class=True
    ).eval()
    fit_input_size(visual, size)
    return visual


def images(size: int, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, size, size), dtype=torch.uint8, generator=generator)


def block_outputs(visual: TimmModel, image_BSS: torch.Tensor) -> list[torch.Tensor]:
    """Tokens after each block of a transformer, by hooks, with its final norm."""
    trunk, seen = visual.trunk, []
    hooks = [block.register_forward_hook(lambda _, __, output: seen.append(output)) for block in trunk.blocks]
    trunk(normalise(image_BSS))
    for hook in hooks:
        hook.remove()
    return [trunk.norm(tokens) for tokens in seen]


@pytest.mark.parametrize(
    ("visual", "size", "prefix", "taken"),
    [(tower("test_vit", 64), 64, 1, [0, 1, 3, 4, 5]), (small_dinov2(70), 70, 5, [1, 4, 6, 9, 11])],
    ids=["test_vit", "dinov2"],
)
@torch.no_grad()
def test_layers_of_a_transformer_are_patch_tokens_of_evenly_spaced_blocks(
    visual: TimmModel, size: int, prefix: int, taken: list[int]
) -> None:
    layers = ImageLayers(visual, size)
    assert layers.taken == taken
    maps = layers(images(size))
    outputs = block_outputs(visual, images(size))
    side = size // visual.trunk.patch_embed.patch_size[0]
    assert len(maps) == 5
    for map_BCHW, index in zip(maps, taken, strict=True):
        assert map_BCHW.shape == (2, visual.trunk.embed_dim, side, side)
        for row in range(side):
            for column in range(side):
                # Measured worst error: 0.
                token_BC = outputs[index][:, prefix + row * side + column]
                torch.testing.assert_close(map_BCHW[:, :, row, column], token_BC, rtol=0, atol=1e-5)


@torch.no_grad()
def test_layers_last_choice_takes_the_last_five_blocks() -> None:
    visual = tower("test_vit", 64)
    maps = ImageLayers(visual, 64, "last")(images(64))
    outputs = block_outputs(visual, images(64))
    for map_BCHW, tokens_BLC in zip(maps, outputs[1:], strict=True):
        torch.testing.assert_close(map_BCHW.flatten(2).transpose(1, 2), tokens_BLC[:, 1:], rtol=0, atol=1e-5)


@torch.no_grad()
def test_layers_of_open_clips_own_transformer_are_its_patch_tokens() -> None:
    torch.manual_seed(0)
    visual = VisionTransformer(64, 16, width=48, layers=6, heads=3, mlp_ratio=2.0, output_dim=16).eval()
    seen: list[torch.Tensor] = []
    for block in visual.transformer.resblocks:
        block.register_forward_hook(lambda _, __, output: seen.append(output))
    visual(normalise(images(64)))
    expected = [visual.ln_post(seen[index])[:, 1:].transpose(1, 2) for index in (0, 1, 3, 4, 5)]
    maps = ImageLayers(visual, 64)(images(64))
    assert [map_BCHW.shape for map_BCHW in maps] == [(2, 48, 4, 4)] * 5
    # Measured worst error: 0.
    torch.testing.assert_close([map_BCHW.flatten(2) for map_BCHW in maps], expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_layers_of_a_resnet_are_its_stem_and_stages() -> None:
    visual = tower("resnet10t", 96)
    layers = ImageLayers(visual, 96)
    trunk, image = visual.trunk, normalise(images(96))
    stem = trunk.act1(trunk.bn1(trunk.conv1(image)))
    first = trunk.layer1(trunk.maxpool(stem))
    second = trunk.layer2(first)
    third = trunk.layer3(second)
    expected = [stem, first, second, third, trunk.layer4(third)]
    assert [found.shape[-1] for found in expected] == [48, 24, 12, 6, 3]
    # Measured worst error: 0.
    torch.testing.assert_close(list(layers(images(96))), expected, rtol=0, atol=1e-5)
    assert layers.variant == "layers 1, 2, 3, 4, 5 of 5"


@torch.no_grad()
def test_layers_of_a_convnext_are_four_stages_and_the_last_one_pooled() -> None:
    visual = tower("convnext_atto", 96)
    layers = ImageLayers(visual, 96)
    found, expected = normalise(images(96)), []
    found = visual.trunk.stem(found)
    for stage in visual.trunk.stages:
        found = stage(found)
        expected.append(found)
    maps = layers(images(96))
    # Measured worst error: 0.
    torch.testing.assert_close(list(maps[:4]), expected, rtol=0, atol=1e-5)
    assert [map_BCHW.shape[-1] for map_BCHW in maps] == [24, 12, 6, 3, 2]
    assert torch.equal(maps[4][:, :, 0, 0], expected[3][:, :, :2, :2].amax(dim=(2, 3)))
    assert torch.equal(maps[4][:, :, 1, 1], expected[3][:, :, 2, 2])
    assert layers.variant == "layers 1, 2, 3, 4 of 4 and the last pooled"


@torch.no_grad()
def test_layers_of_a_shallow_transformer_repeat_the_last_block() -> None:
    visual = tower("test_vit", 64)
    visual.trunk.blocks = visual.trunk.blocks[:3]
    layers = ImageLayers(visual, 64)
    maps = layers(images(64))
    assert layers.variant == "layers 1, 2, 3 of 3 and the last repeated"
    assert len(maps) == 5
    assert torch.equal(maps[2], maps[4])
    assert not torch.equal(maps[1], maps[2])


def test_layers_in_training_keep_batch_statistics_and_pass_gradients() -> None:
    visual = tower("resnet10t", 64).train()
    layers = ImageLayers(visual, 64).train()
    before = {name: value.clone() for name, value in visual.state_dict().items() if "running" in name}
    assert before
    sum(found.sum() for found in layers(images(64))).backward()
    assert all(torch.equal(visual.state_dict()[name], value) for name, value in before.items())
    assert not any(module.training for module in layers.modules())
    assert next(visual.trunk.conv1.parameters()).grad.abs().sum() > 0


def test_layers_of_one_image_do_not_depend_on_its_batch() -> None:
    layers = ImageLayers(tower("resnet10t", 64), 64)
    with torch.no_grad():
        together, alone = layers(images(64, 3)), layers(images(64, 3)[1:2])
    for whole, single in zip(together, alone, strict=True):
        # Measured worst error: 4.8e-7.
        torch.testing.assert_close(whole[1:2], single, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("available", range(1, 41))
def test_taken_layers_are_distinct_evenly_spaced_and_end_with_the_last(available: int) -> None:
    spread, last = taken_layers(available, "spread"), taken_layers(available, "last")
    for taken in (spread, last):
        assert taken == sorted(set(taken))
        assert taken[-1] == available - 1
        assert len(taken) == min(5, available)
    gaps = [after - before for before, after in zip([-1, *spread], spread, strict=False)]
    assert max(gaps) - min(gaps) <= 1
    assert last == list(range(max(0, available - 5), available))


def test_layers_of_an_unknown_choice_or_tower_raises() -> None:
    with pytest.raises(ValueError, match="choice is 'first'; allowed: 'spread', 'last'"):
        ImageLayers(tower("test_vit", 64), 64, "first")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the image tower Conv2d has no forward_intermediates"):
        ImageLayers(nn.Conv2d(3, 4, 1), 64)
