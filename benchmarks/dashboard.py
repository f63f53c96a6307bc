"""The dashboard of a large sweep: how long its numbers take to read, first and again, and its page to export and open.

    PYTHONPATH=tests python benchmarks/dashboard.py [--trials 500] [--browser]

The sweep is made up (`tests/made_sweep.py`), in a temporary folder.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from made_sweep import made_space, made_sweep

from chexray.evals.dashboard.page import embedded, exported_page
from chexray.evals.dashboard.snapshot import SweepReader

RUNS_A_SEED = 20
"""Of the made space: three methods at three fractions, and one run of all pairs, each with two budgets."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--browser", action="store_true", help="open the exported page in Chromium, too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chexray-") as name:
        sweep = made_sweep(Path(name, "sweep"), space=made_space(-(-given.trials // RUNS_A_SEED)))
        reader = SweepReader(sweep)
        first, snapshot = timed(reader.snapshot)
        again, _ = timed(reader.snapshot)
        exported, page = timed(lambda: exported_page(sweep))
        print(f"{len(snapshot['trials'])} trials: read in {first:.2f} s, again in {again:.2f} s")
        print(f"snapshot {len(embedded(snapshot)) / 1e6:.1f} MB; page of {len(page) / 1e6:.1f} MB in {exported:.1f} s")
        if given.browser:
            file = Path(name, "page.html")
            file.write_text(page)
            for tab, seconds in opened(file).items():
                print(f"{tab}: drawn in {seconds:.2f} s")


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    value = run()
    return time.perf_counter() - start, value


def opened(file: Path) -> dict[str, float]:
    """Seconds from an empty page to the panel, and then from panel to panel."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        seconds = {"the page, with its trials": timed(lambda: page.goto(file.as_uri()))[0]}
        for tab in ("frontier", "curves", "rare", "scores", "cluster"):
            seconds[tab] = timed(lambda tab=tab: page.click(f"#tab-{tab}"))[0]
        browser.close()
    return seconds


if __name__ == "__main__":
    main()
