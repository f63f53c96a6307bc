"""Metrics that are models: their F1 against scikit-learn; what runs through radeval, and what does not, and why.

Real weights are on a hub. The slow tests give radeval small drawn ones in their places: its code, and the way to it,
are the real ones. B: reports; L: labels.
"""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import radeval_weights
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from language_models import save_language_model
from sklearn.metrics import f1_score
from transformers import BertModel, DistilBertModel

from chexray.evals.radeval_metrics import CHEXBERT_5, METRICS, label_scores, model_scores
from chexray.evals.report_metrics import bleu_scores
from chexray.evals.statistics import stream_weights

NAMES = ("14_micro", "14_macro", "5_micro", "5_macro")


def sklearns_f1(label_2BL: Any) -> list[float]:
    generated, reference = label_2BL
    few = list(CHEXBERT_5)
    return [
        f1_score(reference[:, chosen], generated[:, chosen], average=average, zero_division=0)
        for chosen in (slice(None), few)
        for average in ("micro", "macro")
    ]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), reports=st.integers(1, 8), share=st.floats(0, 1))
def test_label_f1_equals_sklearn_also_in_every_draw(seed: int, reports: int, share: float) -> None:
    generator = np.random.default_rng(seed)
    label_2BL = (generator.random((2, reports, 14)) < share).astype(np.int64)
    scores = label_scores(NAMES, "drawn", label_2BL)
    # Measured worst error: 1e-16.
    assert scores.statistic(np.ones((1, reports)))[0] == pytest.approx(sklearns_f1(label_2BL), abs=1e-12)
    (weight_RB,) = stream_weights([f"p{row // 2}" for row in range(reports)], 5, seed=1)
    for value_M, weight_B in zip(scores.statistic(weight_RB), weight_RB, strict=True):
        rows = np.repeat(np.arange(reports), weight_B.astype(int))
        assert value_M == pytest.approx(sklearns_f1(label_2BL[:, rows]), abs=1e-12)


def test_without_weights_every_metric_is_not_run_and_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    scores, not_run = model_scores(["no edema"], ["no edema"])
    assert scores == []
    assert [(one.metric, one.variant) for one in not_run] == [(name, m.variant) for m in METRICS for name in m.metrics]
    reasons = {one.metric: one.reason for one in not_run}
    for metric, missing in {
        "bertscore": "distilroberta-base is not in",
        "radgraph_f1_partial": f"radgraph-xl.tar.gz of StanfordAIMI/RRG_scorers is not unpacked in {tmp_path}",
        "chexbert_f1_14_micro": "StanfordAIMI/RRG_scorers is not in",
        "radcliq_v1": "radgraph.tar.gz of StanfordAIMI/RRG_scorers",
        "green": "StanfordAIMI/GREEN-radllama2-7b is not in",
    }.items():
        assert missing in reasons[metric]


