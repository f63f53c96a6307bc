"""Lungs of real radiographs, segmented from a frozen encoder: held-out Dice, against one mask for all.

    python benchmarks/lungs.py DATA [--checkpoint M] [--decoder linear] [--fine-tune]

DATA holds `images/` and `masks/` of the same names. In five turns, each by file (the patients are not known there): a
fifth is held out, the next fifth chooses the epoch, the rest trains; so every image is held out once. Without a
checkpoint the tower's weights are drawn and mean nothing. The mask for all is the training masks' mean in the tower's
square, cut where it is best for the validation masks. One JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch

from chexray.evals.masked_images import MaskedImages
from chexray.evals.overlap import overlap
from chexray.evals.segmentation import mask_at, protocol_name
from chexray.evals.segmentation_results import segment
from chexray.evals.statistics import Estimate, FloatArray, mean_estimates
from chexray.platform.config import load_recipe
from chexray.platform.evaluate_config import SegmentationConfig
from chexray.platform.model.checkpoint import load_checkpoint
from chexray.platform.model.encoder import build_model
from chexray.platform.model.layers import ImageLayers

TURNS = 5
CUTS = np.linspace(0.05, 0.95, 19)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--checkpoint")
    parser.add_argument("--tower", default="resnet10t", help="drawn weights of this timm model, without a checkpoint")
    parser.add_argument("--size", type=int, default=96, help="pixels, without a checkpoint")
    parser.add_argument("--decoder", choices=("linear", "unet"), default="linear")
    parser.add_argument("--fine-tune", action="store_true")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--tower-lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    maps, size = layers_of(arguments.checkpoint, arguments.tower, arguments.size, arguments.seed)
    config = SegmentationConfig(
        decoder=arguments.decoder,
        fine_tune=arguments.fine_tune,
        epochs=arguments.epochs,
        lr=arguments.lr,
        tower_lr=arguments.tower_lr,
        seed=arguments.seed,
    )
    names = sorted(path.name for path in (arguments.data / "images").iterdir())
    random.Random(arguments.seed).shuffle(names)
    score_B3 = np.concatenate([score_turn(arguments.data, names, turn, maps, size, config) for turn in range(TURNS)])
    report(score_B3, names, protocol_name(config, maps))


def layers_of(checkpoint: str | None, tower: str, size: int, seed: int) -> tuple[ImageLayers, int]:
    if checkpoint:
        loaded = load_checkpoint(checkpoint)
        return ImageLayers(loaded.model.visual, loaded.image_size), loaded.image_size
    recipe = load_recipe("tiny", [f"model.vision.timm_model={tower}", f"model.vision.image_size={size}"])
    return ImageLayers(build_model(recipe.model, seed).visual, size), size


def score_turn(
    data: Path, names: list[str], turn: int, maps: ImageLayers, size: int, config: SegmentationConfig
) -> FloatArray:
    """Of the turn's held-out images: Dice, IoU, and the Dice of one mask for all. [B, 3]."""
    fifths = [names[start::TURNS] for start in range(TURNS)]
    test, validation = fifths[turn], fifths[(turn + 1) % TURNS]
    train = [name for name in names if name not in test and name not in validation]
    parts = {"train": train, "validation": validation, "test": test}
    splits = {part: read_images(data, chosen) for part, chosen in parts.items()}
    _, table, segmenter = segment(maps, splits, ["lungs"], size, config, draws=10)
    one_for_all = mean_mask_dice(splits, size)
    print(f"turn {turn + 1}: epoch {segmenter.epoch + 1} of {config.epochs}, Dice {np.mean(table['dice']):.3f}")
    return np.column_stack([table["dice"], table["iou"], one_for_all])


def read_images(data: Path, names: list[str]) -> MaskedImages:
    images = [(data / "images" / name).read_bytes() for name in names]
    masks = [[(data / "masks" / name).with_suffix(".png").read_bytes()] for name in names]
    return MaskedImages(names, names, images, masks)


def mean_mask_dice(splits: dict[str, MaskedImages], size: int) -> list[float]:
    share_CSS = splits["train"].targets(range(len(splits["train"])), size).float().mean(0)

    def dice_at(cut: float, part: MaskedImages) -> list[float]:
        truths = [part.truth(row).astype(bool) for row in range(len(part))]
        return [float(overlap(mask_at(share_CSS - cut, truth.shape[1:]), truth, "one")[0][0]) for truth in truths]

    best = max(CUTS, key=lambda cut: float(np.mean(dice_at(cut, splits["validation"]))))
    return dice_at(best, splits["test"])


def report(score_B3: FloatArray, names: list[str], variant: str) -> None:
    held_out = [name for turn in range(TURNS) for name in names[turn::TURNS]]
    columns = np.column_stack([score_B3, score_B3[:, 0] - score_B3[:, 2]])
    named = ("dice", "iou", "mean mask's dice", "dice above the mean mask's")
    found = dict(zip(named, mean_estimates(columns, held_out), strict=True))
    for name, estimate in found.items():
        print(f"{name:28} {shown(estimate)}")
    values = {name: [estimate.value, estimate.low, estimate.high] for name, estimate in found.items()}
    print(json.dumps({"variant": variant, "images": len(held_out), **values}))


def shown(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


if __name__ == "__main__":
    main()
