"""The plots of an audit's page, as plotly figures. Every name in them is escaped: plotly reads a little HTML in text.

Axes of names have whole numbers as positions and the names as tick labels, so that plotly does not take a dataset
that is called 2020 for a date.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from chexray.curation.feature_map import FeatureMap
from chexray.platform.pages.plots import INK, SOFT, finish, plain

MORE, LESS, EVEN = "#1f7a8c", "#b5522b", "#8a94a0"
BAND_COLOURS = {"outlier": "#b5522b", "support": "#1f7a8c", "central": "#7d8794"}
OTHER_COLOUR = "#8c6bb1"

MOST_FINDINGS = 40
"""Rows of a plot; the audit itself lists every finding."""

_VERDICTS = {
    "more": ("kept more often", MORE, "circle"),
    "less": ("kept less often", LESS, "circle"),
    "as often": ("no difference", EVEN, "circle-open"),
}
_DIVERGING = [[0.0, LESS], [0.5, "#f3f5f7"], [1.0, MORE]]
_TICKS = [*(1 / n for n in (64, 32, 16, 8, 4, 2)), 1, 1.5, 2, 3, 4, 6, 8, 16, 32, 64]
_FLOOR = 1 / 64
"""Where a factor of 0 is drawn: a log axis has no place for it."""


def enrichment_figure(findings: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Factor and interval of each finding that has one, in their order from the top, on a log axis."""
    figure = go.Figure()
    lowest = max(_FLOOR, min([0.5, *(0.8 * one["low"] for one in findings if one["low"])]))
    highest = max(2.0, *(1.1 * one["high"] for one in findings))
    for label, (name, colour, symbol) in _VERDICTS.items():
        rows = [row for row, one in enumerate(findings) if verdict(one) == label]
        x = [max(lowest, findings[row]["factor"]) for row in rows]
        figure.add_scatter(
            x=x,
            y=rows,
            mode="markers",
            name=name,
            marker={"color": colour, "size": 9, "symbol": symbol, "line": {"width": 2, "color": colour}},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [findings[row]["high"] - at for row, at in zip(rows, x, strict=True)],
                "arrayminus": [at - max(lowest, findings[row]["low"]) for row, at in zip(rows, x, strict=True)],
                "color": colour,
                "thickness": 1.6,
                "width": 4,
            },
            text=[_enrichment_hover(findings[row]) for row in rows],
            hoverinfo="text",
        )
    figure.add_vline(x=1, line={"color": INK, "width": 1, "dash": "dot"})
    labels = [_two_lines(one["finding"], f"{one['positives_kept']:,} of {one['positives']:,} kept") for one in findings]
    ticks = [tick for tick in _TICKS if lowest <= tick <= highest]
    finish(figure, 36 * len(findings) + 130)
    figure.update_xaxes(
        type="log",
        range=[math.log10(lowest * 0.95), math.log10(highest)],
        tickvals=ticks,
        ticktext=[_factor_text(tick) for tick in ticks],
        title="enrichment",
    )
    _name_axis(figure, "y", labels)
    return figure


def kept_figure(groups: Mapping[str, Mapping[str, Any]], overall: float) -> go.Figure:
    """The kept fraction of each group, as bars; a dotted line at that of the whole corpus."""
    share = [group["fraction"] or 0.0 for group in groups.values()]
    figure = go.Figure(
        go.Bar(
            x=share,
            y=list(range(len(groups))),
            orientation="h",
            width=0.62,
            marker={"color": MORE},
            hovertext=[
                f"{plain(name)}<br>{group['kept']:,} of {group['pairs']:,} pairs kept" for name, group in groups.items()
            ],
            hoverinfo="text",
        )
    )
    figure.add_vline(x=overall, line={"color": INK, "width": 1, "dash": "dot"})
    finish(figure, 36 * len(groups) + 50)
    figure.update_layout(margin={"t": 6, "b": 30})
    figure.update_xaxes(range=[0, 1.05 * max([overall, *share, 0.01])], tickformat=".0%", nticks=5)
    labels = [
        _two_lines(name, f"{one:.1%} of {group['pairs']:,}")
        for one, (name, group) in zip(share, groups.items(), strict=True)
    ]
    _name_axis(figure, "y", labels)
    return figure


