"""DeepSpeed's resumable state in a folder: written by every worker, checked before it is used, cut anew for others.

FOLDER/run.json               number of workers (null: any), ZeRO stage, the step to go on with
FOLDER/state/                 DeepSpeed's files, a part from each worker
FOLDER/state_universal/       instead of them, where a state was converted for any number of workers
FOLDER/*/                     what else was saved with it
FOLDER/checksums-R.json       SHA-256 of the files that worker R wrote
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_TAG = "state"
_UNIVERSAL = f"{_TAG}_universal"
_RUN_FILE = "run.json"


def save_state(engine: Any, folder: Path, client_state: dict[str, Any], rank: int, world: int) -> None:
    """Every worker calls it, with a folder of its own; put together they are the checkpoint."""
    engine.save_checkpoint(str(folder), tag=_TAG, client_state=client_state)
    if rank == 0:
        run = {"world": world, "zero_stage": engine.zero_optimization_stage(), "next_step": client_state["next_step"]}
        (folder / _RUN_FILE).write_text(json.dumps(run))
    write_checksums(folder, rank)


def write_checksums(folder: Path, rank: int) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = {path.relative_to(folder).as_posix(): _sha256(path) for path in files}
    (folder / f"checksums-{rank}.json").write_text(json.dumps(sums))


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None where every file of every worker is as it was written."""
    try:
        world = json.loads((folder / _RUN_FILE).read_text())["world"]
        sums = {
            name: digest
            for rank in range(world or 1)
            for name, digest in json.loads((folder / f"checksums-{rank}.json").read_text()).items()
        }
    except (OSError, ValueError, KeyError) as error:
        return f"incomplete ({type(error).__name__}: {error})"
    for name, digest in sums.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if _sha256(folder / name) != digest:
            return f"{name} is not what was written"
    return None


def is_cut_for(folder: Path, world: int) -> bool:
    """Whether DeepSpeed loads this state with so many workers as it is. Without ZeRO everyone has everything."""
    run = json.loads((folder / _RUN_FILE).read_text())
    return bool(run["world"] in (world, None) or run["zero_stage"] == 0)


def convert_state(folder: Path, out: Path) -> None:
    """Write the checkpoint's universal form, for any number of workers, into the empty folder `out`.

    It reads pickles: only what a run of ours has written.
    """
    from deepspeed.checkpoint import ds_to_universal

    settings = {
        "input_folder": str(folder / _TAG),
        "output_folder": str(out / _UNIVERSAL),
        "num_extract_workers": 1,
        "num_merge_workers": 1,
        "keep_temp_folder": False,
        "strict": True,
        "inject_missing_state": True,
    }
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ds_to_universal.main(SimpleNamespace(**settings))
    for more in folder.iterdir():
        if more.is_dir() and more.name != _TAG:
            shutil.copytree(more, out / more.name)
    run = json.loads((folder / _RUN_FILE).read_text())
    (out / _RUN_FILE).write_text(json.dumps({**run, "world": None}))
    write_checksums(out, 0)


def load_state(engine: Any, folder: Path) -> dict[str, Any]:
    """Load the checkpoint, in its universal form where it has been converted. Returns the client state."""
    universal = (folder / _UNIVERSAL).is_dir()
    # Only while loading: an engine that stays in this mode saves no weights under ZeRO-3 (DeepSpeed issue 7546).
    engine._config.load_universal_checkpoint = universal
    settings = _group_settings(engine)
    try:
        _, client_state = engine.load_checkpoint(str(folder), tag=_UNIVERSAL if universal else _TAG)
    finally:
        engine._config.load_universal_checkpoint = False
    if universal:
        _mend_optimizer(engine, settings)
    return dict(client_state)


def _group_settings(engine: Any) -> list[dict[str, Any]]:
    return [{name: value for name, value in g.items() if name != "params"} for g in engine.optimizer.param_groups]


def _mend_optimizer(engine: Any, settings: list[dict[str, Any]]) -> None:
    """What DeepSpeed 0.19.8 gets wrong when it loads universal state under ZeRO-3.

    Every group takes the settings of the first (weight decay), and all share one counter of steps, which each of them
    then moves on.
    """
    for group, own in zip(engine.optimizer.param_groups, settings, strict=True):
        group.update(own)
    base = getattr(engine.optimizer, "optimizer", engine.optimizer)
    for state in base.state.values():
        if "step" in state:
            state["step"] = state["step"].clone()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
