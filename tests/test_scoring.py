"""Embedding pairs at other image sizes, precisions and with newer weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from chexray.platform.config import ModelConfig, TextTower, VisionTower
from chexray.platform.model.checkpoint import export_checkpoint, load_checkpoint
from chexray.platform.model.encoder import build_model, encode
from chexray.platform.model.scoring import Scorer, scoring_size, shrink_square

REPORTS = ["Small left effusion.", "No acute abnormality."]
TEXT = TextTower(context_length=16, width=32, heads=2, layers=1)


def config(timm_model: str, size: int) -> ModelConfig:
    return ModelConfig(embed_dim=32, vision=VisionTower(timm_model=timm_model, image_size=size), text=TEXT)


def exported(folder: Path, settings: ModelConfig, seed: int) -> str:
    export_checkpoint(str(folder), build_model(settings, seed).state_dict(), settings)
    return str(folder)


def pixels(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, size, size)).astype(np.uint8)


@pytest.mark.parametrize("timm_model", ["test_convnext", "test_vit"])
def test_scorer_embeds_as_the_checkpoint_does(tmp_path: Path, timm_model: str) -> None:
    loaded = load_checkpoint(exported(tmp_path, config(timm_model, 64), 0))
    image, text = Scorer(loaded).embed(pixels(64), REPORTS)
    with torch.no_grad():
        expected = encode(loaded.model, torch.from_numpy(pixels(64)), loaded.tokenize(REPORTS))
    np.testing.assert_array_equal(image, expected[0].numpy())
    np.testing.assert_array_equal(text, expected[1].numpy())


@pytest.mark.parametrize("timm_model", ["test_convnext", "test_vit"])
def test_scorer_takes_newer_weights_at_another_image_size(tmp_path: Path, timm_model: str) -> None:
    """As a checkpoint of those weights does at that size; position embeddings are resampled anew."""
    settings = config(timm_model, 64)
    first = Scorer(load_checkpoint(exported(tmp_path / "first", settings, 0)), image_size=32)
    newer = load_checkpoint(exported(tmp_path / "newer", settings, 1))
    before = first.embed(pixels(64), REPORTS)[0]
    first.load(newer.model.state_dict())
    image, text = first.embed(pixels(64), REPORTS)
    expected = Scorer(newer, image_size=32).embed(pixels(64), REPORTS)
    np.testing.assert_array_equal(image, expected[0])
    np.testing.assert_array_equal(text, expected[1])
    assert np.abs(image - before).max() > 0.01


def test_scorer_never_looks_at_more_pixels_than_it_was_trained_at(tmp_path: Path) -> None:
    loaded = load_checkpoint(exported(tmp_path, config("test_convnext", 64), 0))
    assert [scoring_size(asked, loaded) for asked in (None, 32, 64, 96)] == [64, 32, 64, 64]
    own, larger = (Scorer(loaded, image_size=size).embed(pixels(96), REPORTS)[0] for size in (None, 96))
    np.testing.assert_array_equal(own, larger)


def test_scorer_in_bfloat16_is_near_float32(tmp_path: Path) -> None:
    loaded = load_checkpoint(exported(tmp_path, config("test_convnext", 64), 0))
    exact, half = (Scorer(loaded, precision=name).embed(pixels(64), REPORTS)[0] for name in ("float32", "bfloat16"))
    assert (exact * half).sum(axis=1).min() > 0.99
    np.testing.assert_allclose(np.linalg.norm(half, axis=1), 1, atol=0.02)  # bfloat16 has 8 bits


def test_shrink_square_is_within_a_grey_level_or_two_of_pillow() -> None:
    image = np.kron(np.random.default_rng(1).integers(0, 256, (1, 12, 12)), np.ones((8, 8))).astype(np.uint8)
    small = shrink_square(torch.from_numpy(image), 48).numpy()[0].astype(int)
    expected = np.asarray(Image.fromarray(image[0]).resize((48, 48), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(small - expected).max() <= 2
    assert shrink_square(torch.from_numpy(image), 96).shape == (1, 96, 96)
