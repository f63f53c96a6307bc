"""What is at a storage root: the artifacts and sweeps below it, finished or not, read without Ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from chexray.platform import storage
from chexray.platform.artifacts import MANIFEST, MARKER, Kind
from chexray.platform.errors import ChexrayError, UsageError
from chexray.platform.sweep.records import PLAN_FILE, read_plan, read_trials

ArtifactState = Literal["finished", "unfinished", "unreadable"]
_PAIR_COUNTS = ("kept", "pairs")
"""What a manifest calls the pairs that are in an artifact, the first that it has."""


@dataclass(frozen=True)
class ArtifactStatus:
    """`path`: below the root, "." for itself. `cost`: FLOPs. `started`: ISO 8601, UTC. None: not known.

    `trials`: of a sweep, how many stand how. `inside`: whether a sweep or another artifact made it for itself.
    """

    path: str
    kind: str
    state: ArtifactState
    pairs: int | None = None
    cost: int | None = None
    started: str | None = None
    seconds: float | None = None
    trials: dict[str, int] | None = None
    inside: bool = False
    problem: str | None = None


def find_artifacts(root: str) -> list[ArtifactStatus]:
    """The artifacts and sweeps at and below `root`, sorted by path. Raises `UsageError` where it is no folder."""
    if not storage.is_dir(root):
        raise UsageError(f"{root}: no such folder; give one that artifacts were written below")
    files = storage.list_files(root, (MANIFEST, MARKER, PLAN_FILE))
    by_folder: dict[str, set[str]] = {}
    for file in files:
        folder, _, name = file.rpartition("/")
        if name in (MANIFEST, MARKER, PLAN_FILE):
            by_folder.setdefault(folder, set()).add(name)
    found: list[ArtifactStatus] = []
    outer: list[str] = []
    for folder in sorted(by_folder, key=lambda path: path.split("/") if path else []):
        inside = any(not one or f"{folder}/".startswith(f"{one}/") for one in outer)
        status = _status(root, folder, by_folder[folder], inside)
        if status is not None:
            found.append(status)
            outer.append(folder)
    return found


def _status(root: str, folder: str, names: set[str], inside: bool) -> ArtifactStatus | None:
    """None of a folder whose files are of others: many write a manifest.json."""
    uri = storage.join(root, folder) if folder else root
    path = folder or "."
    try:
        marker, manifest = (_read(uri, name) if name in names else None for name in (MARKER, MANIFEST))
        if marker is None and manifest is None and PLAN_FILE not in names:
            return None
        trials, plan_started = _trials(uri) if PLAN_FILE in names else (None, None)
    except (ChexrayError, UnicodeDecodeError) as error:
        return ArtifactStatus(path, "unknown", "unreadable", inside=inside, problem=str(error))
    kind = str((manifest or marker or {"kind": "sweep"})["kind"])
    # A manifest that is there while its folder is cleared for another run is finished no more.
    if manifest is None or (marker is not None and marker.get("fingerprint") != manifest.get("fingerprint")):
        return ArtifactStatus(path, kind, "unfinished", started=plan_started, trials=trials, inside=inside)
    counts, cost = manifest.get("counts", {}), manifest.get("cost", {})
    pairs = next((counts[name] for name in _PAIR_COUNTS if isinstance(counts.get(name), int)), None)
    started, seconds, flops = manifest.get("started") or None, manifest.get("seconds"), cost.get("total_flops")
    return ArtifactStatus(path, kind, "finished", pairs, flops, started, seconds, trials, inside)


def _read(uri: str, name: str) -> dict[str, Any] | None:
    content = storage.read_json(storage.join(uri, name))
    ours = isinstance(content, dict) and content.get("kind") in get_args(Kind) and "fingerprint" in content
    return content if ours else None


def _trials(sweep: str) -> tuple[dict[str, int], str]:
    """How many of a sweep's runs stand how, and when it began."""
    plan = read_plan(sweep)
    records = read_trials(sweep, plan.trials)
    counted = Counter(str(record.state) for record in records)
    if waiting := len(plan.trials) - len(records):
        counted["waiting"] += waiting
    return dict(counted), datetime.fromtimestamp(plan.started, UTC).isoformat(timespec="seconds")


def trial_words(trials: dict[str, int], order: Sequence[str]) -> str:
    """As '30 done, 1 failed', in this order."""
    return ", ".join(f"{trials[state]} {state}" for state in order if trials.get(state))
