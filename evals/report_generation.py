"""Report generation: train a projector and a language model on a checkpoint's image features, then write and score.

The protocol of the field (LLaVA-Rad; CheXficient's report generation): the image tower is frozen, and what is learned
on the train split is the projector and, by configuration, adapters in the language model or all of it. The epoch is the
one with the lowest loss on the validation split; the test split is seen once, after that.

Image features come from a function, so that no tower is imported here. The same seed gives the same model and the same
texts, on the CPU bit for bit.

B: reports of a batch; P: image tokens; C: width of the image features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from chexray.evals.report_metrics import evaluate_reports
from chexray.evals.report_model import LossSum, ReportModel, image_tokens, load_language_model
from chexray.evals.results import NotRun, Result
from chexray.evals.statistics import DRAWS
from chexray.platform.errors import UsageError
from chexray.platform.evaluate_config import ReportConfig

Features = Callable[[Sequence[int]], torch.Tensor]
"""Rows of a split -> image features [B, P, C] or [B, C, H, W], the same for the same row; on any device."""


@dataclass(frozen=True)
class ReportPairs:
    """The pairs of one split, row by row, and a function that gives the features of rows' images."""

    sample_id: Sequence[str]
    patient_id: Sequence[str]
    report: Sequence[str]
    features: Features

    def __len__(self) -> int:
        return len(self.report)


@dataclass(frozen=True)
class Epoch:
    """Mean losses a report token, in nats: while the epoch was trained, and of the validation split after it."""

    train_loss: float
    validation_loss: float


@dataclass(frozen=True)
class TrainedReporter:
    """A model with the weights of its best epoch (counted from 0), and how all epochs went."""

    model: ReportModel
    epochs: tuple[Epoch, ...]
    best_epoch: int


@dataclass(frozen=True)
class ReportEvaluation:
    """The scores of each decoding; `texts`: by the decoding's name, what was written and what each text scores."""

    results: list[Result]
    not_run: list[NotRun]
    texts: dict[str, pa.Table]
    reporter: TrainedReporter


def evaluate_report_generation(
    train: ReportPairs,
    validation: ReportPairs,
    test: ReportPairs,
    config: ReportConfig,
    draws: int = DRAWS,
    device: str = "cpu",
    on_epoch: Callable[[int, Epoch], None] | None = None,
) -> ReportEvaluation:
    """Train on `train`, choose the epoch on `validation`, write the reports of `test` and score them.

    Raises UsageError where splits share patients, a split is empty or a report to learn from is blank.
    """
    _check_patients(train, validation, test)
    if not any(report.strip() for report in test.report):
        raise UsageError(f"the test split has {len(test)} pairs, and none has a report to compare with")
    reporter = train_reporter(train, validation, config, device, on_epoch)
    evaluation = ReportEvaluation([], [], {}, reporter)
    for beams in config.beams:
        name = decoding_name(beams)
        generated = generate_reports(reporter.model, test, beams, device)
        scores = evaluate_reports(
            generated, test.report, test.sample_id, test.patient_id, draws, config.seed, device, decoding=name
        )
        evaluation.results.extend(scores.results)
        evaluation.not_run.extend(scores.not_run)
        evaluation.texts[name] = scores.per_report
    return evaluation


def train_reporter(
    train: ReportPairs,
    validation: ReportPairs,
    config: ReportConfig,
    device: str = "cpu",
    on_epoch: Callable[[int, Epoch], None] | None = None,
) -> TrainedReporter:
    """Fit the projector, and what else `config.tune` says, for `config.epochs`; keep the epoch best on validation.

    Raises UsageError without validation pairs: nothing may be chosen on the test split.
    """
    for name, pairs in (("train", train), ("validation", validation)):
        _check_reports(name, pairs)
    with torch.random.fork_rng(devices=[] if device == "cpu" else [device]):
        torch.manual_seed(config.seed)
        model = _build(train, config, device)
        groups = _parameter_groups(model, config)
        optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        schedule = _schedule(optimizer, config, math.ceil(len(train) / config.batch))
        order = np.random.default_rng(config.seed)
        epochs: list[Epoch] = []
        best: dict[str, torch.Tensor] = {}
        for number in range(config.epochs):
            train_loss = _train_epoch(
                model, train, order.permutation(len(train)).tolist(), optimizer, schedule, config, device
            )
            epochs.append(Epoch(train_loss, mean_loss(model, validation, device)))
            if on_epoch is not None:
                on_epoch(number, epochs[-1])
            if best_epoch(epochs) == number:
                best = {name: value.detach().clone() for name, value in model.trained().items()}
    model.load_state_dict(best, strict=False)
    return TrainedReporter(model.eval(), tuple(epochs), best_epoch(epochs))


