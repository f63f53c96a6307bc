"""The leaderboard as a table, in Markdown, CSV and JSON, and its command."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import typed_command
from score_folders import cell, drawn_predictions, score_row, write_scores

from chexray.evals.board.files import as_dict, csv_text, escape, markdown
from chexray.evals.board.leaderboard import Entry, Leaderboard, build_leaderboard
from chexray.evals.board.score_files import SubgroupRecord, read_all, read_scores
from chexray.evals.board.words import gap_text, marks, metric_name
from chexray.platform.errors import UsageError

HOSTILE = "<script>alert(1)</script> | `x` [a](http://b) *c* @d\n| e"
FINDINGS = ["Pneumonia", "Edema"]


def board(folder: Path, rows: list[dict[str, Any]], cells: list[dict[str, Any]], **options: Any) -> Leaderboard:
    return build_leaderboard(read_scores(write_scores(folder, rows, cells)), **options)


def entries(found: Leaderboard) -> dict[tuple[str, str], Entry]:
    return {(row.benchmark, entry.checkpoint): entry for row in found.rows for entry in row.entries}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    return typed_command.run(monkeypatch, "leaderboard", *arguments)


@pytest.fixture
def two(tmp_path: Path) -> str:
    """Checkpoint `strong` and `weak` on two zero-shot benchmarks; on the second they are the same."""
    rows, cells, files = [], [], {}
    for benchmark in ("first", "second"):
        for name, strength in (("weak", 0.5), ("strong", 3.0)):
            level = strength if benchmark == "first" else 1.0
            table, _, _ = drawn_predictions(level, FINDINGS, 100, noise=int(level))
            rows.append(score_row(name, benchmark, 0.7 if name == "weak" else 0.9))
            cells.append(cell(name, benchmark))
            files[f"{cells[-1]['path']}/predictions.parquet"] = table
    return write_scores(tmp_path / "scores", rows, cells, files)


def test_board_has_every_benchmark_and_checkpoint_and_says_what_is_missing(tmp_path: Path) -> None:
    rows = [score_row("a", "zs", 0.8), score_row("b", "ret", 0.3, task="retrieval", metric="recall@5")]
    rows += [score_row("b", "und", None, variant="undefined: no positive")]
    rows += [score_row("a", "half", 0.6), score_row("a", "half", 0.5, headline=False, finding="Edema", metric="auroc")]
    cells = [cell("a", "zs"), cell("b", "ret"), cell("b", "zs", state="failed", reason="out of memory")]
    cells += [cell("a", "ret", state="skipped", reason="no reports"), cell("b", "und")]
    cells += [cell("a", "half", seed=0), cell("a", "half", seed=1, state="failed", reason="lost")]
    found = board(tmp_path, rows, cells)
    assert found.checkpoints == ("a", "b")
    # By task, then by title.
    assert [row.benchmark for row in found.rows] == ["half", "und", "zs", "ret"]
    states = {key: (entry.state, entry.reason) for key, entry in entries(found).items()}
    assert states == {
        ("zs", "a"): ("done", None),
        ("zs", "b"): ("failed", "out of memory"),
        ("ret", "a"): ("skipped", "no reports"),
        ("ret", "b"): ("done", None),
        ("und", "a"): ("missing", None),
        ("und", "b"): ("undefined", "undefined: no positive"),
        ("half", "a"): ("done", None),
        ("half", "b"): ("missing", None),
    }
    assert [failure.reason for failure in entries(found)["half", "a"].failures] == ["lost"]


def test_board_of_a_benchmark_that_no_checkpoint_finished_shows_it(tmp_path: Path) -> None:
    found = board(tmp_path, [], [cell("a", "new", state="running")])
    assert [(row.title, row.entries[0].state, row.entries[0].reason) for row in found.rows] == [
        ("new", "missing", "running")
    ]


def test_board_of_two_versions_of_a_benchmark_keeps_them_apart(tmp_path: Path) -> None:
    found = board(tmp_path, [score_row("a", version="1"), score_row("b", version="2")], [cell("a"), cell("b")])
    assert [(row.version, [entry.state for entry in row.entries]) for row in found.rows] == [
        ("1", ["done", "missing"]),
        ("2", ["missing", "done"]),
    ]
    assert "Title of zs (version 2): mean AUROC" in markdown(found)


def test_board_against_a_baseline_corrects_over_the_benchmarks(two: str) -> None:
    found = build_leaderboard(read_scores(two), "weak", draws=200)
    outcomes = {row.benchmark: row.entries[1].outcome for row in found.rows}
    assert all(row.entries[0].outcome is None for row in found.rows)
    first, second = outcomes["first"], outcomes["second"]
    assert first is not None
    assert second is not None
    assert first.comparison is not None
    # 2 / 201 at least, times the two benchmarks; the second's two are the same predictions.
    assert first.p_holm == pytest.approx(4 / 201)
    assert second.p_holm == 1.0
    assert found.summary() == {"strong": {"better": 1, "worse": 0, "no difference shown": 1, "not compared": 0}}


@pytest.mark.parametrize(
    ("images", "patients", "mark"),
    [(0.0, 0.0, ""), (0.2, None, "†"), (0.0, 0.1, "†"), (None, 0.0, "?"), (None, None, "?")],
)
def test_marks_say_what_was_seen_in_training(
    tmp_path: Path, images: float | None, patients: float | None, mark: str
) -> None:
    found = board(tmp_path, [score_row(seen_in_training=images, seen_patients=patients)], [cell()])
    assert marks(found.rows[0].entries[0]) == mark


def test_joined_scores_are_one_board(tmp_path: Path) -> None:
    first = write_scores(tmp_path / "1", [score_row("a", "zs")], [cell("a", "zs")])
    second = write_scores(tmp_path / "2", [score_row("b", "zs")], [cell("b", "zs")], finished=False)
    third = write_scores(tmp_path / "3", [score_row("a", "other")], [cell("a", "other")])
    found = build_leaderboard(read_all([first, second, third]))
    assert found.checkpoints == ("a", "b")
    assert found.unfinished == (second,)
    assert {key: entry.state for key, entry in entries(found).items()} == {
        ("zs", "a"): "done",
        ("zs", "b"): "done",
        ("other", "a"): "done",
        ("other", "b"): "missing",
    }


def test_joined_scores_with_one_name_twice_are_refused_and_can_be_told_apart(tmp_path: Path) -> None:
    folders = [write_scores(tmp_path / name, [score_row("a", "zs")], [cell("a", "zs")]) for name in ("x", "y")]
    with pytest.raises(UsageError, match=r"checkpoint 'a' on benchmark 'zs': in .*/x and in .*/y; .*LABEL="):
        read_all(folders)
    assert build_leaderboard(read_all([folders[0], f"new={folders[1]}"])).checkpoints == ("a", "new/a")
    with pytest.raises(UsageError, match="given twice"):
        read_all([folders[0], folders[0]])


BROKEN: list[tuple[list[dict[str, Any]], list[dict[str, Any]], str]] = [
    ([{"metric": "auroc"}], [], r"results\.json: entry 0, checkpoint: Field required"),
    ([score_row(), score_row()], [], "two headline rows"),
    ([], [cell(path="../../elsewhere")], "leads out of the scores"),
    ([], [cell(path="/etc")], "leads out of the scores"),
    ([], [cell(path="s3://bucket/x")], "leads out of the scores"),
]


@pytest.mark.parametrize(("rows", "cells", "said"), BROKEN)
def test_read_scores_of_broken_files_says_what_and_where(
    tmp_path: Path, rows: list[dict[str, Any]], cells: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        read_scores(write_scores(tmp_path, rows, cells))


def test_read_scores_drops_control_characters_from_names(tmp_path: Path) -> None:
    found = read_scores(write_scores(tmp_path, [score_row("a\x1b[2Jb\x9bc\u0007")], []))
    assert found.rows[0].checkpoint == "a\ufffd[2Jb\ufffdc\ufffd"


def test_markdown_table_by_hand(tmp_path: Path) -> None:
    rows = [score_row("a", value=0.8), score_row("b", value=0.75, seen_patients=0.1)]
    rows += [score_row("a", "rank", 31.25, task="retrieval", metric="text_to_image_mean_rank", higher_is_better=False)]
    lines = markdown(board(tmp_path, rows, [cell("b", "rank", state="failed", reason="no space")])).splitlines()
    assert lines[2:6] == [
        "| benchmark | a | b |",
        "| --- | --- | --- |",
        "| Title of zs: mean AUROC | 0.800 (0.750 to 0.850) | 0.750 (0.700 to 0.800) † |",
        "| Title of rank: text to image mean rank (lower is better) | 31.2 (31.2 to 31.3) | failed |",
    ]
    assert "| Title of rank | b | 0 | failed | no space |" in lines
    assert "| Title of zs | b | 0.0% | 10.0% |" in lines


def test_markdown_shows_other_peoples_text_as_text(tmp_path: Path) -> None:
    rows = [score_row(HOSTILE, HOSTILE, title=HOSTILE, metric=HOSTILE, finding=HOSTILE)]
    missing = {"metric": HOSTILE, "variant": HOSTILE, "reason": HOSTILE}
    cells = [
        cell(HOSTILE, HOSTILE, path=None, not_run=[missing]),
        cell("b", HOSTILE, path=None, state="failed", reason=HOSTILE),
    ]
    text = markdown(board(tmp_path, rows, cells))
    assert "<script" not in text
    assert "://" not in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        # Every line of a table has the cells of its header.
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b\\", r"a\|b\\"),
        ("- x", r"\- x"),
        ("1. x", r"\1. x"),
        ("p < 0.05 & q", "p &lt; 0.05 &amp; q"),
        ("-0.1", "-0.1"),
    ],
)
def test_escaped_text_is_text_in_markdown(text: str, escaped: str) -> None:
    assert escape(text) == escaped


def test_csv_has_a_line_for_each_entry_and_numbers_in_full(two: str) -> None:
    lines = list(csv.DictReader(io.StringIO(csv_text(build_leaderboard(read_scores(two), "weak", draws=200)))))
    assert [(line["benchmark"], line["checkpoint"], line["value"]) for line in lines] == [
        ("first", "weak", "0.7"),
        ("first", "strong", "0.9"),
        ("second", "weak", "0.7"),
        ("second", "strong", "0.9"),
    ]
    assert (lines[1]["verdict"], lines[1]["compared_samples"], lines[0]["verdict"]) == ("better", "100", "")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", " =", "＝"])
def test_csv_text_is_no_formula_and_negative_numbers_stay_numbers(tmp_path: Path, start: str) -> None:
    text = f'{start}HYPERLINK("x","y")'
    rows = [score_row(text, text, -0.5, title=text, finding=text)]
    missing = {"metric": text, "variant": text, "reason": text}
    cells = [
        cell(text, text, path=None, not_run=[missing], seed=1),
        cell("b", text, path=None, state="failed", reason=text),
    ]
    written = csv_text(board(tmp_path, rows, cells))
    assert "\r\n" in written
    for line in list(csv.reader(io.StringIO(written)))[1:]:
        assert not [
            value for value in line if value.strip(" ")[:1] in tuple("=+@\t＝") or value.startswith(f"{start}H")
        ]
    assert "-0.5," in written


def test_json_is_json_with_null_for_what_is_unknown(tmp_path: Path) -> None:
    found = board(tmp_path, [score_row("a", value=None), score_row("b")], [cell("a"), cell("b")], baseline="b")
    first = json.loads(json.dumps(as_dict(found), allow_nan=False))["entries"][0]
    assert (first["state"], first["value"], first["p_value"], first["verdict"]) == ("undefined", None, None, None)


@pytest.mark.parametrize(
    ("metric", "finding", "name"),
    [
        ("mean_auroc", None, "mean AUROC"),
        ("auroc", "Edema", "AUROC, Edema"),
        ("image_to_text_recall@5", None, "image to text recall@5"),
        ("rouge_l", None, "ROUGE-L"),
        ("bleu_4", None, "BLEU-4"),
        ("mean_iou", None, "mean IoU"),
    ],
)
def test_metric_name_is_how_people_write_it(metric: str, finding: str | None, name: str) -> None:
    assert metric_name(metric, finding) == name


def test_command_fits_80_columns_and_marks_better(
    two: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(monkeypatch, two, "--baseline", "weak", "--draws", "100") == 0
    printed = capsys.readouterr().out
    assert all(len(line) <= 80 for line in printed.splitlines())
    assert "0.900 ▲" in printed
    assert "strong against weak: better on 1, no difference shown on 1" in printed


def test_command_of_unfinished_scores_says_so_and_writes_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = write_scores(tmp_path / "s", [score_row("[bold]a")], [cell("[bold]a", path=None)], finished=False)
    files = [str(tmp_path / name) for name in ("board.md", "board.csv", "board.html")]
    assert run(monkeypatch, scores, "--markdown", files[0], "--csv", files[1], "--html", files[2]) == 0
    printed = capsys.readouterr().out
    assert f"unfinished: {scores}" in printed
    assert "[bold]a" in printed
    assert all(Path(file).stat().st_size for file in files)
    assert run(monkeypatch, scores, "--json") == 0
    assert json.loads(capsys.readouterr().out)["unfinished"] == [scores]


USAGE = [
    (["{tmp}/nowhere"], "no such folder"),
    (["{tmp}"], "neither results.json nor cells.json"),
    (["{two}", "--baseline", "x"], "--baseline x: no such checkpoint; there are: weak, strong"),
    (["{two}", "--no-examples"], "--no-examples"),
    (["{two}", "--html", "{two}/results.json"], "ends in .html"),
]


@pytest.mark.parametrize(("arguments", "said"), USAGE, ids=[said for _, said in USAGE])
def test_command_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str],
    said: str,
    two: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *(one.format(tmp=tmp_path, two=two) for one in arguments)) == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert said in output.err


def test_gap_of_groups_that_are_alike_names_no_worst() -> None:
    groups = {"attribute": "sex", "metric": "dice"}
    alike = {"best": "M", "worst": "F", "value": 0.0, "low": 0.0, "high": 0.0}
    assert gap_text(SubgroupRecord.model_validate(groups | {"gap": alike})) == "0.000 (0.000 to 0.000), all alike"
    apart = gap_text(SubgroupRecord.model_validate(groups | {"gap": alike | {"value": 0.1, "high": 0.2}}))
    assert apart == "0.100 (0.000 to 0.200), worst F, best M"
