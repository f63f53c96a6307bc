"""FLOPs of a pair, against formulas written out by hand and a count over the model's own layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from chexray.platform.artifacts import Manifest
from chexray.platform.config import ModelConfig, TextTower, VisionTower
from chexray.platform.ledger import (
    PairFlops,
    add_costs,
    curation_cost,
    curation_epoch_share,
    joint_flops,
    pair_flops,
    training_cost,
)
from chexray.platform.model.encoder import build_model

EMBED, CONTEXT, SIZE = 64, 16, 64
SETTINGS = ModelConfig(
    embed_dim=EMBED,
    vision=VisionTower(timm_model="convnext_atto", image_size=SIZE),
    text=TextTower(context_length=CONTEXT, width=64, heads=2, layers=3),
)


@pytest.fixture(scope="module")
def model() -> Any:
    return build_model(SETTINGS, seed=0)


@pytest.fixture(scope="module")
def counted(model: Any) -> PairFlops:
    return pair_flops(model, SIZE, CONTEXT)


def forward_by_layer(tower: nn.Module, batch: torch.Tensor) -> dict[str, int]:
    """FLOPs of every convolution and linear layer from its output's shape: 2 x outputs x inputs per output."""
    flops: dict[str, int] = {}

    def record(name: str) -> Any:
        def hook(layer: Any, _inputs: Any, output: torch.Tensor) -> None:
            per_output = layer.in_features if isinstance(layer, nn.Linear) else layer.weight[0].numel()
            flops[name] = 2 * output.numel() * per_output

        return hook

    handles = [
        layer.register_forward_hook(record(name))
        for name, layer in tower.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    with torch.no_grad():
        tower(batch)
    for handle in handles:
        handle.remove()
    return flops


def text_forward(layers: int, width: int, tokens: int, embed: int) -> int:
    """A transformer by hand: per layer 12 width^2 per token (query, key, value, output, 4x wide MLP) and attention."""
    projections = 2 * tokens * 12 * width**2
    attention = 2 * 2 * tokens**2 * width
    return layers * (projections + attention) + 2 * width * embed


def test_text_forward_is_the_formula(counted: PairFlops) -> None:
    assert counted.score_text == text_forward(layers=3, width=64, tokens=CONTEXT, embed=EMBED)


def test_image_forward_is_the_sum_over_layers(model: Any, counted: PairFlops) -> None:
    layers = forward_by_layer(model.visual, torch.zeros(1, 3, SIZE, SIZE))
    assert len(layers) > 30
    assert counted.score_image == sum(layers.values())


def test_image_training_is_three_forwards_but_for_the_stem(model: Any, counted: PairFlops) -> None:
    """Backward costs a forward for the weights and one for the inputs, which the first layer does not need."""
    layers = forward_by_layer(model.visual, torch.zeros(1, 3, SIZE, SIZE))
    stem = layers["trunk.stem.0"]
    assert counted.train_image == 3 * counted.score_image - stem


def test_text_training_is_about_three_forwards(counted: PairFlops) -> None:
    # Attention recomputes its scores in the backward pass, so slightly more; measured 3.020.
    assert 3.0 <= counted.train_text / counted.score_text <= 3.1


def test_vision_transformer_forward_is_the_formula_at_its_own_image_size() -> None:
    config = ModelConfig(
        embed_dim=EMBED,
        vision=VisionTower(timm_model="vit_tiny_patch16_224", image_size=SIZE),
        text=SETTINGS.text,
    )
    patches, width = (SIZE // 16) ** 2, 192
    embedding = 2 * patches * 3 * 16 * 16 * width
    tokens = patches + 1
    blocks = text_forward(layers=12, width=width, tokens=tokens, embed=EMBED)  # ends in one token's projection too
    counted = pair_flops(build_model(config, seed=0), SIZE, CONTEXT)
    assert counted.score_image == embedding + blocks
    assert 2.9 <= counted.train_image / counted.score_image <= 3.1  # measured 2.982


def test_counting_at_another_image_size_is_that_of_a_model_made_for_it() -> None:
    vision = VisionTower(timm_model="test_vit", image_size=64)
    made = {
        size: build_model(SETTINGS.model_copy(update={"vision": vision.model_copy(update={"image_size": size})}), 0)
        for size in (64, 96)
    }
    assert pair_flops(made[64], 96, CONTEXT) == pair_flops(made[96], 96, CONTEXT)
    assert pair_flops(made[96], 64, CONTEXT) == pair_flops(made[64], 64, CONTEXT)
    assert pair_flops(made[96], 64, CONTEXT).score_image < pair_flops(made[96], 96, CONTEXT).score_image


def test_counting_leaves_the_model_as_it_was(model: Any) -> None:
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pair_flops(model, SIZE, CONTEXT)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_costs_add_training_scoring_and_what_came_before_by_tower() -> None:
    per_pair = PairFlops(score_image=10, score_text=1, train_image=30, train_text=3)
    scoring = curation_cost(per_pair, pairs=7, device_seconds=1.5)
    assert (scoring["pairs_scored"], scoring["scoring_flops"], scoring["total_flops"]) == (7, 77, 77)
    assert scoring["scoring_flops_by_tower"] == {"image": 70, "text": 7}
    cost = training_cost(per_pair, pairs=100, epochs=2, before=scoring["total_flops"])
    assert (cost["pairs_trained"], cost["training_flops"], cost["curation_flops"]) == (200, 6600, 77)
    assert cost["training_flops_by_tower"] == {"image": 6000, "text": 600}
    assert cost["total_flops"] == 6600 + 77
    assert curation_cost()["total_flops"] == 0


def test_costs_of_two_scorers_add_up_by_tower() -> None:
    one = curation_cost(PairFlops(10, 1, 30, 3), pairs=7, device_seconds=1.5)
    other = curation_cost(PairFlops(100, 20, 300, 60), pairs=5, device_seconds=0.25)
    assert add_costs(one, other) == {
        "pairs_scored": 12,
        "scoring_flops": 677,
        "scoring_flops_by_tower": {"image": 570, "text": 107},
        "scoring_device_seconds": 1.75,
        "warmup_flops": 0,
        "total_flops": 677,
    }


def made(own: str, flops: int, source: str | None = None, borrowed: int = 0) -> Manifest:
    cost = {"total_flops": flops, **({"features_flops": borrowed} if source else {})}
    taken = {"features": source} if source else {}
    return Manifest(
        kind="subset", fingerprint=own, config={}, inputs={}, input_fingerprints=taken, counts={}, cost=cost,
        packages={}, git_commit=None, seconds=0.0, started="", finished="",
    )  # fmt: skip


def test_costs_of_subsets_that_share_features_count_those_once() -> None:
    scored, chosen, learnt = made("a", 100), made("b", 100, "a", 100), made("c", 130, "a", 100)
    assert joint_flops([scored, chosen]) == joint_flops([chosen, scored]) == 100
    assert joint_flops([chosen, learnt]) == joint_flops([learnt, chosen, scored]) == 130
    assert joint_flops([scored, made("d", 70)]) == 170


def test_curation_epoch_share_counts_scoring_once_and_training_on_the_kept() -> None:
    per_pair = PairFlops(score_image=100, score_text=0, train_image=300, train_text=0)
    # 100 of 300 for looking, 227 of 1,000 pairs trained: 0.3333 + 0.227.
    assert curation_epoch_share(100 * 1000, per_pair, 227, 1000) == pytest.approx(0.560333, abs=1e-6)


def test_cost_of_the_papers_schedule_is_its_published_share() -> None:
    """DESIGN section 4: (1 + 19 x 0.227) / 20 = 26.6 % where the curation epoch trains on all pairs."""
    per_pair = PairFlops(score_image=100, score_text=0, train_image=300, train_text=0)
    full = training_cost(per_pair, pairs=1000, epochs=20)["total_flops"]
    curation_epoch = training_cost(per_pair, pairs=1000, epochs=1)["total_flops"]
    curated = training_cost(per_pair, pairs=227, epochs=19, before=curation_epoch)["total_flops"]
    assert curated / full == pytest.approx(0.26565, abs=1e-9)
