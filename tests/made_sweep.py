"""Made-up sweeps, for tests of the dashboard and to look at: `python tests/made_sweep.py OUT [running]`.

48 points: three methods, four kept fractions, two budgets, two seeds. At a fraction of 1 a run stands for all methods,
so there are 40 runs. Scores grow with what is seen, and more for prototypes; every number is drawn by the run's name.
"""

from __future__ import annotations

import json
import math
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from score_folders import MANIFEST, score_row, write_scores

from chexray.platform.config import load_recipe
from chexray.platform.sweep.points import Point
from chexray.platform.sweep.records import Look, Measured, SweepPlan, TrialRecord, write_plan, write_trial
from chexray.platform.sweep.space import SweepSpace

PAIRS, EPOCH_LOOKS, GLOBAL_BATCH = 200_000, 5, 480
TRAIN, SCORE = 90_000_000_000, 30_000_000_000
"""FLOPs of a pair."""
START = 1_790_000_000.0
PARALLEL = 4
"""Trials that run beside each other."""
METHODS = ("random", "prototype", "semdedup")
FINDINGS = {"Pneumothorax": 0.012, "Fibrosis": 0.008, "Hernia": 0.002, "Pleural Effusion": 0.11, "Cardiomegaly": 0.08}
DATASETS = {"mimic": 0.55, "chexpert": 0.3, "padchest": 0.15}
BANDS = ("central", "support", "outlier")
REASON = "train.lr=0.01: the loss is nan, and 3 steps were skipped for that (run.max_skipped=3)"


def made_space(seeds: int = 2, **changes: Any) -> SweepSpace:
    given = {"methods": METHODS, "keep": (0.1, 0.227, 0.5, 1.0), "budgets": (2.0, 8.0), "seeds": tuple(range(seeds))}
    return SweepSpace(**(given | changes))


def made_sweep(
    folder: Path,
    running: bool = False,
    space: SweepSpace | None = None,
    text: str = "",
    steps: int = 400,
    start: float = START,
) -> str:
    """A finished sweep with a failed and two stopped trials; or one with some done, some running and some waiting.

    `text`: put wherever other people's text goes. `steps`: lines of a history. `start`: seconds since 1970.
    """
    space = space or made_space()
    runs: dict[str, list[Point]] = {}
    for point in space.points():
        runs.setdefault(point.name, []).append(point)
    records = [
        _record(name, points, place, running, len(runs), start) for place, (name, points) in enumerate(runs.items())
    ]
    write_plan(str(folder), _plan(space, tuple(runs), records, running, text, start))
    for record in records:
        if text and record.reason:
            record = record.model_copy(update={"reason": text})
        if record.state != "waiting":
            write_trial(str(folder), record)
        if record.state in ("done", "stopped"):
            _write_scores(folder, record, text)
            _write_history(folder, record, steps)
    for record in {one.subset: one for one in records if one.subset}.values():
        _write_subset(folder, record, text)
    if not running:
        _write_conclusions(folder, text)
    return str(folder)


def _plan(
    space: SweepSpace, names: tuple[str, ...], records: list[TrialRecord], running: bool, text: str, start: float
) -> SweepPlan:
    ends = [record.finished for record in records if record.finished]
    return SweepPlan(
        corpus=f"s3://bucket/{text or 'corpora'}/merged",
        train_pairs=PAIRS,
        recipe=load_recipe("tiny"),
        space=space,
        trials=names,
        started=start,
        finished=None if running else max(ends, default=start) + 60,
        shared_curation_flops=3 * SCORE * PAIRS,
    )


