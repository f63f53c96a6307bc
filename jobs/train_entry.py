"""What Ray Train is handed. Its controller only passes it on, so the seconds of imports are left to the workers."""

from __future__ import annotations

from typing import Any


def train_entry(settings: dict[str, Any]) -> None:
    """Run `train_worker` in the worker that this is called in.

    An error of the user's is told to the driver and ends the run: Ray Train would start it again and again.
    """
    from chexray.platform.errors import ChexrayError
    from chexray.platform.imports import leave_wandb_out

    reporter = settings["reporter"]
    if reporter.failure() is not None:
        return
    leave_wandb_out()
    try:
        from chexray.jobs.train_worker import train_worker

        train_worker(settings)
    except ChexrayError as error:
        reporter.fail(error)