def generate_reports(model: ReportModel, pairs: ReportPairs, beams: int, device: str = "cpu") -> list[str]:
    """A report for each pair's image, in the pairs' order; 1 beam is greedy."""
    model.eval()
    return [
        report
        for rows in _batches(range(len(pairs)), model.config.batch)
        for report in model.generate(_features(pairs, rows, device), beams)
    ]


@torch.inference_mode()
def mean_loss(model: ReportModel, pairs: ReportPairs, device: str = "cpu") -> float:
    """The model's mean loss a report token, in nats, over all pairs, without dropout."""
    model.eval()
    sums = [_loss(model, pairs, rows, device) for rows in _batches(range(len(pairs)), model.config.batch)]
    return sum(float(one.total) for one in sums) / sum(one.tokens for one in sums)


def best_epoch(epochs: Sequence[Epoch]) -> int:
    """The epoch with the lowest validation loss, the first of equals. UsageError where no loss is a number."""
    losses = [epoch.validation_loss for epoch in epochs]
    if all(math.isnan(loss) for loss in losses):
        raise UsageError("the validation loss is no number in any epoch; lower the learning rates")
    return int(np.nanargmin(losses))


def decoding_name(beams: int) -> str:
    return "greedy" if beams == 1 else f"beam search of {beams}"


def _build(train: ReportPairs, config: ReportConfig, device: str) -> ReportModel:
    if config.language_model is None:
        raise UsageError("report generation needs a language model: set language_model")
    language_model, tokenizer = load_language_model(config.language_model, config.precision)
    token_BPC = image_tokens(_features(train, [0], device), config.image_grid)
    model = ReportModel(language_model, tokenizer, token_BPC.shape[2], config)
    model.check_length(token_BPC.shape[1])
    return model.to(device)


def _parameter_groups(model: ReportModel, config: ReportConfig) -> list[dict[str, object]]:
    trained = model.trained()
    projector = [value for name, value in trained.items() if name.startswith("projector.")]
    language = [value for name, value in trained.items() if not name.startswith("projector.")]
    groups: list[dict[str, object]] = [{"params": projector, "lr": config.learning_rate}]
    return [*groups, {"params": language, "lr": config.language_learning_rate}] if language else groups


def _schedule(
    optimizer: torch.optim.Optimizer, config: ReportConfig, steps_an_epoch: int
) -> torch.optim.lr_scheduler.LRScheduler:
    from transformers import get_cosine_schedule_with_warmup

    steps = config.epochs * steps_an_epoch
    schedule: torch.optim.lr_scheduler.LRScheduler = get_cosine_schedule_with_warmup(
        optimizer, int(config.warmup * steps), steps
    )
    return schedule


def _train_epoch(
    model: ReportModel,
    train: ReportPairs,
    order: Sequence[int],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    config: ReportConfig,
    device: str,
) -> float:
    """One pass in this order; the mean loss a token on the way."""
    model.train()
    parameters = list(model.trained().values())
    total, tokens = 0.0, 0
    for rows in _batches(order, config.batch):
        loss = _loss(model, train, rows, device)
        optimizer.zero_grad()
        torch.autograd.backward(loss.total / loss.tokens)
        torch.nn.utils.clip_grad_norm_(parameters, config.clip)
        optimizer.step()
        schedule.step()
        total, tokens = total + float(loss.total.detach()), tokens + loss.tokens
    return total / tokens


def _loss(model: ReportModel, pairs: ReportPairs, rows: Sequence[int], device: str) -> LossSum:
    return model.loss(_features(pairs, rows, device), [pairs.report[row] for row in rows])


def _features(pairs: ReportPairs, rows: Sequence[int], device: str) -> torch.Tensor:
    """The images' features; nothing is learned through them."""
    with torch.no_grad():
        feature = pairs.features(rows)
    if len(feature) != len(rows):
        raise ValueError(f"features gave {len(feature)} rows for {len(rows)} images; allowed: one each")
    return feature.detach().to(device)


def _batches(rows: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(rows), size):
        yield [int(row) for row in rows[start : start + size]]


def _check_reports(name: str, pairs: ReportPairs) -> None:
    if not len(pairs):
        raise UsageError(f"the {name} split has no pairs; report generation learns on train and chooses on validation")
    blank = sum(not report.strip() for report in pairs.report)
    if blank:
        raise UsageError(f"the {name} split has {blank} pairs without report, of {len(pairs)}; leave them out")


def _check_patients(train: ReportPairs, validation: ReportPairs, test: ReportPairs) -> None:
    splits = {"train": train, "validation": validation, "test": test}
    patients = {name: set(pairs.patient_id) for name, pairs in splits.items()}
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        shared = len(patients[first] & patients[second])
        if shared:
            raise UsageError(f"{shared} patients are in the {first} split and in the {second} split; split by patient")
