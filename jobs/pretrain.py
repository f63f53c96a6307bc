"""Pretraining: Ray Train runs DeepSpeed on the pairs of a corpus, or of a subset of one. Writes a checkpoint.

As a cluster job: `ray job submit ... -- python -m chexray.jobs.pretrain --corpus s3://... --out s3://...`.
"""

from __future__ import annotations

from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from chexray.cluster.local import ray_session
from chexray.jobs.failures import cause_of
from chexray.jobs.progress import bar
from chexray.jobs.train_entry import train_entry
from chexray.jobs.train_worker import feed_of
from chexray.platform import storage
from chexray.platform.artifacts import Manifest, Stage, read_manifest, require_same_corpus
from chexray.platform.cli import run_job
from chexray.platform.config import Recipe, Runtime
from chexray.platform.corpus.shards import read_columns
from chexray.platform.errors import ChexrayError, UsageError
from chexray.platform.ledger import PairFlops, pair_flops, training_cost
from chexray.platform.model.checkpoint import TRAINED_ON_FILE, write_uids
from chexray.platform.model.encoder import build_model

STATE_FOLDER = "state"


def pretrain(
    recipe: Recipe,
    corpus: str,
    out: str,
    subset: str | None = None,
    runtime: Runtime | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Train `recipe.model` on the train split of `corpus`, or on the pairs that `subset` keeps of it.

    Returns the checkpoint's manifest. A finished checkpoint of the same settings is left as it is; an unfinished one
    goes on from its last saved epoch.
    """
    runtime = runtime or Runtime()
    inputs: dict[str, Any] = {"corpus": (corpus, "corpus")}
    if subset:
        require_same_corpus(subset, corpus)
        inputs["subset"] = (subset, "subset")
    stage = Stage(out, "checkpoint", recipe.model_dump(include={"model", "train"}), inputs, overwrite=overwrite)
    pairs = storage.resolve(storage.join(subset, "corpus") if subset else corpus)
    feed = feed_of(pairs, recipe.model, recipe.train)
    smallest = feed.epoch_steps.pairs // feed.epoch_steps.steps
    if smallest < runtime.workers:
        raise UsageError(
            f"--workers {runtime.workers}: a step has only {smallest} pairs; use fewer workers or a larger "
            "train.global_batch"
        )
    if done := stage.begin():
        return done
    per_pair = _pair_flops(recipe)
    with ray_session(runtime), bar("pretrain", feed.total_steps) as reporter:
        settings = {
            "model": recipe.model.model_dump(),
            "train": recipe.train.model_dump(),
            "pairs": pairs,
            "out": stage.uri,
            "reporter": reporter,
        }
        _fit(settings, stage, recipe, runtime)
    ids = read_columns(pairs, ["sample_id"], "train")["sample_id"].to_pylist()
    write_uids(stage.path(TRAINED_ON_FILE), ids)
    before = int(read_manifest(subset).cost["total_flops"]) if subset else 0
    cost = training_cost(per_pair, len(ids), recipe.train.epochs, before=before)
    full_pairs = read_manifest(corpus).counts["pairs_by_split"]["train"]
    cost["compute_vs_full"] = cost["total_flops"] / (per_pair.train * full_pairs * recipe.train.epochs)
    return stage.finish({"pairs": len(ids), "epochs": recipe.train.epochs, "steps": feed.total_steps}, cost)


def _pair_flops(recipe: Recipe) -> PairFlops:
    """Counted on a model with drawn weights: which they are makes no difference, and none are fetched."""
    blank = {
        "vision": recipe.model.vision.model_copy(update={"weights": None}),
        "text": recipe.model.text.model_copy(update={"hf_weights": False}),
    }
    model = build_model(recipe.model.model_copy(update=blank), 0)
    return pair_flops(model, recipe.model.vision.image_size, recipe.model.text.context_length)


def _fit(settings: dict[str, Any], stage: Stage, recipe: Recipe, runtime: Runtime) -> None:
    """Run Ray Train, storing its checkpoints below the artifact, where the same run finds them again."""
    fs, path = storage.arrow_filesystem(stage.path(STATE_FOLDER))
    resources = {"GPU": 1.0} if runtime.gpu else {"CPU": 1.0}
    trainer = TorchTrainer(
        train_entry,
        train_loop_config=settings,
        torch_config=TorchConfig(backend="nccl" if runtime.gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=runtime.workers, use_gpu=runtime.gpu, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name="run",
            storage_path=path,
            storage_filesystem=fs,
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=recipe.train.checkpoints_kept),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        cause = cause_of(error)
        if isinstance(cause, ChexrayError):
            raise cause from None
        raise ChexrayError(f"pretraining failed: {type(cause).__name__}: {cause}") from error


if __name__ == "__main__":
    run_job("pretrain")
