"""The training steps of one worker. Knows the engine, the batches and the schedule; nothing of Ray.

b: this worker's pairs of a step; S: image size in pixels; L: tokens; D: embedding width.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist

from chexray.platform.config import RunConfig, TrainConfig
from chexray.platform.errors import ChexrayError
from chexray.platform.ledger import PairFlops
from chexray.platform.model.contrastive import global_info_nce
from chexray.platform.model.encoder import Tokenizer
from chexray.platform.model.preprocess import normalise
from chexray.platform.training.augment import augment
from chexray.platform.training.batch import Batch
from chexray.platform.training.chunks import embed_in_chunks, length_buckets, parts_of
from chexray.platform.training.monitor import watched
from chexray.platform.training.peak import peak_flops
from chexray.platform.training.prefetch import StalledError
from chexray.platform.training.schedule import learning_rate

_SETTLED = 5
"""Steps after which a step's parts take what they take."""


@dataclass(frozen=True)
class StepRecord:
    """What a step is known by: `loss` is the global batch's, the same on every worker.

    `digest`: of the global batch's sample ids (see `digest_ids`). `skipped`: the loss or a gradient was not finite, and
    nothing moved. `seconds` and `data_seconds`, of which it waited for pairs: this worker's, averaged over the steps
    that were read together. `flops`: the model's, of the global batch at the length of its reports; recomputation is
    not counted. `communication`: share of the first worker's time, of a step that was looked into.
    """

    step: int
    epoch: int
    loss: float
    lr: float
    logit_scale: float
    pairs: int
    digest: int
    seconds: float
    data_seconds: float
    skipped: bool
    flops: int
    communication: float | None


@dataclass(frozen=True)
class _Pending:
    """A step whose numbers are still on the device: [4] float32: loss, inverse temperature, 1 where skipped."""

    batch: Batch
    lr: float
    number_3: torch.Tensor
    tokens: int
    communication: float | None


