"""The dashboard in Chromium: every panel draws, filters and links work, other people's text stays text.

Needs Debian's chromium (apt-get install chromium), and Playwright of the extra `test`.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from made_sweep import made_space, made_sweep
from playwright.sync_api import Browser, Page, expect, sync_playwright

from chexray.evals.dashboard import server
from chexray.evals.dashboard.page import exported_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script><b>&amp;"
CHOSEN = "prototype-0.227-8x-s1"
SHOWN = {
    "trials": ("Compute spent", "Worker-hours", "Best mean AUROC", "prototype-0.1-2x-s0"),
    "frontier": ("Score against compute", "Mean by fraction and budget"),
    "curves": ("Validation loss", "Training loss"),
    "rare": ("Rare findings, zero-shot", "Finding by finding"),
    "trial": ("One trial", "Spent"),
    "map": ("What was kept",),
    "scores": ("Scores on validation data",),
    "cluster": ("When trials ran", "Worker-hours"),
}
PLOTS = {
    "done": {"trials": 0, "frontier": 4, "curves": 2, "rare": 4, "trial": 0, "map": 1, "scores": 0, "cluster": 3},
    "running": {"trials": 0, "frontier": 4, "curves": 1, "rare": 4, "trial": 0, "map": 1, "scores": 0, "cluster": 3},
    "waiting": dict.fromkeys(SHOWN, 0),
}
"""Plots that a panel has with `CHOSEN` selected, which is waiting in a running sweep."""


class Watched:
    """A page, and what it must not do: complain, or ask another host."""

    def __init__(self, browser: Browser, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda told: self.complaints.append(told.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, address: str) -> Page:
        self.page.goto(address)
        self.page.wait_for_selector("#panels > div:not([hidden]) section")
        return self.page

    def drawn(self) -> int:
        """Plots of the open panel that a reader sees, once all that it asks for is there."""
        expect(self.page.locator("#panels")).not_to_contain_text("Reading", use_inner_text=True)
        return self.page.locator("#panels .js-plotly-plot:visible .main-svg:first-child").count()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.fail("no Chromium on the PATH: apt-get install --no-install-recommends chromium")
    with sync_playwright() as tool:
        found = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    one = Watched(browser)
    yield one
    one.context.close()
    assert one.complaints == []
    assert [url for url in one.requests if not url.startswith(("file://", "data:", "http://127.0.0.1:"))] == []


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Exported pages' addresses, by the state of their sweep."""
    folder = tmp_path_factory.mktemp("pages")
    sweeps = {name: made_sweep(folder / name, running=name != "done", steps=60) for name in PLOTS}
    for record in Path(sweeps["waiting"], "trials").rglob("trial.json"):
        record.unlink()
    sweeps["hostile"] = made_sweep(folder / "hostile", space=made_space(1), text=HOSTILE, steps=20)
    addresses = {}
    for name, uri in sweeps.items():
        file = folder / f"{name}.html"
        file.write_text(exported_page(uri))
        addresses[name] = file.as_uri()
    return addresses


