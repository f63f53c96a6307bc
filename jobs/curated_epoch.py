"""The first epoch of a run that chooses its pairs: it scores the corpus, trains on what it keeps, writes a subset."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import ray

from chexray.curation.ahead import Outcome, scored_ahead, start_ahead_curator
from chexray.curation.features import FEATURES_FOLDER
from chexray.curation.plan import CurationPlan
from chexray.curation.stream import SHUFFLE_SHARDS, require_pairs
from chexray.curation.subset import subset_table
from chexray.jobs.epoch_batches import InlineChoice, sample_steps
from chexray.jobs.feed import Feed
from chexray.jobs.fit import STATE_FOLDER, feed_of, fit, validation_feed
from chexray.jobs.warmup import scorer_of
from chexray.jobs.write_subset import AUDITED, require_kept, write_subset
from chexray.platform import storage
from chexray.platform.artifacts import Stage, read_manifest
from chexray.platform.config import CurateConfig, Recipe, Runtime
from chexray.platform.corpus.order import EpochSteps, epoch_windows
from chexray.platform.corpus.shards import read_columns
from chexray.platform.errors import UsageError
from chexray.platform.ledger import curation_cost, pair_flops
from chexray.platform.model.checkpoint import load_checkpoint, require_checkpoint, require_same_model
from chexray.platform.model.scoring import scoring_size

Curation = Literal["paper", "streaming"]


@dataclass(frozen=True)
class CuratedEpoch:
    """How a run's epochs are cut: steps of the first, and planned ones of each later one (exact with a budget)."""

    plan: CurationPlan
    mode: Curation

    @property
    def config(self) -> CurateConfig:
        """The settings that choose: inside the step a super-batch is a global batch."""
        config = self.plan.config
        return config if self.mode == "streaming" else config.model_copy(update={"super_batch": self.plan.global_batch})

    @property
    def follows(self) -> bool:
        """Whether the run's own weights score, so that it starts from the scorer's."""
        return self.mode == "paper" or self.plan.config.refresh_steps is not None

    @property
    def steps(self) -> EpochSteps:
        return self.plan.steps if self.mode == "streaming" else EpochSteps(self.plan.pairs, self.plan.global_batch)

    @property
    def later_steps(self) -> int:
        return self.plan.steps.steps

    def total_steps(self, epochs: int) -> int:
        return self.steps.steps + self.later_steps * (epochs - 1)


def epoch_of(recipe: Recipe, corpus: str, mode: Curation, scorer: str | None) -> CuratedEpoch:
    """What the epoch will do. `UsageError` for settings that do not go with the mode."""
    config = recipe.curate
    if config.selector != "prototype":
        raise UsageError(f"--curation {mode}: chooses by prototypes; curate.selector is {config.selector}")
    if mode == "streaming" and config.mode == "paper":
        raise UsageError("--curation streaming: needs curate.mode=budget; for fixed counts give --curation paper")
    pairs = int(read_manifest(corpus, "corpus").counts["pairs_by_split"]["train"])
    require_pairs(config, pairs)
    epoch = CuratedEpoch(CurationPlan(config, pairs, recipe.train.global_batch), mode)
    if scorer and epoch.follows:
        require_checkpoint(scorer)
        require_same_model(scorer, recipe.model)
    return epoch


def train_curated_epoch(
    recipe: Recipe, corpus: str, stage: Stage, epoch: CuratedEpoch, scorer: str | None, runtime: Runtime, reporter: Any
) -> str:
    """Train the first epoch of the run `stage` and return the URI of its subset. One that is complete is not redone."""
    inputs: dict[str, Any] = {"corpus": (corpus, "corpus")}
    chosen = Stage(stage.path("subset"), "subset", {**stage.config, "run": stage.fingerprint}, inputs)
    corpus = storage.resolve(corpus)
    if chosen.begin():
        return chosen.uri
    storage.remove_tree(stage.path(STATE_FOLDER))  # an epoch without its subset starts anew
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
        result = ray.get(running or curator.get.remote())
    finally:
        ray.kill(curator)
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
    scored = scored_ahead(curator, epoch.plan, scorer, feed.corpus, windows, feed.image_size, runtime)
    (stream,) = scored.streaming_split(1)
    return curator, curator.run.remote(stream)


def _cost(scorer: str, epoch: CuratedEpoch, scored: int, seconds: float, warmup: int) -> dict[str, Any]:
    loaded = load_checkpoint(scorer)
    size = scoring_size(epoch.plan.config.image_size if epoch.mode == "streaming" else None, loaded)
    per_pair = pair_flops(loaded.model, size, loaded.context_length)
    cost = curation_cost(per_pair, scored, seconds)
    return {**cost, "warmup_flops": warmup, "total_flops": cost["total_flops"] + warmup}
