"""Curation: scores the train split of a corpus and keeps a fraction of it. Writes a subset.

As a cluster job: `ray job submit ... -- python -m chexray.jobs.curate --corpus s3://... --out s3://... --keep 0.227`.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import ray
from safetensors.torch import save

from chexray.cluster.local import ray_session
from chexray.curation.audit import audit_subset
from chexray.curation.audit_page import audit_page
from chexray.curation.stream import curate_stream, random_keep
from chexray.curation.subset import subset_table
from chexray.jobs.pretrain import pretrain
from chexray.jobs.progress import bar
from chexray.platform import storage
from chexray.platform.artifacts import Manifest, Stage
from chexray.platform.cli import run_job
from chexray.platform.config import Recipe, Runtime
from chexray.platform.corpus.shards import read_columns, require_shards, write_compact_shard, write_table
from chexray.platform.errors import UsageError
from chexray.platform.ledger import pair_flops
from chexray.platform.model.checkpoint import export_checkpoint, load_checkpoint, write_uids
from chexray.platform.model.encoder import build_model

AUDITED = ("sample_id", "dataset", "view", "sex", "split", "labels")


def curate(
    recipe: Recipe,
    corpus: str,
    out: str,
    scorer: str | None = None,
    runtime: Runtime | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Keep `recipe.curate.keep` of the train split of `corpus`.

    `scorer` is a checkpoint's URI. Without one, the recipe's own towers score where they are pretrained; else a short
    warm-up trains them on a random share of the corpus first, and its cost is the subset's.
    """
    runtime = runtime or Runtime()
    inputs: dict[str, Any] = {"corpus": (corpus, "corpus")}
    settings = recipe.model_dump(include={"curate"})
    if scorer:
        inputs["scorer"] = (scorer, "checkpoint")
    elif recipe.curate.selector == "prototype":
        settings |= recipe.model_dump(include={"model", "train"})
    stage = Stage(out, "subset", settings, inputs, overwrite=overwrite)
    corpus = storage.resolve(corpus)
    shards = require_shards(corpus, "train")
    if done := stage.begin():
        return done
    pairs = read_columns(corpus, AUDITED, "train")
    with ray_session(runtime):
        if recipe.curate.selector == "random":
            kept = random_keep(pairs["sample_id"].to_pylist(), recipe.curate.keep, recipe.curate.seed)
            table = subset_table(pairs, kept=kept)
            cost: dict[str, Any] = {"total_flops": 0}
        else:
            used, cost = _scorer(recipe, corpus, scorer, stage, runtime)
            checkpoint = load_checkpoint(used)
            with bar("curate", len(pairs)) as reporter:
                size, batch = checkpoint.image_size, recipe.evaluate.batch
                curated = curate_stream(corpus, shards, used, size, batch, recipe.curate, runtime, reporter)
            table = subset_table(pairs, curated=curated)
            per_pair = pair_flops(checkpoint.model, size, checkpoint.context_length)
            cost["scoring_flops"] = per_pair.score * len(pairs)
            cost["total_flops"] = cost["warmup_flops"] + cost["scoring_flops"]
            storage.write_bytes(stage.path("prototypes.safetensors"), save({"prototypes": curated.prototype_KE}))
        kept_ids = table.filter(table["kept"])["sample_id"].to_pylist()
        if not kept_ids:
            raise UsageError(f"curate.keep={recipe.curate.keep}: keeps none of the {len(pairs)} pairs to train on")
        _write_compact_corpus(corpus, stage, [shard.path for shard in shards], kept_ids)
    write_table(stage.path("subset.parquet"), table)
    write_uids(stage.path("kept.npy"), kept_ids)
    audit = _audit(pairs, table)
    storage.write_json(stage.path("audit.json"), audit)
    storage.write_bytes(stage.path("audit.html"), audit_page(stage.uri.rsplit("/", 1)[-1], audit).encode())
    counts = {"pairs": len(pairs), "kept": len(kept_ids), "kept_fraction": len(kept_ids) / len(pairs)}
    return stage.finish(counts, cost)


def _scorer(
    recipe: Recipe, corpus: str, scorer: str | None, stage: Stage, runtime: Runtime
) -> tuple[str, dict[str, Any]]:
    """The checkpoint that scores, and what making it cost."""
    if scorer:
        return storage.resolve(scorer), {"warmup_flops": 0}
    used = stage.path("scorer")
    if recipe.model.pretrained:
        export_checkpoint(used, build_model(recipe.model, recipe.train.seed).state_dict(), recipe.model)
        return used, {"warmup_flops": 0}
    config = recipe.curate
    share = {"selector": "random", "keep": config.warmup_fraction}
    epochs = {"epochs": config.warmup_epochs, "checkpoint_epochs": config.warmup_epochs}
    warmup = recipe.model_copy(
        update={"curate": config.model_copy(update=share), "train": recipe.train.model_copy(update=epochs)}
    )
    sample = stage.path("warmup")
    curate(warmup, corpus, sample, runtime=runtime)
    manifest = pretrain(warmup, corpus, used, sample, runtime)
    return used, {"warmup_flops": manifest.cost["total_flops"]}


def _write_compact_corpus(corpus: str, stage: Stage, shards: list[str], kept_ids: list[str]) -> None:
    """The kept rows as shards of their own, so that training reads nothing else."""
    ids = ray.put(frozenset(kept_ids))
    write = ray.remote(num_cpus=1)(write_compact_shard)
    ray.get([write.remote(corpus, stage.path("corpus"), shard, ids) for shard in shards])


def _audit(pairs: pa.Table, table: pa.Table) -> dict[str, Any]:
    joined = pairs
    for name in ("band", "cluster", "kept"):
        joined = joined.append_column(name, table[name])
    return audit_subset(joined)


if __name__ == "__main__":
    run_job("curate")
