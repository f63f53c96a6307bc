"""A step is the same however it is cut, and moves nothing where it is not finite."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks import MODEL, batch, run_ranks, trainer
from torch import nn

from chexray.platform.config import RunConfig, TrainConfig, load_recipe
from chexray.platform.errors import ChexrayError, UsageError
from chexray.platform.model.encoder import build_model, build_tokenizer
from chexray.platform.training.engine import start_engine
from chexray.platform.training.loop import Trainer, digest_ids

CONFIG = TrainConfig(lr=1e-3, warmup_share=0.0)
CUTS = {"whole": (1, None), "eight chunks": (1, 2), "two workers": (2, None), "two workers in chunks": (2, 3)}
PAIRS = 16


class PlainEngine(nn.Module):
    """Averages gradients over workers, as DeepSpeed does, and leaves them to be looked at."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.module = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        self.optimizer.found_inf = torch.zeros(())  # type: ignore[attr-defined]

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.module(*inputs)

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()
        for parameter in self.module.parameters():
            assert parameter.grad is not None
            if dist.get_world_size() > 1:
                dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()

    def step(self) -> None: ...

    def was_step_applied(self) -> bool:
        return True


def gradients(rank: int, world: int, micro_batch: int | None) -> tuple[float, dict[str, torch.Tensor]]:
    model = build_model(MODEL, 0)
    run = RunConfig(micro_batch=micro_batch)
    plain = Trainer(PlainEngine(model), build_tokenizer(MODEL), 100, CONFIG, run, torch.device("cpu"))
    plain.step(batch(0, rank, world, PAIRS))
    (record,) = plain.read()
    assert record.digest == digest_ids(batch(0, pairs=PAIRS).sample_id)
    return record.loss, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_step_in_chunks_and_on_two_workers_has_the_loss_and_gradients_of_the_whole(tmp_path: Path) -> None:
    found = {name: run_ranks(gradients, world, tmp_path / name, micro)[0] for name, (world, micro) in CUTS.items()}
    loss, expected = found.pop("whole")
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, (cut_loss, cut) in found.items():
        assert cut.keys() == expected.keys()
        worst = max(float((cut[key] - expected[key]).abs().max()) for key in expected)
        print(f"{name}: loss differs by {abs(cut_loss - loss):.1e}, a gradient by {worst:.1e} of {scale:.2f}")
        assert abs(cut_loss - loss) < 2e-6  # worst seen: see docs/results.md
        assert worst < 1e-5 * max(1.0, scale)


def losses(rank: int, world: int, stage: int, run: RunConfig) -> list[float]:
    made = trainer(CONFIG.model_copy(update={"zero_stage": stage}), world, run)
    for step in range(6):
        made.step(batch(step, rank, world, PAIRS))
    return [record.loss for record in made.read()]


@pytest.mark.parametrize(
    ("stage", "run"),
    [
        (1, RunConfig(micro_batch=3)),
        pytest.param(1, RunConfig(recompute_activations=True), marks=pytest.mark.slow),
        pytest.param(0, RunConfig(micro_batch=3), marks=pytest.mark.slow),
        pytest.param(3, RunConfig(micro_batch=3, recompute_activations=True), marks=pytest.mark.slow),
        pytest.param(1, RunConfig(compile=True), marks=pytest.mark.slow),
        pytest.param(1, RunConfig(compile=True, micro_batch=3), marks=pytest.mark.slow),
    ],
)
def test_deepspeed_trains_alike_whatever_saves_memory_or_time(tmp_path: Path, stage: int, run: RunConfig) -> None:
    if run.compile and shutil.which("g++") is None:
        pytest.skip("torch.compile needs g++")
    plain = run_ranks(losses, 2, tmp_path / "plain", stage, RunConfig())[0]
    other = run_ranks(losses, 2, tmp_path / "other", stage, run)[0]
    worst = max(abs(a - b) for a, b in zip(plain, other, strict=True))
    print(f"ZeRO-{stage}, {run.model_dump(exclude_defaults=True)}: worst difference over 6 steps {worst:.1e}")
    assert worst < 1e-5


