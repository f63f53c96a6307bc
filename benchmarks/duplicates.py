"""What looking for copies costs: the hashes of an image, and the search among many.

    .venv/bin/python benchmarks/duplicates.py [FOLDER]

Hashes are like chests': every run of 16 bits is that of one of the folder's first 300 PNG files, or of 300 drawn
radiographs, which are more alike than real ones.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from chexray.platform.corpus.duplicates import NEAR_DUPLICATE_BITS, near_duplicates, perceptual_hash, pixel_hash
from chexray.platform.corpus.quality import is_inverted
from chexray.platform.corpus.raster import decode_image
from chexray.platform.corpus.synthetic.cohort import SyntheticConfig
from chexray.platform.corpus.synthetic.dataset import draw_pair

IMAGES = 300
RUN_BITS = 16
ROUNDS = 5


def main() -> None:
    config = SyntheticConfig(pairs=IMAGES, size=512)
    images = [draw_pair(config, number).image_HW for number in range(40)]
    for name, work in (("pixel_hash", pixel_hash), ("perceptual_hash", perceptual_hash), ("is_inverted", is_inverted)):
        times = [_milliseconds(work, images) for _ in range(ROUNDS)]
        print(f"{name}: {np.median(times):.2f} ms ({min(times):.2f} to {max(times):.2f}) for 512 x 512 pixels")
    hashes = [np.frombuffer(perceptual_hash(image), np.uint8) for image in _chests(sys.argv[1:])]
    chests = np.unpackbits(np.array(hashes), axis=1)
    rng = np.random.default_rng(0)
    for count in (200_000, 1_200_000):
        started = time.process_time()
        found = near_duplicates(_like(chests, count, rng))
        seconds = time.process_time() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        what = f"{count:,} hashes within {NEAR_DUPLICATE_BITS} bits"
        print(f"{what}: {seconds:.0f} s, {len(found)} pairs, {peak:.0f} MiB")


def _chests(arguments: list[str]) -> list[np.ndarray]:
    if arguments:
        return [decode_image(file.read_bytes()) for file in sorted(Path(arguments[0]).glob("*.png"))[:IMAGES]]
    config = SyntheticConfig(pairs=IMAGES, size=128)
    return [draw_pair(config, number).image_HW for number in range(IMAGES)]


def _milliseconds(work: Callable[[np.ndarray], object], images: list[np.ndarray]) -> float:
    started = time.process_time()
    for image in images:
        work(image)
    return (time.process_time() - started) / len(images) * 1000


def _like(chests: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    bits = np.empty((count, chests.shape[1]), np.uint8)
    for start in range(0, chests.shape[1], RUN_BITS):
        run = slice(start, start + RUN_BITS)
        bits[:, run] = chests[rng.integers(0, len(chests), count), run]
    return np.packbits(bits, axis=1)


if __name__ == "__main__":
    main()
