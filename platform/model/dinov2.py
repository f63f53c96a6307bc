"""DINOv2's image tower (Oquab et al. 2023) by the names of its own repository and of transformers, as timm has it.

    facebookresearch/dinov2     blocks.3.attn.qkv.weight, also in chunks: blocks.0.3.attn.qkv.weight
    transformers from 5         encoder.layer.3.attention.q_proj.weight, ...k_proj, ...v_proj
    transformers, and its files encoder.layer.3.attention.attention.query.weight, ...key, ...value

timm keeps the repository's own names. Without registers, and with the two-layer MLP (S, B and L).
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch

from chexray.platform.errors import UsageError
from chexray.platform.model.published import Source

PATCH = 14
"""Pixels."""
TIMM_MODELS = {
    (384, 12): "vit_small_patch14_dinov2.lvd142m",
    (768, 12): "vit_base_patch14_dinov2.lvd142m",
    (1024, 24): "vit_large_patch14_dinov2.lvd142m",
}
"""By width and number of blocks."""
UNUSED = r"(embeddings\.)?mask_token"
"""What stands for masked patches in DINOv2's own training."""
_TRANSFORMERS = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}
_ATTENTION = {
    "attn.qkv": ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    "attn.proj": ("attention.output.dense",),
}
_ATTENTION_FROM_5 = {
    "attn.qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "attn.proj": ("attention.o_proj",),
}


def unchunked(name: str) -> str:
    """The name as it is where the blocks are not in chunks: the inner number counts through all of them."""
    return re.sub(r"^((?:.*\.)?blocks\.)\d+\.(\d+\.)", r"\1\2", name)


def timm_tower(state: Mapping[str, torch.Tensor], prefix: str, name: str) -> tuple[str, int]:
    """Which timm model this is, and the image size in pixels that its positions are for: they are never resampled.

    Raises `UsageError`, which calls the file `name`, where it is none of `TIMM_MODELS`.
    """
    position = state.get(f"{prefix}pos_embed", state.get(f"{prefix}embeddings.position_embeddings"))
    if position is None or position.ndim != 3:
        raise UsageError(f"{name}: has no DINOv2 image tower at {prefix}* (no pos_embed, no embeddings)")
    block = re.compile(re.escape(prefix) + r"(?:blocks|encoder\.layer)\.(\d+)\.")
    blocks = {found[1] for key in state if (found := block.match(key))}
    width, side = position.shape[2], math.isqrt(position.shape[1] - 1)
    if (width, len(blocks)) not in TIMM_MODELS:
        known = ", ".join(f"{wide} x {deep}" for wide, deep in TIMM_MODELS)
        raise UsageError(f"{name}: an image tower of width {width} with {len(blocks)} blocks; supported: {known}")
    if side * side + 1 != position.shape[1]:
        raise UsageError(f"{name}: {position.shape[1]} positions are no square of patches and one class token")
    return TIMM_MODELS[width, len(blocks)], side * PATCH


def vision_cfg(timm_model: str, image_size: int) -> dict[str, Any]:
    """open_clip's description of this image tower with a linear projection."""
    return {
        "timm_model_name": timm_model,
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": image_size,
    }


def dinov2_source(target: str, names: Collection[str], prefix: str) -> Source:
    """Where the tensor that timm calls `target` is, among a file's `names` that start with `prefix`."""
    if f"{prefix}pos_embed" in names:
        return Source((prefix + target,))
    target, _, kind = target.rpartition(".") if target.endswith((".weight", ".bias")) else (target, "", "")
    ending = f".{kind}" if kind else ""
    found = re.match(r"blocks\.(\d+)\.(.+)", target)
    if not found:
        return Source((prefix + _TRANSFORMERS.get(target, target) + ending,))
    layer, inside = f"{prefix}encoder.layer.{found[1]}.", found[2]
    attention = _ATTENTION_FROM_5 if f"{prefix}encoder.layer.0.attention.q_proj.weight" in names else _ATTENTION
    parts = attention.get(inside, (_TRANSFORMERS.get(inside, inside),))
    return Source(tuple(layer + part + ending for part in parts))
