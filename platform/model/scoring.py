"""Embedding pairs without gradient, at a checkpoint's own image size and precision or at cheaper ones.

n: pairs; S: image size in pixels; D: embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms.v2.functional import InterpolationMode, resize

from chexray.platform.model.checkpoint import Checkpoint
from chexray.platform.model.encoder import encode
from chexray.platform.model.features import embed_with_features
from chexray.platform.model.towers import fit_input_size

Precision = Literal["float32", "bfloat16"]
Embeddings = npt.NDArray[np.float32]


class Scorer:
    """A model that embeds pairs. `image_size`: pixels, at most the checkpoint's own; None for that."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str = "cpu",
        image_size: int | None = None,
        precision: Precision = "float32",
    ) -> None:
        self.size = scoring_size(image_size, checkpoint)
        self._trained_size = checkpoint.image_size
        self.device = device
        self.precision = precision
        self._tokenize = checkpoint.tokenize
        self._model = checkpoint.model.eval().to(device)
        fit_input_size(self._model.visual, self.size)

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take newer weights of the same model, at the checkpoint's own image size."""
        fit_input_size(self._model.visual, self._trained_size)
        self._model.load_state_dict(state)
        fit_input_size(self._model.visual, self.size)

    @torch.inference_mode()
    def embed(self, pixels_nSS: npt.NDArray[np.uint8], reports: Sequence[str]) -> tuple[Embeddings, Embeddings]:
        """Unit embeddings [n, D] of images (uint8, square, of any size) and of their reports."""
        image = shrink_square(torch.from_numpy(pixels_nSS).to(self.device), self.size)
        token = self._tokenize(list(reports)).to(self.device)
        half = torch.autocast(self.device, dtype=torch.bfloat16) if self.precision == "bfloat16" else nullcontext()
        with half:
            image_nD, text_nD = encode(self._model, image, token)
        return image_nD.float().cpu().numpy(), text_nD.float().cpu().numpy()

    @torch.inference_mode()
    def embed_with_features(
        self, pixels_nSS: npt.NDArray[np.uint8], reports: Sequence[str]
    ) -> tuple[Embeddings, Embeddings, Embeddings]:
        """As `embed`, and the image features [n, E] before the projection: of width 0 where the tower has none."""
        image = shrink_square(torch.from_numpy(pixels_nSS).to(self.device), self.size)
        token = self._tokenize(list(reports)).to(self.device)
        image_nD, feature_nE = embed_with_features(self._model, image)
        text_nD = self._model.encode_text(token, normalize=True)
        if feature_nE is None:
            feature_nE = image_nD[:, :0]
        found_nD, found_text_nD, found_nE = (one.float().cpu().numpy() for one in (image_nD, text_nD, feature_nE))
        return found_nD, found_text_nD, found_nE


def scoring_size(asked: int | None, checkpoint: Checkpoint) -> int:
    """Pixels at which the checkpoint scores: as asked, but never more than it was trained at, which only costs more.

    open_clip's own image towers, of imported checkpoints, take no other size than theirs.
    """
    if not hasattr(checkpoint.model.visual, "trunk"):
        return checkpoint.image_size
    return min(asked or checkpoint.image_size, checkpoint.image_size)


def shrink_square(image_nSS: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 [n, size, size]: antialiased bicubic, as from the stored image; the same tensor where it has the size."""
    if image_nSS.shape[-1] == size:
        return image_nSS
    small: torch.Tensor = resize(image_nSS, [size, size], interpolation=InterpolationMode.BICUBIC, antialias=True)
    return small
