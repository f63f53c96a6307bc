"""Getting the next batches ready while a step runs: tokens, pinned memory, and a limit to waiting."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from chexray.platform.training.batch import Batch


class StalledError(RuntimeError):
    """Something that the step needs did not come in time."""


def prefetched(
    batches: Iterator[Batch],
    tokenize: Callable[[list[str]], torch.Tensor],
    device: torch.device,
    depth: int,
    patience: float,
) -> Iterator[Batch]:
    """The same batches with their tokens, made ready in a thread, at most `depth` ahead.

    Raises `StalledError` where none comes for `patience` seconds, and whatever the batches' own source raises.
    """
    ready: queue.Queue[Any] = queue.Queue(maxsize=depth)
    ended = threading.Event()

    def fill() -> None:
        try:
            for batch in batches:
                _put(ready, _prepared(batch, tokenize, device), ended)
                if ended.is_set():
                    return
            _put(ready, None, ended)
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            _put(ready, error, ended)

    thread = threading.Thread(target=fill, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            try:
                batch = ready.get(timeout=patience)
            except queue.Empty:
                raise StalledError(
                    f"no pairs came for {patience:g} seconds (run.stall_seconds): is the corpus's storage reachable, "
                    "and are there CPUs for the tasks that read it?"
                ) from None
            if batch is None:
                return
            if isinstance(batch, BaseException):
                raise batch
            yield batch
    finally:
        ended.set()


def _put(ready: queue.Queue[Any], item: Any, ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            ready.put(item, timeout=0.5)
            return
        except queue.Full:
            continue


def _prepared(batch: Batch, tokenize: Callable[[list[str]], torch.Tensor], device: torch.device) -> Batch:
    token = tokenize(list(batch.report))
    if device.type != "cuda":
        return replace(batch, token=token)
    image = torch.from_numpy(batch.image).pin_memory().numpy()
    return replace(batch, image=image, token=token.pin_memory())
