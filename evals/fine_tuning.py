"""Fine-tuning: an encoder and a linear head trained on a share of the labels, the epoch chosen on the validation split.

b: images of a batch; n: images of a split; S: image size in pixels; E: feature width; F: findings; G: learned findings.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from chexray.evals.disease_prediction import Predicted, one_class_reasons
from chexray.evals.label_draws import check_targets
from chexray.evals.linear_probe import require_validation
from chexray.evals.statistics import FloatArray, defined_findings
from chexray.evals.zero_shot import auroc_per_finding, mean_over_findings
from chexray.platform.evaluate_config import FineTuningConfig
from chexray.platform.training.optimizer import parameter_groups

IntArray = npt.NDArray[np.int64]


class Pixels(Protocol):
    """Images by row: an array, a memory map, or what reads and decodes the rows that it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, row_b: IntArray, /) -> npt.NDArray[np.uint8]:
        """uint8 [b, S, S]"""
        ...


@dataclass(frozen=True)
class LabelledImages:
    """A split's images and their targets, target_nF: 1, 0 or NaN (unknown)."""

    pixels: Pixels
    target_nF: FloatArray


@dataclass(frozen=True)
class Epoch:
    """What an epoch (from 1) came to: mean losses of train and validation labels, and the mean validation AUROC.

    The mean is over the learned findings that have both classes in the validation split; NaN where none has.
    """

    number: int
    train_loss: float
    validation_loss: float
    validation_auroc: float

    @property
    def rank(self) -> tuple[float, float]:
        """Higher is better: by AUROC, and by loss where that is equal or no finding has one."""
        return (-1.0 if math.isnan(self.validation_auroc) else self.validation_auroc, -self.validation_loss)


@dataclass(frozen=True)
class TunedPrediction(Predicted):
    """`chosen` is the epoch whose weights predicted, `because` says why, `epochs` are all that were trained.

    None where no finding could be learned.
    """

    chosen: Epoch | None
    because: str
    epochs: tuple[Epoch, ...]


def fine_tune(
    encoder: nn.Module,
    train: LabelledImages,
    validation: LabelledImages,
    test: Pixels,
    feature: str,
    seed: int,
    protocol: FineTuningConfig | None = None,
    device: str = "cpu",
    report: Callable[[Epoch], None] | None = None,
) -> TunedPrediction:
    """Probabilities of the test images by a copy of `encoder` (uint8 [b, S, S] -> [b, E]) and a linear head.

    The loss is binary cross entropy over the known labels; a finding with one class in train is not learned (NaN, with
    the reason), and images of which nothing is known are not trained on. The epoch with the best validation AUROC
    predicts. `feature` names the feature for the results' variant; `report` is told of each epoch as it ends.

    On a GPU the towers run in bfloat16 (autocast). On a CPU the same seed gives the same bits, with the same number of
    threads. Raises `UsageError` where the validation split has no known label of what can be learned, ValueError on
    targets that are not allowed and where the loss is not finite.
    """
    protocol = protocol or FineTuningConfig()
    for split in (train, validation):
        if len(split.pixels) != len(split.target_nF):
            raise ValueError(f"{len(split.pixels)} images have {len(split.target_nF)} rows of targets; allowed: equal")
        check_targets(split.target_nF)
    reasons = one_class_reasons(train.target_nF)
    learned_F = np.array([reason is None for reason in reasons])
    probability_nF = np.full((len(test), len(reasons)), np.nan)
    name = f"feature={feature}; {protocol.name}"
    if not learned_F.any():
        return TunedPrediction(probability_nF, reasons, name, None, "no finding could be learned", ())
    require_validation(validation.target_nF[:, learned_F], "the epoch")
    cuda = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        classifier = _Classifier(encoder, train.pixels, train.target_nF[:, learned_F], device)
        run = _Run(classifier, protocol, device, seed)
        epochs = run.train(train, validation, learned_F, report)
        probability_nF[:, learned_F] = run.predict(test)
    chosen = max(epochs, key=lambda epoch: epoch.rank)  # the first of equals
    because = _because(chosen, epochs, int(defined_findings(validation.target_nF[:, learned_F]).sum()))
    return TunedPrediction(probability_nF, reasons, name, chosen, because, epochs)


def masked_bce(logit_bG: torch.Tensor, target_bG: torch.Tensor) -> torch.Tensor:
    """Scalar: binary cross entropy, the mean over known targets (1 or 0; NaN is unknown); 0 where none is known."""
    known_bG = ~target_bG.isnan()
    loss_bG = F.binary_cross_entropy_with_logits(logit_bG.float(), target_bG.nan_to_num(), reduction="none")
    return (loss_bG * known_bG).sum() / known_bG.sum().clamp(min=1)


def rate_factor(step: int, total: int, warmup: float) -> float:
    """What the learning rates are multiplied by at a step: up to 1 over the warm-up, then a cosine to 0 at the end."""
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / (rising + 1)
    return (1 + math.cos(math.pi * (step - rising) / max(1, total - rising))) / 2


