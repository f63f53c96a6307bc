"""open_clip's weights against what open_clip computes; files that hold no weights, or worse; and the command."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from published_models import (
    EMBED,
    SIDE,
    Oracle,
    State,
    assert_embeds_as,
    drawn,
    drawn_images,
)
from safetensors.torch import save_file

from chexray.platform import cli
from chexray.platform.config import load_recipe
from chexray.platform.errors import UsageError
from chexray.platform.model.checkpoint import (
    export_checkpoint,
    load_checkpoint,
    require_same_model,
)
from chexray.platform.model.encoder import build_model
from chexray.platform.model.importing import import_checkpoint
from chexray.platform.model.preprocess import normalise
from chexray.platform.model.scoring import scoring_size

PLAIN_CLIP = {
    "embed_dim": EMBED,
    "quick_gelu": True,
    "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 32, "head_width": 8, "patch_size": 14},
    "text_cfg": {"context_length": 40, "width": 32, "heads": 4, "layers": 2},
}


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
