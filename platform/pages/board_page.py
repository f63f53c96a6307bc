"""The leaderboard's pages: the table, and a page of each benchmark. They can be mailed, and need no network.

Everything is in a page, and its policy lets a browser load nothing else. All text is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import jinja2

from chexray.platform.pages.blocks import Block, BoardLine, Listing, Plots
from chexray.platform.pages.plots import data_uri, embedded, line_style


def board_page(
    title: str,
    lead: str,
    warnings: Sequence[str],
    checkpoints: Sequence[tuple[str, str]],
    tasks: Sequence[tuple[str, Sequence[BoardLine]]],
    legend: Sequence[tuple[str, str]],
    summary: Sequence[str],
    blocks: Sequence[Listing],
) -> str:
    """The table of benchmarks (by task) and checkpoints (each with a note), and lists below it. It runs no script."""
    return _render(
        "board.html",
        title=title,
        lead=lead,
        warnings=warnings,
        checkpoints=checkpoints,
        tasks=tasks,
        legend=legend,
        summary=summary,
        blocks=blocks,
        plotly="",
    )


def benchmark_page(
    title: str,
    lead: str,
    warnings: Sequence[str],
    checkpoints: Sequence[str],
    blocks: Sequence[Block],
    home: str | None,
) -> str:
    """One benchmark's page. Checkpoints have their colours by place. plotly is in it where there are plots.

    ValueError for an image that is neither JPEG nor PNG.
    """
    plotly = ""
    if any(isinstance(block, Plots) for block in blocks):
        from plotly.offline import get_plotlyjs

        plotly = get_plotlyjs()
    return _render(
        "benchmark.html",
        title=title,
        lead=lead,
        warnings=warnings,
        keys=[(name, line_style(place)) for place, name in enumerate(checkpoints)],
        blocks=blocks,
        home=home,
        plotly=plotly,
        embedded=embedded,
        data_uri=data_uri,
    )


def _render(name: str, **values: Any) -> str:
    loader = jinja2.FunctionLoader(lambda one: files("chexray.platform.pages").joinpath(one).read_text("utf-8"))
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template(name).render(**values)