class Trainer:
    """Takes a batch a step. Numbers stay on the device until they are asked for, so that no step waits for them."""

    def __init__(
        self,
        engine: Any,
        tokenize: Tokenizer,
        total_steps: int,
        config: TrainConfig,
        run: RunConfig,
        device: torch.device,
        flops: PairFlops | None = None,
    ) -> None:
        """`flops`: of a pair at the context length; without it steps count none."""
        self.engine, self.tokenize, self.total_steps = engine, tokenize, total_steps
        self.config, self.run, self.device = config, run, device
        self.flops = flops or PairFlops(0, 0, 0, 0)
        self.skipped = self._taken = self._tokens = 0
        self._pending: list[_Pending] = []
        self._clock = time.monotonic()
        engine.train()

    def step(self, batch: Batch) -> None:
        """One optimizer step on the global batch."""
        lr = learning_rate(batch.place, self.total_steps, self.config)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        # What dropout draws follows from the step, so it is the same after an interruption.
        rank = dist.get_rank() if dist.is_initialized() else 0
        torch.manual_seed(hash((self.config.seed, rank, batch.step)) % 2**32)
        communication = None
        try:
            if self._is_looked_into(rank, len(batch.share_sizes)):
                number_3, communication = watched(lambda: self._numbers(batch), self.device)
            else:
                number_3 = self._numbers(batch)
        except RuntimeError as error:
            # A GPU's has a class of its own; a CPU's has words only.
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise ChexrayError(_lower_what(self.run, len(batch.sample_id), error)) from error
            if "timed out" not in str(error).lower():
                raise
            raise StalledError(
                f"step {batch.step}: another worker did not answer for {self.run.stall_seconds:g} seconds "
                "(run.stall_seconds) while embeddings or gradients were exchanged"
            ) from error
        self._pending.append(_Pending(batch, lr, number_3, self._tokens, communication))
        self._taken += 1

    def restart_clock(self) -> None:
        """What has gone by since the last steps were read is no step's time."""
        self._clock = time.monotonic()

    def read(self, data_seconds: float = 0.0) -> list[StepRecord]:
        """The steps since the last time, of whose time workers waited so long for pairs. Waits for the device.

        Raises `ChexrayError` with the pairs of the step where `run.max_skipped` steps were skipped in all.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return []
        numbers = torch.stack([step.number_3 for step in pending]).tolist()
        sums = [(digest_ids(step.batch.sample_id), step.tokens) for step in pending]
        sum_S2 = torch.tensor(sums, device=self.device)
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(sum_S2)
        now = time.monotonic()
        each, waited = (now - self._clock) / len(pending), data_seconds / len(pending)
        self._clock = now
        records = []
        for step, (loss, scale, skipped), (digest, tokens) in zip(pending, numbers, sum_S2.tolist(), strict=True):
            batch, pairs = step.batch, sum(step.batch.share_sizes)
            times = (each, waited)
            flops = self.flops.train_image * pairs + self.flops.train_text * tokens // self.tokenize.context_length
            found = (loss, step.lr, scale, pairs, digest, *times, skipped > 0, flops, step.communication)
            record = StepRecord(batch.step, batch.epoch, *found)
            records.append(record)
            if record.skipped:
                self._count_skipped(batch, loss)
        return records

    def loss_of(self, batches: Iterable[Batch]) -> float:
        """The mean loss of these global batches, by pairs, without training on them. Every worker calls it."""
        self.engine.eval()
        total, pairs = 0.0, 0
        for batch in batches:
            image = torch.from_numpy(batch.image).to(self.device)
            with torch.no_grad():
                image_bD, text_bD, scale = self._embed(image, batch)
                part = global_info_nce(image_bD.float(), text_bD.float(), scale, batch.share_sizes)
            loss = part / len(batch.share_sizes)
            if len(batch.share_sizes) > 1:
                dist.all_reduce(loss)
            total += float(loss) * sum(batch.share_sizes)
            pairs += sum(batch.share_sizes)
        self.engine.train()
        return total / pairs

    def _count_skipped(self, batch: Batch, loss: float) -> None:
        self.skipped += 1
        if self.skipped < self.run.max_skipped:
            return
        ids: list[Any] = [list(batch.sample_id)]
        if dist.is_initialized() and dist.get_world_size() > 1:
            ids = [None] * dist.get_world_size()
            dist.all_gather_object(ids, list(batch.sample_id))
        what = f"the loss is {loss}" if not torch.isfinite(torch.tensor(loss)) else "a gradient is not finite"
        raise ChexrayError(
            f"step {batch.step}: {what}, and {self.skipped} steps were skipped for that (run.max_skipped="
            f"{self.run.max_skipped}); lower train.lr, or look at the step's pairs: {', '.join(chain(*ids))}"
        )

    def _numbers(self, batch: Batch) -> torch.Tensor:
        image = torch.from_numpy(batch.image).to(self.device, non_blocking=True)
        image = augment(image, batch.sample_id, self.config.augment, self.config.seed, batch.epoch)
        image_bD, text_bD, logit_scale = self._embed(image, batch)
        scale = logit_scale.detach().clone()  # the step moves it
        part = global_info_nce(image_bD.float(), text_bD.float(), logit_scale, batch.share_sizes)
        self.engine.backward(part)
        self.engine.step()
        world = len(batch.share_sizes)
        loss = part.detach() / world
        if world > 1:
            dist.all_reduce(loss)
        return torch.stack([loss.float(), scale.float().reshape(()), self._was_skipped().to(loss.device)])

    def _embed(self, image_bSS: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, Any]:
        token_bL = batch.token if batch.token is not None else self.tokenize(batch.report)
        length_b = self.tokenize.lengths(token_bL)
        parts = parts_of(batch.share_sizes, self.run.micro_batch)
        self._tokens = sum(len(rows) * most for rows, most in length_buckets(length_b, parts))
        token_bL = token_bL.to(self.device, non_blocking=True)
        with autocast_of(self.config, self.device):
            return embed_in_chunks(self._towers, image_bSS, token_bL, length_b, parts)

    def _is_looked_into(self, rank: int, world: int) -> bool:
        """The first worker's, soon after the start and every `run.profile_steps` steps."""
        every = self.run.profile_steps
        return rank == 0 and world > 1 and every is not None and self._taken % every == _SETTLED

    def _towers(self, image_bSS: torch.Tensor, token_bL: torch.Tensor) -> Any:
        return self.engine(normalise(image_bSS), token_bL)

    def _was_skipped(self) -> torch.Tensor:
        """ZeRO looks at the norm by itself and leaves the optimizer alone; else that has looked at the gradients."""
        if not self.engine.was_step_applied():
            return torch.ones(())
        base = getattr(self.engine.optimizer, "optimizer", self.engine.optimizer)
        found: torch.Tensor = base.found_inf
        return found.clone()


def digest_ids(sample_ids: Iterable[str]) -> int:
    """A number for a set of sample ids, whatever their order: the sum of their first 64 bits, as int64 wraps it."""
    total = sum(int(sample[:16], 16) for sample in sample_ids) % 2**64
    return total - 2**64 if total >= 2**63 else total


def autocast_of(config: TrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 autocast where the configuration, or the GPU under 'auto', asks for it. Weights stay float32."""
    dtype = _precision_of(config, device)
    return torch.autocast(device.type, dtype=dtype) if dtype == torch.bfloat16 else nullcontext()


def peak_of(trainer: Trainer) -> float | None:
    """What the trainer's device can do at most, in FLOP/s; None where that is not known."""
    if trainer.device.type != "cuda":
        return None
    return peak_flops(torch.cuda.get_device_name(trainer.device), _precision_of(trainer.config, trainer.device))


def _precision_of(config: TrainConfig, device: torch.device) -> torch.dtype:
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    wanted = config.precision == "bfloat16" or (config.precision == "auto" and has_bfloat16)
    return torch.bfloat16 if wanted else torch.float32


def _lower_what(run: RunConfig, pairs: int, error: BaseException) -> str:
    size = min(run.micro_batch or pairs, pairs)
    return (
        f"out of memory with {size} pairs in the towers at once: set run.micro_batch={max(1, size // 2)} (the same "
        f"steps in smaller parts), or run.recompute_activations=true ({str(error).splitlines()[0][:200]})"
    )
