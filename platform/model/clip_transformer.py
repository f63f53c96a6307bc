"""CLIP's own transformers (Radford et al. 2021) as transformers has them, described and named as open_clip has them."""

from __future__ import annotations

import re
from typing import Any

from chexray.platform.errors import UsageError
from chexray.platform.model.published import Source

_VISUAL = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1": "embeddings.patch_embedding",
    "ln_pre": "pre_layrnorm",
    "ln_post": "post_layernorm",
}
_TEXT = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding": "embeddings.token_embedding",
    "ln_final": "final_layer_norm",
}
_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_OPEN_CLIP_EPS = 1e-5
_END_OF_TEXT = (2, 49407)
"""transformers takes the feature at the largest token where the setting is 2 (its first configurations), else at the
first token of this number: in CLIP's vocabulary the largest."""


def visual_cfg(config: Any, name: str) -> dict[str, Any]:
    """open_clip's `vision_cfg` of a transformers `CLIPVisionConfig`."""
    if config.num_channels != 3:
        raise UsageError(f"{name}: its images have {config.num_channels} channels; supported: 3")
    return {
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "head_width": config.hidden_size // config.num_attention_heads,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        "patch_size": config.patch_size,
        "image_size": config.image_size,
        **_norm(config),
    }


def text_cfg(config: Any, name: str) -> dict[str, Any]:
    """open_clip's `text_cfg` of a transformers `CLIPTextConfig`."""
    if config.eos_token_id not in _END_OF_TEXT:
        raise UsageError(f"{name}: text_config.eos_token_id is {config.eos_token_id}; supported: {_END_OF_TEXT}")
    return {
        "context_length": config.max_position_embeddings,
        "vocab_size": config.vocab_size,
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "layers": config.num_hidden_layers,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        **_norm(config),
    }


def quick_gelu(name: str, *configs: Any) -> bool:
    """Which of the two activations that open_clip has these towers use. `UsageError` where another, or not the same."""
    found = {config.hidden_act for config in configs}
    if found not in ({"quick_gelu"}, {"gelu"}):
        raise UsageError(
            f"{name}: hidden_act is {', '.join(sorted(found))}; supported: quick_gelu or gelu in all towers"
        )
    return found == {"quick_gelu"}


def visual_source(target: str, prefix: str) -> Source:
    """Where the tensor is that open_clip calls `visual.TARGET`; `prefix`: of the file's image tower."""
    if target == "proj":
        return Source(("visual_projection.weight",), transposed=True)
    return _source(target, prefix, _VISUAL)


def text_source(target: str, prefix: str) -> Source:
    """Where the tensor is that open_clip calls `text.TARGET`; `prefix`: of the file's text tower."""
    if target == "text_projection":
        return Source(("text_projection.weight",), transposed=True)
    return _source(target, prefix, _TEXT)


def _source(target: str, prefix: str, outside: dict[str, str]) -> Source:
    found = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+?)([._])(weight|bias)", target)
    if not found:
        stem, dot, kind = target.partition(".")
        return Source((prefix + outside.get(stem, stem) + dot + kind,))
    layer, inside, kind = f"{prefix}encoder.layers.{found[1]}.", found[2], found[4]
    if inside == "attn.in_proj":
        return Source(tuple(f"{layer}self_attn.{part}_proj.{kind}" for part in "qkv"))
    return Source((f"{layer}{_BLOCK.get(inside, inside)}.{kind}",))


def _norm(config: Any) -> dict[str, Any]:
    return {} if config.layer_norm_eps == _OPEN_CLIP_EPS else {"norm_kwargs": {"eps": config.layer_norm_eps}}
