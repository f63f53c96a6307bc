"""DeepSpeed's state saved by some workers and loaded by another number of them: the next losses are the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from ranks import batch, run_ranks, trainer

from chexray.platform.config import TrainConfig
from chexray.platform.training.state import convert_state, damage, is_cut_for, load_state, save_state

BEFORE, AFTER = 3, 20


def settings(stage: int) -> TrainConfig:
    return TrainConfig(zero_stage=stage, lr=1e-3, warmup_share=0.0, augment=0.1)


def train(
    rank: int, world: int, stage: int, first: int, steps: int, source: str | None, out: str | None
) -> list[float]:
    """Losses of `steps` steps from `first` on, from the state in `source` if there is one; leaves its own in `out`."""
    run = trainer(settings(stage), world)
    if source:
        assert load_state(run.engine, Path(source))["next_step"] == first
    for step in range(first, first + steps):
        run.step(batch(step, rank, world))
    losses = [record.loss for record in run.read()]
    if out:
        folder = Path(out) / f"rank-{rank}"
        folder.mkdir(parents=True)
        save_state(run.engine, folder, {"next_step": first + steps}, rank, world)
    return losses


def joined(out: Path, world: int) -> Path:
    """The parts of all workers in one folder, as Ray Train puts them together."""
    folder = out / "joined"
    for rank in range(world):
        shutil.copytree(out / f"rank-{rank}", folder, dirs_exist_ok=True)
    return folder


def ready_for(folder: Path, world: int) -> str:
    """The checkpoint, or its universal form where that is needed."""
    if is_cut_for(folder, world):
        return str(folder)
    out = folder.with_name(f"{folder.name}-universal")
    if not out.exists():
        out.mkdir()
        convert_state(folder, out)
    assert damage(out) is None
    assert is_cut_for(out, world)
    return str(out)


@pytest.mark.parametrize(
    ("stage", "worlds"), [(1, [3]), *(pytest.param(stage, [1, 3], marks=pytest.mark.slow) for stage in range(4))]
)
def test_state_of_two_workers_loads_with_others_and_back_and_goes_on_as_with_two(
    tmp_path: Path, stage: int, worlds: list[int]
) -> None:
    run_ranks(train, 2, tmp_path / "save", stage, 0, BEFORE, None, str(tmp_path / "two"))
    saved = joined(tmp_path / "two", 2)
    assert damage(saved) is None
    (expected, _) = run_ranks(train, 2, tmp_path / "go", stage, BEFORE, AFTER, str(saved), None)
    worst = 0.0
    for world in worlds:
        source = ready_for(saved, world)
        back = tmp_path / f"back-{world}"
        found = run_ranks(train, world, tmp_path / f"go-{world}", stage, BEFORE, 10, source, str(back))
        again = ready_for(joined(back, world), 2)
        rest = run_ranks(train, 2, tmp_path / f"rest-{world}", stage, BEFORE + 10, AFTER - 10, again, None)
        losses = found[0] + rest[0]
        worst = max(worst, *(abs(a - b) for a, b in zip(losses, expected, strict=True)))
    print(f"ZeRO-{stage}: worst difference of the loss over {AFTER} steps at 2 and {worlds} workers: {worst:.1e}")
    assert worst < 1e-5


def test_damage_is_found_in_every_file(tmp_path: Path) -> None:
    run_ranks(train, 2, tmp_path / "save", 1, 0, 1, None, str(tmp_path / "two"))
    saved = joined(tmp_path / "two", 2)
    assert damage(saved) is None
    files = [path for path in saved.rglob("*") if path.is_file() and not path.name.startswith("checksums")]
    assert len(files) >= 4
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert damage(saved), path
        path.unlink()
        assert damage(saved), path
        path.write_bytes(whole)
    assert damage(saved) is None
    (saved / "checksums-1.json").unlink()
    assert "checksums-1" in (damage(saved) or "")
    assert json.loads((saved / "run.json").read_text()) == {"world": 2, "zero_stage": 1, "next_step": 1}
