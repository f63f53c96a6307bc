"""The first epoch of a run that chooses its pairs: it scores the corpus, trains on what it keeps, writes a subset."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import ray

from chexray.curation.ahead import AheadStream, Outcome, start_ahead_curator
from chexray.curation.features import FEATURES_FOLDER
from chexray.curation.stream import SHUFFLE_SHARDS
from chexray.curation.subset import subset_table
from chexray.jobs.curated_plan import CuratedEpoch
from chexray.jobs.feed import Feed, feed_of, validation_feed
from chexray.jobs.fit import fit
from chexray.jobs.inline_batches import InlineChoice, sample_steps
from chexray.jobs.warmup import scorer_of
from chexray.jobs.write_subset import AUDITED, require_kept, write_subset
from chexray.platform import storage
from chexray.platform.artifacts import Stage
from chexray.platform.config import Recipe, Runtime
from chexray.platform.corpus.order import EpochSteps, epoch_windows
from chexray.platform.corpus.shards import read_columns
from chexray.platform.errors import LostWorkersError
from chexray.platform.ledger import curation_cost, pair_flops
from chexray.platform.model.checkpoint import load_checkpoint
from chexray.platform.model.scoring import scoring_size

_CLOSING = 10.0
"""Seconds for which a curator is given time to tidy up."""


def train_curated_epoch(
    recipe: Recipe, corpus: str, stage: Stage, epoch: CuratedEpoch, scorer: str | None, runtime: Runtime, reporter: Any
) -> str:
    """Train the first epoch of the run `stage` and return the URI of its subset. One that is complete is not redone.

    Where workers are lost it goes on from the last checkpoint, with as many as there are, `recipe.run.max_failures`
    times.
    """
    left = recipe.run.max_failures
    while True:
        try:
            return _train_once(recipe, corpus, stage, epoch, scorer, runtime, reporter)
        except LostWorkersError as error:
            if left == 0:
                raise
            left -= 1
            reporter.warn(f"{error}: the epoch that chooses its pairs goes on from its last checkpoint")


def _train_once(
    recipe: Recipe, corpus: str, stage: Stage, epoch: CuratedEpoch, scorer: str | None, runtime: Runtime, reporter: Any
) -> str:
    inputs: dict[str, Any] = {"corpus": (corpus, "corpus")}
    chosen = Stage(stage.path("subset"), "subset", {**stage.config, "run": stage.fingerprint}, inputs)
    corpus = storage.resolve(corpus)
    if chosen.begin():
        return chosen.uri
    plan, feed = epoch.plan, replace(feed_of(recipe, corpus), epochs=1)
    used, warmup = scorer_of(recipe, corpus, scorer, chosen.uri, runtime)
    curation: dict[str, Any] = {"mode": epoch.mode, "plan": plan, "subset": chosen.uri}
    validation = validation_feed(recipe, corpus)
    total = epoch.total_steps(recipe.train.epochs)
    counts: dict[str, Any] = {}
    curator, running = _start_curator(epoch, feed, used, chosen, recipe, runtime)
    curation["curator"] = curator
    try:
        fit(recipe, stage, runtime, feed, total, reporter, used if epoch.follows else None, curation, validation)
        try:
            result = ray.get(running or curator.get.remote())
        except ray.exceptions.RayError as error:
            raise LostWorkersError(f"the curator is lost: {type(error).__name__}") from error
    finally:
        _end(curator)
    seconds, scored = 0.0, plan.pairs
    if isinstance(result, Outcome):
        age = result.staleness
        counts["staleness_steps"] = {"most": int(age.max()), "mean": round(float(age.mean()), 2)}
        seconds, result = result.device_seconds, result.curated
    else:
        steps = EpochSteps(plan.pairs, plan.global_batch)
        scored += steps.bounds(sample_steps(plan) - 1)[1]
    pairs = read_columns(corpus, AUDITED, "train")
    table = subset_table(pairs, curated=result)
    require_kept(table, plan.config)
    if plan.config.mode == "paper":
        reporter.warn(
            f"fixed counts kept {result.selection.keep_B.float().mean():.1%}: the share follows from "
            f"train.global_batch={plan.global_batch} (the paper's is 480); --keep sets it"
        )
    cost = _cost(used, epoch, scored, seconds, warmup)
    features = chosen.path(FEATURES_FOLDER)
    write_subset(chosen, corpus, feed.shards, pairs, table, cost, counts, epoch.config, features)
    return chosen.uri


def _start_curator(
    epoch: CuratedEpoch, feed: Feed, scorer: str, chosen: Stage, recipe: Recipe, runtime: Runtime
) -> tuple[Any, Any]:
    """The actor that curates and its run, which ends with the epoch; or the one that takes what the workers choose."""
    if epoch.mode == "paper":
        return InlineChoice.remote(), None
    curator = start_ahead_curator(epoch.plan, chosen.path(FEATURES_FOLDER))
    windows = epoch_windows(feed.shards, 0, recipe.train.seed, SHUFFLE_SHARDS)
    return curator, curator.run.remote(AheadStream(feed.corpus, windows, scorer, feed.image_size, runtime))


def _end(curator: Any) -> None:
    with suppress(ray.exceptions.RayError):  # it may be gone
        ray.get(curator.close.remote(), timeout=_CLOSING)
    ray.kill(curator)


def _cost(scorer: str, epoch: CuratedEpoch, scored: int, seconds: float, warmup: int) -> dict[str, Any]:
    loaded = load_checkpoint(scorer)
    size = scoring_size(epoch.plan.config.image_size if epoch.mode == "streaming" else None, loaded)
    per_pair = pair_flops(loaded.model, size, loaded.context_length)
    cost = curation_cost(per_pair, scored, seconds)
    return {**cost, "warmup_flops": warmup, "total_flops": cost["total_flops"] + warmup}