class _Classifier(nn.Module):
    """A copy of the encoder with a linear head of small weights, whose biases start at the findings' log odds."""

    def __init__(self, encoder: nn.Module, pixels: Pixels, target_nG: FloatArray, device: str) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).to(device).requires_grad_(True)
        with torch.no_grad():
            width = self.encoder.eval()(_images(pixels, np.arange(1), device)).shape[-1]
        odds_G = (target_nG == 1).sum(axis=0) / (target_nG == 0).sum(axis=0)
        self.head = nn.Linear(width, target_nG.shape[1])
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        self.head.bias.data = torch.from_numpy(np.log(odds_G)).float()
        self.to(device)

    def forward(self, image_bSS: torch.Tensor) -> torch.Tensor:
        logit_bG: torch.Tensor = self.head(self.encoder(image_bSS))
        return logit_bG


class _Run:
    """One training run of a classifier. After `train` it holds the best epoch's weights."""

    def __init__(self, classifier: _Classifier, protocol: FineTuningConfig, device: str, seed: int) -> None:
        self.classifier, self.protocol, self.device = classifier, protocol, device
        self.generator = np.random.default_rng(seed)
        rates = ((classifier.encoder, protocol.encoder_lr), (classifier.head, protocol.head_lr))
        groups = [{**g, "lr": lr} for part, lr in rates for g in parameter_groups(part, protocol.decay)]
        self.optimizer = torch.optim.AdamW(groups)

    def train(
        self,
        train: LabelledImages,
        validation: LabelledImages,
        learned_F: npt.NDArray[np.bool_],
        report: Callable[[Epoch], None] | None,
    ) -> tuple[Epoch, ...]:
        """The epochs trained, until the last one or until `patience` were no better than the best before them."""
        target_nG, validation_nG = train.target_nF[:, learned_F], validation.target_nF[:, learned_F]
        row_n = np.flatnonzero(~np.isnan(target_nG).all(axis=1))
        steps = math.ceil(len(row_n) / self.protocol.batch)
        total = steps * self.protocol.epochs
        schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: rate_factor(step, total, self.protocol.warmup)
        )
        epochs: list[Epoch] = []
        best, best_state = 0, copy.deepcopy(self.classifier.state_dict())
        while len(epochs) < self.protocol.epochs and len(epochs) - best < self.protocol.patience:
            batches = np.array_split(self.generator.permutation(row_n), steps)
            losses = [self._step(train.pixels, row_b, target_nG[row_b], schedule) for row_b in batches]
            logit_nG = self._logits(validation.pixels)
            loss = float(masked_bce(torch.from_numpy(logit_nG), torch.from_numpy(validation_nG)))
            auroc = mean_over_findings(auroc_per_finding(logit_nG, validation_nG))
            epochs.append(Epoch(len(epochs) + 1, float(np.mean(losses)), loss, auroc))
            if max(epochs, key=lambda epoch: epoch.rank) is epochs[-1]:
                best, best_state = len(epochs), copy.deepcopy(self.classifier.state_dict())
            if report is not None:
                report(epochs[-1])
        self.classifier.load_state_dict(best_state)
        return tuple(epochs)

    def predict(self, pixels: Pixels) -> FloatArray:
        """probability_nG, float64."""
        return torch.sigmoid(torch.from_numpy(self._logits(pixels))).numpy()

    def _step(
        self, pixels: Pixels, row_b: IntArray, target_bG: FloatArray, schedule: torch.optim.lr_scheduler.LambdaLR
    ) -> float:
        self.classifier.train()
        target = torch.from_numpy(target_bG).float().to(self.device)
        with self._precision():
            loss = masked_bce(self.classifier(_images(pixels, row_b, self.device)), target)
        if not torch.isfinite(loss):
            raise ValueError(
                f"the loss of fine-tuning is {loss.item()} at encoder_lr {self.protocol.encoder_lr:g}, head_lr "
                f"{self.protocol.head_lr:g}; allowed: finite; lower them"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.classifier.parameters(), self.protocol.clip_norm)
        self.optimizer.step()
        schedule.step()
        return loss.item()

    @torch.no_grad()
    def _logits(self, pixels: Pixels) -> FloatArray:
        """logit_nG, float64."""
        self.classifier.eval()
        with self._precision():
            parts = [self.classifier(_images(pixels, row_b, self.device)).cpu() for row_b in self._rows(pixels)]
        logit_nG: FloatArray = torch.cat(parts).double().numpy()
        return logit_nG

    def _rows(self, pixels: Pixels) -> Iterator[IntArray]:
        for first in range(0, len(pixels), self.protocol.batch):
            yield np.arange(first, min(first + self.protocol.batch, len(pixels)))

    def _precision(self) -> torch.autocast:
        kind = torch.device(self.device).type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda")


def _images(pixels: Pixels, row_b: IntArray, device: str) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels[row_b])).to(device)


def _because(chosen: Epoch, epochs: tuple[Epoch, ...], findings: int) -> str:
    trained = f"of {len(epochs)} epochs trained"
    if findings == 0:
        return f"lowest validation loss {chosen.validation_loss:.4f} {trained}: no finding has both classes there"
    return f"highest validation AUROC {chosen.validation_auroc:.4f}, the mean of {findings} findings, {trained}"
