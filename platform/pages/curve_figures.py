"""ROC, precision-recall and reliability plots of one finding, every checkpoint in each.

Which line is whose stands once on the page, in HTML: names do not fit small plots. P: points of a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from chexray.platform.pages.plots import SOFT, finish, line_style, plain

_HEIGHT = 300


@dataclass(frozen=True)
class Line:
    """One checkpoint's points, `place` in the page's order of checkpoints."""

    checkpoint: str
    place: int
    x_P: Iterable[float]
    y_P: Iterable[float]


def roc_figure(lines: Sequence[Line]) -> go.Figure:
    figure = _plot(lines, "linear")
    _guide(figure, [0, 1], [0, 1])
    return _named(figure, "false positive rate", "true positive rate")


def precision_recall_figure(lines: Sequence[Line], prevalence: float) -> go.Figure:
    """Steps, because between its points such a curve is no straight line; dotted: the prevalence."""
    # As the average precision has it: a point's precision holds from the recall of the point before it.
    figure = _plot(lines, "vh")
    _guide(figure, [0, 1], [prevalence, prevalence])
    return _named(figure, "recall", "precision")


def reliability_figure(lines: Sequence[Line]) -> go.Figure:
    """Mean predicted probability of each bin against the share of positives in it."""
    figure = _plot(lines, "linear", mode="lines+markers")
    _guide(figure, [0, 1], [0, 1])
    return _named(figure, "predicted probability", "observed share")


def _plot(lines: Sequence[Line], shape: str, mode: str = "lines") -> go.Figure:
    figure = go.Figure()
    for line in lines:
        figure.add_scatter(
            x=[round(float(x), 4) for x in line.x_P],
            y=[round(float(y), 4) for y in line.y_P],
            mode=mode,
            name=plain(line.checkpoint, 40),
            line=line_style(line.place) | {"shape": shape},
            marker={"size": 5},
            hoverinfo="x+y+name",
            hoverlabel={"namelength": -1},
        )
    return figure


def _guide(figure: go.Figure, x: Sequence[float], y: Sequence[float]) -> None:
    figure.add_scatter(
        x=x, y=y, mode="lines", line={"color": SOFT, "width": 1, "dash": "dot"}, hoverinfo="skip", name=""
    )


def _named(figure: go.Figure, x: str, y: str) -> go.Figure:
    finish(figure, _HEIGHT)
    figure.update_layout(showlegend=False, margin={"l": 10, "r": 10, "t": 10, "b": 40})
    axis = {"range": [-0.01, 1.01], "tickvals": [0, 0.25, 0.5, 0.75, 1]}
    figure.update_xaxes(title={"text": x, "standoff": 8}, **axis)
    figure.update_yaxes(title={"text": y, "standoff": 8}, **axis)
    return figure
