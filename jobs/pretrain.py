"""Pretraining: Ray Train runs DeepSpeed on the pairs of a corpus, of a subset, or on those that it chooses meanwhile.

As a cluster job: `ray job submit ... -- python -m chexray.jobs.pretrain --corpus s3://... --out s3://...`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ray.train import UserCallback

from chexray.cluster.local import ray_session
from chexray.jobs.curated_epoch import train_curated_epoch
from chexray.jobs.curated_plan import Curation, epoch_of
from chexray.jobs.feed import feed_of, require_workers, validation_feed
from chexray.jobs.fit import fit
from chexray.jobs.progress import bar
from chexray.jobs.trackers import totals_of
from chexray.jobs.tracking import build_trackers, tracked
from chexray.jobs.train_worker import HISTORY_FILE
from chexray.platform import storage
from chexray.platform.artifacts import Manifest, Stage, read_manifest, require_same_corpus
from chexray.platform.cli import run_job
from chexray.platform.config import Recipe, Runtime
from chexray.platform.corpus.shards import read_columns
from chexray.platform.corpus.uids import write_uids
from chexray.platform.errors import ChexrayError, UsageError
from chexray.platform.ledger import curation_epoch_share, model_flops, training_cost
from chexray.platform.model.checkpoint import TRAINED_ON_FILE
from chexray.platform.training.loop import digest_ids


def pretrain(
    recipe: Recipe,
    corpus: str,
    out: str,
    subset: str | None = None,
    runtime: Runtime | None = None,
    overwrite: bool = False,
    curation: Curation | None = None,
    scorer: str | None = None,
    resume: bool = False,
    callbacks: Sequence[UserCallback] = (),
) -> Manifest:
    """Train `recipe.model` on the train split of `corpus`, or on the pairs that `subset` keeps of it.

    With `curation` the first epoch chooses: it scores the whole split without gradient, trains on what is kept, and the
    later epochs train on that. 'paper': inside the training step; 'streaming': `scorer` (or a warm-up) scores ahead and
    follows the model. Returns the checkpoint's manifest. A finished checkpoint of the same settings is left as it is;
    an unfinished one goes on from its last checkpoint; with `resume` there must be one of them.
    `callbacks`: see `fit`; of runs that do not choose their pairs.
    """
    runtime = runtime or Runtime()
    fewest = runtime.min_workers or runtime.workers
    if fewest > runtime.workers:
        raise UsageError(f"--min-workers {fewest}: more than --workers {runtime.workers}")
    if curation and subset:
        raise UsageError(f"--curation {curation} and --subset: give one of them")
    if scorer and not curation:
        raise UsageError("--scorer: is for runs that choose their pairs (--curation), or for chexray curate")
    trackers = build_trackers(recipe.run.trackers)
    inputs: dict[str, Any] = {"corpus": (corpus, "corpus")}
    if subset:
        require_same_corpus(subset, corpus)
        inputs["subset"] = (subset, "subset")
    if scorer:
        inputs["scorer"] = (scorer, "checkpoint")
    sections = {"model", "train", "curate"} if curation else {"model", "train"}
    settings = {**recipe.model_dump(include=sections), **({"curation": curation} if curation else {})}
    stage = Stage(out, "checkpoint", settings, inputs, overwrite=overwrite)
    if resume:
        stage.require_begun()
    epoch = epoch_of(recipe, corpus, curation, scorer) if curation else None
    pairs = storage.resolve(storage.join(subset, "corpus") if subset else corpus)
    feed, validation = feed_of(recipe, pairs), validation_feed(recipe, storage.resolve(corpus))
    require_workers(epoch.steps if epoch else feed.epoch_steps, runtime.workers)
    if done := stage.begin():
        return done
    with tracked(trackers, stage, recipe.run) as tracking:
        per_pair = model_flops(recipe.model)
        total = epoch.total_steps(recipe.train.epochs) if epoch else feed.total_steps
        scorers = runtime.scorers if curation == "streaming" else 0
        with ray_session(runtime, scorers), bar("pretrain", total, tracking.show) as reporter:
            if epoch:
                subset = train_curated_epoch(recipe, corpus, stage, epoch, scorer, runtime, reporter)
                pairs = storage.join(subset, "corpus")
                place = {"first_epoch": 1, "first_step": epoch.steps.steps, "planned_steps": epoch.later_steps}
                feed = feed_of(recipe, pairs, **place)
            if not epoch or recipe.train.epochs > 1:
                fit(recipe, stage, runtime, feed, total, reporter, validation=validation, callbacks=callbacks)
            starts, executed = reporter.starts(), reporter.counted()
        ids = read_columns(pairs, ["sample_id"], "train")["sample_id"].to_pylist()
        write_uids(stage.path(TRAINED_ON_FILE), ids)
        history = [json.loads(line) for line in storage.read_bytes(stage.path(HISTORY_FILE)).splitlines()]
        epochs = _accounted(history, ids, recipe.train.epochs, stage.uri)
        resumed = starts[0]["step"] if starts else len(history)
        repeated = executed - (len(history) - resumed)
        chosen = read_manifest(subset, "subset").cost if subset else {"total_flops": 0}
        seconds = sum(step["seconds"] * step["workers"] for step in history)
        cost = training_cost(per_pair, len(ids), recipe.train.epochs, int(chosen["total_flops"]), seconds)
        looks = sum("validation_loss" in step for step in history)
        more = {
            "validation_flops": per_pair.score * looks * validation.epoch_steps.pairs if validation else 0,
            "repeated_flops": per_pair.train * sum(step["pairs"] for step in history) * repeated // len(history),
        }
        cost |= more
        cost["total_flops"] += sum(more.values())
        full_pairs = read_manifest(corpus).counts["pairs_by_split"]["train"]
        cost["compute_vs_full"] = cost["total_flops"] / (per_pair.train * full_pairs * recipe.train.epochs)
        if epoch:
            cost["curation_epoch_vs_reference"] = curation_epoch_share(
                int(chosen["scoring_flops"]), per_pair, len(ids), full_pairs
            )
        counts = {
            "pairs": len(ids),
            "share_of_corpus": len(ids) / full_pairs,
            "epochs": recipe.train.epochs,
            "steps": len(history),
            "steps_repeated": repeated,
            "steps_skipped": sum(step["skipped"] for step in history),
            "starts": starts,
            "accounts": epochs,
        }
        manifest = stage.finish(counts, cost)
        tracking.totals = totals_of(manifest)
    return manifest


def _accounted(history: list[dict[str, Any]], ids: list[str], epochs: int, run: str) -> list[dict[str, int]]:
    """Pairs and steps of each epoch. Raises `ChexrayError` unless each trained on every pair of `ids` exactly once."""
    expected = digest_ids(ids)
    accounts = []
    for epoch in range(epochs):
        steps = [step for step in history if step["epoch"] == epoch]
        pairs = sum(step["pairs"] for step in steps)
        found = sum(step["digest"] for step in steps)
        if pairs != len(ids) or (found - expected) % 2**64:
            raise ChexrayError(
                f"{run}: epoch {epoch} trained on {pairs} pairs, which are not the {len(ids)} that it should: start it "
                "anew with --overwrite, and report this"
            )
        accounts.append({"epoch": epoch, "pairs": pairs, "steps": len(steps)})
    return accounts


if __name__ == "__main__":
    run_job("pretrain")
