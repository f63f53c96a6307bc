"""What a run costs, in floating-point operations: counted once per shape by torch, then multiplied by pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import cache
from math import prod
from typing import Any

import torch
from open_clip.model import CustomTextCLIP
from torch.utils.flop_counter import FlopCounterMode

from chexray.platform.artifacts import Manifest
from chexray.platform.config import ModelConfig
from chexray.platform.model.encoder import build_blank_model
from chexray.platform.model.preprocess import normalise
from chexray.platform.model.towers import fit_input_size

_COUNTED_PAIRS = 2


@dataclass(frozen=True)
class PairFlops:
    """FLOPs of one pair: through each tower forward (scoring), and forward and backward (training)."""

    score_image: int
    score_text: int
    train_image: int
    train_text: int

    @property
    def score(self) -> int:
        return self.score_image + self.score_text

    @property
    def train(self) -> int:
        return self.train_image + self.train_text

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def pair_flops(model: CustomTextCLIP, image_size: int, tokens: int) -> PairFlops:
    """Count one pair of this model, at any image size (pixels), whatever it was made for.

    Matrix products and convolutions count, as usual; elementwise work does not.
    """
    model = deepcopy(model).eval()
    fit_input_size(model.visual, image_size)
    image = normalise(torch.zeros(_COUNTED_PAIRS, image_size, image_size, dtype=torch.uint8))
    token = torch.ones(_COUNTED_PAIRS, tokens, dtype=torch.int64)
    counts = [
        _count(encode, batch, backward)
        for backward in (False, True)
        for encode, batch in ((model.encode_image, image), (model.encode_text, token))
    ]
    return PairFlops(*counts)


@cache
def model_flops(config: ModelConfig) -> PairFlops:
    """Of a pair through this model, at its own image size and context length."""
    return pair_flops(build_blank_model(config), config.vision.image_size, config.text.context_length)


def curation_cost(per_pair: PairFlops | None = None, pairs: int = 0, device_seconds: float = 0.0) -> dict[str, Any]:
    """The ledger of a choice: `pairs` scored without gradient, at `per_pair` of the scorer. Nothing, without one."""
    image, text = (per_pair.score_image, per_pair.score_text) if per_pair else (0, 0)
    return {
        "pairs_scored": pairs,
        "scoring_flops": (image + text) * pairs,
        "scoring_flops_by_tower": {"image": image * pairs, "text": text * pairs},
        "scoring_device_seconds": round(device_seconds, 3),
        "warmup_flops": 0,
        "total_flops": (image + text) * pairs,
    }


def add_costs(cost: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The sum of two ledgers of the same entries, towers and all."""
    return {
        name: add_costs(value, more[name]) if isinstance(value, Mapping) else value + more[name]
        for name, value in cost.items()
    }


def joint_flops(manifests: Sequence[Manifest]) -> int:
    """FLOPs of having made several subsets, with features that some took from another counted once."""
    total, counted = 0, set()
    for manifest in manifests:
        own, source = manifest.fingerprint, manifest.input_fingerprints.get("features")
        flops = int(manifest.cost["total_flops"])
        if own in counted:  # another one used its features, and paid for all of it
            flops = 0
        elif source in counted:
            flops -= int(manifest.cost["features_flops"])
        total += flops
        counted |= {own, source} - {None}
    return total


def training_cost(
    per_pair: PairFlops, pairs: int, epochs: int, before: int = 0, device_seconds: float = 0.0
) -> dict[str, Any]:
    """The ledger of a run: what was trained, and `before`, the FLOPs spent on making the subset."""
    seen = pairs * epochs
    return {
        "flops_per_pair": per_pair.as_dict(),
        "pairs_trained": seen,
        "training_flops": per_pair.train * seen,
        "training_flops_by_tower": {"image": per_pair.train_image * seen, "text": per_pair.train_text * seen},
        "training_device_seconds": round(device_seconds, 3),
        "curation_flops": before,
        "total_flops": per_pair.train * seen + before,
    }


def curation_epoch_share(scoring_flops: int, per_pair: PairFlops, kept: int, pairs: int) -> float:
    """FLOPs of an epoch that scores `pairs` and trains on `kept` of them, over those of training on them all.

    The latter is what the paper's released code spends on its first epoch: it runs backward through every pair.
    """
    return (scoring_flops + per_pair.train * kept) / (per_pair.train * pairs)


def _conv_backward_flops(
    grad_shape: Sequence[int],
    input_shape: Sequence[int],
    weight_shape: Sequence[int],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: Sequence[bool],
    **_: Any,
) -> int:
    """A convolution's gradients by input and by weight cost as much as itself, each.

    torch's own formula (2.15) takes the weight gradient of a grouped convolution for a dense one's: 2.8 times too much
    for a whole ConvNeXt.
    """
    positions = prod(input_shape if transposed else grad_shape)
    return 2 * positions * prod(weight_shape[1:]) * sum(output_mask[:2])


def _count(encode: Any, batch: torch.Tensor, backward: bool) -> int:
    formulas = {torch.ops.aten.convolution_backward: _conv_backward_flops}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter, torch.set_grad_enabled(backward):
        output = encode(batch)
        if backward:
            output.sum().backward()
    return int(counter.get_total_flops()) // _COUNTED_PAIRS
