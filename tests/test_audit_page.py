"""The audit's page as a browser reads it: its text, its plots, and what it must not do with other people's text."""

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
import plotly.graph_objects as go
import pytest
import torch
import torch.nn.functional as F

from chexray.curation.audit import audit_subset
from chexray.curation.audit_figures import band_figure, enrichment_figure, kept_figure, percent
from chexray.curation.audit_page import Example, audit_page
from chexray.curation.feature_map import FeatureMap
from chexray.curation.selection import Band
from chexray.platform.pages.plots import plain

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script><b>&amp;"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Reader(HTMLParser):
    """Text outside of scripts and styles; figures by name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: dict[str, Any] = {}
        self._figure = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._figure = str(dict(attrs).get("id", "")).removeprefix("figure-") if tag == "script" else ""

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is None and data.strip():
            self.text.append(" ".join(data.split()))
        elif self.cdata_elem == "script" and self._figure:
            self.figures[self._figure] = json.loads(data)


def small_audit(finding: str = "Hernia", bands: bool = True, **parts: Any) -> dict[str, Any]:
    """40 pairs, 10 kept; the finding in 4, all kept: enrichment 4."""
    rows = 40
    columns = {
        "sample_id": [f"{n:032x}" for n in range(rows)],
        "dataset": ["made", "2020-01-01"] * 20,
        "view": ["PA", None] * 20,
        "sex": ["F"] * rows,
        "age_years": [float(n) for n in range(rows)],
        "split": ["train"] * rows,
        "labels": [{finding: n < 4, "Edema": None, "Mass": n % 2} for n in range(rows)],
        "band": ["support", "central"] * 20 if bands else [None] * rows,
        "cluster": [0, 10] * 20 if bands else [None] * rows,
        "kept": [n < 10 for n in range(rows)],
    }
    return audit_subset(columns | parts.pop("columns", {}), **parts)


def image(kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.zeros((8, 8), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def example(**change: Any) -> Example:
    known = {"sample_id": "ab", "band": "support", "kept": True, "image": image(), "report": "Clear.", "findings": ()}
    return Example(**(known | change))


def points(text: str = "Hernia") -> FeatureMap:
    xy_M2 = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]], np.float32)
    return FeatureMap(xy_M2, (0.5, 0.25), 9, [text] * 3, [text, "support", None], [True, False, True], [[text]] * 3)


def full_page(text: str) -> str:
    """Every part of the page, with `text` wherever other people's text goes."""
    feature_NE = F.normalize(torch.randn(40, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    columns = {
        "dataset": [text, "made"] * 20,
        "view": [text, "PA"] * 20,
        "sex": [text, "F"] * 20,
        "band": [text, "support"] * 20,
        "pixel_hash": [f"{n // 2}" for n in range(40)],
    }
    other = np.arange(40) % 4 == 0
    audit = small_audit(text, columns=columns, feature_NE=feature_NE, other_keeps=[other])
    pair = example(sample_id=text, band=text, report=f"{text} {'x ' * 300}", findings=[text])
    return audit_page(text, audit, points(text), [pair])


def test_audit_page_shows_what_the_audit_says() -> None:
    page = Reader(audit_page("mine", small_audit()))
    text = " | ".join(page.text)
    assert "10 of 40 pairs kept (25.0%)" in text
    assert "Of 2 findings, 1 is kept more often, 0 less often, and for 1 no difference is shown." in text
    assert "Left out: 1 without a positive pair" in text
    assert "support | 20 | 5 | 25.0%" in text
    points_by_name = {trace["name"]: trace for trace in page.figures["enrichment"]["data"]}
    assert points_by_name["kept more often"]["x"] == [4.0]
    assert "4.00 times (" in points_by_name["kept more often"]["text"][0]
    labels = page.figures["enrichment"]["layout"]["yaxis"]["ticktext"]
    assert [re.sub("<.*?>", " ", label) for label in labels] == ["Hernia  4 of 4 kept ", "Mass  5 of 20 kept "]
    assert {"kept_dataset", "kept_view", "kept_sex", "kept_age", "kept_cluster", "bands"} < set(page.figures)
    assert {"within_dataset", "within_age"} < set(page.figures)
    assert "within_sex" not in page.figures


def test_audit_page_from_a_file_equals_that_from_the_audit() -> None:
    audit = small_audit()
    assert audit_page("mine", json.loads(json.dumps(audit, sort_keys=True))) == audit_page("mine", audit)


def test_audit_page_without_features_has_neither_coverage_nor_map() -> None:
    page = Reader(audit_page("mine", small_audit(bands=False)))
    text = " | ".join(page.text)
    assert "This selector puts pairs in no bands." in text
    for absent in ("How far the corpus lies", "Copies that were kept", "other seeds", "Where the kept pairs lie"):
        assert absent not in text
    assert not {"bands", "kept_cluster", "map"} & set(page.figures)


def test_audit_page_with_features_shows_coverage_copies_and_stability() -> None:
    columns = {"pixel_hash": [f"{n // 2}" for n in range(40)]}
    keep_N = np.arange(40) < 10
    audit = small_audit(columns=columns, feature_NE=torch.eye(40), other_keeps=[keep_N, ~keep_N], max_products=200)
    text = " | ".join(Reader(audit_page("mine", audit, points())).text)
    assert "Measured on 20 pairs drawn at random of 40" in text
    assert re.search(r"largest \(covering radius\) \| 1\.4142 \| 1\.4142 \| [+-]0\.0000", text)
    # 20 images come twice, and the first five of them are kept: a draw keeps 10 * 9 / 39 pairs with a copy.
    assert "the same pixels | 40 | 10 | 2.3" in text
    assert "both keep 33.3% on average (Jaccard similarity, 3 subsets)" in text
    assert "this subset | 1.000 | 1.000 | 0.000" in text
    assert "3 of 9 pairs, drawn at random" in text


@pytest.mark.parametrize("columns", [{}, {"labels": [{}] * 40}, {"kept": [False] * 40}, {"kept": [True] * 40}])
def test_audit_page_of_an_odd_subset_is_whole(columns: dict[str, Any]) -> None:
    page = audit_page("odd", small_audit(columns=columns))
    assert page.rstrip().endswith("</html>")


def test_audit_page_of_an_empty_corpus_is_whole() -> None:
    names = ("sample_id", "dataset", "view", "sex", "split", "labels", "band", "cluster", "kept")
    text = Reader(audit_page("none", audit_subset({name: [] for name in names}))).text
    assert "0 of 0 pairs kept" in text
    assert "No finding is labelled in this corpus." in text


def test_audit_page_shows_other_peoples_text_as_text() -> None:
    page = Reader(full_page(HOSTILE))
    plain_page = Reader(full_page("Hernia"))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain_page.tags]
    assert all("onerror" not in attributes for _, attributes in page.tags)
    shown = " | ".join(page.text)
    # Title, heading, band's row, band's heading, findings, id; the report short and whole.
    assert shown.count(HOSTILE) >= 8


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [one for part in value.values() for one in strings(part)]
    if isinstance(value, list):
        return [one for part in value for one in strings(part)]
    return [value] if isinstance(value, str) else []


def test_audit_page_plots_hold_no_markup_but_their_own() -> None:
    """plotly draws <b>, <a href> and others of any label, and decodes &lt; and &amp;."""
    figures = Reader(full_page(HOSTILE)).figures
    assert {"enrichment", "kept_dataset", "within_view", "bands", "map"} < set(figures)
    drawn = strings(figures)
    assert any("&lt;img" in one for one in drawn)
    own = re.compile(r"<br>|<span style='font-size:10px;color:#5b6875'>|</span>")
    assert not [one for one in drawn if "<" in own.sub("", one)]


def test_audit_page_plots_hold_no_report() -> None:
    report = "a report that nobody else wrote"
    page = Reader(audit_page("mine", small_audit(), points(), [example(report=report)]))
    assert report not in "".join(strings(page.figures))
    assert page.text.count(report) == 1


def test_audit_page_loads_nothing_from_elsewhere() -> None:
    page = Reader(full_page("Hernia"))
    for tag, attributes in page.tags:
        assert str(attributes.get("src", "data:")).startswith("data:"), tag
        assert "href" not in attributes
    policy = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert policy == ["default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"]


def test_audit_page_examples_come_by_band_with_their_image_and_whole_report() -> None:
    long = "word " * 100
    pairs = [example(band=None, image=image("PNG"), kept=False, report=long), example(findings=["Mass", "Edema"])]
    page = Reader(audit_page("mine", small_audit(), None, pairs))
    text = " | ".join(page.text)
    assert text.index("Example pairs: support") < text.index("Example pairs: unknown")
    assert "kept | · Mass, Edema" in text
    assert "left out | · no finding known" in text
    assert " ".join(long.split()) in page.text
    sources = [str(attributes["src"])[:22] for tag, attributes in page.tags if tag == "img"]
    assert sources == ["data:image/jpeg;base64", "data:image/png;base64,"]


def test_audit_page_example_that_is_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a JPEG or a PNG"):
        audit_page("mine", small_audit(), None, [example(image=b"<svg onload=x>")])


def test_enrichment_figure_draws_intervals_from_low_to_high() -> None:
    findings = [
        {"finding": "none kept", "positives": 5, "positives_kept": 0, "factor": 0.0, "low": 0.0, "high": 2.3},
        {"finding": "many", "positives": 50, "positives_kept": 40, "factor": 3.0, "low": 2.5, "high": 3.6},
        {"finding": "few", "positives": 99, "positives_kept": 9, "factor": 0.4, "low": 0.2, "high": 0.8},
    ]
    findings = [one | {"prevalence_corpus": 0.1, "prevalence_subset": 0.1} for one in findings]
    more, less, even = enrichment_figure(findings).data
    for trace, low, high, row in ((more, 2.5, 3.6, 1), (less, 0.2, 0.8, 2)):
        assert trace.y == (row,)
        assert trace.x[0] + trace.error_x.array[0] == pytest.approx(high)
        assert trace.x[0] - trace.error_x.arrayminus[0] == pytest.approx(low)
    # A log axis has no 0: the point stands at the axis' left end, 0.8 of the smallest other limit.
    assert even.x[0] == pytest.approx(0.16)
    assert even.x[0] + even.error_x.array[0] == pytest.approx(2.3)
    assert even.error_x.arrayminus[0] == 0


def test_band_figure_colours_are_the_prevalence_over_the_corpus_in_powers_of_two() -> None:
    findings = [{"finding": "Mass", "prevalence_corpus": 0.1}]
    bands = {
        band.name.lower(): {"findings": {"Mass": {"known": 100, "positives": int(100 * share), "prevalence": share}}}
        for band, share in zip(Band, (0.2, 0.05, 0.9), strict=True)
    }
    (heat,) = band_figure(findings, bands | {"unknown": {"findings": {}}}, ["Mass"]).data
    assert [None if one is None else round(one, 12) for one in heat.z[0]] == [1.0, -1.0, 2.0, None]
    assert tuple(heat.text[0]) == ("20%", "5.0%", "90%", "")


def test_figure_names_stand_on_whole_numbers() -> None:
    """A dataset that is called 2020-01-01 is not a date."""
    figure = kept_figure({"2020-01-01": {"pairs": 4, "kept": 1, "fraction": 0.25}}, 0.5)
    assert isinstance(figure, go.Figure)
    assert (figure.data[0].y, figure.layout.yaxis.tickvals) == ((0,), (0,))
    assert figure.layout.yaxis.ticktext[0].startswith("2020-01-01<br>")


@pytest.mark.parametrize(
    ("text", "most", "shown"),
    [("a\n b", 60, "a b"), ("<b>&", 60, "&lt;b&gt;&amp;"), ("abcdef", 4, "abc…"), ("a<bcdef", 3, "a&lt;…")],
)
def test_plain_text_is_one_escaped_line(text: str, most: int, shown: str) -> None:
    assert plain(text, most) == shown


@pytest.mark.parametrize(("share", "text"), [(0.0012, "0.12%"), (0.045, "4.5%"), (0.31, "31%"), (0.0, "0.00%")])
def test_percent_has_two_digits(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_audit_page_in_a_browser_draws_every_plot_and_runs_no_one_elses_script(tmp_path: Path) -> None:
    page = full_page(HOSTILE)
    (tmp_path / "page.html").write_text(page)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path}", "--dump-dom", (tmp_path / "page.html").as_uri()]
    drawn = Reader(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)
    plots = [attributes for tag, attributes in drawn.tags if attributes.get("data-figure")]
    assert len(plots) == len(Reader(page).figures) >= 9
    assert all("js-plotly-plot" in str(attributes["class"]) for attributes in plots)
    title = drawn.text[0]
    assert title == f"Subset {HOSTILE}"
    assert [a for tag, a in drawn.tags if tag == "img" and a.get("src") == "x"] == []
    # The label of the finding, cut to 22 characters, as plotly wrote it into its drawing.
    assert plain(HOSTILE, 22).replace("&lt;", "<") in drawn.text