def run_without(package: str, folder: Path, program: str, *arguments: str) -> str:
    """What the program prints in an environment that has every package but this one."""
    for entry in Path(site.getsitepackages()[0]).iterdir():
        if not entry.name.startswith(package):
            (folder / entry.name).symlink_to(entry)
    code = "import site, sys\nsite.addsitedir(sys.argv[1])\n" + textwrap.dedent(program)
    command = [sys.executable, "-S", "-c", code, str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


def test_without_radeval_every_metric_is_not_run_and_says_so(tmp_path: Path) -> None:
    printed = run_without(
        "radeval",
        tmp_path,
        """
        from chexray.evals.radeval_metrics import model_scores
        scores, not_run = model_scores(["no edema"], ["no edema"])
        print(scores, len(not_run), *{one.reason for one in not_run}, sep="; ")
        """,
    )
    count = sum(len(metric.metrics) for metric in METRICS)
    reason = "the package radeval is not installed; it is chexray's extra radeval, and part of requirements.lock"
    assert printed.strip() == f"[]; {count}; {reason}"


@pytest.mark.slow
def test_without_peft_lora_says_what_to_install(tmp_path: Path) -> None:
    model = save_language_model(tmp_path / "model")
    printed = run_without(
        "peft",
        tmp_path,
        """
        from chexray.evals.report_model import ReportModel, load_language_model
        from chexray.platform.evaluate_config import ReportConfig
        from chexray.platform.errors import UsageError
        try:
            ReportModel(*load_language_model(sys.argv[2]), 8, ReportConfig(language_model="here", tune="lora"))
        except UsageError as error:
            print(error)
        """,
        model,
    )
    assert "tune=lora needs the package peft: install chexray[lora], or set tune to projector" in printed


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    home = tmp_path_factory.mktemp("radeval")
    environment = os.environ | {
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_HUB_OFFLINE": "1",
        "XDG_CACHE_HOME": str(home),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, radeval_weights.__file__, str(home)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return home, json.loads((home / "results.json").read_text())


@pytest.mark.slow
def test_with_weights_every_metric_runs_through_radeval(small_weights: tuple[Path, dict[str, Any]]) -> None:
    whole = small_weights[1]["whole"]
    assert whole["not_run"] == []
    assert [(tuple(names), variant) for names, variant, _ in whole["values"]] == [
        (metric.metrics, metric.variant) for metric in METRICS
    ]
    for _, variant, values in whole["values"]:
        assert all(np.isfinite(values)), variant
    per_report = whole["per_report"]
    for variant, value_BM in per_report.items():
        if "radgraph" in variant:
            # The first of the texts is its reference's copy.
            assert value_BM[0] == [1.0] * len(value_BM[0])
    radcliq = per_report["RadCliQ-v1: mean, lower is better"]
    assert radcliq[0][0] < min(radcliq[1][0], radcliq[2][0])
    assert per_report["GREEN-radllama2-7b: mean"] == [[0.0]] * 3


@pytest.mark.slow
def test_bleu_of_white_space_tokens_equals_pycocoevalcaps_code(small_weights: tuple[Path, dict[str, Any]]) -> None:
    expected = small_weights[1]["bleu"]
    _, coco = bleu_scores(*radeval_weights.TEXTS)
    # No three words match, so that its 1e-15 and 1e-9 decide. Measured worst error: 1e-16.
    assert coco.statistic(np.ones((1, 3)))[0] == pytest.approx(expected, rel=1e-9)
    assert 0 < expected[3] < 1e-3 < expected[1]


@pytest.mark.slow
def test_bertscore_through_radeval_equals_its_definition(small_weights: tuple[Path, dict[str, Any]]) -> None:
    home, results = small_weights
    # The weights were spoilt after the first scoring; they are drawn again.
    encoder = DistilBertModel.from_pretrained(radeval_weights.save_bertscore_encoder(home / "again")).eval()
    tokenizer = radeval_weights.word_pieces()

    def layer_5(text: str) -> torch.Tensor:
        with torch.no_grad():
            hidden = encoder(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[5][0]
        return torch.nn.functional.normalize(hidden, dim=1)

    file = "radeval/metrics/bertscore/_vendor/rescale_baseline/en/distilbert-base-uncased.tsv"
    rows = (Path(site.getsitepackages()[0]) / file).read_text().splitlines()
    baseline = float(rows[1 + 5].split(",")[3])
    expected = []
    for generated, reference in zip(*radeval_weights.TEXTS, strict=True):
        similarity = layer_5(generated) @ layer_5(reference).T
        # Every word takes its nearest; the marks at both ends can be taken but take none.
        precision, recall = similarity.max(1).values[1:-1].mean(), similarity.max(0).values[1:-1].mean()
        expected.append(float((2 * precision * recall / (precision + recall) - baseline) / (1 - baseline)))
    (variant,) = [name for name in results["whole"]["per_report"] if name.startswith("distilbert")]
    # Measured worst error: 6e-7.
    assert np.ravel(results["whole"]["per_report"][variant]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_chexbert_f1_through_radeval_equals_sklearn_on_its_labels(small_weights: tuple[Path, dict[str, Any]]) -> None:
    home, results = small_weights
    cache = radeval_weights.snapshot_of(home / "chexbert", "StanfordAIMI/RRG_scorers")
    state = torch.load(cache / "chexbert.pth", weights_only=True)["model_state_dict"]
    folder = radeval_weights.snapshot_of(home / "hub", "bert-base-uncased")
    bert = BertModel(BertModel.config_class.from_pretrained(folder)).eval()
    prefix = "module.bert."
    bert.load_state_dict({name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)})
    tokenizer = radeval_weights.word_pieces()

    def classes(text: str) -> list[int]:
        with torch.no_grad():
            hidden = bert(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 0]
        heads = [f"module.linear_heads.{head}" for head in range(14)]
        return [int((state[f"{head}.weight"] @ hidden + state[f"{head}.bias"]).argmax()) for head in heads]

    class_2BL = np.array([[classes(text) for text in texts] for texts in radeval_weights.TEXTS])
    assert {1, 3} <= set(class_2BL.ravel())
    values = {variant: value for _, variant, value in results["whole"]["values"] if variant.startswith("CheXbert")}
    # CheXbert's classes are blank, positive, negative, uncertain.
    for meaning, positive in (("positive (RadEval)", (1, 3)), ("negative", (1,))):
        expected = sklearns_f1(np.isin(class_2BL, positive).astype(int))
        assert values[f"CheXbert labels, uncertain as {meaning}"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
def test_spoilt_weights_cost_only_the_metric_that_needs_them(small_weights: tuple[Path, dict[str, Any]]) -> None:
    spoilt = small_weights[1]["spoilt"]
    (failed,) = spoilt["not_run"]
    assert failed["metric"] == "bertscore"
    assert failed["variant"].startswith("distilbert-base-uncased")
    assert failed["reason"].startswith("it failed: ")
    assert len(spoilt["values"]) == len(METRICS) - 1
