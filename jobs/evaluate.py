"""Evaluation: many checkpoints on many benchmarks, fanned out. Writes scores.

As a cluster job: `ray job submit ... -- python -m chexray.jobs.evaluate --checkpoint s3://... --data s3://...`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from chexray.cluster.local import ray_session
from chexray.evals.benchmark_check import benchmarks_with_data, check_benchmark
from chexray.evals.board.score_files import CELLS, RESULTS
from chexray.evals.cells import Cell, plan_cells
from chexray.evals.fanout import fan_out
from chexray.evals.prompts import prompt_families
from chexray.evals.scores import score_rows
from chexray.evals.specs import OWN, BenchmarkSpec, plain_specs
from chexray.jobs.cell_table import CellTable
from chexray.platform import storage
from chexray.platform.artifacts import Manifest, Stage
from chexray.platform.cli import run_job
from chexray.platform.config import Recipe, Runtime
from chexray.platform.errors import ChexrayError
from chexray.platform.evaluate_config import EvaluateConfig
from chexray.platform.model.checkpoint import CONFIG_FILE, require_checkpoint

PLAIN = ("zero_shot", "retrieval")
"""Tasks that a corpus is scored on where none are named: they learn nothing."""


def evaluate(
    recipe: Recipe,
    checkpoint: str,
    corpus: str,
    out: str,
    benchmarks: Sequence[str] = PLAIN,
    runtime: Runtime | None = None,
    overwrite: bool = False,
) -> Manifest:
    """One checkpoint on plain tasks over a corpus's own splits: every finding, every pair."""
    specs = plain_specs(list(benchmarks))
    return evaluate_many(
        recipe, {checkpoint_name(checkpoint): checkpoint}, specs, {OWN: corpus}, out, runtime, overwrite
    )


def evaluate_many(
    recipe: Recipe,
    checkpoints: Mapping[str, str],
    specs: Mapping[str, BenchmarkSpec],
    data: Mapping[str, str],
    out: str,
    runtime: Runtime | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Score the checkpoints (by name) on the benchmarks, whose datasets' corpora `data` names.

    Benchmarks whose data is not there are left out, and counted. A run that was killed goes on with what is left.
    Raises `ChexrayError` at the end where cells failed: what worked is written, the same command tries those again.
    """
    runtime, config = runtime or Runtime(), recipe.evaluate
    if config.prompts is not None:
        prompt_families(config.prompts)
    if config.split is not None:
        specs = {name: spec.model_copy(update={"split": config.split}) for name, spec in specs.items()}
    here, skipped = benchmarks_with_data(specs, data)
    used = sorted({dataset for spec in here.values() for dataset in spec.datasets})
    for uri in checkpoints.values():
        require_checkpoint(uri)
    inputs: dict[str, Any] = {f"checkpoint {name}": (uri, "checkpoint") for name, uri in checkpoints.items()}
    inputs |= {f"corpus {name}": (data[name], "corpus") for name in used}
    corpora = {name: storage.resolve(data[name]) for name in used}
    if used == [OWN]:  # one corpus: what it lacks is better said before than by every cell
        for spec in here.values():
            list(check_benchmark(spec, corpora))
    settings = {
        "benchmarks": {name: spec.model_dump(mode="json") for name, spec in sorted(here.items())},
        "evaluate": config.model_dump(mode="json"),
    }
    stage = Stage(out, "scores", settings, inputs, overwrite=overwrite)
    if done := stage.begin():
        return done
    resolved = {name: storage.resolve(uri) for name, uri in checkpoints.items()}
    cells = plan_cells(resolved, list(here.values()), corpora, stage.path("encodings"), config)
    sizes = {uri: _image_size(uri) for uri in resolved.values()}
    with ray_session(runtime), CellTable(cells) as table:
        records = fan_out(cells, sizes, stage.uri, config, runtime, table.show, table.encoded)
    return _write(stage, cells, records, config, skipped)


def read_results(scores: str) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = storage.read_json(storage.join(scores, RESULTS))
    return results


def _write(
    stage: Stage,
    cells: Sequence[Cell],
    records: Sequence[dict[str, Any]],
    config: EvaluateConfig,
    skipped: Mapping[str, str],
) -> Manifest:
    """Results and what became of every cell; the manifest where none failed."""
    rows = score_rows(cells, records, stage.uri, config)
    storage.write_json(stage.path(RESULTS), rows)
    kept = [{name: value for name, value in record.items() if name != "results"} for record in records]
    kept += [
        {"checkpoint": name, "benchmark": benchmark, "seed": None, "state": "skipped", "reason": f"no data: {lacking}"}
        for name in dict.fromkeys(cell.checkpoint for cell in cells)
        for benchmark, lacking in skipped.items()
    ]
    storage.write_json(stage.path(CELLS), kept)
    if failed := [record for record in records if record["state"] == "failed"]:
        first = failed[0]
        raise ChexrayError(
            f"{len(failed)} of {len(records)} cells failed, the others are in {stage.uri}; first {first['path']}: "
            f"{first['reason']}; the same command tries the failed ones again"
        )
    counts = {
        "checkpoints": len({cell.checkpoint for cell in cells}),
        "benchmarks": len({cell.spec.name for cell in cells}),
        "cells": len(cells),
        "results": len(rows),
        "without_data": len(skipped),
    }
    return stage.finish(counts, {"cell_seconds": sum(record["seconds"] for record in records)})


def _image_size(checkpoint: str) -> int:
    cfg = storage.read_json(storage.join(checkpoint, CONFIG_FILE))["model_cfg"]
    return int(cfg["vision_cfg"]["image_size"])


def checkpoint_name(uri: str) -> str:
    """What a checkpoint is called in results, and in paths: its folder's name."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", storage.resolve(uri).rsplit("/", 1)[-1]).strip(".") or "checkpoint"


if __name__ == "__main__":
    run_job("evaluate")
