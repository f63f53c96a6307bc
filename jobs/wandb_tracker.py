"""Runs in Weights & Biases (its client is under the MIT licence), online or as files to upload later."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from chexray.jobs.trackers import End, Point, TrackedRun, require_package
from chexray.platform.errors import UsageError

_EXIT_CODES = {"finished": 0, "failed": 1, "stopped": 143}
_TIMEOUT = 20.0
"""Seconds for its start and its end. Less than what `tracking` waits: a process does not end before W&B's calls do."""


class WandbTracker:
    """W&B's own process keeps what is logged, and sends it when its server is there."""

    name = "Weights & Biases"

    def __init__(self) -> None:
        """Raises `UsageError` where the package is missing, or has no key for a server: it would ask for one."""
        require_package("wandb", "wandb")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its own errors, to its makers
        import wandb

        wandb.setup(wandb.Settings(silent=True))
        online = os.environ.get("WANDB_MODE", "online") == "online"
        if online and "WANDB_API_KEY" not in os.environ and not _is_logged_in():
            raise UsageError(
                "run.trackers: wandb has no key; set WANDB_API_KEY, log in (wandb login), or set WANDB_MODE=offline"
            )
        self._run: Any = None

    def open(self, run: TrackedRun) -> int:
        import wandb

        settings = wandb.Settings(
            silent=True,
            console="off",
            allow_val_change=True,
            x_disable_stats=True,  # of the driver's machine, which is not where the training is
            init_timeout=_TIMEOUT,
            finish_timeout=_TIMEOUT,
            finish_timeout_raises=True,
        )
        self._run = wandb.init(
            id=run.id,
            resume="allow",
            reinit="create_new",
            name=run.name,
            config={**run.params, **run.tags},
            settings=settings,
        )
        return int(self._run.starting_step)

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            self._run.log({**point.values, "_timestamp": point.time}, step=point.step)

    def close(self, end: End, totals: Mapping[str, float]) -> None:
        run, self._run = self._run, None
        if run:  # else W&B has tried for long enough
            run.summary.update(dict(totals))
            run.finish(exit_code=_EXIT_CODES[end])


def _is_logged_in() -> bool:
    """Whether there is a key in W&B's own files. An answer that does not come is waited for later, not here."""
    import wandb

    try:
        return bool(wandb.login(prompt=False))
    except wandb.Error:
        return True
