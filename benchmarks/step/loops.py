"""The two loops that train_step.py measures: ours, from the trainer's own pieces, and a plain one.

Nothing here needs more than torch, timm, transformers, torchvision and Pillow.
B, b: pairs (of the batch, of this worker: here the same); S: image size in pixels; L: tokens; W, D: the text tower's
and the embedding's width.
"""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from step.towers import PAD, DualTowers, Pairs, draw_pairs
from torch.utils.data import DataLoader, Dataset

if "chexray" not in sys.modules:  # from a clone, where the package is not installed
    sys.modules["chexray"] = types.ModuleType("chexray")
    sys.modules["chexray"].__path__ = [str(Path(__file__).resolve().parents[2])]

from chexray.platform.model.contrastive import info_nce
from chexray.platform.model.preprocess import CLIP_MEAN, CLIP_STD, model_pixels, normalise
from chexray.platform.training.batch import Batch
from chexray.platform.training.chunks import embed_in_chunks, parts_of
from chexray.platform.training.optimizer import GuardedAdamW, parameter_groups
from chexray.platform.training.prefetch import prefetched

LEARNING_RATE, WEIGHT_DECAY = 5e-5, 1e-4
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Settings:
    """What both loops are told. `dtype`: of autocast, None for float32."""

    image_size: int
    tokens: int
    micro_batch: int
    workers: int
    device: torch.device
    dtype: torch.dtype | None

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)


class Clock:
    """Moments in a stream of steps: events on a GPU, for which no step waits, elsewhere the host's clock."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.moments: list[Any] = []

    def mark(self) -> None:
        if not self.on_gpu:
            self.moments.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        self.moments.append(event)

    def seconds(self) -> list[float]:
        """Between each moment and the next. The device must have passed them all."""
        pairs = zip(self.moments, self.moments[1:], strict=False)
        return [a.elapsed_time(b) / 1000 if self.on_gpu else b - a for a, b in pairs]


class Ours:
    """The trainer's own pieces. Nothing in a step waits for the device."""

    def __init__(self, model: DualTowers, pairs: Pairs, settings: Settings, embed: Callable[..., Any]) -> None:
        self.model, self.pairs, self.settings, self.embed = model, pairs, settings, embed
        self.optimizer = GuardedAdamW(parameter_groups(model, WEIGHT_DECAY), lr=LEARNING_RATE)

    def batches(self, steps: int) -> Iterator[Any]:
        def tokenize(reports: Sequence[str]) -> torch.Tensor:
            return self.pairs.padded([int(row) for row in reports])

        return prefetched(self._decoded(steps), tokenize, self.settings.device, depth=2, patience=1800)

    def _decoded(self, steps: int) -> Iterator[Batch]:
        rows, size = range(len(self.pairs)), self.settings.image_size
        names = [str(row) for row in rows]  # a report stands there as its row: tokenizers' vocabularies are downloads
        with ThreadPoolExecutor(self.settings.workers) as threads:
            for step in range(steps):
                image = np.stack(list(threads.map(lambda row: model_pixels(self.pairs.jpeg[row], size), rows)))
                yield Batch(step, 0, image, names, names, (len(names),), False, float(step))

    def step(self, batch: Any, clock: Clock) -> torch.Tensor:
        device = self.settings.device
        length_b = (batch.token != PAD).sum(dim=1).tolist()  # before the tokens are on the device
        image = torch.from_numpy(batch.image).to(device, non_blocking=True)
        token = batch.token.to(device, non_blocking=True)
        clock.mark()
        with self.settings.autocast():
            parts = parts_of(batch.share_sizes, self.settings.micro_batch)
            image_bD, text_bD, scale = embed_in_chunks(self._towers, image, token, length_b, parts)
        loss = info_nce(image_bD.float(), text_bD.float(), scale)
        clock.mark()
        loss.backward()  # type: ignore[no-untyped-call]
        clock.mark()
        self.optimizer.step()
        self.optimizer.zero_grad()
        clock.mark()
        return loss.detach()

    def _towers(self, image_bSS: torch.Tensor, token_bL: torch.Tensor) -> Any:
        return *self.embed(normalise(image_bSS), token_bL), self.model.log_scale.exp()