@contextmanager
def served(uri: str, token: str | None = None) -> Iterator[str]:
    """The server in a thread of its own, as Playwright has this one; its address."""
    loop, ready, sock = asyncio.new_event_loop(), threading.Event(), server.listen("127.0.0.1", 0)

    async def start() -> web.AppRunner:
        runner = web.AppRunner(server.build_app(uri, token))
        await runner.setup()
        await web.SockSite(runner, sock[0]).start()
        return runner

    def run() -> None:
        runner = loop.run_until_complete(start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield sock[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)


def rows(page: Page) -> int:
    return page.locator("#panel-trials tbody tr").count()


@pytest.mark.parametrize("state", PLOTS)
@pytest.mark.parametrize("width", [1280, 400])
def test_every_panel_draws_and_fits_the_screen(watched: Watched, files: dict[str, str], state: str, width: int) -> None:
    watched.page.set_viewport_size({"width": width, "height": 850})
    page = watched.open(f"{files[state]}#trial={CHOSEN}")
    for tab, said in SHOWN.items():
        page.click(f"#tab-{tab}")
        assert watched.drawn() == PLOTS[state][tab], tab
        text = page.locator("body").inner_text()
        assert not [one for one in said if one not in text], tab
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
    assert ("What the sweep says" in page.locator("body").inner_text()) == (state == "done")


def test_filters_narrow_every_panel_and_stay_after_a_reload(watched: Watched, files: dict[str, str]) -> None:
    page = watched.open(files["done"])
    assert rows(page) == 40
    page.click("text=Method: all")
    page.check("input[value=prototype]")
    # Of its own, 3 fractions, 2 budgets, 2 seeds; and the 4 runs of all pairs, which stand for it too.
    assert rows(page) == 16
    page.click("text=Fraction: all")
    page.check("input[value='0.227']")
    page.keyboard.press("Escape")
    assert rows(page) == 4
    assert page.locator("#shown").inner_text() == "4 of 40 trials"
    page.click(f"#panel-trials tr:has-text('{CHOSEN}') td >> nth=2")
    page.click("#panel-trials th:has-text('Compute') button")
    page.click("#tab-curves")
    assert watched.drawn() == 2
    before = page.url
    page.reload()
    assert page.url == before
    assert page.get_attribute("#tab-curves", "aria-selected") == "true"
    assert page.locator(f"h2:has-text('Training loss of {CHOSEN}')").count() == 1
    page.click("#tab-trials")
    assert rows(page) == 4
    assert page.get_attribute("#panel-trials th:has-text('Compute')", "aria-sort") == "descending"
    page.click("text=Show all")
    assert rows(page) == 40


def test_sorting_goes_up_and_down_and_leaves_the_empty_last(watched: Watched, files: dict[str, str]) -> None:
    page = watched.open(files["done"])

    def scores() -> list[str]:
        cells = page.locator("#panel-trials tbody tr td:nth-child(2)").all_inner_texts()
        return [cell.split("\n")[0] for cell in cells]

    page.click("#panel-trials th:has-text('mean AUROC') button")
    assert scores() == [*sorted(scores()[:-1], reverse=True), "–"]
    page.click("#panel-trials th:has-text('mean AUROC') button")
    assert scores() == [*sorted(scores()[:-1]), "–"]


def test_page_is_used_by_keyboard(watched: Watched, files: dict[str, str]) -> None:
    page = watched.open(files["done"])
    page.focus("#tab-trials")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-frontier"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.get_attribute("#tab-cluster", "aria-selected") == "true"
    page.focus("#filters summary")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    # The page was drawn anew, and the reader is where she was.
    assert page.evaluate("document.activeElement.type") == "checkbox"
    assert page.evaluate("document.activeElement.checked")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_point_of_a_plot_selects_its_trial(watched: Watched, files: dict[str, str]) -> None:
    page = watched.open(f"{files['done']}#tab=frontier")
    assert watched.drawn() == 4
    page.locator("#panel-frontier .points path").first.click(force=True)
    expect(page).to_have_url(re.compile("trial="))


def test_failed_trial_says_why(watched: Watched, files: dict[str, str]) -> None:
    page = watched.open(f"{files['done']}#tab=trial&trial=random-0.227-2x-s1")
    assert "3 steps were skipped for that" in page.locator(".problem").inner_text()


def test_other_peoples_text_is_shown_as_text(watched: Watched, files: dict[str, str]) -> None:
    page = watched.open(f"{files['hostile']}#trial=prototype-0.227-8x-s0")
    for tab in SHOWN:
        page.click(f"#tab-{tab}")
        watched.drawn()
        assert page.locator("img, b:visible:not(svg *)").count() == 0, tab
    assert page.title() == "hostile: sweep"
    assert HOSTILE in page.locator("#conclusions").inner_text()
    page.click("#tab-rare")
    assert HOSTILE in page.locator("#panel-rare h3").first.inner_text()


def test_hostile_link_selects_nothing_and_breaks_nothing(watched: Watched, files: dict[str, str]) -> None:
    hash_ = "tab=<img>&trial=%3Cimg%20src%3Dx%3E&method=%22%3E%3Cimg%3E&sort=-__proto__&x=y&subset=../../etc"
    page = watched.open(f"{files['done']}#{hash_}")
    assert page.locator("img").count() == 0
    assert "No trial is left by these filters." in page.locator("#panel-trials").inner_text()


def test_dark_page_is_dark(browser: Browser, files: dict[str, str]) -> None:
    dark = Watched(browser, color_scheme="dark")
    page = dark.open(f"{files['done']}#tab=frontier")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 24, 31)"
    dark.context.close()


def test_served_page_shows_news_without_losing_the_place(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "FRESH_SECONDS", 0.0)
    uri = made_sweep(tmp_path / "sweep", running=True, space=made_space(1), steps=20)
    with served(uri) as address:
        page = watched.open(f"{address}#tab=trials&state=running")
        assert rows(page) == 3
        running = page.locator("#panel-trials tbody tr th").first.inner_text()
        page.focus("#tab-trials")
        edit(uri, running, lambda record: record | {"state": "failed", "reason": HOSTILE})
        expect(page.locator("#panel-trials tbody tr")).to_have_count(2, timeout=20_000)
        assert page.evaluate("document.activeElement.id") == "tab-trials"
        page.click("#tab-trial")
        page.click("text=Show all")
        page.select_option("#panel-trial select", running)
        assert HOSTILE in page.locator(".problem").inner_text()
        watched.context.close()


def test_served_page_takes_the_token_out_of_the_address(watched: Watched, tmp_path: Path) -> None:
    uri = made_sweep(tmp_path / "sweep", running=True, space=made_space(1), steps=20)
    with served(uri, token="a-token-of-enough-characters") as address:
        page = watched.open(f"{address}?token=a-token-of-enough-characters#tab=scores")
        assert "token" not in page.url
        page.reload()
        page.wait_for_selector("#panel-scores section")
        assert watched.page.evaluate("document.cookie") == ""
        watched.context.close()


def edit(uri: str, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file = Path(uri, "trials", name, "trial.json")
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
