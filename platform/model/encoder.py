"""The dual encoder: open_clip's `CustomTextCLIP` with a timm image tower, built from a `ModelConfig`.

B: batch; H, W: pixels; L: tokens; D: embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
import transformers
from open_clip.model import CustomTextCLIP
from torch import nn

from chexray.platform import storage
from chexray.platform.config import ModelConfig
from chexray.platform.errors import UsageError
from chexray.platform.model.preprocess import normalise
from chexray.platform.model.towers import fit_input_size, load_vision_weights, restart_layer_scale


@dataclass(frozen=True)
class Tokenizer:
    """Texts to int64 tokens [B, L]: padded to the longest of them where the tower takes that, else all alike.

    `padded`: the same, to the context length. `pad`: the token of padding, which the tower masks; None for one that
    takes its full context only, as open_clip's own (3.3) does, whose causal mask is not cut.
    """

    padded: Callable[[list[str]], torch.Tensor]
    pad: int | None
    context_length: int

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        token_BL = self.padded(list(texts))
        return token_BL[:, : max(self.lengths(token_BL), default=1)]

    def lengths(self, token_BL: torch.Tensor) -> list[int]:
        """How many of its tokens the tower needs to see of each text: at least 1."""
        if self.pad is None:
            return [token_BL.shape[1]] * len(token_BL)
        last_B = (token_BL != self.pad).flip(1).int().argmax(dim=1)
        found: list[int] = (token_BL.shape[1] - last_B).tolist()
        return found


def model_cfg(config: ModelConfig) -> dict[str, Any]:
    """open_clip's description of the model, as its `open_clip_config.json` holds it."""
    text: dict[str, Any] = {"context_length": config.text.context_length}
    if config.text.hf_model:
        text |= {
            "hf_model_name": config.text.hf_model,
            "hf_tokenizer_name": config.text.hf_model,
            "hf_pooler_type": config.text.pooler,
            "hf_proj_type": "linear",
            "hf_model_pretrained": config.text.hf_weights,
        }
    else:
        text |= {
            "vocab_size": 49408,
            "width": config.text.width,
            "heads": config.text.heads,
            "layers": config.text.layers,
        }
    vision: dict[str, Any] = {
        "timm_model_name": config.vision.timm_model,
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": config.vision.image_size,
    }
    if config.projection_bias:
        vision["timm_proj_bias"] = text["proj_bias"] = True
    return {
        "embed_dim": config.embed_dim,
        "init_logit_scale": math.log(1 / config.init_temperature),
        # deepspeed.initialize fails on parameters without a dimension.
        "nonscalar_logit_scale": True,
        "custom_text": True,
        "vision_cfg": vision,
        "text_cfg": text,
    }


def build_model(config: ModelConfig, seed: int) -> CustomTextCLIP:
    """The model at step 0: weights where the config names some, else drawn from `seed`. float32, on the CPU."""
    with torch.random.fork_rng(devices=[]), local_text_tower(config.text.hf_model) as text_path:
        torch.manual_seed(seed)
        model = construct(model_cfg(config), text_path)
        if config.vision.layer_scale is not None:
            restart_layer_scale(model.visual, config.vision.layer_scale)
    if config.vision.weights:
        load_vision_weights(model.visual, config.vision.timm_model, config.vision.image_size, config.vision.weights)
    return model


def build_blank_model(config: ModelConfig) -> CustomTextCLIP:
    """The same model with drawn weights, where only its shapes matter: none are fetched."""
    vision = config.vision.model_copy(update={"weights": None})
    text = config.text.model_copy(update={"hf_weights": False})
    return build_model(config.model_copy(update={"vision": vision, "text": text}), 0)


def construct(cfg: dict[str, Any], text_path: str | None = None) -> CustomTextCLIP:
    """An open_clip model of this description. `text_path`: where the Hugging Face text tower is, if it has one.

    open_clip's own projection of such a tower has no bias, whatever `proj_bias` says; here it has one if that says so.
    """
    arguments = {name: value for name, value in cfg.items() if name != "custom_text"}
    if text_path:
        arguments["text_cfg"] = {**cfg["text_cfg"], "hf_model_name": text_path}
    try:
        model = CustomTextCLIP(**arguments)
    except RuntimeError as error:
        raise UsageError(f"model.vision.timm_model={cfg['vision_cfg'].get('timm_model_name')}: {error}") from error
    if text_path and cfg["text_cfg"].get("proj_bias"):
        model.text.proj = nn.Linear(model.text.proj.in_features, model.text.proj.out_features)
    if cfg["vision_cfg"].get("timm_model_name"):
        fit_input_size(model.visual, cfg["vision_cfg"]["image_size"])
    return model


def build_tokenizer(config: ModelConfig) -> Tokenizer:
    """open_clip's own byte-pair tokenizer, or the Hugging Face tower's."""
    with local_text_tower(config.text.hf_model) as text_path:
        return tokenizer_at(config.text.context_length, text_path)


def tokenizer_at(context_length: int, hf_path: str | None) -> Tokenizer:
    if hf_path is None:
        return Tokenizer(open_clip.SimpleTokenizer(context_length=context_length), None, context_length)
    tokenizer = open_clip.tokenizer.HFTokenizer(hf_path, context_length=context_length)
    pad = tokenizer.tokenizer.pad_token_id
    # open_clip masks what the model's configuration names.
    masked = transformers.AutoConfig.from_pretrained(hf_path).pad_token_id == pad
    return Tokenizer(tokenizer, pad if masked else None, context_length)


def encode(model: CustomTextCLIP, image_BHW: torch.Tensor, token_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit embeddings [B, D] of images (uint8, on the model's device) and of their reports."""
    image_BD = model.encode_image(normalise(image_BHW), normalize=True)
    return image_BD, model.encode_text(token_BL, normalize=True)


@contextmanager
def local_text_tower(name: str | None, setting: str = "model.text.hf_model") -> Iterator[str | None]:
    """Where a Hugging Face tower can be read from meanwhile: hub name, local folder, or a copy of a URI's.

    Raises `UsageError`, which blames `setting`, where what reads from it finds nothing.
    """
    try:
        if name is None:
            yield None
        elif storage.is_remote(name):
            with storage.local_copy(name) as path:
                yield str(path)
        elif Path(name).expanduser().is_dir():
            yield str(Path(name).expanduser())
        else:
            yield name
    except OSError as error:
        raise UsageError(
            f"{setting}={name}: not a Hugging Face model's folder, and not to be had from the hub; set it "
            "to the path or URI of the model's folder"
        ) from error
