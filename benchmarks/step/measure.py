"""How long a loop's step takes, part by part, and what it needs. On a GPU by its own clock, for which no step waits.

S: steps; P: parts of a step.
"""

from __future__ import annotations

import gc
import os
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from step.loops import Clock, Ours, Plain

PARTS = ("data wait", "to device", "forward", "backward", "optimizer")


def measure(loop: Ours | Plain, warmup: int, steps: int) -> dict[str, Any]:
    """What a step takes, in means over `steps`: seconds, and those of its parts, which add up to them; this process's
    CPU time, over all threads; peak memory; and how often the host waits for the GPU.

    On a GPU a part is the device's time; 'data wait' is how long it had nothing to do before the next step.
    """
    device = loop.settings.device
    batches = loop.batches(warmup + steps)
    waits = None
    for _ in range(warmup):
        waits = _host_waits(lambda: loop.step(next(batches), Clock(device)), device)
    _finish(device)
    _reset_peak(device)
    clock, started, host = Clock(device), time.perf_counter(), time.process_time()
    clock.mark()
    for _ in range(steps):
        batch = next(batches)
        clock.mark()
        loop.step(batch, clock)
    _finish(device)
    seconds, host_seconds = (time.perf_counter() - started) / steps, (time.process_time() - host) / steps
    part_SP = np.array(clock.seconds()).reshape(steps, len(PARTS))
    return {
        "pairs": len(loop.pairs),
        "pairs_per_second": len(loop.pairs) / seconds,
        "step_seconds": seconds,
        "host_seconds": host_seconds,
        "parts": dict(zip(PARTS, part_SP.mean(axis=0).tolist(), strict=True)),
        "peak_bytes": _peak_bytes(device),
        "host_waits": waits,
    }


def measure_what_fits(make: Callable[[int], Ours | Plain], pairs: int, warmup: int, steps: int) -> dict[str, Any]:
    """Of the largest of `pairs`, half of them, a quarter and so on that fit into the GPU's memory."""
    while True:
        try:
            return measure(make(pairs), warmup, steps)
        except torch.OutOfMemoryError:
            if pairs == 1:
                raise
        pairs //= 2
        gc.collect()
        torch.cuda.empty_cache()


def _host_waits(step: Callable[[], Any], device: torch.device) -> int | None:
    if device.type != "cuda":
        step()
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in caught)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _reset_peak(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): sets the peak to what is resident now


def _peak_bytes(device: torch.device) -> int | None:
    """Since the reset: allocated on the GPU, or resident in this process where Linux says so."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else None


def fast_dtype(device: torch.device) -> torch.dtype | None:
    """bfloat16 where matrix products in it are fast: on GPUs that have it, and on CPUs where trying shows it."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(768, 768, dtype=dtype)
        seconds[dtype] = min(_seconds(torch.mm, matrix, matrix) for _ in range(5))
    return torch.bfloat16 if seconds[torch.bfloat16] < 0.75 * seconds[torch.float32] else None


def _seconds(work: Callable[..., Any], *arguments: Any) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return f"{torch.get_num_threads()} threads of {found[1].strip() if found else 'a CPU'}"
