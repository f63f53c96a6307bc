"""Image classifiers from a folder; the models are tiny, made and trained here, and really run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from chexray.platform.corpus.classifier import ImageClassifier, keep_class
from chexray.platform.corpus.raster import Image
from chexray.platform.errors import UsageError

LABELS = ("frontal chest", "lateral chest", "hand")


def image_of(label: int, seed: int, shape: tuple[int, int] = (48, 40)) -> Image:
    """Noise that is bright, half bright or dark."""
    noise = np.random.default_rng(seed).integers(0, 50, shape)
    return (noise + (200, 100, 0)[label]).astype(np.uint8)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT with one layer, trained on 48 images."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    model = ViTForImageClassification(config)
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    labels = [index % 3 for index in range(48)]
    images = [np.repeat(image_of(label, seed)[:, :, None], 3, 2) for seed, label in enumerate(labels)]
    pixels = processor(images=images, return_tensors="pt")["pixel_values"]
    optimiser = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(150):
        loss = model(pixel_values=pixels, labels=torch.tensor(labels)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    folder = tmp_path_factory.mktemp("classifier")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_classifier_names_images_it_has_not_seen(model_folder: Path) -> None:
    classifier = ImageClassifier(str(model_folder), batch_size=4)
    truth = [index % 3 for index in range(30)]
    images = [image_of(label, 1000 + seed, (48, 40 + seed)) for seed, label in enumerate(truth)]
    assert classifier.labels == LABELS
    assert classifier.classify(images) == [LABELS[label] for label in truth]
    assert classifier.classify([]) == []


def test_classifier_gives_the_same_label_in_any_batch(model_folder: Path) -> None:
    images = [image_of(seed % 3, seed) for seed in range(7)]
    together, alone = (ImageClassifier(str(model_folder), batch_size=size).classify(images) for size in (16, 1))
    assert together == alone


def test_classifier_of_a_folder_without_a_model_raises(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no model there; give a local folder with config\.json"):
        ImageClassifier(str(tmp_path / "nothing"))


def test_classifier_with_pickled_weights_raises(model_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((model_folder / name).read_bytes())
    torch.save(ViTForImageClassification.from_pretrained(model_folder).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"has no \*\.safetensors"):
        ImageClassifier(str(tmp_path))


def test_classifier_without_the_weights_of_its_head_raises(model_folder: Path, tmp_path: Path) -> None:
    ViTForImageClassification.from_pretrained(model_folder).vit.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_bytes((model_folder / "preprocessor_config.json").read_bytes())
    with pytest.raises(UsageError, match=r"its weights lack classifier\.bias, classifier\.weight"):
        ImageClassifier(str(tmp_path))


def test_classifier_of_another_kind_of_model_raises(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes((model_folder / "model.safetensors").read_bytes())
    with pytest.raises(UsageError, match="not an image classification model"):
        ImageClassifier(str(tmp_path))


def test_classifier_with_an_empty_batch_raises(model_folder: Path) -> None:
    with pytest.raises(ValueError, match="batch_size is 0: it must be at least 1"):
        ImageClassifier(str(model_folder), batch_size=0)


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("frontal", None),
        ("FRONTAL", None),
        ("PA", None),
        ("Lateral", "lateral view"),
        ("lateral chest", "lateral view"),
        ("hand", "not a chest"),
        ("non-frontal", "not a chest"),
    ],
)
def test_keep_class_gives_the_reason(label: str, reason: str | None) -> None:
    assert keep_class(label, ["frontal", "pa"]) == reason


def test_keep_class_of_an_allowed_lateral_keeps_it() -> None:
    assert keep_class("lateral", ("frontal", "lateral")) is None
