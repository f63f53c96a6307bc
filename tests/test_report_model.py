"""The report model against transformers' own loss, one report at a time, and against decoding by hand.

B: reports; P: image tokens; C: width of the image features; E: width of word embeddings; V: words.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from language_models import REPORTS, one_thread, save_language_model
from pydantic import ValidationError
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from chexray.evals.report_model import ReportModel, image_tokens, load_language_model
from chexray.platform.errors import UsageError
from chexray.platform.evaluate_config import ReportConfig

FAMILIES = [
    ("gpt2", False, "right"),
    ("gpt2", True, "left"),
    ("llama", False, "left"),
    ("llama", True, "right"),
]
WIDTH = 8


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def build(name: str, **settings: Any) -> ReportModel:
    config = ReportConfig(language_model=name, **({"tune": "projector", "report_tokens": 40} | settings))
    torch.manual_seed(0)
    language_model, tokenizer = load_language_model(name)
    return ReportModel(language_model, tokenizer, WIDTH, config).eval()


def features(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 4, WIDTH, generator=torch.Generator().manual_seed(seed))


def words(model: ReportModel, tokens: list[int]) -> torch.Tensor:
    embedding: torch.Tensor = model.language_model.get_input_embeddings()(torch.tensor([tokens], dtype=torch.long))
    return embedding


@pytest.mark.parametrize(("family", "pad", "side"), FAMILIES)
def test_loss_of_a_padded_batch_equals_transformers_loss_of_each_report_alone(
    tmp_path: Path, family: str, pad: bool, side: str
) -> None:
    model = build(save_language_model(tmp_path, family, pad, side), prompt="Findings:")
    feature = features(len(REPORTS))
    loss = model.loss(feature, REPORTS)
    tokenizer = model.tokenizer
    total, count = 0.0, 0
    for row, report in enumerate(REPORTS):
        target = [*tokenizer(report, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        prompt = tokenizer("Findings:", add_special_tokens=False)["input_ids"]
        image_1PE = model.projector(feature[row : row + 1])
        parts = [words(model, [tokenizer.bos_token_id]), image_1PE, words(model, prompt), words(model, target)]
        unseen = 1 + 4 + len(prompt)
        label = torch.tensor([[-100] * unseen + target])
        mean = model.language_model(inputs_embeds=torch.cat(parts, dim=1), labels=label).loss.detach()
        total, count = total + float(mean) * len(target), count + len(target)
    assert loss.tokens == count
    # Measured worst error: 4e-7 of it.
    assert float(loss.total.detach()) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(("family", "pad", "side"), FAMILIES)
def test_generate_greedy_equals_the_likeliest_next_token_step_by_step(
    tmp_path: Path, family: str, pad: bool, side: str
) -> None:
    model = build(save_language_model(tmp_path, family, pad, side), report_tokens=12)
    feature = features(3)
    expected = []
    for row in range(3):
        sequence = torch.cat([words(model, [model.tokenizer.bos_token_id]), model.projector(feature[row : row + 1])], 1)
        tokens: list[int] = []
        while len(tokens) < 12 and (not tokens or tokens[-1] != model.tokenizer.eos_token_id):
            tokens.append(int(model.language_model(inputs_embeds=sequence).logits[0, -1].argmax()))
            sequence = torch.cat([sequence, words(model, tokens[-1:])], dim=1)
        expected.append(model.tokenizer.decode(tokens, skip_special_tokens=True).strip())
    assert model.generate(feature, beams=1) == expected
    assert len(set(expected)) > 1


def test_generate_with_wide_beams_finds_the_best_of_all_texts(tmp_path: Path) -> None:
    model = build(_save_five_words(tmp_path), report_tokens=3)
    end = model.tokenizer.eos_token_id
    open_words = [token for token in range(5) if token != end]
    texts = [(*ahead, end) for length in range(3) for ahead in itertools.product(open_words, repeat=length)]
    texts += list(itertools.product(open_words, repeat=3))
    token_T3 = torch.tensor([[*text, *[end] * (3 - len(text))] for text in texts])
    length_T = torch.tensor([len(text) for text in texts])
    for row in range(5):
        feature = features(1, seed=row) * 3
        prefix_1PE = model.prefix(feature)
        embedding = torch.cat(
            [prefix_1PE.expand(len(texts), -1, -1), model.language_model.get_input_embeddings()(token_T3)], dim=1
        )
        logit_T3V = model.language_model(inputs_embeds=embedding).logits[:, prefix_1PE.shape[1] - 1 : -1]
        likely_T3 = F.log_softmax(logit_T3V, dim=2).gather(2, token_T3[:, :, None])[:, :, 0]
        within_T3 = torch.arange(3) < length_T[:, None]
        best = texts[int(((likely_T3 * within_T3).sum(dim=1) / length_T).argmax())]
        assert model.generate(feature, beams=25) == [model.tokenizer.decode(best, skip_special_tokens=True).strip()]


def test_generate_gives_each_image_of_a_batch_what_it_gets_alone(tmp_path: Path) -> None:
    model = build(save_language_model(tmp_path, "llama", False, "left"), report_tokens=10)
    feature = features(5)
    for beams in (1, 3):
        alone = [model.generate(feature[row : row + 1], beams)[0] for row in range(5)]
        assert model.generate(feature, beams) == alone


def test_generate_ignores_what_the_models_folder_says_of_sampling(tmp_path: Path) -> None:
    name = save_language_model(tmp_path / "model", "gpt2")
    plain = build(name, report_tokens=10).generate(features(3), 1)
    (tmp_path / "model" / "generation_config.json").write_text(
        '{"do_sample": true, "temperature": 5.0, "repetition_penalty": 3.0, "max_new_tokens": 2}'
    )
    assert build(name, report_tokens=10).generate(features(3), 1) == plain


def test_encode_marks_the_end_of_whole_reports_only(tmp_path: Path) -> None:
    model = build(save_language_model(tmp_path, "gpt2"), report_tokens=8)
    token_BL, length_B = model.encode(["No.", REPORTS[0]], torch.device("cpu"))
    short = model.tokenizer.encode("No.")
    assert token_BL[0, : len(short) + 1].tolist() == [*short, model.tokenizer.eos_token_id]
    assert length_B.tolist() == [len(short) + 1, 8]
    assert token_BL[1].tolist() == model.tokenizer.encode(REPORTS[0])[:8]
    assert model.tokenizer.eos_token_id not in token_BL[1].tolist()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_lora_trains_adapters_and_projector_and_starts_as_the_model_without(tmp_path: Path, family: str) -> None:
    name = save_language_model(tmp_path, family)
    plain, adapted = build(name), build(name, tune="lora", lora={"rank": 3, "dropout": 0.0})
    assert {key.split(".")[0] for key in plain.trained()} == {"projector"}
    names = [key for key in adapted.trained() if not key.startswith("projector.")]
    assert names
    assert all("lora_" in key for key in names)
    assert all(3 in adapted.trained()[key].shape for key in names)
    adapted.projector.load_state_dict(plain.projector.state_dict())
    with torch.no_grad():
        losses = [float(model.loss(features(2), REPORTS[:2]).total) for model in (plain, adapted)]
    # An adapter starts at zero. Measured error: 0.
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_lora_of_named_layers_adapts_these_alone_and_refuses_others(tmp_path: Path) -> None:
    name = save_language_model(tmp_path, "llama")
    adapted = build(name, tune="lora", lora={"targets": ["v_proj"]})
    assert all(".v_proj." in key for key in adapted.trained() if not key.startswith("projector."))
    with pytest.raises(UsageError, match=r"lora.targets=\['query'\]"):
        build(name, tune="lora", lora={"targets": ["query"]})


def test_full_tuning_trains_every_parameter_and_a_frozen_model_keeps_its_dropout_off(tmp_path: Path) -> None:
    name = save_language_model(tmp_path, "gpt2")
    full, frozen = build(name, tune="full"), build(name)
    assert len(full.trained()) == len(list(full.parameters()))
    assert full.train().language_model.training
    assert not frozen.train().language_model.training
    assert frozen.projector.training


def test_projector_starts_as_large_as_the_word_embeddings(tmp_path: Path) -> None:
    for kind in ("linear", "mlp"):
        model = build(save_language_model(tmp_path, "gpt2"), projector=kind)
        embedding = model.language_model.get_input_embeddings().weight
        # Measured worst ratio: 1.01.
        assert float((model.projector(features(9)).std() / embedding.std()).detach()) == pytest.approx(1, abs=0.1)


def test_image_tokens_of_a_map_go_row_by_row_and_average_to_a_grid() -> None:
    map_BCHW = torch.arange(2 * 3 * 4 * 4, dtype=torch.float64).reshape(2, 3, 4, 4)
    token_BPC = image_tokens(map_BCHW, None)
    assert token_BPC.shape == (2, 16, 3)
    assert token_BPC.dtype == torch.float32
    assert torch.equal(token_BPC[1, 6], map_BCHW[1, :, 1, 2].float())
    pooled_BPC = image_tokens(map_BCHW, 2)
    assert torch.equal(pooled_BPC[0, 1], map_BCHW[0, :, :2, 2:].mean(dim=(1, 2)).float())
    assert torch.equal(image_tokens(token_BPC, 2), pooled_BPC)


@pytest.mark.parametrize(
    ("shape", "grid", "message"),
    [((2, 8), None, r"shape \(2, 8\)"), ((2, 5, 8), 2, "image_grid=2 needs .* these are 5")],
)
def test_image_tokens_of_other_shapes_are_refused(shape: tuple[int, ...], grid: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_tokens(torch.zeros(shape), grid)


def test_check_length_beyond_what_the_model_reads_is_refused(tmp_path: Path) -> None:
    model = build(save_language_model(tmp_path, "gpt2", positions=64))
    model.check_length(23)
    with pytest.raises(UsageError, match=r"report_tokens=40: after 25 tokens, the image's 24 among them, .* the 64"):
        model.check_length(24)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("tokenizer.json", "no tokenizer there"),
        ("config.json", "no model there"),
        ("model.safetensors", r"no \*.safetensors"),
    ],
)
def test_load_from_an_incomplete_folder_names_what_is_missing(tmp_path: Path, broken: str, message: str) -> None:
    name = save_language_model(tmp_path, "gpt2")
    (tmp_path / broken).unlink()
    with pytest.raises(UsageError, match=message):
        load_language_model(name)


def test_load_with_another_models_tokenizer_is_refused(tmp_path: Path) -> None:
    small = _save_five_words(tmp_path / "small")
    save_language_model(tmp_path / "large", "gpt2")
    shutil.copy(tmp_path / "large" / "tokenizer.json", small)
    with pytest.raises(UsageError, match=r"its tokenizer has .* tokens, the model 5"):
        load_language_model(small)


def test_load_of_a_tokenizer_without_end_mark_is_refused(tmp_path: Path) -> None:
    _save_five_words(tmp_path, marks={"unk_token": "<end>"})
    with pytest.raises(UsageError, match="no end mark"):
        load_language_model(str(tmp_path))


def test_load_by_a_name_that_is_no_folder_says_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=r"language_model=nobody/nothing: no folder, and not to be had from the hub"):
        load_language_model("nobody/nothing")


@pytest.mark.parametrize(
    "settings",
    [{"tune": "adapters"}, {"beams": ()}, {"beams": (0,)}, {"epochs": 0}, {"lora": {"rank": 0}}, {"no_such": 1}],
)
def test_config_refuses_what_is_not_allowed(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ReportConfig(language_model="x", **settings)


def test_full_tuning_in_bfloat16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="precision=bfloat16"):
        build(save_language_model(tmp_path), tune="full", precision="bfloat16")


def _save_five_words(folder: Path, marks: dict[str, str] | None = None) -> str:
    vocabulary = {"<end>": 0, "no": 1, "effusion": 2, "edema": 3, "heart": 4}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="no"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=plain, **(marks or {"eos_token": "<end>"})).save_pretrained(folder)
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=5,
        n_positions=32,
        n_embd=16,
        n_layer=1,
        n_head=2,
        initializer_range=0.6,
        eos_token_id=0,
        bos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)
