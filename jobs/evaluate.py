"""Evaluation: benchmarks of a checkpoint on a corpus's split. Writes scores.

As a cluster job: `ray job submit ... -- python -m chexray.jobs.evaluate --checkpoint s3://... --corpus s3://...`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from chexray.cluster.local import ray_session
from chexray.evals.benchmarks import check_benchmarks, evaluate_retrieval, evaluate_zero_shot
from chexray.evals.fanout import encode_split
from chexray.evals.prompts import prompt_family
from chexray.jobs.progress import bar
from chexray.platform import storage
from chexray.platform.artifacts import Manifest, Stage, read_manifest
from chexray.platform.cli import run_job
from chexray.platform.config import Recipe, Runtime
from chexray.platform.corpus.shards import read_columns, require_shards, write_table
from chexray.platform.errors import UsageError
from chexray.platform.model.checkpoint import (
    Checkpoint,
    load_checkpoint,
    require_checkpoint,
    share_trained_on,
)

RESULTS_FILE = "results.json"


def evaluate(
    recipe: Recipe,
    checkpoint: str,
    corpus: str,
    out: str,
    benchmarks: Sequence[str] = ("zero_shot", "retrieval"),
    runtime: Runtime | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Score the checkpoint on `recipe.evaluate.split` of the corpus; images and reports are encoded once."""
    runtime = runtime or Runtime()
    check_benchmarks(benchmarks)
    prompt_family(recipe.evaluate.prompts)
    require_checkpoint(checkpoint)
    settings = {"benchmarks": sorted(benchmarks), **recipe.model_dump(include={"evaluate"})}
    inputs: dict[str, Any] = {"checkpoint": (checkpoint, "checkpoint"), "corpus": (corpus, "corpus")}
    read_manifest(corpus, "corpus")
    checkpoint, corpus = storage.resolve(checkpoint), storage.resolve(corpus)
    pairs = sum(shard.pairs for shard in require_shards(corpus, recipe.evaluate.split))
    if "zero_shot" in benchmarks and not any(read_columns(corpus, ["labels"])["labels"].to_pylist()):
        raise UsageError(f"{corpus}: its pairs have no labels, which zero_shot needs; give --benchmarks retrieval")
    stage = Stage(out, "scores", settings, inputs, overwrite=overwrite)
    if done := stage.begin():
        return done
    loaded = load_checkpoint(checkpoint)
    with ray_session(runtime), bar("evaluate", pairs) as reporter:
        split = encode_split(checkpoint, corpus, loaded.image_size, recipe.evaluate, runtime, reporter)
    seen = share_trained_on(checkpoint, list(split.sample_id))
    context = {"split": recipe.evaluate.split, "seed": recipe.evaluate.seed, "seen_in_training": seen}
    results: list[dict[str, Any]] = []
    if "zero_shot" in benchmarks:
        found, predictions = evaluate_zero_shot(split, lambda texts: _encode_texts(loaded, texts), recipe.evaluate)
        results += [{**result.as_dict(), **context} for result in found]
        write_table(stage.path("predictions.parquet"), predictions)
    if "retrieval" in benchmarks:
        found, ranks = evaluate_retrieval(split, recipe.evaluate)
        results += [{**result.as_dict(), **context} for result in found]
        write_table(stage.path("ranks.parquet"), ranks)
    storage.write_json(stage.path(RESULTS_FILE), results)
    return stage.finish({"pairs": pairs, "results": len(results), "seen_in_training": seen})


def read_results(scores: str) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = storage.read_json(storage.join(scores, RESULTS_FILE))
    return results


def _encode_texts(checkpoint: Checkpoint, texts: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """[len(texts), D] float32 unit rows: the prompts, few enough for the driver."""
    with torch.inference_mode():
        text_ND = checkpoint.model.encode_text(checkpoint.tokenize(texts), normalize=True)
    embedding: np.ndarray[Any, np.dtype[np.float32]] = text_ND.numpy()
    return embedding


if __name__ == "__main__":
    run_job("evaluate")
