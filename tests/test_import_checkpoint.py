"""Published weights against what their own libraries compute, in every layout; and what is not wholly one of them."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from published_models import (
    EMBED,
    REPORTS,
    SIDE,
    Oracle,
    State,
    bert_config,
    chexficient,
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

from chexray.platform import cli
from chexray.platform.artifacts import read_manifest
from chexray.platform.config import load_recipe
from chexray.platform.errors import UsageError
from chexray.platform.model.checkpoint import (
    export_checkpoint,
    load_checkpoint,
    require_checkpoint,
    require_same_model,
    share_trained_on,
)
from chexray.platform.model.dinov2 import TIMM_MODELS
from chexray.platform.model.encoder import build_model, encode
from chexray.platform.model.importing import import_checkpoint
from chexray.platform.model.preprocess import normalise
from chexray.platform.model.scoring import scoring_size


def drawn_images(size: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def assert_embeds_as(out: Path, oracle: Oracle, atol: float) -> None:
    loaded = load_checkpoint(str(out))
    image = drawn_images(loaded.image_size)
    with torch.no_grad():
        found = encode(loaded.model, image, loaded.tokenize(REPORTS))
        expected = oracle.image(normalise(image)), oracle.text(REPORTS)
    for ours, theirs in zip(found, expected, strict=True):
        assert float(theirs.std()) > 0.05
        torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


@pytest.fixture(autouse=True, scope="module")
def smallest_dinov2() -> Iterator[None]:
    """Adds a tower that is quick to draw to those that are recognised."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TIMM_MODELS, (48, 4), "vit_smallest_patch14_dinov2")
        yield


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State, Oracle]:
    """The text tower's folder, and a checkpoint in the paper's layout with the names of DINOv2's repository."""
    folder = tmp_path_factory.mktemp("text")
    state, oracle = chexficient(folder, "repository")
    return folder, state, oracle


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


class Malicious:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


def test_import_pickle_that_would_run_code_is_refused_without_running_it(tmp_path: Path) -> None:
    traces = [tmp_path / "torch-trace", tmp_path / "pickle-trace"]
    torch.save({"model": {"image_encoder.model.pos_embed": Malicious(traces[0])}}, tmp_path / "torch.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Malicious(traces[1]), protocol=2))
    for name in ("torch", "pickle"):
        with pytest.raises(UsageError, match=rf"{name}\.pth"):
            import_checkpoint(str(tmp_path / f"{name}.pth"), str(tmp_path / "out"))
    assert not any(trace.exists() for trace in traces)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a whole file of weights"),
        (b"PK\x03\x04 cut short", "not a whole file of weights"),
        ({"model": {"a": 1}}, r"not a state dict of tensors \('a' is a int\)"),
        ({}, "it is empty"),
        ([torch.zeros(1)], "holds a list"),
    ],
)
def test_import_file_without_tensors_by_name_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    if isinstance(content, bytes):
        (tmp_path / "x.pt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UsageError, match=message):
        import_checkpoint(str(tmp_path / "x.pt"), str(tmp_path / "out"))


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


PLAIN_CLIP = {
    "embed_dim": EMBED,
    "quick_gelu": True,
    "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 32, "head_width": 8, "patch_size": 14},
    "text_cfg": {"context_length": 40, "width": 32, "heads": 4, "layers": 2},
}


def test_import_open_clip_training_checkpoint_embeds_as_open_clip_does(tmp_path: Path) -> None:
    model = drawn(open_clip.model.CLIP(**PLAIN_CLIP), 1)
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {}}, tmp_path / "epoch_3.pt")
    (tmp_path / "model.json").write_text(json.dumps(PLAIN_CLIP))
    out = tmp_path / "out"
    import_checkpoint(str(tmp_path / "epoch_3.pt"), str(out), model_config=str(tmp_path / "model.json"))
    tokenize = open_clip.SimpleTokenizer(context_length=40)
    oracle = Oracle(
        lambda pixels: model.encode_image(pixels, normalize=True),
        lambda reports: model.encode_text(tokenize(reports), normalize=True),
    )
    assert_embeds_as(out, oracle, atol=1e-6)  # worst seen: 0
    assert scoring_size(28, load_checkpoint(str(out))) == SIDE  # this tower takes no other
    theirs = open_clip.create_model(f"local-dir:{out}").eval()
    with torch.no_grad():
        image = normalise(drawn_images(SIDE))
        torch.testing.assert_close(theirs.encode_image(image, normalize=True), oracle.image(image), rtol=0, atol=1e-6)


