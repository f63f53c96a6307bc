"""Metrics of reports that are models themselves, through `radeval` (Xu et al. 2025), where their weights are at hand.

`radeval` is an extra. Weights are not fetched here: a metric whose package or weights are missing is a `NotRun` that
names what is missing. Its scorers are called rather than its front door, which puts CheXbert on a GPU that may not be
there and, for single reports, gives its accuracies in place of F1.

- BERTScore (Zhang et al. 2020): F1, rescaled by the model's baseline, no IDF. RadEval takes distilbert-base-uncased,
  ReXrank distilroberta-base, both their fifth layer.
- RadGraph F1 (Jain et al. 2021; Delbrouck et al. 2022): RadGraph-XL at three reward levels; and, as ReXrank has it,
  the mean of entity F1 and relation F1 by the first RadGraph.
- CheXbert F1 (Smit et al. 2020): micro and macro over all 14 labels and over `CHEXBERT_5`, once with uncertain findings
  as positive (RadEval) and once as negative.
- RadCliQ-v1 (Yu et al. 2023). Lower is better.
- GREEN (Ostmeier et al. 2024): a 7B language model as judge. Its weights are loaded by transformers' own class; the
  code that lies in its repository is not run.

Shapes: B reports, R bootstrap draws, L labels.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chexray.evals.report_metrics import Scores, mean_scores
from chexray.evals.results import NotRun
from chexray.evals.statistics import FloatArray

Score = Callable[[list[str], list[str], str], Any]
"""Generated reports, references and the device -> a report's values [B] or [B, M]; or labels, for CheXbert."""

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_TOKENIZER = ("tokenizer.json", "vocab.txt", "tokenizer.model")
_GREEN = "StanfordAIMI/GREEN-radllama2-7b"
_RADGRAPH_CACHE = "0.1.18"  # the folder that radeval's copy of RadGraph keeps its weights in
_GREEN_TURNS = (
    "{% for message in messages %}\n"
    "{% if message['from'] == 'human' %}\n"
    "{{ '<|user|>\\n' + message['value'] + eos_token }}\n"
    "{% elif message['from'] == 'system' %}\n"
    "{{ '<|system|>\\n' + message['value'] + eos_token }}\n"
    "{% elif message['from'] == 'gpt' %}\n"
    "{{ '<|assistant|>\\n'  + message['value'] + eos_token }}\n"
    "{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n"
    "{{ '<|assistant|>' }}\n"
    "{% endif %}\n"
    "{% endfor %}"
)
"""As radeval 2.2.1 writes a conversation for GREEN."""


@dataclass(frozen=True)
class ModelMetric:
    """Numbers that one model gives. `missing`: what it needs and does not find, empty where it can run."""

    metrics: tuple[str, ...]
    variant: str
    missing: Callable[[], list[str]]
    score: Score
    combine: Callable[[tuple[str, ...], str, Any], Scores] = mean_scores

    def without(self, reason: str) -> list[NotRun]:
        return [NotRun(metric, self.variant, reason) for metric in self.metrics]


def model_scores(
    generated_B: Sequence[str], reference_B: Sequence[str], device: str = "cpu"
) -> tuple[list[Scores], list[NotRun]]:
    """What can be scored by a model here, and what cannot, with the reason.

    `device` counts for CheXbert, RadGraph-XL and GREEN; radeval puts the others on a GPU if there is one. A metric that
    fails while it runs (its files are broken, or memory is short) is reported as not run too, with the error, so that
    it does not cost the others.
    """
    absent = _absence()
    scores: list[Scores] = []
    not_run: list[NotRun] = []
    for metric in METRICS:
        missing = [absent] if absent else metric.missing()
        if missing:
            not_run += metric.without("; ".join(missing))
            continue
        try:
            import_radeval()
            value = metric.score(list(generated_B), list(reference_B), device)
        except Exception as error:  # noqa: BLE001 - other people's code and files: any error, and it is in the results
            first = (str(error).splitlines() or [""])[0]
            not_run += metric.without(f"it failed: {type(error).__name__}: {first}")
        else:
            scores.append(metric.combine(metric.metrics, metric.variant, value))
    return scores, not_run


