"""A small corpus and the recipe of small runs on it: what the tests of the whole path share."""

from __future__ import annotations

from chexray.platform.config import Recipe, load_recipe

PAIRS = 320
SMALL = [
    "model.embed_dim=32",
    "model.vision.timm_model=test_convnext",
    "model.vision.image_size=64",
    "model.text.width=32",
    "model.text.layers=1",
    "model.text.context_length=32",
    "ingest.shard_pairs=48",
    "ingest.test_share=0.25",
    "train.epochs=5",
    "train.global_batch=48",
    "train.shuffle_shards=2",
    "curate.super_batch=64",
    "curate.kmeans_sample=128",
    "curate.warmup_epochs=1",
    "evaluate.bootstrap=50",
    "evaluate.min_positives=2",
]


def small(*more: str) -> Recipe:
    return load_recipe("tiny", [*SMALL, *more])
