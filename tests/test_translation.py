"""Translation from a folder; the model is tiny, made here, overfitted on a few sentences, and really run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from chexray.platform.corpus.translation import Translator
from chexray.platform.errors import UsageError

SENTENCES = {
    "sin hallazgos .": "no findings .",
    "derrame pleural izquierdo .": "left pleural effusion .",
    "derrame pleural derecho .": "right pleural effusion .",
    "no se observa neumonía .": "no pneumonia is seen .",
    "corazón normal .": "normal heart .",
}
MAX_TOKENS = 12


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 of one layer a side that knows `SENTENCES` by heart, and a tokenizer of whole words."""
    torch.manual_seed(0)
    words = sorted({word for pair in SENTENCES.items() for text in pair for word in text.split()})
    vocabulary = {token: index for index, token in enumerate(["<pad>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
    )
    config = T5Config(
        vocab_size=len(vocabulary),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    model = T5ForConditionalGeneration(config)
    overfit(model, fast)
    folder = tmp_path_factory.mktemp("translator")
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def overfit(model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
    inputs = tokenizer(list(SENTENCES), return_tensors="pt", padding=True)
    targets = tokenizer(list(SENTENCES.values()), return_tensors="pt", padding=True)["input_ids"]
    targets[targets == 0] = -100
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(120):
        loss = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=targets).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def test_translate_of_sentences_gives_their_translations(model_folder: Path) -> None:
    translator = Translator(str(model_folder), batch_size=2)
    assert translator.translate(list(SENTENCES)) == list(SENTENCES.values())


def test_translate_of_a_longer_report_goes_sentence_by_sentence(model_folder: Path) -> None:
    translator = Translator(str(model_folder))
    report = " ".join(SENTENCES)
    assert len(report.split()) > translator.max_tokens == MAX_TOKENS
    assert translator.translate([report, "", "corazón normal .\nsin hallazgos ."]) == [
        " ".join(SENTENCES.values()),
        "",
        "normal heart . no findings .",
    ]


def test_translate_of_a_sentence_beyond_the_limit_cuts_it_between_words(model_folder: Path) -> None:
    # Without marks it is one sentence of 24 words; each half has 11 or 12 and the end mark.
    halves = ["derrame pleural izquierdo corazón normal sin"] * 4
    translator = Translator(str(model_folder))
    parts = [translator.translate([half])[0] for half in halves]
    assert translator.translate([" ".join(halves)]) == [" ".join(parts)]


def test_translate_twice_gives_the_same(model_folder: Path) -> None:
    texts = ["neumonía derecho .", "corazón pleural .", *SENTENCES]
    first, second = (Translator(str(model_folder)).translate(texts) for _ in range(2))
    assert first == second
    assert Translator(str(model_folder)).translate([]) == []


def test_translator_of_a_folder_without_a_model_raises(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="no model there"):
        Translator(str(tmp_path))


def test_translator_with_pickled_weights_raises(model_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((model_folder / name).read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"has no \*\.safetensors"):
        Translator(str(tmp_path))


def test_translator_without_a_tokenizer_raises(model_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((model_folder / name).read_bytes())
    with pytest.raises(UsageError, match="no tokenizer there"):
        Translator(str(tmp_path))
