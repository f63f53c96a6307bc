"""Small models with drawn weights in the places where radeval looks for its own: the hub's cache and those beside it.

Run as a program, which is how the tests run it, since importing radeval has effects on the whole process:
`python radeval_weights.py HOME`, with HF_HUB_CACHE=HOME/hub and XDG_CACHE_HOME=HOME. It writes the models, scores
`TEXTS` with all of them, spoils one, scores again and writes HOME/results.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from language_models import byte_tokenizer, language_model
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz.,0123456789"]
VOCABULARY += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
TEXTS = (["no edema.", "large effusion", "heart normal"], ["no edema.", "small effusion", "lungs clear"])
SMALL = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}


def save_bertscore_encoder(home: Path) -> Path:
    folder = snapshot(home / "hub", "distilbert-base-uncased")
    torch.manual_seed(0)
    DistilBertModel(
        DistilBertConfig(vocab_size=len(VOCABULARY), dim=16, hidden_dim=32, n_heads=2, initializer_range=0.5)
    ).save_pretrained(folder)
    word_pieces().save_pretrained(folder)
    return folder


def save_roberta(home: Path) -> None:
    folder = snapshot(home / "hub", "distilroberta-base")
    tokenizer = byte_tokenizer(["no edema"], "llama", pad=True, padding_side="right")
    tokenizer.model_max_length = 512
    torch.manual_seed(1)
    RobertaModel(
        RobertaConfig(vocab_size=len(tokenizer) + 4, num_hidden_layers=6, initializer_range=0.5, **SMALL)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_chexbert(home: Path) -> None:
    folder = snapshot(home / "hub", "bert-base-uncased")
    config = BertConfig(vocab_size=len(VOCABULARY), num_hidden_layers=2, initializer_range=0.5, **SMALL)
    config.save_pretrained(folder)
    word_pieces().save_pretrained(folder)
    torch.manual_seed(2)
    state = {f"module.bert.{name}": value for name, value in BertModel(config).state_dict().items()}
    for head in range(14):
        linear = torch.nn.Linear(16, 4 if head < 13 else 2)
        state |= {f"module.linear_heads.{head}.{name}": value for name, value in linear.state_dict().items()}
    file = snapshot(home / "chexbert", "StanfordAIMI/RRG_scorers") / "chexbert.pth"
    torch.save({"model_state_dict": state}, file)


def save_green(home: Path) -> None:
    folder = snapshot(home / "hub", "StanfordAIMI/GREEN-radllama2-7b")
    tokenizer = byte_tokenizer(["no edema"], "gpt2", pad=False, padding_side="left")
    model: Any = language_model("llama", len(tokenizer), tokenizer, positions=4096)
    torch.nn.init.zeros_(model.lm_head.weight)  # the likeliest token is the first, its end mark
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def snapshot(cache: Path, repository: str) -> Path:
    """The folder of a repository's main revision in a cache of the hub."""
    folder = snapshot_of(cache, repository)
    folder.mkdir(parents=True)
    reference = folder.parents[1] / "refs" / "main"
    reference.parent.mkdir()
    reference.write_text(folder.name)
    return folder


def snapshot_of(cache: Path, repository: str) -> Path:
    return cache / f"models--{repository.replace('/', '--')}" / "snapshots" / ("0" * 40)


def word_pieces() -> PreTrainedTokenizerFast:
    """A BERT tokenizer whose words are letters."""
    tokenizer: Any = Tokenizer(models.WordPiece({word: n for n, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", model_max_length=512, **marks)


def save_radgraph(home: Path, name: str, seed: int) -> None:
    """Written by radeval's own copy of RadGraph: its weights are drawn where it would load them."""
    from RadEval.metrics.radgraph._vendor import core

    encoder, folder = snapshot(home / "hub", f"small/{name}"), home / "radgraph" / "0.1.18" / name
    torch.manual_seed(seed)
    BertModel(
        BertConfig(vocab_size=len(VOCABULARY), num_hidden_layers=1, initializer_range=0.5, **SMALL)
    ).save_pretrained(encoder)
    word_pieces().save_pretrained(encoder)
    vocabulary = core.Vocabulary(non_padded_namespaces=["*labels"])
    for label in ("", "Observation::definitely present", "Anatomy::definitely present"):
        vocabulary.add_token_to_namespace(label, f"{name}__ner_labels")
    for label in ("located_at", "modify"):
        vocabulary.add_token_to_namespace(label, f"{name}__relation_labels")
    folder.mkdir(parents=True)
    vocabulary.save_to_files(str(folder / "vocabulary"))
    (folder / "config.json").write_text(json.dumps(_radgraph_config(f"small/{name}")))
    read, load = torch.load, core.dygie.DyGIE.load_state_dict

    def draw(model: Any, state: Any, strict: bool) -> None:
        for part, parameter in model.named_parameters():
            if "_ner" in part or "_relation" in part:
                torch.nn.init.normal_(parameter, 0, 0.6)
        torch.save(model.state_dict(), folder / "weights.th")

    try:
        torch.load, core.dygie.DyGIE.load_state_dict = (lambda *_, **__: {}), draw
        core.RadGraph(model_type=name)
    finally:
        torch.load, core.dygie.DyGIE.load_state_dict = read, load


def _radgraph_config(encoder: str) -> dict[str, Any]:
    bert = {"model_name": encoder, "max_length": 512}
    model = {
        "type": "dygie",
        "embedder": {"token_embedders": {"bert": bert}},
        "initializer": {},
        "module_initializer": {},
        "modules": {
            "ner": {},
            "relation": {"spans_per_word": 0.5},
            "coref": {"spans_per_word": 0.3, "max_antecedents": 10, "coref_prop": 0},
            "events": {"trigger_spans_per_word": 0.3, "argument_spans_per_word": 0.8, "loss_weights": {}},
        },
        "feature_size": 4,
        "max_span_width": 2,
        "target_task": "ner",
        "feedforward_params": {"num_layers": 1, "hidden_dims": 16, "dropout": 0.0},
        "loss_weights": {"ner": 1.0, "relation": 1.0, "coref": 0.0, "events": 0.0},
    }
    return {"dataset_reader": {"token_indexers": {"bert": bert}, "max_span_width": 2}, "model": model, "vocabulary": {}}


def _scored() -> dict[str, Any]:
    from chexray.evals.radeval_metrics import model_scores

    scores, not_run = model_scores(*TEXTS)
    once_1B = np.ones((1, len(TEXTS[0])))
    return {
        "values": [[one.metrics, one.variant, one.statistic(once_1B)[0].tolist()] for one in scores],
        "per_report": {one.variant: one.value_BM.tolist() for one in scores if one.value_BM is not None},
        "not_run": [one.as_dict() for one in not_run],
    }


def _bleu() -> list[float]:
    from radeval.metrics.bleu.bleu import Bleu

    generated, reference = TEXTS
    return [Bleu(n=order)(reference, generated)[0] for order in range(1, 5)]


if __name__ == "__main__":
    from chexray.evals.radeval_metrics import import_radeval

    home = Path(sys.argv[1])
    import_radeval()
    save_bertscore_encoder(home)
    save_roberta(home)
    save_chexbert(home)
    save_green(home)
    for seed, name in enumerate(("radgraph", "radgraph-xl")):
        save_radgraph(home, name, seed)
    results: dict[str, Any] = {"whole": _scored()}
    (snapshot_of(home / "hub", "distilbert-base-uncased") / "model.safetensors").write_bytes(b"spoilt")
    results["spoilt"] = _scored()
    results["bleu"] = _bleu()
    (home / "results.json").write_text(json.dumps(results))
