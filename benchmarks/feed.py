"""Images a second from a corpus to a trainer: our feed through Ray Data against a torch DataLoader, on the same JPEGs.

    python benchmarks/feed.py CORPUS --size 378 --rounds 3

Both with two processes. The DataLoader does what a plain training script does: it opens each JPEG with
Pillow, converts it to RGB, resizes it (bicubic) and normalises it in float. Ours hands on 8-bit grey, normalised
on the device. A round is both, one after the other, over as many epochs as it takes; the first batch of each is not
counted, as it waits for processes to start. Ratios within a round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2 as transforms

from chexray.cluster.local import ray_session
from chexray.jobs.feed import feed_of
from chexray.platform.config import Runtime, load_recipe
from chexray.platform.corpus.shards import read_columns
from chexray.platform.model.preprocess import PREPROCESS_CFG

PROCESSES = 2
BATCH = 64


class JpegFiles(Dataset[torch.Tensor]):
    def __init__(self, folder: Path, size: int) -> None:
        self.files = sorted(folder.iterdir())
        self.transform = transforms.Compose(
            [
                transforms.Resize((size, size), interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.ToImage(),
                transforms.ToDtype(torch.float32, scale=True),
                transforms.Normalize(PREPROCESS_CFG["mean"], PREPROCESS_CFG["std"]),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        found: torch.Tensor = self.transform(Image.open(self.files[index]).convert("RGB"))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--size", type=int, default=378)
    parser.add_argument("--images", type=int, default=12_000, help="of a measurement, at least")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    images = read_columns(given.corpus, ["image"], "train")["image"].to_pylist()
    epochs = -(-given.images // len(images))
    recipe = load_recipe(
        "tiny", [f"model.vision.image_size={given.size}", f"train.global_batch={BATCH}", f"train.epochs={epochs}"]
    )
    feed = replace(feed_of(recipe, given.corpus), readers=PROCESSES)
    ratios = []
    with tempfile.TemporaryDirectory() as name, ray_session(Runtime(cpus=PROCESSES)):
        folder = Path(name)
        for number, image in enumerate(images):
            (folder / f"{number}.jpg").write_bytes(image)
        files = JpegFiles(folder, given.size)
        loader = DataLoader(files, BATCH, shuffle=True, num_workers=PROCESSES, persistent_workers=True)
        for number in range(given.rounds):
            ours = _rate(batch.image for batch in feed.batches(0, 1))
            theirs = _rate(batch for _ in range(epochs) for batch in loader)
            ratios.append(ours / theirs)
            print(f"round {number}: feed {ours:.0f} images/s, DataLoader {theirs:.0f} images/s, ratio {ratios[-1]:.2f}")
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"{given.size} pixels, {PROCESSES} processes: ratio {statistics.median(ratios):.2f} ({spread})")


def _rate(batches: Iterable[Any]) -> float:
    """Images a second after the first batch."""
    iterator = iter(batches)
    next(iterator)
    started, count = time.perf_counter(), 0
    for batch in iterator:
        count += len(batch)
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
