"""Many benchmarks on Ray: encoded once, resumable, whatever the order and the number of workers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpora import pair, write_corpus
from safetensors.numpy import load_file
from small_runs import PAIRS, small

from chexray.evals import encoding
from chexray.evals.benchmark_data import BenchmarkData
from chexray.evals.board.leaderboard import build_leaderboard
from chexray.evals.board.score_files import read_all
from chexray.evals.seen import seen_in_training
from chexray.evals.specs import SYNTHETIC, BenchmarkSpec, Resources, choose_specs, twin_of
from chexray.jobs.evaluate import evaluate_many, read_results
from chexray.jobs.ingest import ingest
from chexray.platform import storage
from chexray.platform.artifacts import read_manifest
from chexray.platform.config import Runtime
from chexray.platform.corpus.shards import read_columns, read_table
from chexray.platform.errors import ChexrayError, UsageError
from chexray.platform.model.checkpoint import load_checkpoint
from chexray.platform.model.features import image_features
from chexray.platform.model.preprocess import model_pixels

pytestmark = pytest.mark.usefixtures("ray_cluster")

NAMES = ["chexpert-zero-shot", "chexpert-5x200-retrieval", "rsna-disease", "lungs-segmentation", "mimic-reports"]
QUICK = (
    "evaluate.bootstrap=20",
    "evaluate.label_shares=[0.5,1.0]",
    "evaluate.label_seeds=[0,1]",
    "evaluate.fine_tuning.epochs=1",
    "evaluate.segmentation.epochs=2",
    "evaluate.segmentation.decoder=linear",
    "evaluate.reports.epochs=1",
    "evaluate.reports.report_tokens=24",
)


def twins(*names: str) -> dict[str, BenchmarkSpec]:
    return {name: twin_of(spec) for name, spec in choose_specs(list(names)).items()}


def of(rows: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, small_corpus: str, small_checkpoint: str) -> str:
    """Every type of task, on a checkpoint of this very corpus's train split."""
    out = str(tmp_path_factory.mktemp("many") / "scores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "encoders", lambda *_: 1)
        _score(out, small_corpus, small_checkpoint)
    return out


def _score(out: str, small_corpus: str, small_checkpoint: str) -> None:
    evaluate_many(small(*QUICK), {"small": small_checkpoint}, twins(*NAMES), {SYNTHETIC: small_corpus}, out)


def test_every_benchmark_has_one_number_that_stands_for_it(scored: str) -> None:
    rows = read_results(scored)
    assert [row["benchmark"] for row in rows if row["headline"]] == NAMES
    assert {row["twin"] for row in rows} == {True}
    assert {(row["seen_in_training"], row["seen_patients"]) for row in rows} == {(0.0, 0.0)}
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows if row["headline"])
    cells = storage.read_json(f"{scored}/cells.json")
    assert [(cell["benchmark"], cell["seed"]) for cell in cells if cell["state"] == "done"] == [
        *((name, 0) for name in NAMES[:3]),
        (NAMES[2], 1),
        *((name, 0) for name in NAMES[3:]),
    ]


def test_encodings_are_the_models_own_at_the_image_and_before_the_projection(
    scored: str, small_corpus: str, small_checkpoint: str
) -> None:
    files = sorted(Path(scored, "encodings/small/synthetic").glob("test-*.safetensors"))
    arrays = {name: np.concatenate([load_file(file)[name] for file in files]) for name in ("image", "feature")}
    assert len(files) > 1
    loaded = load_checkpoint(small_checkpoint)
    images = read_columns(small_corpus, ["image"], "test")["image"].to_pylist()
    pixels = torch.from_numpy(np.stack([model_pixels(image, loaded.image_size) for image in images]))
    with torch.inference_mode():
        feature = image_features(loaded.model, pixels).numpy()
    # Measured: 1e-6, from other batches.
    np.testing.assert_allclose(arrays["feature"], feature, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(arrays["image"], axis=1), 1, atol=1e-6)


