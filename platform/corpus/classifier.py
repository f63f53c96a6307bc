"""What a local Hugging Face classifier says an image shows: a frontal chest, a lateral one, or something else."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
import PIL.Image

from chexray.platform.corpus.local_models import load_local
from chexray.platform.corpus.raster import Image

ClassReason = Literal["lateral view", "not a chest"]

_LATERAL = "lateral"


class ImageClassifier:
    """An image classification model in a folder: config.json, preprocessor_config.json and safetensors weights.

    Any architecture of `AutoModelForImageClassification`; its labels are the names in the config's `id2label`. Nothing
    is downloaded and no code of the folder is run. Raises UsageError where the folder is not such a model.
    """

    def __init__(self, path: str, batch_size: int = 16, device: str = "cpu") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        kind = "an image classification model"
        model, self._processor = load_local(path, AutoModelForImageClassification, kind, AutoImageProcessor)
        self._model: Any = model.to(device)
        self._batch_size, self._device = batch_size, device

    @property
    def labels(self) -> tuple[str, ...]:
        """The names that `classify` can give."""
        return tuple(self._model.config.id2label.values())

    def classify(self, images: Sequence[Image]) -> list[str]:
        """The most likely label of each image_HW uint8, whatever their sizes."""
        labels: list[str] = []
        for start in range(0, len(images), self._batch_size):
            labels += self._classify_batch(images[start : start + self._batch_size])
        return labels

    def _classify_batch(self, images: Sequence[Image]) -> list[str]:
        import torch

        colour = [PIL.Image.fromarray(np.asarray(image)).convert("RGB") for image in images]
        pixels_B3HW = self._processor(images=colour, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            logits_BC = self._model(pixel_values=pixels_B3HW.to(self._device)).logits
        return [self._model.config.id2label[index] for index in logits_BC.argmax(1).tolist()]


def keep_class(label: str, allowed: Collection[str]) -> ClassReason | None:
    """Why an image of this class is left out, or None where `allowed` has its label, in any case.

    'lateral view': the label says 'lateral'. 'not a chest': any other.
    """
    if label.casefold() in {name.casefold() for name in allowed}:
        return None
    return "lateral view" if _LATERAL in label.casefold() else "not a chest"
