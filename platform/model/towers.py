"""What open_clip lacks for the paper's towers: pooling at the last token, and weights from a folder or a bucket.

B: batch; L: tokens; D: width.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from open_clip.hf_model import register_pooler
from timm.layers import LayerScale2d
from timm.layers.layer_scale import LayerScale
from torch import nn

from chexray.platform import storage
from chexray.platform.errors import UsageError
from chexray.platform.model.state_files import read_state


@register_pooler
class LastTokenPooler(nn.Module):
    """The hidden state of the last token that is not padding, as the paper's text tower takes it."""

    def forward(self, output: Any, mask_BL: torch.Tensor) -> torch.Tensor:
        """[B, D] from `output.last_hidden_state` [B, L, D] and a mask of 1 (token) and 0 (padding)."""
        last_B = mask_BL.shape[1] - 1 - mask_BL.flip(1).argmax(dim=1)
        hidden_BLD: torch.Tensor = output.last_hidden_state
        return hidden_BLD[torch.arange(len(last_B), device=last_B.device), last_B]


def fit_input_size(tower: nn.Module, size: int) -> None:
    """Tell a timm transformer the image size it will see, which resamples its position embeddings; no other tower."""
    trunk: Any = getattr(tower, "trunk", None)
    if hasattr(trunk, "set_input_size") and hasattr(trunk, "pos_embed"):
        trunk.set_input_size(img_size=(size, size))


def restart_layer_scale(tower: nn.Module, value: float) -> None:
    """Set all layer-scale gammas to `value`.

    timm starts them at 1e-6 (ConvNeXt) or 1e-5, made for long schedules: over a few hundred steps from nothing the
    blocks would hardly take part.
    """
    for module in tower.modules():
        if isinstance(module, LayerScale | LayerScale2d):
            nn.init.constant_(module.gamma, value)
        elif isinstance(getattr(module, "gamma", None), nn.Parameter):
            nn.init.constant_(module.gamma, value)  # type: ignore[arg-type]


def load_vision_weights(tower: nn.Module, timm_model: str, image_size: int, source: str) -> None:
    """Fill the trunk from `source`: 'hub', or the URI of a file or a folder with timm's weights of this model.

    timm itself adapts older names of the same weights and resamples position embeddings to `image_size`.
    Raises `UsageError` where the weights cannot be had or are another model's.
    """
    overlay: dict[str, Any] = {}
    if source != "hub":
        with storage.local_copy(source) as path:
            overlay = {"state_dict": read_state(path, f"model.vision.weights={source}")}
    size = {"img_size": image_size} if hasattr(tower.trunk, "pos_embed") else {}
    try:
        donor = _create(timm_model, pretrained=True, pretrained_cfg_overlay=overlay, **size)
        tower.trunk.load_state_dict(donor.state_dict())  # type: ignore[union-attr]
    except Exception as error:
        raise UsageError(
            f"model.vision.weights={source}: cannot load {timm_model} from it ({type(error).__name__}: "
            f"{str(error).splitlines()[0][:200]}); give the URI of a file or folder with this timm model's weights"
        ) from error
    blank = dict(_create(timm_model, pretrained=False, **size).named_parameters())
    untouched = [name for name, p in donor.named_parameters() if p.ndim > 1 and torch.equal(p, blank[name])]
    if untouched:  # timm loads what fits and leaves the rest as it was drawn
        raise UsageError(
            f"model.vision.weights={source}: lacks {len(untouched)} tensors of {timm_model}, first {untouched[0]}; "
            "are they another model's weights?"
        )


def _create(timm_model: str, **options: Any) -> nn.Module:
    """A timm model without classifier, drawn from one fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = timm.create_model(timm_model, num_classes=0, **options)
    return model
