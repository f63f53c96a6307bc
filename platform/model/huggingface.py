"""Folders that transformers saves: a `CLIPModel`, or a `VisionTextDualEncoderModel` of towers that map exactly.

What is supported: CLIP's two towers (`CLIPModel`); CLIP's image tower or DINOv2's (S, B, L, without registers) with a
BERT (dual encoder). Anything else would come out as another model, and is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from chexray.platform.errors import UsageError
from chexray.platform.model import dinov2
from chexray.platform.model.clip_transformer import quick_gelu, text_cfg, text_source, visual_cfg, visual_source
from chexray.platform.model.preprocess import require_clip_normalisation
from chexray.platform.model.published import Published, Source

SUPPORTED = (
    "supported: CLIPModel; VisionTextDualEncoderModel of a CLIP or DINOv2 image tower and a BERT text tower; the "
    "paper's own layout; open_clip"
)
_POSITION_IDS = r"(vision_model|text_model)\.(vision_model\.|text_model\.)?embeddings\.position_ids"


def read_huggingface(
    folder: Path, state: Mapping[str, torch.Tensor], name: str, context_length: int | None, scratch: Path
) -> Published:
    """`scratch`: an empty folder, into which a text tower's own configuration and tokenizer are written."""
    from transformers import AutoConfig

    file = folder / "config.json"
    if not file.is_file():
        raise UsageError(f"{name}: has no config.json, so that nothing says what its tensors are; {SUPPORTED}")
    kind = json.loads(file.read_text()).get("model_type")
    if kind not in ("clip", "vision-text-dual-encoder"):
        raise UsageError(f"{name}: its model_type is {kind!r}; {SUPPORTED}")
    config = AutoConfig.from_pretrained(folder)
    require_clip_normalisation(folder / "preprocessor_config.json", "image_mean", "image_std", name)
    if kind == "clip":
        return _clip(folder, config, state, name)
    return _dual_encoder(folder, config, state, name, context_length, scratch)


def _clip(folder: Path, config: Any, state: Mapping[str, torch.Tensor], name: str) -> Published:
    _require_clip_vocabulary(folder, name)

    def source_of(target: str) -> Source:
        tower, _, rest = target.partition(".")
        if tower == "visual":
            return visual_source(rest, "vision_model.")
        return text_source(rest, "text_model.") if tower == "text" else Source((target,))

    cfg = {
        "embed_dim": config.projection_dim,
        "quick_gelu": quick_gelu(name, config.vision_config, config.text_config),
        "vision_cfg": visual_cfg(config.vision_config, name),
        "text_cfg": text_cfg(config.text_config, name),
    }
    return Published("Hugging Face CLIP", cfg, None, state, source_of, unused=_POSITION_IDS)


def _dual_encoder(
    folder: Path,
    config: Any,
    state: Mapping[str, torch.Tensor],
    name: str,
    context_length: int | None,
    scratch: Path,
) -> Published:
    from transformers import AutoTokenizer

    vision, text = config.vision_config, config.text_config
    if text.model_type != "bert" or vision.model_type not in ("dinov2", "clip_vision_model"):
        raise UsageError(f"{name}: a dual encoder of {vision.model_type} and {text.model_type}; {SUPPORTED}")
    text.save_pretrained(scratch)
    AutoTokenizer.from_pretrained(folder).save_pretrained(scratch)
    # Older files keep the name of the model inside the model.
    prefix = "vision_model." * (2 if any(key.startswith("vision_model.vision_model.") for key in state) else 1)

    def source_of(target: str) -> Source:
        if target == "visual.head.proj.weight":
            return Source(("visual_projection.weight",))
        if target == "text.proj.weight":
            return Source(("text_projection.weight",))
        if target.startswith("visual.trunk."):
            return dinov2.dinov2_source(target.removeprefix("visual.trunk."), state.keys(), prefix)
        if target.startswith("visual."):
            return visual_source(target.removeprefix("visual."), prefix)
        return Source((target.replace("text.transformer.", "text_model.", 1),))

    cfg = {
        "embed_dim": config.projection_dim,
        **_image_tower(vision, state, prefix, name),
        "text_cfg": {
            "hf_model_name": text.name_or_path or "bert",
            "hf_tokenizer_name": text.name_or_path or "bert",
            "hf_pooler_type": "cls_pooler",
            "hf_proj_type": "linear",
            "context_length": context_length or text.max_position_embeddings,
        },
    }
    unused = rf"vision_model\.{dinov2.UNUSED}|{_POSITION_IDS}"
    return Published("Hugging Face dual encoder", cfg, str(scratch), state, source_of, unused=unused)


def _image_tower(vision: Any, state: Mapping[str, torch.Tensor], prefix: str, name: str) -> dict[str, Any]:
    if vision.model_type == "clip_vision_model":
        return {"quick_gelu": quick_gelu(name, vision), "vision_cfg": visual_cfg(vision, name)}
    timm_model, image_size = dinov2.timm_tower(state, prefix, name)
    if (vision.patch_size, vision.hidden_act, vision.layer_norm_eps) != (dinov2.PATCH, "gelu", 1e-6):
        raise UsageError(
            f"{name}: a DINOv2 with patch_size {vision.patch_size}, hidden_act {vision.hidden_act}, layer_norm_eps "
            f"{vision.layer_norm_eps}; supported: {dinov2.PATCH}, gelu, 1e-06"
        )
    return {"vision_cfg": dinov2.vision_cfg(timm_model, image_size)}


def _require_clip_vocabulary(folder: Path, name: str) -> None:
    """`UsageError` unless the folder's tokenizer numbers texts as open_clip's own does."""
    from open_clip import SimpleTokenizer
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder).get_vocab()
    ours: dict[str, int] = SimpleTokenizer().encoder
    special = len(ours) - 2  # begin and end of a text, which the two write differently
    if len(theirs) != len(ours) or any(theirs.get(word) != number for word, number in ours.items() if number < special):
        raise UsageError(f"{name}: its tokenizer has another vocabulary ({len(theirs)} words) than CLIP's; {SUPPORTED}")
