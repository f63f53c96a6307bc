"""The leaderboard's pages as a browser reads them: what they show, and what other people's text must not do there."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from made_board import FINDINGS, made_board
from score_folders import cell, score_row, write_scores

from chexray.evals.board.leaderboard import Leaderboard, build_leaderboard
from chexray.evals.board.pages import page_names, write_pages
from chexray.evals.board.score_files import read_scores
from chexray.platform.pages.overlay import PREDICTION, REFERENCE, overlay

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script><b>&amp; | "
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRAWS = 300


class Reader(HTMLParser):
    """Text outside of scripts and styles, tags with their attributes, and the figures."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: list[Any] = []
        self._figure = False
        self.feed(page)
        self.all_text = " ".join(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._figure = dict(attrs).get("class") == "figure"

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is None and data.strip():
            self.text.append(" ".join(data.split()))
        elif self.cdata_elem == "script" and self._figure:
            self.figures.append(json.loads(data))


def made(folder: Path, baseline: str | None = "full data", **options: Any) -> Leaderboard:
    return build_leaderboard(read_scores(made_board(folder / "scores", **options)), baseline, DRAWS)


def pages(folder: Path, board: Leaderboard, examples: bool = True) -> dict[str, str]:
    written = write_pages(board, str(folder / "html"), examples)
    return {Path(uri).name: Path(uri).read_text() for uri in written}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("plain")
    return pages(folder, made(folder))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("hostile")
    names = (f"{HOSTILE} 1", f"{HOSTILE} 2")
    return pages(folder, made(folder, names[0], checkpoints=names, text=HOSTILE))


def test_table_page_shows_numbers_marks_and_links_to_every_benchmark(plain: dict[str, str]) -> None:
    page = Reader(plain["index.html"])
    for said in ("Zero-shot classification", "full data", "baseline", "failed", "synthetic images", "is unfinished"):
        assert said in page.all_text
    assert re.search(r"0\.\d{3} ▲†", page.all_text)
    assert "CUDA out of memory" in page.all_text
    assert "radgraph F1 (greedy; partial)" in page.all_text
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert links == set(plain) - {"index.html"}
    assert not page.figures
    assert "script" not in {tag for tag, _ in page.tags}


def test_benchmark_page_draws_every_finding_with_every_checkpoint(plain: dict[str, str]) -> None:
    page = Reader(plain["benchmark-nih.html"])
    assert len(page.figures) == 3 * len(FINDINGS)
    for figure in page.figures:
        assert [trace["name"] for trace in figure["data"]] == ["full data", "curated 22.7 %", ""]
    for said in (*FINDINGS, "DeLong", "Calibration", "By sex", "left out: few", "prompts=presence"):
        assert said in page.all_text
    assert len(Reader(plain["benchmark-disease.html"]).figures) == 2 * len(FINDINGS)


def test_examples_stand_on_their_pages_with_images(plain: dict[str, str]) -> None:
    counts = {name: sum(tag == "img" for tag, _ in Reader(page).tags) for name, page in plain.items()}
    # Three queries of two checkpoints; six images, two classes, two checkpoints; six reports.
    assert counts["benchmark-ret.html"] == 6
    assert counts["benchmark-seg.html"] == 24
    assert counts["benchmark-rep.html"] == 6
    assert sum(counts.values()) == 36
    page = Reader(plain["benchmark-ret.html"]).all_text
    assert "retrieved at rank 1 The heart is of normal size." in page
    assert "retrieved 1, its own similarity 0.600" in page
    assert "reference The heart is of normal size." in Reader(plain["benchmark-rep.html"]).all_text
    assert "from the lowest to the highest Dice of full data" in Reader(plain["benchmark-seg.html"]).all_text


def test_pages_without_examples_hold_no_image_and_no_report(tmp_path: Path) -> None:
    written = pages(tmp_path, made(tmp_path), examples=False)
    for page in written.values():
        assert "img" not in {tag for tag, _ in Reader(page).tags}
        assert "heart is of normal size" not in page
        assert "mediastinum" not in page


def test_pages_of_a_corpus_that_is_gone_say_so_and_go_on(tmp_path: Path) -> None:
    written = pages(tmp_path, made(tmp_path, corpus=str(tmp_path / "gone")))
    for name in ("benchmark-ret.html", "benchmark-seg.html", "benchmark-rep.html"):
        page = Reader(written[name])
        assert "gone could not be read (no such corpus): images are left out." in page.all_text
        assert "img" not in {tag for tag, _ in page.tags}
    assert "its own report" in Reader(written["benchmark-ret.html"]).all_text


def test_pages_show_other_peoples_text_as_text(hostile: dict[str, str], plain: dict[str, str]) -> None:
    assert set(hostile) == set(plain)
    for name, page in hostile.items():
        read = Reader(page)
        assert all("onerror" not in attributes for _, attributes in read.tags)
        assert not {"b", "img"} & {tag for tag, attributes in read.tags if attributes.get("src") == "x"}
        scripts = sum(tag == "script" for tag, _ in read.tags)
        assert scripts == sum(tag == "script" for tag, _ in Reader(plain[name]).tags)
        assert " ".join(HOSTILE.split()) in read.all_text


def test_pages_load_nothing_from_elsewhere(hostile: dict[str, str], plain: dict[str, str]) -> None:
    for page in (*plain.values(), *hostile.values()):
        read = Reader(page)
        for tag, attributes in read.tags:
            assert str(attributes.get("src", "data:")).startswith("data:"), tag
            assert re.fullmatch(r"[a-z0-9-]+\.html", str(attributes.get("href", "x.html"))), tag
        policy = [str(a["content"]) for tag, a in read.tags if tag == "meta" and "http-equiv" in a]
        assert len(policy) == 1
        assert policy[0].startswith("default-src 'none'; ")
        assert ("script-src" in policy[0]) == bool(read.figures)


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [one for part in value.values() for one in strings(part)]
    if isinstance(value, list):
        return [one for part in value for one in strings(part)]
    return [value] if isinstance(value, str) else []


def test_plots_hold_no_markup(hostile: dict[str, str]) -> None:
    """plotly draws <b>, <a href> and others of any label."""
    drawn = [one for page in hostile.values() for one in strings(Reader(page).figures)]
    assert any("&lt;img" in one for one in drawn)
    assert not [one for one in drawn if "<" in one]


def test_one_file_is_the_table_alone_without_links(tmp_path: Path) -> None:
    to = tmp_path / "board.html"
    assert write_pages(made(tmp_path), str(to)) == [str(to)]
    page = Reader(to.read_text())
    assert "a" not in {tag for tag, _ in page.tags}
    assert not list(tmp_path.glob("benchmark*"))


def test_page_names_are_files_of_the_folder_and_differ(tmp_path: Path) -> None:
    names = ["../../etc/passwd", "NIH", "nih", "///", "a" * 300, "index"]
    rows = [score_row("a", name) for name in names]
    board = build_leaderboard(read_scores(write_scores(tmp_path, rows, [])))
    found = page_names(board.rows)
    assert len(set(found.values())) == len(names)
    assert all(re.fullmatch(r"benchmark-[a-z0-9-]+\.html", name) and len(name) < 90 for name in found.values())


def test_page_of_a_benchmark_without_files_is_whole(tmp_path: Path) -> None:
    tasks = ("zero_shot", "retrieval", "disease_prediction", "segmentation", "report_generation", "another")
    rows = [score_row("a", task, task=task) for task in tasks]
    scores = write_scores(tmp_path / "s", rows, [cell("a", task) for task in tasks])
    written = pages(tmp_path, build_leaderboard(read_scores(scores)))
    assert len(written) == 7
    assert all(page.rstrip().endswith("</html>") for page in written.values())
    assert "a has no curves: predictions.parquet is not there." in written["benchmark-zero-shot.html"]


def test_overlay_draws_both_outlines_and_fills_the_prediction() -> None:
    image_HW = np.full((64, 64), 100, np.uint8)
    predicted_HW, reference_HW = np.zeros_like(image_HW), np.zeros_like(image_HW)
    predicted_HW[8:40, 8:40] = 255
    reference_HW[24:60, 24:60] = 255
    drawn = np.asarray(PIL.Image.open(io.BytesIO(overlay(image_HW, predicted_HW, reference_HW)))).astype(int)
    colours = {name: [int(name[n : n + 2], 16) for n in (1, 3, 5)] for name in (PREDICTION, REFERENCE)}
    # JPEG rounds colours of two pixels' width: off by at most 45 here.
    assert np.abs(drawn[8, 12:20] - colours[PREDICTION]).max() < 60
    assert np.abs(drawn[59, 30:50] - colours[REFERENCE]).max() < 60
    filled, outside = drawn[16, 16], drawn[4, 60]
    assert filled[0] > filled[2] + 15
    assert np.abs(outside - 100).max() < 8


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_pages_in_a_browser_draw_every_plot_and_run_no_one_elses_script(
    hostile: dict[str, str], tmp_path: Path
) -> None:
    page = hostile["benchmark-nih.html"]
    (tmp_path / "page.html").write_text(page)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path}", "--dump-dom", (tmp_path / "page.html").as_uri()]
    drawn = Reader(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)
    plots = [attributes for _, attributes in drawn.tags if "js-plotly-plot" in str(attributes.get("class"))]
    assert len(plots) == len(Reader(page).figures) == 9
    assert drawn.text[0].startswith("NIH chest X-rays")
    assert [a for tag, a in drawn.tags if tag == "img" and a.get("src") == "x"] == []


def test_page_of_a_benchmark_says_why_metrics_were_not_run(plain: dict[str, str]) -> None:
    (page,) = (Reader(page) for name, page in plain.items() if name == "benchmark-rep.html")
    assert "Metrics that were not run" in page.text
    assert "--html" not in page.all_text
    assert "radeval is not installed" in page.all_text