def test_retrieval_asks_only_of_images_with_exactly_one_of_its_findings(scored: str, small_corpus: str) -> None:
    findings = twins("chexpert-5x200-retrieval")["chexpert-5x200-retrieval"].findings
    rows = read_columns(small_corpus, ["sample_id", "labels"], "test").to_pylist()
    labels = [[dict(row["labels"]).get(one) for one in findings] for row in rows]
    expected = [
        row["sample_id"]
        for row, known in zip(rows, labels, strict=True)
        if None not in known and sum(value == 1 for value in known) == 1
    ]
    assert 5 < len(expected) < len(rows)
    ranks = read_table(f"{scored}/cells/small/chexpert-5x200-retrieval/0/ranks.parquet")
    assert ranks["sample_id"].to_pylist() == expected
    examples = storage.read_json(f"{scored}/cells/small/chexpert-5x200-retrieval/0/examples.json")
    assert all(one["retrieved"][0]["report"] == one["report"] for one in examples if one["rank"] == 1)
    assert all(one["retrieved"][0]["report"] != one["report"] for one in examples if one["rank"] >= 2)


def test_means_over_label_seeds_are_the_means_of_the_seeds(scored: str) -> None:
    rows = of(read_results(scored), benchmark="rsna-disease", metric="mean_auroc")
    for method in ("linear_probe", "fine_tuning"):
        each = [
            row["value"] for row in of(rows, method=method) if "labels=1 " in row["variant"] and row["seed"] is not None
        ]
        mean = [row for row in of(rows, method=method, seed=None) if "labels=1 of train; mean of" in row["variant"]]
        assert len(each) == 2
        assert mean[0]["value"] == pytest.approx(np.mean(each), abs=1e-6)
        assert mean[0]["headline"] == (method == "linear_probe")


def test_leaderboard_computes_every_number_that_stands_for_a_benchmark_from_the_files_again(
    scored: str, tmp_path: Path
) -> None:
    again = shutil.copytree(scored, tmp_path / "again")
    scores = read_all([scored, f"again={again}"])
    board = build_leaderboard(scores, "small", draws=20)
    assert [row.benchmark for row in board.rows] == NAMES
    for row in board.rows:
        first, other = row.entries
        assert first.row is not None
        assert other.outcome is not None, row.benchmark
        # Notes would say that the files give another number, or that the samples differ.
        assert (other.outcome.reason, other.outcome.notes) == (None, ()), row.benchmark
        assert other.outcome.comparison is not None
        assert other.outcome.comparison.difference == 0
        assert other.verdict == "no difference shown"