def out_of_memory(rank: int, world: int, run: RunConfig) -> str:
    made = trainer(CONFIG, world, run)
    made.engine.module.visual.register_forward_hook(lambda *_: torch.empty(2**52))
    with pytest.raises(ChexrayError) as stopped:
        made.step(batch(0, rank, world, PAIRS))
    return str(stopped.value)


@pytest.mark.parametrize(
    ("run", "held", "lower"),
    [(RunConfig(), 16, 8), pytest.param(RunConfig(micro_batch=5), 5, 2, marks=pytest.mark.slow)],
)
def test_step_without_memory_says_which_setting_to_lower(tmp_path: Path, run: RunConfig, held: int, lower: int) -> None:
    (message,) = run_ranks(out_of_memory, 1, tmp_path, run)
    assert message.startswith(f"out of memory with {held} pairs in the towers at once: set run.micro_batch={lower} ")


def train_with_a_bad_step(rank: int, world: int, stage: int, bad: int | None, clip: float | None) -> list[Any]:
    """Losses of steps 0 to 5 where step 2 is `bad` on that rank, or left out; and which were skipped."""
    run = trainer(CONFIG.model_copy(update={"zero_stage": stage, "clip_norm": clip}), world)
    spoil = False

    def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output * float("nan") if spoil else output

    run.engine.module.visual.register_forward_hook(hook)
    for step in range(6):
        if step == 2 and bad is None:
            continue
        spoil = step == 2 and rank == bad
        run.step(batch(step, rank, world))
    return [(record.step, record.loss, record.skipped) for record in run.read()]


@pytest.mark.parametrize(
    ("stage", "clip"), [(1, 1.0), (0, None), *(pytest.param(stage, None, marks=pytest.mark.slow) for stage in (1, 3))]
)
def test_step_that_is_not_finite_on_one_worker_moves_nothing_on_any(
    tmp_path: Path, stage: int, clip: float | None
) -> None:
    spoilt = run_ranks(train_with_a_bad_step, 2, tmp_path / "bad", stage, 1, clip)
    without = run_ranks(train_with_a_bad_step, 2, tmp_path / "without", stage, None, clip)
    for rank in range(2):
        assert [step for step, _, skipped in spoilt[rank] if skipped] == [2]
        assert [line for line in spoilt[rank] if not line[2]] == without[rank]


def stop_at_two(rank: int, world: int) -> str:
    run = trainer(CONFIG, world, RunConfig(max_skipped=2))
    run.engine.module.visual.register_forward_hook(lambda _m, _i, output: output * float("inf"))
    for step in range(3):
        run.step(batch(step, rank, world))
    with pytest.raises(ChexrayError) as stopped:
        run.read()
    return str(stopped.value)


def test_run_stops_at_the_allowed_number_of_skipped_steps_and_names_all_pairs(tmp_path: Path) -> None:
    for message in run_ranks(stop_at_two, 2, tmp_path):
        assert message.startswith("step 1: ")
        assert "2 steps were skipped" in message
        assert all(sample in message for sample in batch(1).sample_id)


def test_towers_with_batch_normalisation_cannot_be_cut() -> None:
    model = build_model(load_recipe("tiny").model, 0)
    with pytest.raises(UsageError, match=r"run.micro_batch=4: .* normalises over the whole batch"):
        start_engine(model, CONFIG, RunConfig(micro_batch=4), 1, torch.device("cpu"))


def test_digest_of_ids_is_of_the_set_and_wraps() -> None:
    ids = ["f" * 32, "f" * 32, "0123456789abcdef" + "0" * 16]
    total = (2 * 0xFFFFFFFFFFFFFFFF + 0x0123456789ABCDEF) % 2**64
    assert digest_ids(ids) % 2**64 == total
    assert digest_ids(reversed(ids)) == digest_ids(ids)
    assert -(2**63) <= digest_ids(ids) < 2**63
