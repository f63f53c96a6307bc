"""Hugging Face's dual encoders against what transformers computes, and what does not map exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from published_models import (
    EMBED,
    Oracle,
    assert_embeds_as,
    bert_config,
    clip_text_config,
    clip_vision_config,
    dinov2_config,
    drawn,
    unit,
    write_clip_tokenizer,
    write_tokenizer,
)
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    ViTConfig,
)

from chexray.platform.errors import UsageError
from chexray.platform.model.importing import import_checkpoint

pytestmark = pytest.mark.usefixtures("smallest_dinov2")


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_import_hugging_face_clip_embeds_as_transformers_does(act: str, tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    write_clip_tokenizer(folder)
    config = CLIPConfig(
        text_config=clip_text_config(hidden_act=act).to_dict(),
        vision_config=clip_vision_config(hidden_act=act, layer_norm_eps=1e-3).to_dict(),
        projection_dim=EMBED,
    )
    model = drawn(CLIPModel(config), 1)
    model.save_pretrained(folder)
    manifest = import_checkpoint(str(folder), str(tmp_path / "out"))
    assert manifest.counts["layout"] == "Hugging Face CLIP"

    def text(reports: list[str]) -> torch.Tensor:
        token = CLIPTokenizer.from_pretrained(folder)(reports, padding=True, return_tensors="pt")
        return unit(model.get_text_features(**token).pooler_output)

    oracle = Oracle(lambda pixels: unit(model.get_image_features(pixel_values=pixels).pooler_output), text)
    # Measured worst error: 1.4e-07.
    assert_embeds_as(tmp_path / "out", oracle, atol=5e-6)


def dual_encoder(folder: Path, vision: Any, text: Any) -> VisionTextDualEncoderModel:
    write_tokenizer(folder)
    config = VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=EMBED)
    model = drawn(VisionTextDualEncoderModel(config), 1)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("tower", ["dinov2", "clip", "clip in sharded files, older names"])
def test_import_hugging_face_dual_encoder_embeds_as_transformers_does(tower: str, tmp_path: Path) -> None:
    folder = tmp_path / "dual"
    vision = dinov2_config() if tower == "dinov2" else clip_vision_config(hidden_act="gelu")
    model = dual_encoder(folder, vision, bert_config())
    if "older" in tower:
        state = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        old = {name.replace("vision_model.", "vision_model.vision_model."): state[name] for name in state}
        parts = {"a.safetensors": list(old)[::2], "b.safetensors": list(old)[1::2]}
        for part, names in parts.items():
            save_file({name: old[name] for name in names}, folder / part)
        index = {name: part for part, names in parts.items() for name in names}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    import_checkpoint(str(folder), str(tmp_path / "out"), context_length=32)

    def text(reports: list[str]) -> torch.Tensor:
        token = AutoTokenizer.from_pretrained(folder)(reports, padding=True, return_tensors="pt")
        return unit(model.get_text_features(**token).pooler_output)

    oracle = Oracle(lambda pixels: unit(model.get_image_features(pixel_values=pixels).pooler_output), text)
    # Measured worst error: 2.1e-07.
    assert_embeds_as(tmp_path / "out", oracle, atol=5e-6)


def test_import_hugging_face_what_does_not_map_exactly_is_refused_with_what_does(tmp_path: Path) -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    dual_encoder(tmp_path / "vit", ViTConfig(**small, image_size=32, patch_size=16), bert_config())
    bert = tmp_path / "bert"
    BertConfig().save_pretrained(bert)
    save_file({"pooler.dense.bias": torch.zeros(2)}, bert / "model.safetensors")
    words = tmp_path / "words"
    config = CLIPConfig(text_config=clip_text_config().to_dict(), vision_config=clip_vision_config().to_dict())
    CLIPModel(config).save_pretrained(words)
    write_tokenizer(words)
    for folder, message in (
        ("vit", "a dual encoder of vit and bert; supported: CLIPModel"),
        ("bert", "its model_type is 'bert'; supported: CLIPModel"),
        ("words", r"another vocabulary \(30522 words\)"),
    ):
        with pytest.raises(UsageError, match=message):
            import_checkpoint(str(tmp_path / folder), str(tmp_path / "out"))
    dual_encoder(tmp_path / "mean", clip_vision_config(), bert_config())
    means = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (tmp_path / "mean" / "preprocessor_config.json").write_text(json.dumps(means))
    with pytest.raises(UsageError, match=r"image_mean \[0.5, 0.5, 0.5\]; supported: CLIP's"):
        import_checkpoint(str(tmp_path / "mean"), str(tmp_path / "out"))