def model_embeddings(model: DualTowers, wrap: Callable[..., Any] = lambda tower: tower) -> Callable[..., Any]:
    """From pixels and tokens to both embeddings. `wrap`: torch.compile, or nothing."""
    image, text = wrap(model.embed_image), wrap(model.embed_text)
    return lambda pixels_B3SS, token_BL: (image(pixels_B3SS), text(token_BL))


class PlainPairs(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """As many training scripts have them. Rows come again in every step."""

    def __init__(self, pairs: Pairs, settings: Settings, steps: int) -> None:
        self.pairs, self.size, self.tokens, self.steps = pairs, settings.image_size, settings.tokens, steps

    def __len__(self) -> int:
        return len(self.pairs) * self.steps

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        row = index % len(self.pairs)
        picture = Image.open(BytesIO(self.pairs.jpeg[row])).convert("RGB")
        picture = picture.resize((self.size, self.size), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
        mean, deviation = torch.tensor(CLIP_MEAN).view(3, 1, 1), torch.tensor(CLIP_STD).view(3, 1, 1)
        return (pixels - mean) / deviation, self.pairs.padded([row], self.tokens)[0]


class Plain:
    """Forward, backward, step: what mixed precision's documentation shows."""

    def __init__(self, model: DualTowers, pairs: Pairs, settings: Settings) -> None:
        self.model, self.pairs, self.settings = model, pairs, settings
        self.optimizer = torch.optim.AdamW(parameter_groups(model, WEIGHT_DECAY), lr=LEARNING_RATE)
        self.scaler = torch.amp.GradScaler(settings.device.type, enabled=settings.dtype == torch.float16)

    def batches(self, steps: int) -> Iterator[Any]:
        data = PlainPairs(self.pairs, self.settings, steps)
        pinned = self.settings.device.type == "cuda"
        return iter(DataLoader(data, len(self.pairs), num_workers=self.settings.workers, pin_memory=pinned))

    def step(self, batch: Any, clock: Clock) -> float:
        device = self.settings.device
        pixels, token = (part.to(device) for part in batch)
        clock.mark()
        with self.settings.autocast():
            image_BD = self.model.embed_image(pixels)
            seen_BL = token != PAD
            hidden_BLW = self.model.text(input_ids=token, attention_mask=seen_BL.long()).last_hidden_state
            text_BD = self.model.head_of_last(hidden_BLW, seen_BL)
            logits_BB = self.model.log_scale.exp() * image_BD @ text_BD.T
            target_B = torch.arange(len(token), device=device)
            loss = (F.cross_entropy(logits_BB, target_B) + F.cross_entropy(logits_BB.T, target_B)) / 2
        clock.mark()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        clock.mark()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        clock.mark()
        return loss.item()


def check_agreement(model: DualTowers, image_size: int, tokens: int, device: torch.device) -> dict[str, Any]:
    """Losses of two steps of both loops, in float32 and without dropout, from the same weights on the same few pairs.

    Images are stored at the towers' size, as Pillow and torchvision do not resize alike. The second loss holds the
    gradients and the optimizer to account. Ends the program where the loops differ.
    """
    pairs = draw_pairs([tokens, max(3, tokens // 8), max(3, tokens // 3)], image_size, 1)
    settings = Settings(image_size, tokens, micro_batch=2, workers=1, device=device, dtype=None)
    torch.backends.cudnn.allow_tf32 = False  # torch's default, for convolutions
    losses = {}
    for name in ("ours", "plain"):
        copied = deepcopy(model).eval()
        loop = (
            Ours(copied, pairs, settings, model_embeddings(copied))
            if name == "ours"
            else Plain(copied, pairs, settings)
        )
        losses[name] = [float(loop.step(batch, Clock(device))) for batch in loop.batches(2)]
    torch.backends.cudnn.allow_tf32 = True
    worst = max(abs(a - b) for a, b in zip(losses["ours"], losses["plain"], strict=True))
    moved = abs(losses["ours"][1] - losses["ours"][0])
    found = {**losses, "worst": worst, "tolerance": TOLERANCE}
    if not worst <= TOLERANCE:
        sys.exit(f"the loops do not take the same step, so nothing is measured: {found}")
    if not moved > 10 * TOLERANCE:
        sys.exit(f"a step moved the loss by {moved:.2g} only, which shows nothing about gradients: {found}")
    return found