def group_figure(names: Sequence[str], groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> go.Figure:
    """Enrichment of each finding (row) within each group (column). Without colour where the interval holds 1."""
    cells = [{one["finding"]: one for one in findings} for findings in groups.values()]
    colour, text, hover = [], [], []
    for name in names:
        row = [cell.get(name) for cell in cells]
        colour.append([None if one is None else _log2(one["factor"]) * (verdict(one) != "as often") for one in row])
        text.append(["" if one is None or one["factor"] is None else _short(one["factor"]) for one in row])
        hover.append(
            [
                f"{plain(name)}, {plain(group)}<br>" + ("no positive pair" if one is None else _interval_text(one))
                for group, one in zip(groups, row, strict=True)
            ]
        )
    return _heat_map(names, list(groups), colour, text, hover)


def band_figure(
    findings: Sequence[Mapping[str, Any]], bands: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> go.Figure:
    """Prevalence of each finding (row) in each band (column); colour: over that in the corpus."""
    in_corpus = {one["finding"]: one["prevalence_corpus"] for one in findings}
    colour, text, hover = [], [], []
    for name in names:
        row = [band["findings"].get(name, {"known": 0, "positives": 0, "prevalence": None}) for band in bands.values()]
        shares = [one["prevalence"] for one in row]
        whole = in_corpus[name]
        colour.append([None if share is None or not whole else _log2(share / whole) for share in shares])
        text.append(["" if share is None else percent(share) for share in shares])
        hover.append(
            [
                f"{plain(name)} in {plain(band)}<br>{one['positives']:,} of {one['known']:,} known pairs"
                for band, one in zip(bands, row, strict=True)
            ]
        )
    return _heat_map(names, list(bands), colour, text, hover)


def map_figure(points: FeatureMap) -> go.Figure:
    """The features in two dimensions: colour is the band, full and outlined points are kept."""
    figure = go.Figure()
    band_M = np.array([band or "no band" for band in points.band], dtype=object)
    kept_M = np.array(points.kept, dtype=bool)
    for kept in (False, True):
        for band in band_order(set(band_M)):
            row = np.flatnonzero((band_M == band) & (kept_M == kept))
            figure.add_scatter(
                x=points.xy_M2[row, 0],
                y=points.xy_M2[row, 1],
                mode="markers",
                name=f"{plain(str(band), 22)}, {'kept' if kept else 'left out'}",
                marker={
                    "color": BAND_COLOURS.get(str(band), OTHER_COLOUR),
                    "size": 8 if kept else 4,
                    "opacity": 0.95 if kept else 0.35,
                    "line": {"width": 1 if kept else 0, "color": "#ffffff"},
                },
                text=[_point_hover(points, int(one)) for one in row],
                hoverinfo="text",
            )
    finish(figure, 620)
    first, second = points.explained
    hidden = {"showticklabels": False, "showgrid": False, "zeroline": False}
    figure.update_xaxes(title=f"first component, {first:.1%} of the variance", **hidden)
    figure.update_yaxes(title=f"second component, {second:.1%}", scaleanchor="x", **hidden)
    figure.update_layout(legend={"y": 1.0, "yanchor": "bottom", "itemsizing": "constant"})
    return figure


def verdict(one: Mapping[str, Any]) -> str:
    """'more' or 'less' where the interval leaves out 1, else 'as often'."""
    if one["low"] is None or one["low"] <= 1 <= one["high"]:
        return "as often"
    return "more" if one["low"] > 1 else "less"


def band_order(bands: Iterable[str]) -> list[str]:
    """Outlier, support, central; then others by name."""
    return sorted(bands, key=lambda band: (list(BAND_COLOURS).index(band) if band in BAND_COLOURS else 9, band))


def percent(share: float) -> str:
    """Two digits or more: 0.12%, 4.5%, 31%."""
    return f"{share:.2%}" if share < 0.01 else f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def _heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    colour: Sequence[Sequence[float | None]],
    text: Sequence[Sequence[str]],
    hover: Sequence[Sequence[str]],
) -> go.Figure:
    figure = go.Figure(
        go.Heatmap(
            z=colour,
            zmin=-2,
            zmax=2,
            colorscale=_DIVERGING,
            text=text,
            texttemplate="%{text}",
            hovertext=hover,
            hoverinfo="text",
            hoverongaps=False,
            xgap=2,
            ygap=2,
            showscale=False,
        )
    )
    finish(figure, 26 * len(rows) + 70)
    _name_axis(figure, "x", [plain(name, 16) for name in columns])
    _name_axis(figure, "y", [plain(name, 22) for name in rows])
    figure.update_layout(margin={"t": 6, "b": 30})
    return figure


def _name_axis(figure: go.Figure, letter: str, labels: Sequence[str]) -> None:
    ends = [len(labels) - 0.5, -0.5] if letter == "y" else [-0.5, len(labels) - 0.5]
    axis = {"tickvals": list(range(len(labels))), "ticktext": list(labels), "range": ends, "showgrid": False}
    (figure.update_yaxes if letter == "y" else figure.update_xaxes)(**axis)


def _two_lines(name: str, note: str) -> str:
    return f"{plain(name, 22)}<br><span style='font-size:10px;color:{SOFT}'>{plain(note)}</span>"


def _enrichment_hover(one: Mapping[str, Any]) -> str:
    return (
        f"{plain(one['finding'])}<br>{_interval_text(one)}<br>"
        f"{percent(one['prevalence_corpus'])} of the corpus, {percent(one['prevalence_subset'])} of the subset"
    )


def _interval_text(one: Mapping[str, Any]) -> str:
    counts = f"{one['positives_kept']:,} of {one['positives']:,} positive pairs kept"
    if one["factor"] is None:
        return counts
    return f"{one['factor']:.2f} times ({one['low']:.2f} to {one['high']:.2f})<br>{counts}"


def _point_hover(points: FeatureMap, row: int) -> str:
    findings = ", ".join(points.findings[row])
    place = f"{points.band[row] or 'no band'}, {'kept' if points.kept[row] else 'left out'}"
    return "<br>".join((plain(points.sample_id[row]), plain(place), plain(findings or "no finding known", 90)))


def _factor_text(tick: float) -> str:
    return f"{tick:g}" if tick >= 1 else f"1/{1 / tick:g}"


def _short(factor: float) -> str:
    return f"{factor:.1f}"


def _log2(factor: float | None) -> float:
    """From -2 to 2, the ends of the colours."""
    return 0.0 if factor is None else max(-2.0, min(2.0, math.log2(max(factor, 1e-9))))
