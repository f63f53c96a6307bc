"""The paper's release against what transformers computes, in every naming; and what is not wholly of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from published_models import (
    EMBED,
    REPORTS,
    SIDE,
    Oracle,
    State,
    assert_embeds_as,
    chexficient,
)
from safetensors.torch import load_file, save_file

from chexray.platform.artifacts import read_manifest
from chexray.platform.config import load_recipe
from chexray.platform.errors import UsageError
from chexray.platform.model.checkpoint import (
    load_checkpoint,
    require_checkpoint,
    require_same_model,
    share_trained_on,
)
from chexray.platform.model.importing import import_checkpoint

pytestmark = pytest.mark.usefixtures("smallest_dinov2")


@pytest.mark.parametrize("naming", ["repository", "chunks", "transformers 4", "transformers 5"])
def test_import_chexficient_any_naming_embeds_as_transformers_does(naming: str, tmp_path: Path) -> None:
    state, oracle = chexficient(tmp_path / "text", naming)
    file = tmp_path / "released.pth"
    torch.save({"model": state, "epoch": 19, "subset": {3, 1}, "optimizer": {"state": {}}}, file)
    out = tmp_path / "out"
    manifest = import_checkpoint(str(file), str(out), text_tower=str(tmp_path / "text"), context_length=32)
    # Measured worst errors: image 0, text 1.2e-07.
    assert_embeds_as(out, oracle, atol=5e-6)
    assert manifest.counts["layout"] == "chexficient"
    assert (manifest.counts["image_size"], manifest.counts["embed_dim"]) == (SIDE, EMBED)
    loaded = load_checkpoint(str(out))
    assert loaded.model.logit_scale.item() == 4.25
    assert loaded.tokenize.padded(REPORTS).shape == (3, 32)
    assert torch.equal(load_file(out / "prototypes.safetensors")["prototypes"], state["prototypes"])


def test_import_chexficient_with_a_tower_of_timm_embeds_as_transformers_does(tmp_path: Path) -> None:
    state, oracle = chexficient(tmp_path / "text", "repository", width=384)
    save_file(state, tmp_path / "released.safetensors")
    source, out = str(tmp_path / "released.safetensors"), str(tmp_path / "out")
    import_checkpoint(source, out, text_tower=str(tmp_path / "text"), context_length=32)
    assert_embeds_as(tmp_path / "out", oracle, atol=5e-6)  # worst seen: 7.5e-08


def test_import_chexficient_is_a_checkpoint_of_unknown_training_data(
    released: tuple[Path, State, Oracle], tmp_path: Path
) -> None:
    folder, state, oracle = released
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    source = tmp_path / "published"
    source.mkdir()
    save_file(half, source / "model.safetensors")
    out = str(tmp_path / "out")
    first = import_checkpoint(str(source), out, text_tower=str(folder), context_length=32)
    require_checkpoint(out)
    assert share_trained_on(out, ["0" * 32]) is None
    assert read_manifest(out, "checkpoint").input_fingerprints.keys() == {"source"}
    assert import_checkpoint(str(source), out, text_tower=str(folder), context_length=32) == first
    # Stored in half precision. Measured worst error: 6.1e-04.
    assert_embeds_as(tmp_path / "out", oracle, atol=0.01)
    recipe = load_recipe(
        "paper",
        [
            f"model.embed_dim={EMBED}",
            "model.projection_bias=true",
            "model.vision.timm_model=vit_smallest_patch14_dinov2",
            f"model.vision.image_size={SIDE}",
            f"model.text.hf_model={folder}",
        ],
    )
    require_same_model(out, recipe.model)


def test_import_chexficient_with_missing_and_unexpected_tensors_lists_a_dozen_of_each(
    released: tuple[Path, State, Oracle], tmp_path: Path
) -> None:
    folder, state, _ = released
    other = {name: value for name, value in state.items() if ".ls1." not in name and name != "logit_scale"}
    other |= {f"text_encoder.model.adapter.{number:02}": torch.zeros(1) for number in range(15)}
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(UsageError) as refused:
        import_checkpoint(
            str(tmp_path / "other.safetensors"), str(tmp_path / "out"), text_tower=str(folder), context_length=32
        )
    said = str(refused.value)
    assert "5 missing (image_encoder.model.blocks.0.ls1.gamma, " in said
    assert "15 unexpected (text_encoder.model.adapter.00, " in said
    assert "adapter.11, ...)" in said
    assert "adapter.12" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image_encoder.model.register_tokens": (1, 4, 48)},
            r"1 unexpected \(image_encoder\.model\.register_tokens\)",
        ),
        ({"image_encoder.model.pos_embed": (1, 12, 48)}, "12 positions are no square of patches"),
        ({"image_encoder.model.pos_embed": (1, 10, 200)}, "width 200 with 4 blocks; supported: 384 x 12, 768 x 12"),
        ({"image_projection.projection.weight": (EMBED, 99)}, r"1 of another shape .*\(24, 99\), not \(24, 48\)"),
        ({"text_encoder.model.embeddings.word_embeddings.weight": (7, 32)}, r"\(7, 32\), not \(30522, 32\)"),
        ({"text_projection.projection.bias": None}, r"1 missing \(text_projection\.projection\.bias\)"),
        ({"image_projection.projection.weight": None}, "has no image_projection.weight"),
        ({"image_projection.fc.weight": (EMBED, EMBED)}, r"1 unexpected \(image_projection\.fc\.weight\)"),
    ],
)
def test_import_chexficient_that_is_another_model_says_where(
    change: dict[str, tuple[int, ...] | None], message: str, released: tuple[Path, State, Oracle], tmp_path: Path
) -> None:
    folder, state, _ = released
    other = dict(state)
    for name, shape in change.items():
        other.pop(name, None)
        if shape is not None:
            other[name] = torch.zeros(shape)
    torch.save({"model": other}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match=message):
        import_checkpoint(str(tmp_path / "other.pth"), str(tmp_path / "out"), text_tower=str(folder), context_length=32)


def test_import_chexficient_longer_context_than_positions_is_refused(
    released: tuple[Path, State, Oracle], tmp_path: Path
) -> None:
    folder, state, _ = released
    source, out = str(tmp_path / "model.safetensors"), str(tmp_path / "out")
    save_file(state, source)
    with pytest.raises(UsageError, match="--context-length 256: the text tower has 80 positions"):
        import_checkpoint(source, out, text_tower=str(folder))
    with pytest.raises(UsageError, match=r"--text-tower=\S*/nowhere: not a Hugging Face"):
        import_checkpoint(source, out, text_tower=str(tmp_path / "nowhere"))