def label_scores(metrics: tuple[str, ...], variant: str, label_2BL: npt.NDArray[np.int64]) -> Scores:
    """F1 of labels of generated reports (`label_2BL[0]`) against those of references (`label_2BL[1]`), 1 or 0.

    Micro and macro over all labels, then micro and macro over `CHEXBERT_5`. A label that neither has counts as 0 in the
    macro mean, as in scikit-learn's `f1_score` with zero_division=0. The counts add up over reports, so the bootstrap
    weighs them.
    """
    generated_BL, reference_BL = np.asarray(label_2BL, dtype=np.float64)
    true_BL, wrong_BL = generated_BL * reference_BL, np.abs(generated_BL - reference_BL)

    def statistic(weight_RB: FloatArray) -> FloatArray:
        true_RL, wrong_RL = weight_RB @ true_BL, weight_RB @ wrong_BL
        columns = []
        for chosen in (slice(None), list(CHEXBERT_5)):
            true_RC, wrong_RC = true_RL[:, chosen], wrong_RL[:, chosen]
            columns += [_f1(true_RC.sum(axis=1), wrong_RC.sum(axis=1)), _f1(true_RC, wrong_RC).mean(axis=1)]
        return np.column_stack(columns)

    return Scores(metrics, variant, statistic)


def _f1(true: FloatArray, wrong: FloatArray) -> FloatArray:
    """2 TP / (2 TP + FP + FN), and 0 where there is nothing."""
    f1: FloatArray = 2 * true / np.maximum(2 * true + wrong, 1)
    return f1


def _absence() -> str | None:
    """Why radeval cannot be used at all, if so."""
    try:
        version("radeval")
    except PackageNotFoundError:
        return "the package radeval is not installed; it is chexray's extra radeval, and part of requirements.lock"
    return None


def import_radeval() -> None:
    """Import radeval so that all of it can be imported. It tries to fetch NLTK's punkt_tab, and goes on without."""
    import radeval

    # RadGraph's code in radeval 2.2.1 imports the package as RadEval, which is not found where case counts.
    sys.modules.setdefault("RadEval", radeval)


def _lacking(repository: str, *alternatives: tuple[str, ...], cache: str | None = None) -> list[str]:
    """What the hub's cache lacks of a repository: of each group of file names one is needed."""
    from huggingface_hub import constants, try_to_load_from_cache

    where = cache or constants.HF_HUB_CACHE

    def there(name: str) -> bool:
        return isinstance(try_to_load_from_cache(repository, name, cache_dir=where), str)

    lacking = [names[0] for names in alternatives if not any(map(there, names))]
    return [f"{repository} is not in {where}: {', '.join(lacking)}"] if lacking else []


def _lacking_encoder(repository: str) -> list[str]:
    return _lacking(repository, ("config.json",), _WEIGHTS, _TOKENIZER)


def _lacking_chexbert() -> list[str]:
    from appdirs import user_cache_dir

    weights = _lacking("StanfordAIMI/RRG_scorers", ("chexbert.pth",), cache=user_cache_dir("chexbert"))
    return weights + _lacking("bert-base-uncased", ("config.json",), _TOKENIZER)


def _lacking_radgraph(name: str) -> list[str]:
    from appdirs import user_cache_dir

    folder = Path(user_cache_dir("radgraph")) / _RADGRAPH_CACHE / name
    if not (folder / "config.json").is_file() or not (folder / "weights.th").is_file():
        return [f"{name}.tar.gz of StanfordAIMI/RRG_scorers is not unpacked in {folder}"]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return _lacking_encoder(config["model"]["embedder"]["token_embedders"]["bert"]["model_name"])


def _lacking_radcliq() -> list[str]:
    return _lacking_radgraph("radgraph") + _lacking_chexbert() + _lacking_encoder("distilroberta-base")


def _bertscore(model: str, generated: list[str], reference: list[str], device: str) -> FloatArray:
    from radeval.metrics.bertscore.bertscore import BertScore

    return np.array(BertScore(model, num_layers=5)(reference, generated)[1], dtype=np.float64)


def _chexbert(uncertain: bool, generated: list[str], reference: list[str], device: str) -> npt.NDArray[np.int64]:
    """Labels [2, B, 14], 1 or 0, of generated reports and of references; `uncertain`: whether it counts as 1."""
    from radeval.metrics.f1chexbert import F1CheXbert

    scorer = F1CheXbert(device=device)
    label_2BL = np.array([scorer.get_labels(texts, mode="classification") for texts in (generated, reference)])
    return np.asarray(label_2BL != 0 if uncertain else label_2BL == 1, dtype=np.int64)


