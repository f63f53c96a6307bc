"""What a run shows while it goes on: TensorBoard's event files, Ray's (Prometheus) metrics, and points for trackers."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.util.metrics import Gauge
from tensorboardX import SummaryWriter

from chexray.jobs.trackers import Point
from chexray.platform import storage
from chexray.platform.training.monitor import Throughput, throughput

TENSORBOARD_FOLDER = "tensorboard"
_CURVES = ("loss", "lr", "logit_scale", "validation_loss", "workers")
_GAUGES = {
    "step": "optimizer steps done",
    "loss": "InfoNCE of the global batch",
    "pairs_per_second": "of all workers together",
    "waiting_share": "share of the time in which the first worker waits for pairs",
    "communication_share": "share of the time in which it exchanges with the others, when last looked at",
    "utilisation": "model FLOPs over what the devices can do at most, in [0, 1]",
    "workers": "training workers",
}


class RunMetrics:
    """Of one start of a run, on its first worker, which goes on after `history`: what was shown later is withdrawn.

    Trackers get the whole history at every start, as they may have missed some of it. They know what they have.
    """

    def __init__(self, out: str, history: Sequence[dict[str, Any]], reporter: Any, peak_flops: float | None) -> None:
        self.out, self._reporter, self._peak = out, reporter, peak_flops
        self.throughput: Throughput | None = None
        self._upload: threading.Thread | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="chexray-tensorboard-")
        self._writer = SummaryWriter(self._folder.name, purge_step=len(history) or None, flush_secs=3600)
        tags = {"run": Path(out).name}
        self._gauges = {name: Gauge(f"chexray_train_{name}", text, ("run",)) for name, text in _GAUGES.items()}
        for gauge in self._gauges.values():
            gauge.set_default_tags(tags)
        self._reporter.show([_point(step) for step in history])

    def add(self, steps: Sequence[dict[str, Any]]) -> None:
        """Steps that were read together, as they are in the history."""
        points = [_point(step) for step in steps]
        for point in points:
            for name, value in point.values.items():
                self._writer.add_scalar(name, value, point.step, point.time)
        self._reporter.show(points)
        found, last = throughput(steps, self._peak), steps[-1]
        if found.communication is None and self.throughput is not None:  # it is looked at now and then
            found = replace(found, communication=self.throughput.communication)
        self.throughput = found
        values = {
            "step": last["step"] + 1,
            "loss": last["loss"],
            "pairs_per_second": found.pairs_per_second,
            "waiting_share": found.data,
            "communication_share": found.communication,
            "utilisation": found.utilisation,
            "workers": last["workers"],
        }
        for name, value in values.items():
            if value is not None:
                self._gauges[name].set(float(value))
                self._writer.add_scalar(f"throughput/{name}", value, last["step"], last["time"])

    def upload(self) -> None:
        """Put the event file where it belongs, in a thread: no step waits for the storage. Not while one is at it."""
        if self._upload is None or not self._upload.is_alive():
            self._writer.flush()
            self._upload = threading.Thread(target=self._put, name="tensorboard", daemon=True)
            self._upload.start()

    def close(self) -> None:
        """Upload for the last time, and wait for it."""
        if self._upload is not None:
            self._upload.join()
        self._writer.close()
        self._put()

    def _put(self) -> None:
        try:
            storage.upload_tree(Path(self._folder.name), storage.join(self.out, TENSORBOARD_FOLDER))
        except OSError as error:  # curves are not worth a run
            self._reporter.warn(f"TensorBoard's files could not be written: {type(error).__name__}")


def _point(step: dict[str, Any]) -> Point:
    """A line of the history, as curves."""
    seconds = max(step["seconds"], 1e-9)
    values = {name: step[name] for name in _CURVES if name in step}
    values |= {"pairs_per_second": step["pairs"] / seconds, "waiting_share": step["data_seconds"] / seconds}
    return Point(step["step"], step["time"], {f"train/{name}": float(value) for name, value in values.items()})
