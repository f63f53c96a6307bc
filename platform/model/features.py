"""What an image tower knows of an image before its projection into the space that it shares with reports.

B: images; S: image size in pixels; E: feature width.

Linear probes and fine-tuning start from this feature and not from the embedding, as CLIP's do (Radford et al. 2021,
appendix A.3: "before the linear projection").
"""

from __future__ import annotations

from typing import cast

import torch
from open_clip.model import CustomTextCLIP
from torch import nn

from chexray.platform.errors import UsageError
from chexray.platform.model.preprocess import normalise

_POOLS = {
    "token": "class token",
    "avg": "average pool",
    "max": "maximum pool",
    "avgmax": "mean of average and maximum pool",
    "catavgmax": "average and maximum pool",
    "map": "attention pool",
}


class FeatureTower(nn.Module):
    """The image tower of a model up to its own pooling: uint8 images [B, S, S] to float features [B, E].

    It shares the model's weights and holds no projection, so that all of its parameters take part in the feature.
    Raises `UsageError` for a tower that is not timm's, or that does not pool before it projects.
    """

    def __init__(self, model: CustomTextCLIP) -> None:
        super().__init__()
        trunk = getattr(model.visual, "trunk", None)
        if not hasattr(trunk, "forward_head"):
            kind = type(model.visual).__name__
            raise UsageError(f"the image tower is open_clip's {kind}; allowed for its features: a timm model")
        self.trunk = cast(nn.Module, trunk)
        self.name = f"{_POOLS.get(_pool(self.trunk), _pool(self.trunk))} before the projection"
        """Which feature it is, as results name it."""

    def forward(self, image_BSS: torch.Tensor) -> torch.Tensor:
        map_B = self.trunk.forward_features(normalise(image_BSS))  # type: ignore[operator]
        feature_BE: torch.Tensor = self.trunk.forward_head(map_B, pre_logits=True)  # type: ignore[operator]
        return feature_BE


def image_features(model: CustomTextCLIP, image_BSS: torch.Tensor) -> torch.Tensor:
    """[B, E] of uint8 images on the model's device, in the mode (training or not) that the model is in.

    The class token after the last normalisation where the tower has one and pools by it (DINOv2's do), else its
    pooled feature map; `feature_name` says which. float32, or autocast's type. Raises `UsageError` as `FeatureTower`.
    """
    return cast(torch.Tensor, FeatureTower(model)(image_BSS))


def feature_map(model: CustomTextCLIP, image_BSS: torch.Tensor) -> torch.Tensor:
    """What the tower has before it pools: [B, E, H, W] of a convolutional one, [B, patches, E] of a transformer."""
    trunk = FeatureTower(model).trunk
    map_B: torch.Tensor = trunk.forward_features(normalise(image_BSS))  # type: ignore[operator]
    # A class token and registers stand before the patches.
    return map_B if map_B.ndim == 4 else map_B[:, int(getattr(trunk, "num_prefix_tokens", 0)) :]


def embed_with_features(model: CustomTextCLIP, image_BSS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Unit embeddings [B, D] and features [B, E] of images in one pass; None for towers that have no such feature."""
    try:
        trunk = FeatureTower(model).trunk
    except UsageError:
        return model.encode_image(normalise(image_BSS), normalize=True), None
    map_B = trunk.forward_features(normalise(image_BSS))  # type: ignore[operator]
    pooled_BE = trunk.forward_head(map_B)  # type: ignore[operator]
    feature_BE: torch.Tensor = trunk.forward_head(map_B, pre_logits=True)  # type: ignore[operator]
    return torch.nn.functional.normalize(model.visual.head(pooled_BE), dim=-1), feature_BE


def feature_name(model: CustomTextCLIP) -> str:
    """Which feature `image_features` gives: 'class token before the projection', say."""
    return FeatureTower(model).name


def _pool(trunk: nn.Module) -> str:
    """timm's name of the pooling by which a trunk's positions become one vector."""
    pool = getattr(trunk, "global_pool", None)
    if pool is None:
        pool = getattr(getattr(trunk, "head", None), "global_pool", None)
    kind = pool if isinstance(pool, str) else getattr(pool, "pool_type", None)
    if not kind:
        raise UsageError(
            f"the image tower's {type(trunk).__name__} does not pool by itself (its pooling is a part of the "
            "projection); allowed for its features: a timm model that pools before it projects"
        )
    return str(kind)
