"""What a user sees who gives something wrong: one line, an exit code, no traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typed_command import run

from chexray.platform.cli import curation_settings
from chexray.platform.config import load_recipe
from chexray.platform.corpus.adapters import ADAPTERS


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with one picture and a CSV that lists it."""
    root = tmp_path / "data"
    root.mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(picture).save(root / "a.png")
    (root / "list.csv").write_text("path,report\na.png,No pneumonia.\n")
    return root


def test_ingest_list_shows_every_dataset_with_its_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(monkeypatch, "ingest", "--list") == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ADAPTERS)
    assert all(len(line) <= 80 for line in printed.splitlines())
    assert "377,110" in printed  # MIMIC-CXR 2.0.0, Johnson et al. 2019


USAGE = [
    (["merge", "{tmp}/no", "--out", "{tmp}/m"], ["no such folder"]),
    (["merge", "{root}", "{root}", "--out", "{tmp}/m"], ["give each corpus once"]),
    (["inspect", "{root}"], ["{root}", "not a corpus"]),
    (
        ["ingest", "folder", "--root", "{root}", "--out", "{tmp}/c", "--set", "ingest.redaction={tmp}/rules.yaml"],
        ["ingest.redaction", "rules.yaml"],
    ),
    (
        ["ingest", "folder", "--root", "{root}", "--out", "{tmp}/c", "--set", "ingest.classifier={tmp}"],
        ["config.json"],
    ),
    (["ingest", "nih", "--root", "{tmp}/nowhere", "--out", "{tmp}/c"], ["nowhere"]),
    (["ingest", "unknown", "--root", "{root}", "--out", "{tmp}/c"], ["unknown", "nih", "folder", "synthetic"]),
    (["ingest", "folder", "--out", "{tmp}/c"], ["--root"]),
    (["ingest", "nih", "--root", "{root}", "--out", "{tmp}/c"], ["Data_Entry_2017"]),
    (["ingest", "folder", "--root", "{root}", "--out", "{tmp}/c", "--option", "colour=red"], ["colour", "report"]),
    (["ingest", "folder", "--root", "{root}", "--out", "{tmp}/c", "--option", "report=text"], ["text", "list.csv"]),
    (["ingest", "folder", "--root", "{root}", "--out", "{tmp}/c", "--set", "ingest.seed=x"], ["ingest.seed", "x"]),
    (["curate", "--corpus", "{root}", "--out", "{tmp}/s"], ["{root}", "not a corpus"]),
    (["curate", "--corpus", "{root}", "--out", "{tmp}/s", "--keep", "1.5"], ["curate.keep", "1.5"]),
    (
        ["pretrain", "--corpus", "{root}", "--out", "x", "--curation=paper", "--keep=0.3", "--set=curate.mode=paper"],
        ["--keep", "curate.mode=paper"],
    ),
    (
        ["curate", "--corpus", "{root}", "--out", "{tmp}/s", "--selector", "learnability"],
        ["learnability", "--reference"],
    ),
    (["pretrain", "--corpus", "{tmp}/no", "--out", "{tmp}/m"], ["no such folder"]),
    (["pretrain", "--corpus", "{root}", "--out", "{tmp}/m", "--recipe", "huge"], ["huge", "tiny", "paper"]),
    (["evaluate", "--checkpoint", "{root}", "--corpus", "{root}", "--out", "{tmp}/r"], ["not a checkpoint"]),
    (["evaluate", "--checkpoint", "x", "--corpus", "y", "--out", "z", "--benchmarks", "q"], ["q", "zero_shot"]),
    (["sweep", "--corpus", "{root}"], ["--corpus and --out"]),
    (["sweep", "--resume", "{root}"], ["{root}", "not a sweep"]),
    (["sweep", "--resume", "{root}", "--out", "x"], ["--resume", "leave the other options out"]),
    (["sweep", "--corpus", "{root}", "--out", "x", "--space", "{tmp}/no.yaml"], ["no.yaml", "no such file"]),
    (["sweep", "--corpus", "{root}", "--out", "{tmp}/x"], ["{root}", "not a corpus"]),
    (["show", "{root}"], ["not an artifact", "manifest.json"]),
]


