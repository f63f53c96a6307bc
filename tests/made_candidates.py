"""Candidates for selectors, and plain loops that choose from them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from chexray.curation.selectors import Candidates, SelectorSettings, select_whole

FEATURE_SELECTORS = ("similarity", "density", "semdedup", "k_center")
SMALL = SelectorSettings(seed=3, neighbours=2, clusters=3, kmeans_sample=12, block=7)


def ids(pairs: int, seed: int = 0) -> list[str]:
    """Distinct ids of 32 hex digits, in no order."""
    return [f"{value:032x}" for value in random.Random(seed).sample(range(2**60), pairs)]


def unit_rows(rows: int, width: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def signed_axes(rows: int, width: int, seed: int) -> list[list[int]]:
    """Whole-number unit vectors, so that distances are whole too: copies, opposites and ties all over."""
    draw, axes = random.Random(seed), []
    for _ in range(rows):
        axis = [0] * width
        axis[draw.randrange(width)] = draw.choice((-1, 1))
        axes.append(axis)
    return axes


def candidates(pairs: int, seed: int, width: int = 5, tied: bool = False) -> Candidates:
    draw = torch.Generator().manual_seed(seed)
    image_ND, text_ND = unit_rows(pairs, width, seed), unit_rows(pairs, width, seed + 1)
    losses = [torch.rand(pairs, generator=draw) for _ in range(2)]
    if tied:
        image_ND = torch.tensor(signed_axes(pairs, 3, seed)).float().reshape(pairs, 3)
        text_ND = torch.tensor(signed_axes(pairs, 3, seed + 1)).float().reshape(pairs, 3)
        losses = [loss_N.mul(4).round().div(4) for loss_N in losses]
    strata = [random.Random(f"{seed}-{row}").choice("abcd") for row in range(pairs)]
    words = [random.Random(f"{seed}-words-{row}") for row in range(pairs)]
    reports = [" ".join(word.choices(["clear", "lungs", "hernia", "nodule"], k=word.randrange(4))) for word in words]
    return Candidates(ids(pairs, seed), image_ND, text_ND, strata, *losses, reports)


def reorder(given: Candidates, rows: list[int]) -> Candidates:
    def taken(value: Any) -> Any:
        return value[rows] if isinstance(value, torch.Tensor) else [value[row] for row in rows]

    return Candidates(**{name: taken(value) for name, value in vars(given).items()})


def kept(name: str, given: Candidates, count: int, chosen: SelectorSettings = SMALL) -> list[int]:
    return select_whole(name, given, count, chosen).nonzero()[0].tolist()


def lowest(score: Sequence[float], sample_id: Sequence[str], count: int) -> list[int]:
    return sorted(sorted(range(len(score)), key=lambda row: (score[row], sample_id[row]))[:count])


def feature_rows(given: Candidates) -> list[list[float]]:
    """The features in float64: image and text side by side, each at half of the weight."""
    assert given.image_ND is not None
    assert given.text_ND is not None
    return (torch.cat([given.image_ND, given.text_ND], dim=1).double() / math.sqrt(2)).tolist()


def squared(a: Sequence[float], b: Sequence[float]) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def brute_sparse(rows: Sequence[Sequence[float]], sample_id: Sequence[str], count: int, k: int) -> list[int]:
    score = [
        -sorted(squared(row, rows[other]) for other in range(len(rows)) if other != place)[k - 1]
        for place, row in enumerate(rows)
    ]
    return lowest(score, sample_id, count)


def brute_centers(rows: Sequence[Sequence[float]], sample_id: Sequence[str], count: int, start: int) -> list[int]:
    picks = [start]
    while len(picks) < count:
        left = [row for row in range(len(rows)) if row not in picks]
        picks.append(min(left, key=lambda row: (-min(squared(rows[row], rows[p]) for p in picks), sample_id[row])))
    return sorted(picks[:count])


def nearest_to_mean(rows: Sequence[Sequence[float]]) -> list[float]:
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return [squared(row, mean) for row in rows]
