"""Checkpoints for others: a folder that open_clip loads with `local-dir:FOLDER`.

    CHECKPOINT/manifest.json
    CHECKPOINT/open_clip_config.json          the model and its preprocessing
    CHECKPOINT/open_clip_model.safetensors    weights, float32
    CHECKPOINT/trained_on.npy                 ids of the pairs it was trained on, sorted (DataComp's convention)
    CHECKPOINT/config.json, tokenizer files   of a Hugging Face text tower, where it has one
    CHECKPOINT/prototypes.safetensors         the curator's [K, E], of an imported model that brought them

A text tower that pools at the last token or projects with a bias, and a transformer at another image size than timm's,
are not to be expressed in open_clip's configuration: such a folder loads with `load_checkpoint` here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.model import CustomTextCLIP
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from chexray.platform import storage
from chexray.platform.artifacts import read_manifest
from chexray.platform.config import ModelConfig
from chexray.platform.corpus.uids import read_uids, sample_uids
from chexray.platform.errors import UsageError
from chexray.platform.model.encoder import Tokenizer, build_blank_model, construct, model_cfg, tokenizer_at
from chexray.platform.model.preprocess import PREPROCESS_CFG

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
TRAINED_ON_FILE = "trained_on.npy"
PROTOTYPES_FILE = "prototypes.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to encode, in eval mode, with its tokenizer, image size (pixels) and context (tokens)."""

    model: CustomTextCLIP
    tokenize: Tokenizer
    image_size: int
    context_length: int


def export_checkpoint(uri: str, state: dict[str, torch.Tensor], config: ModelConfig) -> None:
    """Write the folder above (but its manifest) from a state dict of the model that `config` describes."""
    write_checkpoint(uri, state, model_cfg(config), config.text.hf_model)


def write_checkpoint(
    uri: str,
    state: dict[str, torch.Tensor],
    cfg: dict[str, Any],
    text_tower: str | None,
    prototype_KE: torch.Tensor | None = None,
) -> None:
    """The same for open_clip's description of the model. `text_tower`: where the Hugging Face tower's files are."""
    with tempfile.TemporaryDirectory(prefix="chexray-") as name:
        folder = Path(name)
        weights = {key: value.detach().to("cpu", torch.float32).contiguous() for key, value in state.items()}
        save_file(weights, folder / WEIGHTS_FILE)
        if prototype_KE is not None:
            save_file({"prototypes": prototype_KE.to(torch.float32).contiguous()}, folder / PROTOTYPES_FILE)
        if text_tower:
            with storage.local_copy(text_tower) as path:
                _save_text_tower(str(path) if path.exists() else text_tower, folder)
        text_cfg = {name: value for name, value in cfg["text_cfg"].items() if name != "hf_model_pretrained"}
        description = {
            "model_cfg": {**cfg, "text_cfg": text_cfg},
            "preprocess_cfg": {**PREPROCESS_CFG, "size": cfg["vision_cfg"]["image_size"]},
        }
        (folder / CONFIG_FILE).write_text(json.dumps(description, indent=2))
        storage.upload_tree(folder, uri)


def load_checkpoint(uri: str, device: str = "cpu") -> Checkpoint:
    """Load a checkpoint artifact, or any open_clip folder with safetensors. Raises `UsageError` where it is not one."""
    require_checkpoint(uri)
    with storage.local_copy(uri, (".json", ".safetensors", ".txt", ".model")) as folder:
        cfg = json.loads((folder / CONFIG_FILE).read_text())["model_cfg"]
        hf_path = str(folder) if cfg["text_cfg"].get("hf_model_name") else None
        if hf_path:
            cfg["text_cfg"]["hf_model_pretrained"] = False
        model = construct(cfg, hf_path)
        try:
            model.load_state_dict(load_file(folder / WEIGHTS_FILE))
        except RuntimeError as error:
            raise UsageError(f"{uri}/{WEIGHTS_FILE}: does not fit {CONFIG_FILE} ({str(error)[:300]})") from error
        length = int(cfg["text_cfg"].get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH))
        tokenize = tokenizer_at(length, hf_path)
    return Checkpoint(model.eval().to(device), tokenize, int(cfg["vision_cfg"]["image_size"]), length)


def require_checkpoint(uri: str) -> None:
    """Raise `UsageError` unless `uri` is a folder that `load_checkpoint` can read."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not storage.exists(storage.join(uri, name)):
            read_manifest(uri, "checkpoint")
            raise UsageError(f"{uri}: not a checkpoint (no {name})")


def require_same_model(uri: str, config: ModelConfig) -> None:
    """Raise `UsageError` unless the checkpoint's weights are of the model that `config` describes."""
    with storage.local_copy(storage.join(uri, WEIGHTS_FILE)) as file, safe_open(file, "pt") as found:
        theirs = {name: tuple(found.get_slice(name).get_shape()) for name in found.keys()}  # noqa: SIM118 - no mapping
    ours = {name: tuple(value.shape) for name, value in build_blank_model(config).state_dict().items()}
    heads = storage.read_json(storage.join(uri, CONFIG_FILE))["model_cfg"]["text_cfg"].get("heads")
    if config.text.hf_model is None and heads != config.text.heads:  # of which no shape tells
        raise UsageError(
            f"{uri}: another model than the recipe's: its model.text.heads are {heads}, not {config.text.heads}"
        )
    other = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if other:
        name = other[0]
        raise UsageError(
            f"{uri}: another model than the recipe's, which starts from its weights: {len(other)} tensors differ, "
            f"first {name} ({theirs.get(name, 'missing')} there, {ours.get(name, 'missing')} here)"
        )


def share_trained_on(uri: str, ids: Sequence[str]) -> float | None:
    """The share of `ids` that the checkpoint was trained on; None where it does not say."""
    file = storage.join(uri, TRAINED_ON_FILE)
    if not storage.exists(file):
        return None
    return float(np.isin(sample_uids(ids), read_uids(file)).mean()) if ids else 0.0


def _save_text_tower(source: str, folder: Path) -> None:
    """The tower's configuration and tokenizer, where open_clip and transformers look for them."""
    from transformers import AutoConfig, AutoTokenizer

    AutoConfig.from_pretrained(source).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
