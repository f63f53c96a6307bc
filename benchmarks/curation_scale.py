"""What a pair costs the curator, at any number of them: synthetic features through the Ray pipeline.

    python benchmarks/curation_scale.py [--pairs 20000 100000 1200000] [--set curate.KEY=VALUE]

Tasks draw pairs (a long tail of themes, seeded), an actor scores them (one matrix product a tower), and the curator
that `chexray curate` runs writes the features down and chooses. All numbers of pairs run on one Ray, one after the
other, after one of the smallest that does not count. A run takes seconds to start, however many pairs there are, so
what pairs cost is the difference to the next smaller run. Memory is resident, without what is mapped from files or
shared between processes.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray.data

from chexray.cluster.local import ray_session
from chexray.curation.stream import take_features
from chexray.platform.config import CurateConfig, Runtime, load_recipe
from chexray.platform.streaming import ordered_tasks

TASK_PAIRS, THEMES, INPUT = 4096, 64, 64


class Quiet:
    def update(self, done: int, note: str = "") -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[20_000, 100_000, 1_200_000])
    parser.add_argument("--width", type=int, default=512, help="of an embedding; a pair has two")
    parser.add_argument("--keep", type=float, default=0.227)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    given = parser.parse_args()
    config = load_recipe("tiny", [*given.settings, f"curate.keep={given.keep}"]).curate
    print(f"{config.super_batch} pairs a super-batch, {config.prototypes} prototypes, width 2 x {given.width}")
    with ray_session(Runtime(cpus=2)):
        measure(min(given.pairs), given.width, config)
        fewer, less = 0, 0.0
        for pairs in sorted(given.pairs):
            seconds, text = measure(pairs, given.width, config)
            marginal = (seconds - less) / (pairs - fewer) * 1e6
            beyond = f", {marginal:.1f} us a pair beyond {fewer:,}" if fewer else ""
            print(f"{pairs:>9,} pairs: {seconds:.1f} s{beyond}; {text}", flush=True)
            fewer, less = pairs, seconds


def measure(pairs: int, width: int, config: CurateConfig) -> tuple[float, str]:
    with tempfile.TemporaryDirectory() as folder, memory() as peak:
        started = time.perf_counter()
        features = str(Path(folder, "features"))
        scored = take_features(drawn_features(pairs, width), pairs, features, 14.0, config, Quiet())
        seconds = time.perf_counter() - started
        assert scored.curated is not None
        kept = int(scored.curated.selection.keep_B.sum())
    return seconds, (
        f"scoring {scored.device_seconds / pairs * 1e6:.1f} us a pair; kept {kept / pairs:.4f}; MB of memory: "
        f"driver {peak['before']:.0f} before, {peak['driver']:.0f} at most, curator {peak['curator']:.0f} at most"
    )


def drawn_features(pairs: int, width: int) -> ray.data.Dataset:
    tasks = [{"first": first, "count": min(TASK_PAIRS, pairs - first)} for first in range(0, pairs, TASK_PAIRS)]
    return (
        ordered_tasks(tasks)
        .map_batches(draw, batch_size=1)
        .map_batches(
            Scorer,
            fn_constructor_args=(width,),
            compute=ray.data.ActorPoolStrategy(size=1),
            batch_size=512,
            num_cpus=1,
        )
    )


def draw(task: dict[str, Any]) -> dict[str, Any]:
    """Pairs around themes, the k-th of which is 1 / k as frequent as the first."""
    first, count = int(task["first"][0]), int(task["count"][0])
    rng = np.random.default_rng(first)
    share = 1 / np.arange(1, THEMES + 1)
    theme = rng.choice(THEMES, count, p=share / share.sum())
    centre = np.random.default_rng(0).standard_normal((THEMES, INPUT), np.float32)
    ids = [hashlib.blake2b(str(first + row).encode(), digest_size=16).hexdigest() for row in range(count)]
    return {
        "sample_id": np.array(ids, dtype=object),
        "seen": centre[theme] + rng.standard_normal((count, INPUT), np.float32),
    }


class Scorer:
    def __init__(self, width: int) -> None:
        self.tower = np.random.default_rng(1).standard_normal((2, INPUT, width), np.float32)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        out = {"sample_id": batch["sample_id"]}
        for name, tower in zip(("image", "text"), self.tower, strict=True):
            embedded = np.tanh(batch["seen"] @ tower)
            out[name] = (embedded / np.linalg.norm(embedded, axis=1, keepdims=True)).astype(np.float16)
        count = len(batch["seen"])
        return {**out, "seconds": np.full(count, (time.perf_counter() - started) / count, np.float32)}


@contextmanager
def memory() -> Any:
    """Megabytes of this process before and at most, and of the curator's at most."""
    peak = {"before": private(psutil.Process()), "driver": 0.0, "curator": 0.0}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            peak["driver"] = max(peak["driver"], private(psutil.Process()))
            for process in psutil.process_iter(["cmdline"]):
                if "ScoredStream" in " ".join(process.info["cmdline"] or []):
                    peak["curator"] = max(peak["curator"], private(process))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def private(process: psutil.Process) -> float:
    try:
        used = process.memory_info()
    except psutil.NoSuchProcess:
        return 0.0
    return float(used.rss - used.shared) / 1e6


if __name__ == "__main__":
    main()
