"""Curation: scores the train split of a corpus and keeps a fraction of it. Writes a subset.

As a cluster job: `ray job submit ... -- python -m chexray.jobs.curate --corpus s3://... --out s3://... --keep 0.227`.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import ray

from chexray.cluster.local import ray_session
from chexray.curation.features import FEATURES_FOLDER, has_features
from chexray.curation.stream import Scoring, choose_again, require_keepable, score_stream
from chexray.curation.subset import chosen_table, subset_table
from chexray.curation.whole import choose_by_features, choose_unscored, needs_features
from chexray.jobs.progress import bar
from chexray.jobs.warmup import scorer_of
from chexray.jobs.write_subset import AUDITED, require_kept, write_subset
from chexray.platform import storage
from chexray.platform.artifacts import Manifest, Stage, read_manifest, require_same_corpus
from chexray.platform.cli import run_job
from chexray.platform.config import Recipe, Runtime
from chexray.platform.corpus.shards import Shard, read_columns, require_shards
from chexray.platform.errors import UsageError
from chexray.platform.ledger import add_costs, curation_cost, pair_flops
from chexray.platform.model.checkpoint import load_checkpoint
from chexray.platform.model.scoring import scoring_size

_REFERENCE = "reference-features"


def curate(
    recipe: Recipe,
    corpus: str,
    out: str,
    scorer: str | None = None,
    runtime: Runtime | None = None,
    overwrite: bool = False,
    features: str | None = None,
    reference: str | None = None,
) -> Manifest:
    """Keep `recipe.curate.keep` of the train split of `corpus`, by `recipe.curate.selector`.

    `scorer` is a checkpoint's URI. Without one, the recipe's own towers score where they are pretrained; else a short
    warm-up trains them on a random share of the corpus first, and its cost is the subset's. `features`: another subset
    of the corpus, whose features are used instead of scoring again. `reference`: a checkpoint, for `learnability`.
    """
    runtime = runtime or Runtime()
    config = recipe.curate
    inputs = _inputs(recipe, corpus, scorer, features, reference)
    settings = recipe.model_dump(include={"curate"})
    if needs_features(config) and not (scorer or features):
        settings |= recipe.model_dump(include={"model", "train"})
    stage = Stage(out, "subset", settings, inputs, overwrite=overwrite)
    corpus = storage.resolve(corpus)
    shards = require_shards(corpus, "train")
    require_keepable(config, sum(shard.pairs for shard in shards))
    if done := stage.begin():
        return done
    pairs = read_columns(corpus, AUDITED, "train")
    with ray_session(runtime):
        if not needs_features(config):
            table = subset_table(pairs, kept=choose_unscored(pairs, config, corpus))
            require_kept(table, config)
            return write_subset(stage, corpus, shards, pairs, table, curation_cost(), config=config)
        used = storage.join(storage.resolve(features), FEATURES_FOLDER) if features else stage.path(FEATURES_FOLDER)
        if features:
            curated, cost = None, dict(read_manifest(features, "subset").cost)  # it is not to be had for less
            borrowed = {"features_flops": cost["total_flops"]}
        else:
            curated, cost = _score(recipe, corpus, shards, scorer, stage, runtime)
            borrowed = {}
        if config.selector == "prototype":
            table = subset_table(pairs, curated=curated or choose_again(used, config))
        else:
            against = None
            if reference:
                against = stage.path(_REFERENCE)
                cost = add_costs(cost, _embed(recipe, corpus, shards, reference, against, runtime)[1])
            table = _choose_whole(pairs, used, against, recipe)
        require_kept(table, config)
        return write_subset(stage, corpus, shards, pairs, table, {**cost, **borrowed}, config=config, features=used)


def _inputs(
    recipe: Recipe, corpus: str, scorer: str | None, features: str | None, reference: str | None
) -> dict[str, Any]:
    inputs: dict[str, Any] = {"corpus": (corpus, "corpus")}
    selector = recipe.curate.selector
    if features and scorer:
        raise UsageError("--features and --scorer: give one of them; features are there already")
    if reference is None and selector == "learnability":
        raise UsageError(
            "--selector learnability: compares losses with another model's; give its --reference CHECKPOINT"
        )
    if reference and selector != "learnability":
        raise UsageError(f"--reference: is for selector learnability, and this is {selector}")
    if (features or scorer) and not needs_features(recipe.curate):
        raise UsageError(f"--selector {selector}: chooses without looking at pairs; leave --scorer and --features out")
    if features:
        require_same_corpus(features, corpus, "--features")
        if not has_features(storage.join(features, FEATURES_FOLDER)):
            source = read_manifest(features, "subset").inputs.get("features")
            hint = f"it used those of {source}: give that" if source else "it was chosen without any"
            raise UsageError(f"--features {features}: this subset has no features of its own; {hint}")
        inputs["features"] = (features, "subset")
    for role, uri in (("scorer", scorer), ("reference", reference)):
        if uri:
            inputs[role] = (uri, "checkpoint")
    return inputs


def _score(
    recipe: Recipe, corpus: str, shards: list[Shard], scorer: str | None, stage: Stage, runtime: Runtime
) -> tuple[Any, dict[str, Any]]:
    """Score the corpus into the subset's own features; what was chosen meanwhile, and what it cost."""
    used, warmup = scorer_of(recipe, corpus, scorer, stage.uri, runtime)
    curated, cost = _embed(recipe, corpus, shards, used, stage.path(FEATURES_FOLDER), runtime)
    return curated, {**cost, "warmup_flops": warmup, "total_flops": cost["total_flops"] + warmup}


def _embed(
    recipe: Recipe, corpus: str, shards: list[Shard], checkpoint: str, features: str, runtime: Runtime
) -> tuple[Any, dict[str, Any]]:
    config = recipe.curate
    loaded = load_checkpoint(checkpoint)
    size = scoring_size(config.image_size, loaded)
    scale = float(loaded.model.logit_scale.detach().exp())
    scoring = Scoring(corpus, shards, storage.resolve(checkpoint), size, scale, recipe.evaluate.batch, features)
    pairs = sum(shard.pairs for shard in shards)
    with bar("score", pairs) as reporter:
        scored = score_stream(scoring, config, runtime, reporter)
    per_pair = pair_flops(loaded.model, size, loaded.context_length)
    return scored.curated, curation_cost(per_pair, pairs, scored.device_seconds)


def _choose_whole(pairs: pa.Table, features: str, reference: str | None, recipe: Recipe) -> pa.Table:
    chosen = ray.get(ray.remote(num_cpus=1)(choose_by_features).remote(features, reference, recipe.curate))
    kept = [sample for sample, keep in zip(chosen["sample_id"], chosen["kept"], strict=True) if keep]
    return chosen_table(pairs, kept)


if __name__ == "__main__":
    run_job("curate")
