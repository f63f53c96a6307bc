"""What the dashboard shows of one trial beyond its line: every step's loss, and the audit and map of its subset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from chexray.evals.dashboard.snapshot import parallel
from chexray.evals.json_values import finite
from chexray.platform import storage
from chexray.platform.artifacts import MANIFEST
from chexray.platform.errors import UsageError
from chexray.platform.sweep.records import CHECKPOINT, SUBSETS, trial_folder

HISTORY, AUDIT, MAP = "history.jsonl", "audit.json", "map.json"
MOST_STEPS = 240
"""More points than a curve's pixels say nothing."""
MOST_POINTS = 800
"""Of a map: several hundred subsets must fit one exported page."""


class DetailReader:
    """Reads trials' details. Subsets and histories are written once, whole: those that were found are kept."""

    def __init__(self, sweep: str) -> None:
        self._sweep = storage.resolve(sweep)
        self._histories: dict[str, dict[str, Any]] = {}
        self._subsets: dict[str, dict[str, Any]] = {}

    def details(self, trial: Mapping[str, Any]) -> dict[str, Any]:
        """`history` (None until the run has ended) and `subset` (None where there is none) of a snapshot's trial."""
        return {"history": self.history(trial), "subset": self.subset(trial["subset"])}

    def history(self, trial: Mapping[str, Any]) -> dict[str, Any] | None:
        name = trial["name"]
        if name in self._histories:
            return self._histories[name]
        uri = storage.join(trial_folder(self._sweep, name), CHECKPOINT, HISTORY)
        if not storage.exists(uri):
            return None
        steps = _lines(storage.read_bytes(uri))
        curve: dict[str, Any] = finite(shortened(steps))
        if trial["state"] == "done":
            self._histories[name] = curve
        return curve

    def subset(self, path: str | None) -> dict[str, Any] | None:
        """`path`: in the sweep's folder. None for one that is not written to its end, or leads out of the subsets."""
        if path is None or not _is_inside(path):
            return None
        if path not in self._subsets:
            folder = storage.join(self._sweep, path)
            manifest = _read(storage.join(folder, MANIFEST))
            if manifest is None:
                return None
            audit, points = (_read(storage.join(folder, name)) for name in (AUDIT, MAP))
            self._subsets[path] = finite(_subset_entry(path, manifest, audit or {}, points))
        return self._subsets[path]

    def everything(self, trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """For an exported page: `histories` by trial, `subsets` by path."""
        paths = sorted({trial["subset"] for trial in trials if trial["subset"]})
        names = [trial["name"] for trial in trials]
        return {
            "histories": dict(zip(names, parallel(self.history, trials), strict=True)),
            "subsets": dict(zip(paths, parallel(self.subset, paths), strict=True)),
        }


def shortened(steps: Sequence[Mapping[str, Any]], most: int = MOST_STEPS) -> dict[str, list[float | None]]:
    """Columns of at most `most` points: the mean loss of so many steps in a row, and where the last of them stood."""
    each = max(1, -(-len(steps) // most))
    curve: dict[str, list[float | None]] = {"step": [], "pairs": [], "loss": [], "temperature": []}
    pairs = 0
    for start in range(0, len(steps), each):
        part = steps[start : start + each]
        pairs += sum(step["pairs"] for step in part)
        scale = part[-1].get("logit_scale")
        curve["step"].append(part[-1]["step"])
        curve["pairs"].append(pairs)
        curve["loss"].append(_four_digits(sum(step["loss"] for step in part) / len(part)))
        curve["temperature"].append(_four_digits(1 / scale) if scale else None)
    return curve


def _four_digits(value: float) -> float:
    return float(f"{value:.4g}")


def _subset_entry(
    path: str, manifest: Mapping[str, Any], audit: Mapping[str, Any], points: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Rare findings first, as the audit has them. Nothing of a report, and no image."""
    kept_by = audit.get("kept_by", {})
    return {
        "path": path,
        "counts": {name: one for name, one in manifest["counts"].items() if isinstance(one, int | float)},
        "flops": manifest["cost"].get("total_flops"),
        "datasets": kept_by.get("dataset", {}),
        "bands": {name: {"pairs": one["pairs"], "kept": one["kept"]} for name, one in audit.get("bands", {}).items()},
        "clusters": audit.get("clusters", {}),
        "findings": [
            {name: one.get(name) for name in ("finding", "prevalence_corpus", "factor", "low", "high")}
            for one in audit.get("findings", [])
        ],
        "map": _thinned(points),
    }


def _thinned(points: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Every nth point: their order is the corpus's, which is random."""
    if points is None:
        return None
    each = max(1, -(-len(points["x"]) // MOST_POINTS))
    columns = {name: points[name][::each] for name in ("x", "y", "band", "kept")}
    return {**columns, "explained": points["explained"], "pairs": points["pairs"]}


def _lines(content: bytes) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in content.splitlines()]
    except ValueError:  # still being copied
        return []


def _read(uri: str) -> Any:
    """None where it is not there, or not whole yet."""
    try:
        return storage.read_json(uri)
    except (FileNotFoundError, UsageError):
        return None


def _is_inside(path: str) -> bool:
    parts = path.split("/")
    return parts[0] == SUBSETS and not {"", ".", ".."} & set(parts) and "\\" not in path
