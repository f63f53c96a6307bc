"""Semantic segmentation: a decoder on five maps of the encoder, which is frozen or fine-tuned, and how well it does.

Trained on one split, the epoch chosen on a second, measured on a third. Predictions are made in the tower's square and
taken back to each image's own, stored size, where they are compared with the mask as it is stored: so results at
different tower sizes are of the same thing. Classes may overlap: each has its own sigmoid.

b: images of a batch; C: classes; S: the tower's size in pixels; H, W: an image's stored size.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from chexray.evals.decoders import build_decoder, map_statistics
from chexray.evals.masked_images import MaskedImages, Recall, stored_size
from chexray.evals.overlap import EMPTY_VARIANT, overlap
from chexray.platform.errors import ChexrayError
from chexray.platform.evaluate_config import SegmentationConfig
from chexray.platform.model.preprocess import model_pixels, unfit_square
from chexray.platform.training.optimizer import parameter_groups

Mask = npt.NDArray[np.bool_]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

STATISTICS_IMAGES = 512
"""Training images, drawn, by whose maps channels are standardised."""


class Maps(Protocol):
    """Images [b, S, S] uint8 to five maps: `chexray.platform.model.layers.ImageLayers`, or any function like it.

    `variant` says which maps they are. To be fine-tuned it must be a torch module.
    """

    variant: str

    def __call__(self, image_bSS: torch.Tensor) -> tuple[torch.Tensor, ...]: ...


@dataclass(frozen=True)
class Segmenter:
    """A trained decoder with the maps it reads. `validation_dice`: after each epoch; `epoch`: its own, from 0."""

    maps: Maps
    decoder: nn.Module
    size: int
    device: str
    variant: str
    epoch: int
    validation_dice: tuple[float, ...]

    @torch.no_grad()
    def predict(self, image: Sequence[bytes], batch: int = 8) -> Iterator[Mask]:
        """mask_CHW of each image (PNG or JPEG) at its own size: where the probability is above one half."""
        for rows in _batches(range(len(image)), batch):
            encoded = [image[row] for row in rows]
            image_bSS = torch.from_numpy(np.stack([model_pixels(data, self.size) for data in encoded]))
            logits_bCSS = self.decoder(self.maps(image_bSS.to(self.device)), self.size)
            for data, logits_CSS in zip(encoded, logits_bCSS, strict=True):
                yield mask_at(logits_CSS, stored_size(data))


def protocol_name(config: SegmentationConfig, maps: Maps) -> str:
    """The protocol in words, as results name it."""
    return (
        f"{config.decoder} decoder on {maps.variant}; encoder {'fine-tuned' if config.fine_tune else 'frozen'}; "
        f"per image at its stored size, then the mean; {EMPTY_VARIANT[config.empty]}"
    )


def train_segmenter(
    maps: Maps,
    train: MaskedImages,
    validation: MaskedImages,
    size: int,
    config: SegmentationConfig,
    device: str = "cpu",
) -> Segmenter:
    """Fit a decoder to `train`'s masks and keep the epoch with the best Dice on `validation`, the first of equals.

    `size`: of the tower, pixels; `maps` has its weights on `device`, and is left as it is: a copy is fine-tuned. The
    loss is soft Dice over a batch plus binary cross-entropy, at equal weight (Isensee et al. 2021, nnU-Net, with its
    batch Dice, which has a gradient on images without the class too). No augmentation. Dice is the mean over images
    and classes, by `config.empty`. The same seed gives the same bits on a CPU with the same number of threads; on a
    GPU, bilinear resizing does not.

    Raises ValueError where training or validation images are lacking, where no validation image has a Dice, and for
    `fine_tune` on a function; ChexrayError where the loss is not finite.
    """
    _check(maps, train, validation, config)
    encoder = _Encoder(copy.deepcopy(maps) if config.fine_tune else maps, size, device, config.fine_tune)
    reader, held_out = _readers(encoder, train, validation, config)
    generator, loss = torch.Generator().manual_seed(config.seed), segmentation_loss()
    decoder = _drawn_decoder(encoder, reader, len(train), len(train.mask[0]), config, generator)
    learned = nn.ModuleList([decoder])
    if config.fine_tune and isinstance(encoder.maps, nn.Module):
        learned.append(encoder.maps)
    optimizer, schedule = _optimizer(learned, len(train), config)
    dice: list[float] = []
    best: dict[str, torch.Tensor] = {}
    for epoch in range(config.epochs):
        for rows in _batches(torch.randperm(len(train), generator=generator).tolist(), config.batch):
            *kept, target_bCSS = reader(rows)
            value = loss(decoder(encoder.maps_of(kept), size), target_bCSS.to(device))
            _step(value, optimizer, epoch)
            schedule.step()
        dice.append(_validation_dice(encoder, decoder, held_out, validation, config))
        if dice[-1] > max(dice[:-1], default=-1.0):
            best = {name: value.detach().cpu().clone() for name, value in learned.state_dict().items()}
    learned.load_state_dict(best)
    learned.zero_grad()
    chosen = dice.index(max(dice))
    return Segmenter(encoder.maps, decoder, size, device, protocol_name(config, maps), chosen, tuple(dice))


def segmentation_loss() -> Loss:
    """Soft Dice plus binary cross-entropy of logits [b, C, S, S] and targets of 0 and 1, a sigmoid for each class.

    Of MONAI's parts and not its `DiceCELoss`, which takes a softmax's cross-entropy from two classes on: classes that
    overlap (a lung and what is in it) need a sigmoid each.
    """
    # MONAI takes seconds to import: all of it is loaded.
    from monai.losses import DiceLoss

    soft_dice = DiceLoss(sigmoid=True, batch=True)

    def loss(logits_bCSS: torch.Tensor, target_bCSS: torch.Tensor) -> torch.Tensor:
        target = target_bCSS.to(logits_bCSS.dtype)
        cross_entropy = nn.functional.binary_cross_entropy_with_logits(logits_bCSS, target)
        total: torch.Tensor = soft_dice(logits_bCSS, target) + cross_entropy
        return total

    return loss


def mask_at(logits_CSS: torch.Tensor, size: tuple[int, int]) -> Mask:
    """mask_CHW of the image whose stored height and width are `size`, from logits in the tower's square."""
    mask: Mask = (unfit_square(logits_CSS.float(), *size, mode="bilinear") > 0).cpu().numpy()
    return mask


