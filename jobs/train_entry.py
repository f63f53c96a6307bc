"""What Ray Train is handed. Its controller only passes it on, so the seconds of imports are left to the workers."""

from __future__ import annotations

from typing import Any


def train_entry(settings: dict[str, Any]) -> None:
    """Run `train_worker` in the worker that this is called in."""
    from chexray.jobs.train_worker import train_worker

    train_worker(settings)
