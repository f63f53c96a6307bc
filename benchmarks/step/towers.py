"""The paper's towers from timm and transformers alone, what a step of them costs in FLOPs, and pairs to train on.

B: pairs; S: image size in pixels; L: tokens; W: a tower's width; D: embedding width.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel

EMBED_DIM, VOCABULARY = 512, 28_996  # Bio_ClinicalBERT's
PAD, FIRST, LAST, FIRST_WORD = 0, 101, 102, 1000

# Open-I's 3,927 reports (findings and impression) in BERT's word pieces: 5, 50, 95 and 99 % of them are no longer than
# 28, 63, 132 and 179 tokens, the longest has 336. This log-normal gives 28, 63, 143 and 202.
MEDIAN_TOKENS, TOKENS_DEVIATION = 63.0, 0.5


class DualTowers(nn.Module):
    """A timm image tower and a BERT, each projected to 512, and the learned temperature (0.01 at first)."""

    def __init__(self, tower: str, image_size: int, text_layers: int, text_width: int, tokens: int) -> None:
        super().__init__()
        self.image = timm.create_model(tower, pretrained=False, num_classes=0)
        if hasattr(self.image, "set_input_size") and hasattr(self.image, "pos_embed"):
            self.image.set_input_size(img_size=(image_size, image_size))
        config = BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=text_width,
            num_hidden_layers=text_layers,
            num_attention_heads=max(1, text_width // 64),
            intermediate_size=4 * text_width,
            max_position_embeddings=max(512, tokens),
            attn_implementation="sdpa",
        )
        self.text = BertModel(config, add_pooling_layer=False)
        self.image_head = nn.Linear(int(self.image.num_features), EMBED_DIM, bias=False)
        self.text_head = nn.Linear(text_width, EMBED_DIM, bias=False)
        self.log_scale = nn.Parameter(torch.tensor([math.log(100.0)]))

    def embed_image(self, pixels_B3SS: torch.Tensor) -> torch.Tensor:
        """[B, D] unit rows, from the tower's own pooling (the class token of a DINOv2)."""
        return F.normalize(self.image_head(self.image(pixels_B3SS)), dim=-1)

    def embed_text(self, token_BL: torch.Tensor) -> torch.Tensor:
        """[B, D] unit rows, from the last token that is not padding.

        The layers are given their mask ready-made. BertModel's forward would first ask whether anything is masked at
        all, and the host would wait for the device's answer.
        """
        seen_BL = token_BL != PAD
        mask_B1LL = seen_BL[:, None, None, :].expand(-1, 1, token_BL.shape[1], -1)
        hidden_BLW = self.text.encoder(self.text.embeddings(input_ids=token_BL), attention_mask=mask_B1LL)[0]
        return self.head_of_last(hidden_BLW, seen_BL)

    def head_of_last(self, hidden_BLW: torch.Tensor, seen_BL: torch.Tensor) -> torch.Tensor:
        last_B = seen_BL.sum(dim=1) - 1
        return F.normalize(self.text_head(hidden_BLW[torch.arange(len(last_B), device=last_B.device), last_B]), dim=-1)


@dataclass(frozen=True)
class Pairs:
    """Images as JPEG files hold them, and the tokens of their reports, without padding."""

    jpeg: Sequence[bytes]
    token: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.jpeg)

    def first(self, count: int) -> Pairs:
        return Pairs(self.jpeg[:count], self.token[:count])

    def padded(self, rows: Sequence[int], length: int | None = None) -> torch.Tensor:
        """Tokens [rows, L] int64, padded to the longest of them, or to `length`."""
        length = length or max(len(self.token[row]) for row in rows)
        return torch.tensor([[*self.token[row], *[PAD] * (length - len(self.token[row]))] for row in rows])


def drawn_lengths(count: int, longest: int, seed: int) -> list[int]:
    """Tokens of `count` reports: log-normal, as Open-I's, from 3 to the `longest` that the tower takes."""
    draw = np.random.default_rng(seed).lognormal(math.log(MEDIAN_TOKENS), TOKENS_DEVIATION, count)
    return [int(length) for length in draw.round().clip(3, longest)]


def draw_pairs(lengths: Sequence[int], pixels: int, seed: int) -> Pairs:
    """Grey JPEGs of `pixels` x `pixels`, soft shapes under grain as in a radiograph, and words drawn at random."""
    draw = np.random.default_rng(seed)
    jpeg = [_drawn_jpeg(draw, pixels) for _ in range(min(len(lengths), 64))]
    words = [draw.integers(FIRST_WORD, VOCABULARY, max(1, length - 2)).tolist() for length in lengths]
    return Pairs([jpeg[row % len(jpeg)] for row in range(len(lengths))], [[FIRST, *report, LAST] for report in words])


def _drawn_jpeg(draw: np.random.Generator, pixels: int) -> bytes:
    coarse = Image.fromarray(draw.integers(0, 256, (12, 12), dtype=np.uint8))
    soft = np.asarray(coarse.resize((pixels, pixels), Image.Resampling.BICUBIC), dtype=np.float32)
    grain = draw.normal(0, 4, (pixels, pixels)).astype(np.float32)
    buffer = BytesIO()
    Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def pair_flops(model: DualTowers, image_size: int, lengths: Sequence[int]) -> list[int]:
    """Model FLOPs of pairs with reports of these lengths: forward and backward, each once.

    Neither recomputation nor padding counts. Counted by torch on the modules themselves, by shapes alone (on the meta
    device), with attention as the products that it is: a fused kernel's own formula has it compute its scores twice.
    Of torch's formula for a convolution's backward, which is wrong for grouped ones, only the weight's gradient of a
    plain one is used here. A report's products are quadratic in its length, so three lengths tell all others.
    """
    shapes = deepcopy(model).to("meta")
    image = _tower_flops(shapes.embed_image, torch.zeros(1, 3, image_size, image_size, device="meta"))
    first, second, third = (
        _tower_flops(shapes.embed_text, torch.ones(1, length, dtype=torch.int64, device="meta"))
        for length in (16, 32, 48)
    )
    grows, faster = second - first, third - 2 * second + first
    place = [(length - 16) / 16 for length in lengths]
    return [image + round(first + at * grows + at * (at - 1) / 2 * faster) for at in place]


def _tower_flops(embed: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        embed(batch).sum().backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())


class AttentionKernels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Which of torch's fused attention kernels ran meanwhile, and how often."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name.startswith("_scaled_dot_product") and "backward" not in name:
            self.calls[name.removeprefix("_scaled_dot_product_")] += 1
        return func(*args, **(kwargs or {}))
