"""A run's resumable checkpoints, through Ray Train: saved without waiting, checked before use, cut for other worlds."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import ray.train
import torch.distributed as dist
from ray.train import Checkpoint, CheckpointUploadMode

from chexray.curation.cursor import CurationCursor, load_cursor
from chexray.platform.training.state import convert_state, damage, is_cut_for, load_state, save_state

UPLOAD_PATIENCE = 900.0
"""Seconds for which an upload is tried again while the storage does not answer."""
_CONVERTED = "converted"


class Checkpoints:
    """One worker's part in saving and resuming. Every worker makes the same calls in the same order."""

    def __init__(self, engine: Any, rank: int, world: int, reporter: Any, choosing: bool) -> None:
        """`choosing`: in an epoch that chooses its pairs, whose cursor rank 0 needs."""
        self.engine, self.rank, self.world, self.reporter = engine, rank, world, reporter
        self.wants_cursor = choosing and rank == 0
        self.storage = ray.train.get_context().get_storage()
        self.saved_at = time.monotonic()
        self.noticed: frozenset[str] = frozenset()

    def save(self, next_step: int, history: list[dict[str, Any]], cursor: CurationCursor | None = None) -> None:
        """Write the state aside and let a thread upload it. It counts from when all workers' parts are there.

        `cursor`: of an epoch that chooses its pairs, on rank 0.
        """
        folder = Path(tempfile.mkdtemp(prefix="chexray-state-"))
        if cursor is not None:
            cursor.save(folder)
        save_state(self.engine, folder, {"next_step": next_step, "history": history}, self.rank, self.world)
        ray.train.report(
            _standing(next_step, history),
            checkpoint=Checkpoint.from_directory(folder),
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
            checkpoint_upload_fn=self._upload,
        )
        self.saved_at = time.monotonic()

    def resume(self) -> dict[str, Any] | None:
        """Load the newest checkpoint that is whole, and return what was saved with it; None where there is none.

        That is `next_step`, `history` and `cursor`.
        """
        path: list[Any] = [self._usable() if self.rank == 0 else None]
        if self.world > 1:
            dist.broadcast_object_list(path, src=0)
        if path[0] is None:
            return None
        with Checkpoint(path=path[0], filesystem=self.storage.storage_filesystem).as_directory() as folder:
            cursor = load_cursor(Path(folder)) if self.wants_cursor else None
            return {**load_state(self.engine, Path(folder)), "cursor": cursor}

    def is_first_notice(self, notice: Any) -> bool:
        """Whether Ray says for the first time that these nodes will go."""
        nodes = frozenset(notice.preempted_node_to_ranks) if notice else frozenset()
        new = bool(nodes - self.noticed)
        self.noticed |= nodes
        return new

    def _upload(self, checkpoint: Checkpoint, name: str) -> Checkpoint:
        """Ray's own upload, again and again while the storage is away. Replaces what an attempt left behind."""
        deadline, pause = time.monotonic() + UPLOAD_PATIENCE, 1.0
        while True:
            try:
                saved: Checkpoint = self.storage.persist_current_checkpoint(checkpoint, name)
                return saved
            except OSError as error:
                if time.monotonic() > deadline:
                    raise
                self.reporter.warn(f"a checkpoint waits for the storage: {type(error).__name__}")
                time.sleep(pause)
                pause = min(30.0, 2 * pause)

    def _usable(self) -> str | None:
        """Where the newest whole checkpoint is, cut for as many workers as there are. Rank 0 alone asks."""
        found = [one.checkpoint for one in ray.train.get_all_reported_checkpoints()]
        for checkpoint in reversed(found):
            with tempfile.TemporaryDirectory(prefix="chexray-") as scratch:
                try:
                    with checkpoint.as_directory() as folder:
                        reason = damage(Path(folder))
                        if reason is None:
                            return self._cut(Path(folder), checkpoint, Path(scratch))
                except OSError as error:
                    reason = f"{type(error).__name__}: {error}"
            self.reporter.warn(f"checkpoint {Path(checkpoint.path).name} is skipped: {reason}")
        return None

    def _cut(self, folder: Path, checkpoint: Checkpoint, scratch: Path) -> str:
        """The checkpoint's own place, or that of its universal form, which is made once."""
        if is_cut_for(folder, self.world):
            return str(checkpoint.path)
        name = f"{_CONVERTED}/{Path(checkpoint.path).name}"
        there = Checkpoint(
            path=self.storage.build_checkpoint_path_from_name(name), filesystem=self.storage.storage_filesystem
        )
        try:
            with there.as_directory() as converted:
                if damage(Path(converted)) is None:
                    return str(there.path)
        except OSError:
            pass  # not made yet
        convert_state(folder, scratch)
        self.storage.storage_filesystem.delete_dir_contents(
            self.storage.build_checkpoint_path_from_name(_CONVERTED), missing_dir_ok=True
        )
        self.reporter.warn(f"{_workers_of(folder)} workers saved the last checkpoint; it is cut anew for {self.world}")
        return str(self._upload(Checkpoint.from_directory(scratch), name).path)


def _standing(next_step: int, history: list[dict[str, Any]]) -> dict[str, Any]:
    """Where the run stands, for those who follow it (see `chexray.jobs.looks`)."""
    last = history[-1]
    return {
        "step": next_step - 1,
        "epoch": last["epoch"],
        "loss": last["loss"],
        "validation_loss": last.get("validation_loss"),
        "pairs_seen": sum(step["pairs"] for step in history),
        "workers": last["workers"],
    }


def _workers_of(folder: Path) -> int:
    return int(json.loads((folder / "run.json").read_text())["world"])
