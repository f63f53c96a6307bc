"""What a service that shows runs has to do: MLflow and Weights & Biases do it. Each knows a run by one id.

Where they report to is in their own environment variables, of the process that runs the command.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import Any, Literal, Protocol

from chexray.platform import storage
from chexray.platform.artifacts import Manifest, Stage, flat
from chexray.platform.config import RunConfig
from chexray.platform.errors import UsageError

End = Literal["finished", "failed", "stopped"]
ID_FILE = "tracking.json"


@dataclass(frozen=True)
class Point:
    """What the curves show of a step. `time`: seconds since 1970."""

    step: int
    time: float
    values: dict[str, float]


@dataclass(frozen=True)
class TrackedRun:
    """What is shown beside the curves, and the `id` by which a run that is started again is found."""

    id: str
    name: str
    params: dict[str, Any]
    tags: dict[str, str]


class Tracker(Protocol):
    """A service. Its calls may take long, and raise whatever its client raises: a call that did is made again."""

    name: str

    def open(self, run: TrackedRun) -> int:
        """Start the run, or go on with it. Returns the first step that the service does not have."""

    def log(self, points: Sequence[Point]) -> None:
        """Points of rising steps."""

    def close(self, end: End, totals: Mapping[str, float]) -> None:
        """End the run, or this start of it."""


def tracked_run(stage: Stage, config: RunConfig) -> TrackedRun:
    """The run that writes `stage`. Its id lies beside it: it goes with the artifact, and ends with it."""
    place = stage.path(ID_FILE)
    if not storage.exists(place):
        storage.write_json(place, {"id": f"{stage.fingerprint}-{uuid.uuid4().hex[:8]}"})
    params = flat({**stage.config, "run": config.model_dump()})
    tags = {
        "chexray.version": version("chexray"),
        "chexray.fingerprint": stage.fingerprint,
        "chexray.out": stage.uri,
        **{f"chexray.{role}": uri for role, uri in stage.inputs.items()},
    }
    return TrackedRun(str(storage.read_json(place)["id"]), PurePosixPath(stage.uri).name, params, tags)


def totals_of(manifest: Manifest) -> dict[str, float]:
    """The numbers among a manifest's counts and costs, by name."""
    numbers = flat({"counts": manifest.counts, "cost": manifest.cost})
    return {name: float(value) for name, value in numbers.items() if isinstance(value, int | float)}


def require_package(module: str, package: str) -> None:
    """Raise `UsageError` where the tracker's package is not installed."""
    found = find_spec(module)
    if found is None or found.origin is None:  # a folder of that name, as W&B's of its runs, is an empty package
        raise UsageError(
            f"run.trackers: {module} is not installed; install {package} (it is in chexray's extra: chexray[{module}])"
        )


def describe(error: Exception) -> str:
    """An error's first line, without the passwords that addresses hold and without the environment's keys."""
    text = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"
    text = re.sub(r"//\S*@", "//***@", text)
    for name, value in os.environ.items():
        if re.search("(KEY|TOKEN|PASSWORD|SECRET)$", name) and value:
            text = text.replace(value, "***")
    return text[:300]
