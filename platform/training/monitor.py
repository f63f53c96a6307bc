"""Where a step's time goes: waiting for pairs, exchanging between workers, or computing; and how well it computes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from chexray.platform.training.batch import Batch

Interval = tuple[float, float]
Result = TypeVar("Result")


class WaitClock:
    """Seconds for which a worker had nothing to compute because the next pairs were not there.

    On a GPU by its own clock: what the host waits while the device is still busy with an earlier step costs nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[tuple[Any, Any]] = []
        self._seconds = 0.0

    def next(self, batches: Iterator[Batch]) -> Batch | None:
        if self._on_gpu:
            asked, given = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            asked.record()
            batch = next(batches, None)
            given.record()
            self._marks.append((asked, given))
        else:
            started = time.monotonic()
            batch = next(batches, None)
            self._seconds += time.monotonic() - started
        return batch

    def read(self) -> float:
        """Since the last time. Waits for the device."""
        if self._marks:
            self._marks[-1][1].synchronize()
            self._seconds += sum(asked.elapsed_time(given) for asked, given in self._marks) / 1000
        seconds, self._seconds, self._marks = self._seconds, 0.0, []
        return seconds


def watched(step: Callable[[], Result], device: torch.device) -> tuple[Result, float]:
    """Run a step under torch's profiler; also the share of its time, in [0, 1], that went by exchanging alone.

    Of gloo its operations, which the step waits for; of NCCL its kernels while no other kernel runs.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
    if on_gpu:
        torch.cuda.synchronize(device)
    with profile(activities=activities) as profiler:
        started = time.perf_counter()
        result = step()
        if on_gpu:
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU  # a GPU's kernels, not the host's calls beside them
    events = [event for event in profiler.events() or [] if event.device_type == kind]
    spans = [(event.name, (event.time_range.start, event.time_range.end)) for event in events]
    exchanging = [span for name, span in spans if name.startswith(("gloo:", "nccl"))]
    computing = [span for name, span in spans if not name.startswith("nccl")] if on_gpu else []
    return result, min(1.0, alone(exchanging, computing) / 1e6 / seconds)


def alone(spans: Iterable[Interval], others: Iterable[Interval]) -> float:
    """How long at least one of `spans` lasts while none of `others` does."""
    others = list(others)
    return _covered([*spans, *others]) - _covered(others)


def _covered(spans: Iterable[Interval]) -> float:
    total, reached = 0.0, float("-inf")
    for first, end in sorted(spans):
        if end > reached:
            total += end - max(first, reached)
            reached = end
    return total


@dataclass(frozen=True)
class Throughput:
    """Of some steps. Shares of the time in [0, 1]; `communication` is None where it was not looked at.

    `utilisation`: model FLOPs over what the devices could do at most; None where that is not known.
    """

    pairs_per_second: float
    data: float
    communication: float | None
    utilisation: float | None

    @property
    def bound(self) -> str:
        """What most of the time goes by with: data, communication or compute."""
        communication = self.communication or 0.0
        shares = {"compute": 1 - self.data - communication, "data": self.data, "communication": communication}
        return max(shares, key=lambda name: shares[name])

    def __str__(self) -> str:
        shares = {"data": self.data, "communication": self.communication or 0.0}
        share = shares.get(self.bound, 1 - sum(shares.values()))
        used = "" if self.utilisation is None else f", {self.utilisation:.0%} of peak FLOP/s"
        return f"{self.pairs_per_second:.3g} pairs/s, bound by {self.bound} ({share:.0%}){used}"


def throughput(steps: Sequence[dict[str, Any]], peak_flops: float | None) -> Throughput:
    """Of steps as the history holds them. `peak_flops`: of one worker's device a second."""
    seconds = max(sum(step["seconds"] for step in steps), 1e-9)
    device_seconds = max(sum(step["seconds"] * step["workers"] for step in steps), 1e-9)
    looked = [step["communication"] for step in steps if step.get("communication") is not None]
    flops = sum(step["flops"] for step in steps)
    return Throughput(
        pairs_per_second=sum(step["pairs"] for step in steps) / seconds,
        data=min(1.0, sum(step["data_seconds"] for step in steps) / seconds),
        communication=sum(looked) / len(looked) if looked else None,
        utilisation=flops / (device_seconds * peak_flops) if peak_flops else None,
    )
