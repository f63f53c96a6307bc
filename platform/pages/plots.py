"""What all pages with plots share: other people's text in plotly, figures inside a page, images inside a page.

Everything stands in the page itself, and its policy lets a browser load nothing else.
"""

from __future__ import annotations

import base64
import html
from typing import Any

import plotly.graph_objects as go
import plotly.io

INK, LINE, SOFT = "#1c2733", "#dfe5ea", "#5b6875"
PALETTE = ("#1f7a8c", "#b5522b", "#6a4c93", "#c99700", "#3a7d44", "#c2477f", "#4a5a6a", "#6b8e00")
DASHES = ("solid", "dash", "dot", "dashdot")
_IMAGE_TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}


def plain(text: str, most: int = 60) -> str:
    """Other people's text for plotly, which reads a little HTML: one line of at most `most` characters, no markup."""
    line = " ".join(text.split())
    return html.escape(line if len(line) <= most else f"{line[: most - 1]}…", quote=False)


def embedded(figure: go.Figure) -> str:
    """JSON that can stand in a script element: nothing in it can end that, or open another."""
    text: str = plotly.io.to_json(figure, validate=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def data_uri(image: bytes) -> str:
    """A JPEG or PNG as the address of an image in a page. ValueError for anything else."""
    for magic, kind in _IMAGE_TYPES.items():
        if image.startswith(magic):
            return f"data:{kind};base64,{base64.b64encode(image).decode()}"
    raise ValueError(f"image of {len(image)} bytes that start with {image[:4]!r} must be a JPEG or a PNG")


def line_style(place: int) -> dict[str, Any]:
    """Colour and dash of the checkpoint at a place: other dashes once the colours are used up."""
    return {"color": PALETTE[place % len(PALETTE)], "dash": DASHES[place // len(PALETTE) % len(DASHES)], "width": 2}


def finish(figure: go.Figure, height: int) -> None:
    """The look that plots have in common."""
    figure.update_layout(
        template=None,
        height=height,
        margin={"l": 10, "r": 14, "t": 40, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, -apple-system, Segoe UI, sans-serif", "size": 12, "color": INK},
        hoverlabel={"bgcolor": "#ffffff", "bordercolor": LINE, "align": "left", "font": {"color": INK}},
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
        dragmode=False,
    )
    # Unseen ticks hold the labels off the bars.
    gap = {"ticks": "outside", "ticklen": 6, "tickcolor": "rgba(0,0,0,0)", "zeroline": False, "automargin": True}
    figure.update_xaxes(gridcolor=LINE, **gap)
    figure.update_yaxes(gridcolor=LINE, **gap)