def test_import_open_clip_folder_of_our_own_is_the_same_model(tmp_path: Path) -> None:
    config = load_recipe("tiny").model
    model = build_model(config, seed=3).eval()
    export_checkpoint(str(tmp_path / "ours"), model.state_dict(), config)
    import_checkpoint(str(tmp_path / "ours"), str(tmp_path / "out"))
    again = load_checkpoint(str(tmp_path / "out")).model.state_dict()
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())
    require_same_model(str(tmp_path / "out"), config)


def test_import_open_clip_folder_with_a_hugging_face_text_tower_is_the_same_model(
    released: tuple[Path, State, Oracle], tmp_path: Path
) -> None:
    folder, state, oracle = released
    save_file(state, tmp_path / "model.safetensors")
    first, second = tmp_path / "first", tmp_path / "second"
    import_checkpoint(str(tmp_path / "model.safetensors"), str(first), text_tower=str(folder), context_length=32)
    manifest = import_checkpoint(str(first), str(second))
    assert manifest.counts["layout"] == "open_clip"
    assert_embeds_as(second, oracle, atol=5e-6)


@pytest.mark.parametrize(
    ("model_config", "message"),
    [
        (None, "nothing says which model its weights are of; give --model-config"),
        ("ViT-Q-99", "--model-config ViT-Q-99: no such file, nor a model that open_clip knows"),
        ("RN50", r"458 missing \(transformer\.resblocks.*; 31 unexpected \(visual\.class_embedding"),
        ({"embed_dim": 3}, "lacks embed_dim, vision_cfg or text_cfg"),
        ({**PLAIN_CLIP, "text_cfg": {"hf_tokenizer_name": "x"}}, "hf_tokenizer_name without hf_model_name"),
        ({**PLAIN_CLIP, "text_cfg": {"tokenizer_kwargs": {"clean": "no"}}}, r"text_cfg\.tokenizer_kwargs"),
        ({**PLAIN_CLIP, "multimodal_cfg": {}}, "open_clip cannot build the model that it describes"),
        ({**PLAIN_CLIP, "vision_cfg": {**PLAIN_CLIP["vision_cfg"], "image_size": [42, 56]}}, "supported: squares"),
        (
            {**PLAIN_CLIP, "vision_cfg": {**PLAIN_CLIP["vision_cfg"], "image_size": 56}},
            r"positional_embedding \(10, 32\)",
        ),
    ],
)
def test_import_open_clip_weights_of_another_description_say_so(
    model_config: Any, message: str, tmp_path: Path
) -> None:
    torch.save(open_clip.model.CLIP(**PLAIN_CLIP).state_dict(), tmp_path / "weights.pt")
    if isinstance(model_config, dict):
        (tmp_path / "model.json").write_text(json.dumps(model_config))
        model_config = str(tmp_path / "model.json")
    with pytest.raises(UsageError, match=message):
        import_checkpoint(
            str(tmp_path / "weights.pt"), str(tmp_path / "out"), layout="open_clip", model_config=model_config
        )


def test_import_command_prints_what_it_made_and_refuses_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["chexray", "import-checkpoint", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return int(stopped.value.code or 0)

    save_file(open_clip.model.CLIP(**PLAIN_CLIP).state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "model.json").write_text(json.dumps(PLAIN_CLIP))
    source, out = str(tmp_path / "weights.safetensors"), str(tmp_path / "out")
    assert run(source, "--out", out, "--model-config", str(tmp_path / "model.json"), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["counts"]["layout"]) == ("checkpoint", "open_clip")
    assert run(str(tmp_path / "nowhere.pth"), "--out", out) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "nowhere.pth: no such file or folder" in said
    assert said.count("\n") == 1


@pytest.mark.usefixtures("ray_cluster")
def test_imported_checkpoint_is_evaluated_with_unknown_training_data(small_corpus: str, tmp_path: Path) -> None:
    from small_runs import small

    from chexray.jobs.evaluate import evaluate, read_results

    torch.save(drawn(open_clip.model.CLIP(**PLAIN_CLIP), 1).state_dict(), tmp_path / "weights.pt")
    (tmp_path / "model.json").write_text(json.dumps(PLAIN_CLIP))
    model = str(tmp_path / "model")
    import_checkpoint(str(tmp_path / "weights.pt"), model, model_config=str(tmp_path / "model.json"))
    evaluate(small(), model, small_corpus, str(tmp_path / "scores"), ["retrieval"])
    results = read_results(str(tmp_path / "scores"))
    assert {(result["seen_in_training"], result["seen_patients"]) for result in results} == {(None, None)}
    assert len(results) == 8
    assert np.isfinite([result["value"] for result in results]).all()
