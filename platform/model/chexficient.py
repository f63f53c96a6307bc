"""The layout of the paper's released checkpoint (arXiv 2602.22843).

image_encoder.model.*      DINOv2 without registers, positions of the size it was trained at (378 px)
text_encoder.model.*       a Hugging Face BERT; the last token that is not padding is the feature
image_projection.*, text_projection.*   linear, with biases
logit_scale                logarithm of the inverse temperature
prototypes                 [K, 2 x width] of the curator, and its running sums
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from chexray.platform.config import ModelConfig, TextTower, VisionTower
from chexray.platform.errors import UsageError
from chexray.platform.model import dinov2
from chexray.platform.model.encoder import model_cfg
from chexray.platform.model.published import Published, Source

TEXT_TOWER = "emilyalsentzer/Bio_ClinicalBERT"
CONTEXT_LENGTH = 256
IMAGE, TEXT = "image_encoder.model.", "text_encoder.model."
_UNUSED = (
    r"image_encoder\.model\." + dinov2.UNUSED,
    r"text_encoder\.model\.(pooler\.dense\.(weight|bias)|embeddings\.position_ids)",
    r"prototypes|prototype_usage|step_count|(batch|pending)_\w+",
)
"""What the embeddings do not need: see `chexray.platform.model.dinov2`; BERT's own pooler; the curator's state."""


def is_chexficient(state: Mapping[str, torch.Tensor]) -> bool:
    return any(name.startswith(IMAGE) for name in state)


def read_chexficient(
    state: Mapping[str, torch.Tensor], name: str, text_tower: str | None, context_length: int | None
) -> Published:
    """`text_tower`: where the BERT's configuration and tokenizer are, which the file lacks."""
    state = {dinov2.unchunked(key): value for key, value in state.items()}
    timm_model, image_size = dinov2.timm_tower(state, IMAGE, name)
    projection = {tower: _projection(state, tower, name) for tower in ("image", "text")}
    biases = {tower: f"{prefix}bias" in state for tower, prefix in projection.items()}
    config = ModelConfig(
        embed_dim=len(state[f"{projection['image']}weight"]),
        projection_bias=any(biases.values()),  # one without the other is missing, then
        vision=VisionTower(timm_model=timm_model, image_size=image_size),
        text=TextTower(
            hf_model=text_tower or TEXT_TOWER, hf_weights=False, context_length=context_length or CONTEXT_LENGTH
        ),
    )

    def source_of(target: str) -> Source:
        for ours, theirs in (("visual.head.proj.", projection["image"]), ("text.proj.", projection["text"])):
            if target.startswith(ours):
                return Source((theirs + target.removeprefix(ours),))
        if target.startswith("visual.trunk."):
            return dinov2.dinov2_source(target.removeprefix("visual.trunk."), state.keys(), IMAGE)
        return Source((target.replace("text.transformer.", TEXT, 1),))

    return Published(
        layout="chexficient",
        cfg=model_cfg(config),
        text_tower=config.text.hf_model,
        state=state,
        source_of=source_of,
        unused="|".join(_UNUSED),
        prototypes=state.get("prototypes"),
    )


def _projection(state: Mapping[str, torch.Tensor], tower: str, name: str) -> str:
    """The prefix of a tower's projection: of the layer itself, or of the module that holds it."""
    for prefix in (f"{tower}_projection.projection.", f"{tower}_projection."):
        if f"{prefix}weight" in state:
            return prefix
    raise UsageError(f"{name}: has no {tower}_projection.weight, nor {tower}_projection.projection.weight")