def _radgraph_levels(generated: list[str], reference: list[str], device: str) -> FloatArray:
    from radeval.metrics.radgraph import F1RadGraph

    scorer = F1RadGraph(reward_level="all", model_type="radgraph-xl", cuda=_cuda(device))
    return np.array(scorer(refs=reference, hyps=generated)[1], dtype=np.float64).T


def _radgraph_mean(generated: list[str], reference: list[str], device: str) -> FloatArray:
    from radeval.metrics.radgraph_radcliq import RadGraphRadCliQ

    return np.array(RadGraphRadCliQ()(hyps=generated, refs=reference)[1], dtype=np.float64)


def _radcliq(generated: list[str], reference: list[str], device: str) -> FloatArray:
    from radeval.metrics.RadCliQv1.radcliq import CompositeMetric

    return np.asarray(CompositeMetric().predict(reference, generated)[1], dtype=np.float64)


def _green(generated: list[str], reference: list[str], device: str) -> FloatArray:
    import torch
    from radeval.metrics.green_score.green import GREEN
    from transformers import AutoModelForCausalLM, AutoTokenizer

    on_cpu = device == "cpu"
    judge = GREEN(cpu=on_cpu, num_gpus=1)  # given the name it would run the code in the model's repository
    judge.model_id = judge.model_name = _GREEN
    dtype = torch.float32 if on_cpu else torch.float16
    model = AutoModelForCausalLM.from_pretrained(_GREEN, local_files_only=True, trust_remote_code=False, dtype=dtype)
    judge.model = model.to("cpu" if on_cpu else "cuda:0").eval()
    judge.tokenizer = AutoTokenizer.from_pretrained(
        _GREEN, local_files_only=True, trust_remote_code=False, add_eos_token=True, padding_side="left"
    )
    judge.tokenizer.chat_template = _GREEN_TURNS
    judge.tokenizer.pad_token = judge.tokenizer.eos_token
    values = judge(reference, generated)[2]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _cuda(device: str) -> int:
    """RadGraph's way to name a device: -1 is the CPU."""
    if device == "cpu":
        return -1
    return int(device.partition(":")[2] or 0)


CHEXBERT_5 = (1, 4, 5, 7, 9)
"""Cardiomegaly, Edema, Consolidation, Atelectasis, Pleural Effusion among CheXbert's 14 labels."""

METRICS = (
    *(
        ModelMetric(
            ("bertscore",),
            f"{model}, layer 5, rescaled, no IDF ({whose}): mean F1",
            partial(_lacking_encoder, model),
            partial(_bertscore, model),
        )
        for model, whose in (("distilbert-base-uncased", "RadEval"), ("distilroberta-base", "ReXrank"))
    ),
    ModelMetric(
        ("radgraph_f1_simple", "radgraph_f1_partial", "radgraph_f1_complete"),
        "radgraph-xl: mean F1 by reward level",
        partial(_lacking_radgraph, "radgraph-xl"),
        _radgraph_levels,
    ),
    ModelMetric(
        ("radgraph_f1",),
        "radgraph: mean of entity F1 and relation F1 (ReXrank)",
        partial(_lacking_radgraph, "radgraph"),
        _radgraph_mean,
    ),
    *(
        ModelMetric(
            ("chexbert_f1_14_micro", "chexbert_f1_14_macro", "chexbert_f1_5_micro", "chexbert_f1_5_macro"),
            f"CheXbert labels, uncertain as {'positive (RadEval)' if uncertain else 'negative'}",
            _lacking_chexbert,
            partial(_chexbert, uncertain),
            label_scores,
        )
        for uncertain in (True, False)
    ),
    ModelMetric(("radcliq_v1",), "RadCliQ-v1: mean, lower is better", _lacking_radcliq, _radcliq),
    ModelMetric(
        ("green",),
        "GREEN-radllama2-7b: mean",
        partial(_lacking, _GREEN, ("config.json",), _WEIGHTS, _TOKENIZER),
        _green,
    ),
)
