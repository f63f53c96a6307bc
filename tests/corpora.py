"""Small corpora for tests, written by the product's own reader from images made here."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from chexray.platform import storage
from chexray.platform.artifacts import Stage
from chexray.platform.config import IngestConfig
from chexray.platform.corpus.counting import count_pairs
from chexray.platform.corpus.drops import decide_drops, drop_from_shard
from chexray.platform.corpus.ingest import ingest_chunk, merge_rejects
from chexray.platform.corpus.pair_reader import PairReader
from chexray.platform.corpus.plan import plan
from chexray.platform.corpus.salt import salt_name
from chexray.platform.corpus.schema import Reject, SourcePair

SALT = "a salt for tests"
CONFIG = IngestConfig(shard_pairs=7, short_side=64, codec="png", polarity="keep")


def pair(number: int, patient: int | None = None, **changes: Any) -> SourcePair:
    values: dict[str, Any] = {
        "dataset": "made",
        "source_id": f"scan-{number}",
        "image": f"images/{number}.png",
        "patient": f"PATIENT-{number // 3 if patient is None else patient}-SECRET",
        "study": f"STUDY-{number}-SECRET",
        "report": f"FINDINGS: Opacity number {number} in the left lung. IMPRESSION: Pneumonia.",
        "labels": {"Pneumonia": True, "Edema": False, "Hernia": None},
    }
    return SourcePair(**{**values, **changes})


def blobs(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A smooth random picture: unlike white noise it survives resizing and JPEG, as a radiograph does."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8)).astype(np.uint8)
    return np.asarray(PIL.Image.fromarray(coarse).resize((width, height), PIL.Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray, codec: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, codec, **options)
    return buffer.getvalue()


def write_corpus(
    root: str | Path,
    pairs: Sequence[SourcePair],
    images: dict[int, bytes] | None = None,
    config: IngestConfig = CONFIG,
    evaluation: Sequence[str] = (),
    salt: str = SALT,
) -> str:
    """Write the images of `pairs` (`images[n]` for the n-th of them, else blobs of that seed) and ingest them.

    Returns the URI of a finished corpus at root/corpus.
    """
    root = str(root)
    for number, source in enumerate(pairs):
        data = (images or {}).get(number) or encoded(blobs(number))
        storage.write_bytes(storage.join(root, "source", source.image), data)
    out = storage.join(root, "corpus")
    listed: list[SourcePair | Reject] = [*pairs]
    planned = plan(listed, config)
    settings = {"made": root, "salt": salt_name(salt)}
    stage = Stage(out, "corpus", settings, source=(storage.join(root, "source"), planned.digest))
    assert stage.begin() is None
    reader = PairReader(storage.join(root, "source"), config, salt)
    for chunk in planned.chunks:
        ingest_chunk(reader, out, chunk)
    dropped = decide_drops(out, evaluation, config)
    for chunk in planned.chunks:
        drop_from_shard(out, chunk.shard, dropped)
    reasons = merge_rejects(reader, out, planned, dropped.drop_columns(["sample_id"]))
    stage.finish(count_pairs(out, planned.listed, reasons))
    return out