def _record(name: str, points: list[Point], place: int, running: bool, count: int, start: float) -> TrialRecord:
    point = points[0].run()
    keep = 1.0 if point.method == "full" else point.keep
    kept = round(PAIRS * keep)
    epochs = max(1, round(point.budget / keep))
    state, share = _state(place, running, count)
    pairs = round(kept * epochs * share)
    hour = 3600 * point.budget / 4
    started = start + (place // PARALLEL) * 5400 + 300 * (place % PARALLEL)
    noise = _noise(name)
    looks = _looks(point, epochs, kept, share, hour, noise) if state != "waiting" else ()
    metrics = _metrics(point, keep, share, noise) if state in ("done", "stopped") else {}
    return TrialRecord(
        name=name,
        point=point,
        methods=tuple(one.method for one in points),
        state=state,
        reason={"failed": REASON, "stopped": "among the worse half at its second look"}.get(state),
        epochs=epochs,
        pairs_kept=kept,
        subset=None if point.method == "full" else f"subsets/{point.method}-{keep:g}-s{point.seed}",
        looks=looks,
        pairs_seen=pairs,
        training_flops=TRAIN * pairs,
        curation_flops=0 if point.method in ("full", "random") else SCORE * PAIRS,
        metrics=metrics,
        worker_seconds=2 * hour * share,
        started=None if state == "waiting" else started,
        finished=started + hour * share if state in ("done", "stopped", "failed") else None,
        tries=1 + (place % 7 == 0),
    )


def _state(place: int, running: bool, count: int) -> tuple[Any, float]:
    """And the share of its budget that is spent."""
    if place == 5:
        return "failed", 0.4
    if place in (9, 14):
        return "stopped", 0.5
    if not running or place < count // 3:
        return "done", 1.0
    return ("running", 0.2 + 0.2 * (place % 3)) if place < count // 3 + PARALLEL else ("waiting", 0.0)


def _noise(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def _looks(point: Point, epochs: int, kept: int, share: float, hour: float, noise: Any) -> tuple[Look, ...]:
    looks = []
    for number in range(1, round(EPOCH_LOOKS * share) + 1):
        pairs = round(kept * epochs * number / EPOCH_LOOKS)
        loss = 2.4 + 3.2 / (1 + pairs / 120_000) + 0.05 * noise.normal()
        looks.append(
            Look(
                epoch=round(epochs * number / EPOCH_LOOKS),
                step=pairs // GLOBAL_BATCH,
                pairs_seen=pairs,
                flops=TRAIN * pairs,
                loss=loss - 0.2,
                validation_loss=loss + 0.3 * (1 - point.keep) * (point.method == "random"),
                seconds=hour * number / EPOCH_LOOKS,
                workers=2,
            )
        )
    return tuple(looks)


def _metrics(point: Point, keep: float, share: float, noise: Any) -> dict[str, Measured]:
    gain = {"prototype": 0.03, "semdedup": 0.012}.get(point.method, 0.0) * (1 - keep)
    base = 0.7 + 0.025 * math.log2(1 + point.budget * share) + 0.04 * keep**0.3 + gain
    values = {
        "zero_shot.mean_auroc": (base, 0.012),
        "zero_shot.mean_auroc_rare": (base - 0.06 + 1.5 * gain, 0.03),
        "retrieval.recall_at_5": (base - 0.4, 0.02),
    }
    found = {}
    for name, (value, width) in values.items():
        value = round(value + 0.004 * noise.normal(), 4)
        found[name] = Measured(value=value, low=round(value - width, 4), high=round(value + width, 4))
    return found


def _write_scores(folder: Path, record: TrialRecord, text: str) -> None:
    noise = _noise(record.name)
    mean, rare = (record.metrics[f"zero_shot.{name}"].value or 0 for name in ("mean_auroc", "mean_auroc_rare"))
    rows = [score_row(record.name, "zero_shot", mean)]
    for place, (finding, prevalence) in enumerate(FINDINGS.items()):
        value = round((rare if prevalence < 0.02 else mean) + 0.02 * noise.normal() - 0.01 * place, 4)
        finding = f"{text or ''}{finding}"
        one = {"metric": "auroc", "finding": finding, "prevalence": prevalence, "headline": False, "positives": 40}
        rows.append(score_row(record.name, "zero_shot", value, **one))
    write_scores(folder / "trials" / record.name / "scores", rows, [])


def _write_history(folder: Path, record: TrialRecord, steps: int) -> None:
    noise = _noise(record.name)
    each = max(1, record.pairs_seen // steps)
    lines = []
    for step in range(steps):
        loss = 2.2 + 3.3 / (1 + step * each / 100_000) + 0.15 * noise.normal()
        share = step / steps
        line = {"step": step, "epoch": 0, "loss": loss, "lr": 5e-5 * (1 - 0.9 * share), "logit_scale": 14 + 60 * share}
        lines.append(json.dumps(line | {"pairs": each, "seconds": 1.0, "workers": 2, "time": START + step}))
    path = folder / "trials" / record.name / "checkpoint" / "history.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def _write_subset(folder: Path, record: TrialRecord, text: str) -> None:
    """Random subsets have neither clusters nor a map, as they need no features."""
    assert record.subset is not None
    path = folder / record.subset
    path.mkdir(parents=True, exist_ok=True)
    keep, random = record.point.keep, record.point.method == "random"
    noise = _noise(record.subset)
    audit: dict[str, Any] = {"pairs": PAIRS, "kept": round(PAIRS * keep), "kept_fraction": keep}
    datasets = {f"{text}{name}": _kept(share, keep, noise) for name, share in DATASETS.items()}
    audit["kept_by"] = {"dataset": datasets}
    audit["findings"] = [
        {"finding": f"{text}{name}", "prevalence_corpus": share, "factor": 1.4, "low": 1.1, "high": 1.8}
        for name, share in FINDINGS.items()
    ]
    bands = {"unknown": 1.0} if random else {"central": 0.85, "support": 0.1, "outlier": 0.05}
    audit["bands"] = {
        name: _kept(share, {"outlier": 0.0, "support": 10.0}.get(name, keep), noise) | {"findings": {}}
        for name, share in bands.items()
    }
    audit["clusters"] = {"unknown" if random else str(n): _kept(1 / 6, keep, noise) for n in range(1 if random else 6)}
    (path / "audit.json").write_text(json.dumps(audit))
    if not random:
        (path / "map.json").write_text(json.dumps(_map(keep, noise)))
    counts = {"pairs": PAIRS, "kept": audit["kept"], "kept_fraction": keep}
    cost = {"total_flops": record.curation_flops, "pairs_scored": PAIRS}
    manifest = MANIFEST | {"kind": "subset", "counts": counts, "cost": cost}
    (path / "manifest.json").write_text(json.dumps(manifest))


def _kept(share: float, keep: float, noise: Any) -> dict[str, Any]:
    pairs = round(PAIRS * share)
    fraction = min(1.0, keep * (0.7 + 0.6 * noise.random()))
    return {"pairs": pairs, "kept": round(pairs * fraction), "fraction": fraction}


def _map(keep: float, noise: Any, points: int = 1500) -> dict[str, Any]:
    centre = noise.normal(size=(6, 2))[noise.integers(6, size=points)]
    spread = noise.normal(size=(points, 2)) * 0.25
    distance = np.hypot(*spread.T)
    band = np.array(BANDS)[np.searchsorted(np.quantile(distance, [0.85, 0.95]), distance)]
    kept = (band == "support") | ((band == "central") & (noise.random(points) < keep))
    x, y = np.round(centre + spread, 3).T.tolist()
    return {
        "x": x,
        "y": y,
        "band": band.tolist(),
        "kept": kept.tolist(),
        "explained": [0.21, 0.12],
        "pairs": PAIRS,
    }


def _write_conclusions(folder: Path, text: str) -> None:
    lines = [
        "22.7 % of the pairs, chosen by prototype, score no worse than all (within 0.01) for 23 % of the compute.",
        "Rare findings gain most: 0.031 more AUROC than a random choice of that size (95 % interval 0.012 to 0.050).",
    ]
    table = [
        {
            "method": "prototype",
            "keep": 0.227,
            "metric": 0.8012,
            "low": 0.789,
            "high": 0.813,
            "compute": 0.229,
        },
        {"method": "full", "keep": 1.0, "metric": 0.8051, "low": 0.793, "high": 0.817, "compute": 1.0},
    ]
    lines = [*lines, text] if text else lines
    (folder / "conclusions.json").write_text(json.dumps({"lines": lines, "table": table}))


if __name__ == "__main__":
    live = "running" in sys.argv[2:]
    print(made_sweep(Path(sys.argv[1]), live, start=time.time() - 7 * 3600 if live else START))
