"""Features before the projection: of every kind of tower, against what the model itself makes of an image."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from open_clip.model import CustomTextCLIP

from chexray.platform.config import ModelConfig, TextTower, VisionTower
from chexray.platform.errors import UsageError
from chexray.platform.model.encoder import build_model, construct, model_cfg
from chexray.platform.model.features import FeatureTower, feature_name, image_features
from chexray.platform.model.preprocess import normalise

CLASS_TOKEN, AVERAGE = "class token before the projection", "average pool before the projection"
TOWERS = [
    ("test_vit", 160, 64, CLASS_TOKEN),
    ("resnet10t", 64, 512, AVERAGE),
    ("convnext_atto", 64, 320, AVERAGE),
    ("vit_small_patch14_dinov2.lvd142m", 56, 384, CLASS_TOKEN),
]


@cache
def tower(name: str, size: int) -> CustomTextCLIP:
    text = TextTower(width=32, heads=2, layers=1, context_length=16)
    config = ModelConfig(embed_dim=24, vision=VisionTower(timm_model=name, image_size=size), text=text)
    return build_model(config, 0).eval()


def images(count: int, size: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, size, size), dtype=np.uint8))


@pytest.mark.parametrize(("name", "size", "width", "feature"), TOWERS)
@torch.no_grad()
def test_features_projected_by_the_model_are_its_embeddings(name: str, size: int, width: int, feature: str) -> None:
    model, image_BSS = tower(name, size), images(3, size)
    feature_BE = image_features(model, image_BSS)
    assert feature_BE.shape == (3, width)
    assert feature_BE.dtype == torch.float32
    assert feature_name(model) == feature
    embedding_BD = torch.nn.functional.linear(feature_BE, model.visual.head.proj.weight)
    # Measured worst error: 0.
    torch.testing.assert_close(embedding_BD, model.encode_image(normalise(image_BSS)), rtol=0, atol=1e-5)


@torch.no_grad()
def test_features_of_vision_transformer_are_its_normalised_class_token() -> None:
    name, size = TOWERS[3][:2]
    model, image_BSS = tower(name, size), images(2, size)
    token_BLE = model.visual.trunk.forward_features(normalise(image_BSS))
    assert token_BLE.shape == (2, 1 + (size // 14) ** 2, 384)
    # Measured worst error: 0.
    torch.testing.assert_close(image_features(model, image_BSS), token_BLE[:, 0], rtol=0, atol=1e-6)


@torch.no_grad()
def test_features_of_convolutional_tower_are_the_mean_of_its_map() -> None:
    model, image_BSS = tower("resnet10t", 64), images(2, 64)
    map_BEHW = model.visual.trunk.forward_features(normalise(image_BSS))
    # Measured worst error: 0.
    torch.testing.assert_close(image_features(model, image_BSS), map_BEHW.mean(dim=(2, 3)), rtol=0, atol=1e-5)


@torch.no_grad()
def test_features_of_tower_that_projects_in_its_own_classifier_stop_before_it() -> None:
    cfg = model_cfg(ModelConfig(embed_dim=24, vision=VisionTower(timm_model="resnet10t", image_size=64)))
    cfg["vision_cfg"] |= {"timm_pool": "avg", "timm_proj": ""}
    model, image_BSS = construct(cfg).eval(), images(2, 64)
    feature_BE = image_features(model, image_BSS)
    assert feature_BE.shape == (2, 512)
    torch.testing.assert_close(model.visual.trunk.fc(feature_BE), model.encode_image(normalise(image_BSS)))


def test_feature_tower_all_of_its_parameters_take_part() -> None:
    model = tower("test_vit", 160)
    features = FeatureTower(model)
    features(images(2, 160)).square().sum().backward()
    assert [name for name, p in features.named_parameters() if p.grad is None] == []
    assert model.visual.head.proj.weight.grad is None
    assert {id(p) for p in features.parameters()} == {id(p) for p in model.visual.trunk.parameters()}


def test_feature_tower_that_pools_in_its_projection_raises() -> None:
    cfg = model_cfg(ModelConfig(embed_dim=24, vision=VisionTower(timm_model="resnet10t", image_size=64)))
    cfg["vision_cfg"] |= {"timm_pool": "rot_attn", "timm_proj": ""}
    with pytest.raises(UsageError, match="ResNet does not pool by itself"):
        FeatureTower(construct(cfg))


def test_feature_tower_of_open_clip_itself_raises() -> None:
    cfg = model_cfg(ModelConfig(embed_dim=24))
    cfg["vision_cfg"] = {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16}
    with pytest.raises(UsageError, match="open_clip's VisionTransformer; allowed for its features: a timm model"):
        FeatureTower(construct(cfg))