def test_results_depend_on_neither_order_nor_workers_and_a_finished_cell_is_not_done_again(
    scored: str, small_corpus: str, small_checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(reversed(NAMES[:3]))
    monkeypatch.setattr(encoding, "encoders", lambda *_: 3)  # of which the fixture had fewer
    out, recipe = str(tmp_path / "scores"), small(*QUICK, "evaluate.methods=[linear_probe]")
    arguments: tuple[Any, ...] = ({"small": small_checkpoint}, twins(*names), {SYNTHETIC: small_corpus}, out)
    evaluate_many(recipe, *arguments, Runtime(workers=2))
    rows = read_results(out)
    for name in names:
        expected = [row for row in of(read_results(scored), benchmark=name) if row["method"] != "fine_tuning"]
        assert of(rows, benchmark=name) == expected
    # As if killed after all but one cell: no manifest, and one folder without its last file.
    lost = Path(out, "cells/small/chexpert-zero-shot/0/cell.json")
    lost.unlink()
    Path(out, "manifest.json").unlink()
    before = {file: file.stat().st_mtime_ns for file in Path(out).rglob("*") if file.is_file()}
    evaluate_many(recipe, *arguments)
    again = {str(file.relative_to(out)) for file, time in before.items() if file.stat().st_mtime_ns != time}
    # And the stage's own mark, which says whose folder it is.
    assert again - {"stage.json"} == {
        "cells/small/chexpert-zero-shot/0/predictions.parquet",
        "results.json",
        "cells.json",
    }
    assert read_results(out) == rows


def test_cell_that_fails_is_reported_and_stops_no_other_and_data_that_is_not_there_is_told(
    small_corpus: str, small_checkpoint: str, tmp_path: Path
) -> None:
    specs = twins("chexpert-zero-shot")
    broken = specs["chexpert-zero-shot"].model_copy(update={"name": "broken", "findings": ("Unicorn",)})
    greedy = specs["chexpert-zero-shot"].model_copy(update={"name": "greedy", "resources": Resources(cpus=64)})
    absent = choose_specs(["nih-zero-shot"])
    out = str(tmp_path / "scores")
    arguments: tuple[Any, ...] = (
        {"small": small_checkpoint},
        {"broken": broken, "greedy": greedy} | specs | absent,
        {SYNTHETIC: small_corpus},
    )
    with pytest.raises(ChexrayError, match=r"2 of 3 cells failed.*broken.*label of Unicorn; it has Atelectasis"):
        evaluate_many(small(*QUICK), *arguments, out)
    assert {row["benchmark"] for row in read_results(out)} == {"chexpert-zero-shot"}
    states = {cell["benchmark"]: (cell["state"], cell["reason"]) for cell in storage.read_json(f"{out}/cells.json")}
    assert states["chexpert-zero-shot"] == ("done", None)
    assert states["broken"][0] == "failed"
    assert states["greedy"] == ("failed", "its file asks for 64 CPUs, Ray has 3")
    assert states["nih-zero-shot"] == ("skipped", "no data: nih")
    with pytest.raises(UsageError, match="never finished"):
        read_manifest(out)


def test_validation_split_is_refused_for_what_is_chosen_by_it(
    small_corpus: str, small_checkpoint: str, tmp_path: Path
) -> None:
    specs = {"rsna-disease": twins("rsna-disease")["rsna-disease"].model_copy(update={"split": "validation"})}
    with pytest.raises(UsageError, match="chooses by that split"):
        evaluate_many(small(*QUICK), {"m": small_checkpoint}, specs, {SYNTHETIC: small_corpus}, str(tmp_path / "s"))


def test_checkpoint_that_cannot_be_loaded_fails_its_cells_and_no_other(
    small_corpus: str, small_checkpoint: str, tmp_path: Path
) -> None:
    spoilt = tmp_path / "spoilt"
    shutil.copytree(small_checkpoint, spoilt, ignore=shutil.ignore_patterns("state"))
    (spoilt / "open_clip_model.safetensors").write_bytes(b"no weights")
    out, specs = str(tmp_path / "scores"), twins("chexpert-zero-shot", "lungs-segmentation")
    checkpoints = {"spoilt": str(spoilt), "small": small_checkpoint}
    with pytest.raises(ChexrayError, match=r"2 of 4 cells failed"):
        evaluate_many(small(*QUICK), checkpoints, specs, {SYNTHETIC: small_corpus}, out)
    assert {(row["checkpoint"], row["benchmark"]) for row in read_results(out)} == {("small", name) for name in specs}
    reasons = {cell["benchmark"]: cell["reason"] for cell in storage.read_json(f"{out}/cells.json") if cell["reason"]}
    assert "could not be encoded" in reasons["chexpert-zero-shot"]
    assert "error.txt" in reasons["lungs-segmentation"]


def test_benchmark_whose_split_is_empty_fails_alone(small_checkpoint: str, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "no-test", [pair(n, dataset="synthetic", split="train") for n in range(4)])
    with pytest.raises(ChexrayError, match=r"1 of 1 cells failed.*the corpus has no test split"):
        evaluate_many(
            small(*QUICK),
            {"m": small_checkpoint},
            twins("chexpert-zero-shot"),
            {SYNTHETIC: corpus},
            str(tmp_path / "s"),
        )
    assert read_results(str(tmp_path / "s")) == []


def test_images_and_patients_that_training_has_seen_are_told_and_what_cannot_be_known_is_not(
    small_corpus: str, small_checkpoint: str, tmp_path: Path
) -> None:
    spec = twins("chexpert-zero-shot")["chexpert-zero-shot"]
    data = BenchmarkData(spec, {SYNTHETIC: small_corpus}, "")
    assert seen_in_training(small_checkpoint, data) == {"seen_in_training": 0.0, "seen_patients": 0.0}
    # The train split as a benchmark: all of it is seen.
    train = BenchmarkData(spec.model_copy(update={"split": "train"}), {SYNTHETIC: small_corpus}, "")
    assert seen_in_training(small_checkpoint, train) == {"seen_in_training": 1.0, "seen_patients": 1.0}
    # The same images ingested again: with another salt, so that no patient is known by the same name.
    again = str(tmp_path / "again")
    ingest(small(), "synthetic", f"{small_corpus}/../source", again, {"count": PAIRS, "size": 96})
    other = BenchmarkData(spec.model_copy(update={"split": "train"}), {SYNTHETIC: again}, "")
    assert seen_in_training(small_checkpoint, other)["seen_patients"] is None
    assert seen_in_training(small_checkpoint, other)["seen_in_training"] > 0.9
