"""All benchmarks in one evaluation, against the same cells one by one without shared encodings.

    python benchmarks/fanout.py OUT --checkpoint A --checkpoint B --twins CORPUS

In one run, on one Ray. "One by one": every cell is an evaluation of its own, which encodes what it needs; so a tool
without a registry and a fan-out is used. Both must give the same numbers. One JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

from chexray.cluster.local import ray_session
from chexray.evals.specs import SYNTHETIC, choose_specs, twin_of
from chexray.jobs.evaluate import evaluate_many, read_results
from chexray.platform.config import Runtime, load_recipe
from chexray.platform.evaluate_cli import named_checkpoints


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoint", action="append", required=True)
    parser.add_argument("--twins", required=True, help="a synthetic corpus")
    parser.add_argument("--benchmarks", default="all")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    recipe = load_recipe("tiny", given.settings)
    checkpoints = named_checkpoints(given.checkpoint)
    specs = {name: twin_of(spec) for name, spec in choose_specs(given.benchmarks.split(",")).items()}
    data = {SYNTHETIC: given.twins}
    by_task: defaultdict[str, float] = defaultdict(float)
    with ray_session(Runtime()):
        started = time.perf_counter()
        together = evaluate_many(recipe, checkpoints, specs, data, str(given.out / "together"))
        shared = time.perf_counter() - started
        alone, cells = [], 0
        for name, uri in checkpoints.items():
            for spec in specs.values():
                seeds = recipe.evaluate.label_seeds if spec.task == "disease_prediction" else (None,)
                for seed in seeds:
                    settings = [*given.settings, *([] if seed is None else [f"evaluate.label_seeds=[{seed}]"])]
                    folder = str(given.out / "alone" / name / f"{spec.name}-{seed}")
                    started = time.perf_counter()
                    evaluate_many(load_recipe("tiny", settings), {name: uri}, {spec.name: spec}, data, folder)
                    by_task[spec.task] += time.perf_counter() - started
                    alone += read_results(folder)
                    cells += 1
    single = sum(by_task.values())
    found = {
        "cells": cells,
        "together_seconds": round(shared, 1),
        "alone_seconds": round(single, 1),
        "alone_seconds_by_task": {task: round(seconds, 1) for task, seconds in by_task.items()},
        "ratio": round(single / shared, 2),
        "cell_seconds": together.cost["cell_seconds"],
        "same_numbers": _numbers(read_results(str(given.out / "together"))) == _numbers(alone),
    }
    print(json.dumps(found))
    sys.exit(0 if found["same_numbers"] else 1)


def _numbers(rows: list[dict[str, object]]) -> set[tuple[object, ...]]:
    """Results without the means over seeds, which one cell alone does not have."""
    names = ("checkpoint", "benchmark", "method", "metric", "variant", "finding", "value", "low", "high")
    return {tuple(row[name] for name in names) for row in rows if row["seed"] is not None}


if __name__ == "__main__":
    main()