@pytest.mark.parametrize(
    ("arguments", "said"), USAGE, ids=[" ".join(a[:2]) + f" {i}" for i, (a, _) in enumerate(USAGE)]
)
def test_cli_wrong_usage_says_what_and_where_in_one_line_and_exits_with_2(
    arguments: list[str],
    said: list[str],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fill(text: str) -> str:
        return text.format(tmp=tmp_path, root=images)

    code = run(monkeypatch, *(fill(argument) for argument in arguments))
    output = capsys.readouterr()
    assert code == 2, output.err
    assert output.err.count("\n") == 1, output.err
    assert output.err.startswith("error: ")
    assert not output.out
    for words in said:
        assert fill(words) in output.err


@pytest.mark.parametrize(
    ("curation", "keep", "chosen", "mode", "kept"),
    [
        ("paper", None, [], "paper", 0.227),
        ("paper", 0.3, [], "budget", 0.3),
        ("paper", None, ["curate.keep=0.4"], "budget", 0.4),
        ("paper", None, ["curate.mode=budget"], "budget", 0.227),
        ("paper", None, ["train.epochs=2"], "paper", 0.227),
        ("streaming", None, ["curate.keep=0.4"], "budget", 0.4),
        ("streaming", 0.3, ["curate.keep=0.4"], "budget", 0.3),
    ],
)
def test_cli_curation_paper_keeps_fixed_counts_unless_a_fraction_is_asked_for(
    curation: Any, keep: float | None, chosen: list[str], mode: str, kept: float
) -> None:
    config = load_recipe("tiny", curation_settings(curation, keep, chosen)).curate
    assert (config.mode, config.keep) == (mode, kept)


@pytest.mark.parametrize("option", ["--workers", "--scorers", "--min-workers"])
def test_cli_number_of_processes_below_one_is_refused(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["pretrain", "--corpus", str(tmp_path), "--out", str(tmp_path / "m"), option, "0"]
    assert run(monkeypatch, *arguments) == 2
    said = capsys.readouterr().err
    assert option in said
    assert "Traceback" not in said


def test_cli_csv_without_rows_is_an_error_of_the_data(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "list.csv").write_text("path,report\n")
    code = run(monkeypatch, "ingest", "folder", "--root", str(images), "--out", str(tmp_path / "c"))
    assert code in (1, 2)
    assert "list.csv" in capsys.readouterr().err


@pytest.mark.usefixtures("ray_cluster")
def test_cli_folder_with_a_truncated_image_above_the_allowed_rate_fails_with_1_and_says_where(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "b.png").write_bytes((images / "a.png").read_bytes()[:200])
    (images / "list.csv").write_text("path,report\na.png,No pneumonia.\nb.png,Pneumonia.\nc.png,Effusion.\n")
    ingest = ["ingest", "folder", "--root", str(images), "--out", str(tmp_path / "c")]
    assert run(monkeypatch, *ingest) == 1
    assert "2 of 3 pairs were rejected" in capsys.readouterr().err
    assert run(monkeypatch, *ingest, "--overwrite", "--json", "--set", "ingest.max_reject_rate=0.9") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"]["rejected_by_reason"] == {"image file missing": 1, "image truncated": 1}


@pytest.mark.usefixtures("ray_cluster")
def test_cli_corpus_without_a_test_split_is_told_how_to_get_one(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from chexray.platform.config import load_recipe
    from chexray.platform.model.checkpoint import export_checkpoint
    from chexray.platform.model.encoder import build_model

    corpus = str(tmp_path / "c")
    assert run(monkeypatch, "ingest", "folder", "--root", str(images), "--out", corpus, "--split", "train") == 0
    capsys.readouterr()
    config = load_recipe("tiny").model
    export_checkpoint(str(tmp_path / "m"), build_model(config, 0).state_dict(), config)
    code = run(
        monkeypatch, "evaluate", "--checkpoint", str(tmp_path / "m"), "--corpus", corpus, "--out", str(tmp_path / "r")
    )
    said = capsys.readouterr().err
    assert code == 2
    assert "no test split" in said
    assert "ingest.split" in said
