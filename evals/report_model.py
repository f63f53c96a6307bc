"""A language model that is shown an image: projected image features are the first words that it reads.

The form of LLaVA (Liu et al. 2023) and of its radiology descendants (LLaVA-Rad, Zambrano Chaves et al. 2025): what the
image tower gives is projected to the width of the language model's word embeddings. A sequence is

    [begin of text] image tokens [prompt] report [end of text]

where the language model has a mark for its begin and the configuration a prompt. The loss is over the report and its
end mark. Sequences are padded on the right here, whatever side the tokenizer prefers; padding is told by length and not
by token, since many language models have no token for it, or the end mark serves for both. All prefixes of a batch are
equally long, so generation needs no padding.

B: reports; P: image tokens; C: width of the image features; E: width of word embeddings; L: tokens of the longest
report of a batch; V: words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from chexray.platform import storage
from chexray.platform.corpus.local_models import load_local
from chexray.platform.errors import UsageError
from chexray.platform.evaluate_config import ReportConfig

IGNORED = -100  # cross_entropy's mark of positions without a target
_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
_TOKENIZER_FILES = ("tokenizer.json", "vocab.*", "*.model")


class LossSum(NamedTuple):
    """The sum of the loss over the report tokens of a batch, in nats, and how many they are."""

    total: torch.Tensor
    tokens: int


class ReportModel(nn.Module):
    """The projector and the language model. Parameters that are not trained have `requires_grad` False."""

    def __init__(self, language_model: Any, tokenizer: Any, feature_width: int, config: ReportConfig) -> None:
        super().__init__()
        self.config, self.tokenizer = config, tokenizer
        words = language_model.get_input_embeddings()
        self.projector = Projector(feature_width, words.weight, config.projector)
        self.language_model = _with_tuning(language_model, config)
        self.end: int = tokenizer.eos_token_id
        padding = tokenizer.pad_token_id
        self.padding: int = self.end if padding is None else padding
        self._begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        self._prompt: list[int] = tokenizer.encode(config.prompt, add_special_tokens=False)

    def prefix(self, feature: torch.Tensor) -> torch.Tensor:
        """What stands before the report, as embeddings [B, begin + P + prompt, E]: see the module's docstring."""
        image_BPE = self.projector(image_tokens(feature, self.config.image_grid))
        begin_BLE, prompt_BLE = (
            self._embed(torch.tensor([tokens] * len(image_BPE), dtype=torch.long, device=image_BPE.device))
            for tokens in (self._begin, self._prompt)
        )
        return torch.cat([begin_BLE, image_BPE.to(begin_BLE.dtype), prompt_BLE], dim=1)

    def loss(self, feature: torch.Tensor, reports: Sequence[str]) -> LossSum:
        """How badly the reports are predicted from their images: cross entropy over their tokens and their end marks.

        `feature`: see `image_tokens`. A report that is cut at `report_tokens` has no end mark.
        """
        prefix_BPE = self.prefix(feature)
        token_BL, length_B = self.encode(reports, prefix_BPE.device)
        prefix, longest = prefix_BPE.shape[1], token_BL.shape[1]
        position_L = torch.arange(longest, device=token_BL.device)
        real_BL = position_L < length_B[:, None]
        mask = torch.cat([real_BL.new_ones(len(token_BL), prefix), real_BL], dim=1).long()
        embedding = torch.cat([prefix_BPE, self._embed(token_BL)], dim=1)
        output = self.language_model(inputs_embeds=embedding, attention_mask=mask, use_cache=False)
        # The position before a token predicts it: the prefix's last position predicts the report's first token.
        logit_BLV = output.logits[:, prefix - 1 : -1].float()
        target_BL = token_BL.masked_fill(~real_BL, IGNORED)
        total = F.cross_entropy(logit_BLV.flatten(0, 1), target_BL.flatten(), ignore_index=IGNORED, reduction="sum")
        return LossSum(total, int(length_B.sum()))

    def encode(self, reports: Sequence[str], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens [B, L], int64, padded on the right, and their lengths [B]: end mark included, padding not."""
        most = self.config.report_tokens
        rows = [self.tokenizer.encode(report, add_special_tokens=False) for report in reports]
        cut = [[*row, self.end][:most] for row in rows]
        lengths = [len(row) for row in cut]
        padded = [row + [self.padding] * (max(lengths) - len(row)) for row in cut]
        return torch.tensor(padded, device=device), torch.tensor(lengths, device=device)

    @torch.inference_mode()
    def generate(self, feature: torch.Tensor, beams: int) -> list[str]:
        """A report for each image: the likeliest next token at each step, or beam search of that width.

        At most `report_tokens` tokens. Beams are compared by their mean log probability a token; the search goes on
        while one that is not at its end could still win, for stopping at the first finished ones cuts reports short.
        """
        from transformers import GenerationConfig

        prefix_BPE = self.prefix(feature)
        token_BL = self.language_model.generate(
            inputs_embeds=prefix_BPE,
            attention_mask=torch.ones(prefix_BPE.shape[:2], dtype=torch.long, device=prefix_BPE.device),
            generation_config=GenerationConfig(
                max_new_tokens=self.config.report_tokens,
                do_sample=False,
                num_beams=beams,
                length_penalty=1.0,
                early_stopping=False,
                eos_token_id=self.end,
                pad_token_id=self.padding,
            ),
        )
        return [text.strip() for text in self.tokenizer.batch_decode(token_BL, skip_special_tokens=True)]

    def train(self, mode: bool = True) -> ReportModel:
        """As of any module, but a language model that is not trained stays as it is used, without dropout."""
        super().train(mode)
        if self.config.tune == "projector":
            self.language_model.eval()
        return self

    def trained(self) -> dict[str, nn.Parameter]:
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def check_length(self, count: int) -> None:
        """UsageError where `count` image tokens, prompt and report are more than the language model can read."""
        most = getattr(self.language_model.config, "max_position_embeddings", None)
        prefix = len(self._begin) + count + len(self._prompt)
        if most is not None and prefix + self.config.report_tokens > most:
            raise UsageError(
                f"report_tokens={self.config.report_tokens}: after {prefix} tokens, the image's {count} among "
                f"them, that is more than the {most} that {self.config.language_model} reads; lower it, or image_grid"
            )

    def _embed(self, token_BL: torch.Tensor) -> torch.Tensor:
        embedding_BLE: torch.Tensor = self.language_model.get_input_embeddings()(token_BL)
        return embedding_BLE


class Projector(nn.Module):
    """Image features to word embeddings; its output starts as large as the language model's own embeddings are."""

    def __init__(self, width: int, embedding_VE: torch.Tensor, kind: Literal["linear", "mlp"]) -> None:
        super().__init__()
        out = embedding_VE.shape[1]
        layers: list[nn.Module] = [nn.LayerNorm(width), nn.Linear(width, out)]
        if kind == "mlp":
            layers += [nn.GELU(), nn.Linear(out, out)]
        norm = nn.LayerNorm(out)
        nn.init.constant_(norm.weight, float(embedding_VE.detach().float().std()))
        self.layers = nn.Sequential(*layers, norm)

    def forward(self, token_BPC: torch.Tensor) -> torch.Tensor:
        projected_BPE: torch.Tensor = self.layers(token_BPC)
        return projected_BPE


def image_tokens(feature: torch.Tensor, grid: int | None) -> torch.Tensor:
    """Float32 tokens [B, P, C] of image features: patch tokens [B, P, C], or a feature map [B, C, H, W], row by row.

    With a `grid`, the map is averaged to grid x grid tokens; patch tokens then must be those of a square image, without
    class token. Raises ValueError on other shapes.
    """
    if feature.ndim not in (3, 4):
        raise ValueError(f"image features have shape {tuple(feature.shape)}; allowed: [B, P, C] or [B, C, H, W]")
    if grid is not None:
        feature = F.adaptive_avg_pool2d(_as_map(feature, grid).float(), grid)
    return (feature.flatten(2).transpose(1, 2) if feature.ndim == 4 else feature).float()


def load_language_model(name: str, precision: Literal["float32", "bfloat16"] = "float32") -> tuple[Any, Any]:
    """A causal language model in evaluation mode, and its tokenizer, from a hub name, a local folder or a URI.

    Only safetensors are read and no code of the folder is run. What the folder says of how to sample is dropped.
    Raises UsageError where there is no such model, or its tokenizer lacks an end mark or is another model's.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    with _local_folder(name) as folder:
        if not any(file for pattern in _TOKENIZER_FILES for file in folder.glob(pattern)):
            raise UsageError(
                f"language_model={name}: no tokenizer there; it needs one of {', '.join(_TOKENIZER_FILES)}"
            )
        kind = "a causal language model"
        model, tokenizer = load_local(str(folder), AutoModelForCausalLM, kind, AutoTokenizer)
    if tokenizer.eos_token_id is None:
        raise UsageError(f"language_model={name}: its tokenizer has no end mark (eos_token), so no report would end")
    words = model.get_input_embeddings().num_embeddings
    if max(tokenizer.get_vocab().values()) >= words:
        raise UsageError(f"language_model={name}: its tokenizer has {len(tokenizer)} tokens, the model {words}")
    model.generation_config = GenerationConfig()
    return model.to(getattr(torch, precision)), tokenizer


@contextmanager
def _local_folder(name: str) -> Iterator[Path]:
    if storage.is_remote(name):
        with storage.local_copy(name) as path:
            yield path
    elif Path(name).expanduser().is_dir():
        yield Path(name).expanduser()
    else:
        from huggingface_hub import snapshot_download

        try:
            folder = snapshot_download(name, allow_patterns=list(_FILES))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"language_model={name}: no folder, and not to be had from the hub ({type(error).__name__}); give the "
                "path or URI of a folder with config.json, a tokenizer and *.safetensors"
            ) from error
        yield Path(folder)


def _with_tuning(language_model: Any, config: ReportConfig) -> Any:
    """The language model with what `config.tune` says to train, and no more, requiring gradients."""
    language_model.requires_grad_(config.tune == "full")
    if config.tune == "full" and config.precision != "float32":
        raise UsageError(
            f"precision={config.precision}: with tune=full the steps would be lost in rounding; use float32"
        )
    if config.tune != "lora":
        return language_model
    try:
        import peft
    except ImportError as error:
        raise UsageError("tune=lora needs the package peft: install chexray[lora], or set tune to projector") from error
    chosen: Any = list(config.lora.targets) or "all-linear"
    lora = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=chosen,
    )
    try:
        return peft.get_peft_model(language_model, lora)
    except ValueError as error:
        raise UsageError(f"lora.targets={chosen}: {str(error).splitlines()[0]}") from error


def _as_map(feature: torch.Tensor, grid: int) -> torch.Tensor:
    """[B, C, H, W] of a map, or of the patch tokens of a square image."""
    if feature.ndim == 4:
        return feature
    side = math.isqrt(feature.shape[1])
    if side * side != feature.shape[1]:
        raise ValueError(f"image_grid={grid} needs the patch tokens of a square image; these are {feature.shape[1]}")
    batch, _, width = feature.shape
    return feature.transpose(1, 2).reshape(batch, width, side, side)
