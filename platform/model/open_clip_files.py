"""open_clip's own checkpoints: a folder with `open_clip_config.json`, or a file of weights with a description."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch

from chexray.platform.errors import UsageError
from chexray.platform.model.preprocess import require_clip_normalisation
from chexray.platform.model.published import Published, Source

CONFIG_FILE = "open_clip_config.json"


def read_open_clip(
    path: Path, state: Mapping[str, torch.Tensor], name: str, text_tower: str | None, model_config: str | None
) -> Published:
    """`model_config`: a JSON file as open_clip has them, or one of its model names; a folder brings its own.

    `text_tower`: where a Hugging Face text tower's configuration and tokenizer are; without it the folder itself where
    it holds them, else what the description names. Raises `UsageError` where there is no description.
    """
    cfg = _without_weights(_description(path, name, model_config), name)
    if path.is_dir():
        require_clip_normalisation(path / CONFIG_FILE, "mean", "std", name, section="preprocess_cfg")
    tower = cfg["text_cfg"].get("hf_model_name")
    if tower:
        tower = text_tower or (str(path) if (path / "config.json").is_file() else tower)
    plain = "token_embedding.weight" in state  # CLIP's classic model keeps its text tower at the top

    def source_of(target: str) -> Source:
        return Source((target.removeprefix("text.") if plain else target,))

    unused = r"(text\.)?attn_mask|text\.transformer\.embeddings\.position_ids"
    return Published("open_clip", cfg, tower, state, source_of, unused=unused)


def _description(path: Path, name: str, model_config: str | None) -> dict[str, Any]:
    if model_config is not None:
        file = Path(model_config).expanduser()
        found: Any = json.loads(file.read_text()) if file.is_file() else open_clip.get_model_config(model_config)
        if found is None:
            raise UsageError(f"--model-config {model_config}: no such file, nor a model that open_clip knows by name")
    elif (path / CONFIG_FILE).is_file():
        found = json.loads((path / CONFIG_FILE).read_text())
    else:
        raise UsageError(
            f"{name}: nothing says which model its weights are of; give --model-config, a JSON file as open_clip has "
            "them or the name of one of its models"
        )
    cfg: dict[str, Any] = found.get("model_cfg", found)
    if not {"embed_dim", "vision_cfg", "text_cfg"} <= cfg.keys():
        raise UsageError(f"{name}: its description lacks embed_dim, vision_cfg or text_cfg")
    return cfg


def _without_weights(cfg: dict[str, Any], name: str) -> dict[str, Any]:
    """The description as our checkpoints have it: a custom text tower, and nothing fetched."""
    vision, text = dict(cfg["vision_cfg"]), dict(cfg["text_cfg"])
    if text.get("hf_tokenizer_name") and not text.get("hf_model_name"):
        raise UsageError(f"{name}: text_cfg.hf_tokenizer_name without hf_model_name: this tokenizer is not supported")
    for setting in ("tokenizer_kwargs", "tokenizer_mode"):
        if text.get(setting):
            raise UsageError(f"{name}: text_cfg.{setting} is {text[setting]}; supported: tokenizers as they are")
    size = vision.get("image_size", 224)
    if isinstance(size, list | tuple):
        if len(set(size)) != 1:
            raise UsageError(f"{name}: vision_cfg.image_size is {size}; supported: squares")
        size = size[0]
    vision["image_size"] = size
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    text.pop("hf_model_pretrained", None)
    return {**cfg, "vision_cfg": vision, "text_cfg": text}