@dataclass(frozen=True)
class _Encoder:
    """What is kept of an image: its maps, or its pixels where the encoder learns too, and last its target."""

    maps: Maps
    size: int
    device: str
    learns: bool

    def load(self, data: MaskedImages, rows: Sequence[int]) -> tuple[torch.Tensor, ...]:
        image_bSS = data.pixels(rows, self.size)
        target_bCSS = data.targets(rows, self.size)
        if self.learns:
            return image_bSS, target_bCSS
        with torch.no_grad():
            return (*self.maps(image_bSS.to(self.device)), target_bCSS)

    def maps_of(self, kept: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        moved = tuple(part.to(self.device) for part in kept)
        return self.maps(moved[0]) if self.learns else moved


def _readers(
    encoder: _Encoder, train: MaskedImages, validation: MaskedImages, config: SegmentationConfig
) -> tuple[Recall, Recall]:
    images = len(train) + len(validation)
    first, second = (
        Recall(partial(encoder.load, data), config.cache_bytes * len(data) // images) for data in (train, validation)
    )
    return first, second


def _drawn_decoder(
    encoder: _Encoder, reader: Recall, images: int, classes: int, config: SegmentationConfig, generator: torch.Generator
) -> nn.Module:
    """Of drawn weights, that standardises by the channels of some training images."""
    drawn = torch.randperm(images, generator=generator).tolist()[:STATISTICS_IMAGES]
    with torch.no_grad():
        statistics = map_statistics(encoder.maps_of(reader(rows)[:-1]) for rows in _batches(drawn, config.batch))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_decoder(config.decoder, statistics, classes).to(encoder.device)


def _step(loss: torch.Tensor, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    if not torch.isfinite(loss):
        raise ChexrayError(
            f"segmentation: the loss is {loss.item()} in epoch {epoch}; take a lower lr or tower_lr, or look for "
            "weights of the encoder that are not finite"
        )
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


@torch.no_grad()
def _validation_dice(
    encoder: _Encoder, decoder: nn.Module, reader: Recall, validation: MaskedImages, config: SegmentationConfig
) -> float:
    values: list[npt.NDArray[np.float64]] = []
    for rows in _batches(range(len(validation)), config.batch):
        logits_bCSS = decoder(encoder.maps_of(reader(rows)[:-1]), encoder.size)
        for row, logits_CSS in zip(rows, logits_bCSS, strict=True):
            truth = validation.truth(row).astype(bool)
            values.append(overlap(mask_at(logits_CSS, truth.shape[1:]), truth, config.empty)[0])
    return float(np.nanmean(np.stack(values)))


def _batches(rows: Sequence[int], batch: int) -> list[Sequence[int]]:
    return [rows[start : start + batch] for start in range(0, len(rows), batch)]


def _optimizer(
    learned: nn.ModuleList, images: int, config: SegmentationConfig
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    groups: list[dict[str, Any]] = []
    for module, lr in zip(learned, (config.lr, config.tower_lr), strict=False):
        groups += [group | {"lr": lr} for group in parameter_groups(module, config.weight_decay)]
    optimizer = torch.optim.AdamW(groups)
    steps = config.epochs * math.ceil(images / config.batch)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)


def _check(maps: Maps, train: MaskedImages, validation: MaskedImages, config: SegmentationConfig) -> None:
    if not len(train):
        raise ValueError("train has no images; needed: one or more with a mask for each class")
    if not len(validation):
        raise ValueError("validation has no images: the epoch is chosen on them, never on test images; give a split")
    if config.fine_tune and not isinstance(maps, nn.Module):
        raise ValueError(f"fine_tune is true and maps is a {type(maps).__name__}; allowed: a torch module")
    if config.empty == "left out" and not any(validation.truth(row).any() for row in range(len(validation))):
        raise ValueError("validation has no mask that is not empty, and empty='left out': no epoch can be chosen")
