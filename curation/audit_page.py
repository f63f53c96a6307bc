"""The audit of a subset on one page: what was kept more and less often than a random draw would have, how well it
covers its corpus, and what its bands look like. It can be mailed, and needs no network to be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from chexray.curation.audit import UNKNOWN
from chexray.curation.audit_figures import (
    BAND_COLOURS,
    MOST_FINDINGS,
    OTHER_COLOUR,
    band_figure,
    band_order,
    enrichment_figure,
    group_figure,
    kept_figure,
    map_figure,
    percent,
    verdict,
)
from chexray.curation.feature_map import FeatureMap
from chexray.platform.pages.plots import data_uri, embedded

_GROUPS = ("dataset", "view", "sex", "age")
_MOST_GROUPS = 30
_MOST_SUBSETS = 6
"""Beyond, a table of all pairs of subsets does not fit a phone."""
_SHORT_REPORT = 240


@dataclass(frozen=True)
class Example:
    """A pair to look at. `image`: a small JPEG or PNG. `findings`: those known to be present."""

    sample_id: str
    band: str | None
    kept: bool
    image: bytes
    report: str
    findings: Sequence[str]


def audit_page(
    name: str, audit: Mapping[str, Any], xy: FeatureMap | None = None, examples: Sequence[Example] = ()
) -> str:
    """The HTML page of `chexray.curation.audit.audit_subset`'s result, with what that holds.

    Everything is in the page, and its policy lets a browser load nothing else. All text is escaped. It holds reports
    and images only where `examples` are given. Raises ValueError for an example that is neither JPEG nor PNG.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(files("chexray.curation").joinpath("audit_page.html").read_text("utf-8"))
    # JSON that was written with sorted keys has them by name.
    audit = {**audit, "bands": {band: audit["bands"][band] for band in band_order(audit["bands"])}}
    figures = _figures(audit, xy)
    return template.render(
        name=name,
        audit=audit,
        figures={key: embedded(figure) for key, figure in figures.items()},
        plotly=get_plotlyjs(),
        verdicts=_verdicts(audit["findings"]),
        rows=_shown(audit["findings"]),
        groups=[group for group in (*_GROUPS, "cluster") if f"kept_{group}" in figures],
        within=[group for group in _GROUPS if f"within_{group}" in figures],
        bands=_has_bands(audit["bands"]),
        coverage=_coverage_rows(audit.get("coverage")),
        duplicates=_duplicate_rows(audit.get("duplicates", {})),
        stability=audit.get("stability"),
        most_subsets=_MOST_SUBSETS,
        xy=xy,
        examples=_examples(examples, list(audit["bands"])),
        colours=BAND_COLOURS,
        other_colour=OTHER_COLOUR,
        percent=percent,
    )


def _figures(audit: Mapping[str, Any], xy: FeatureMap | None) -> dict[str, Any]:
    findings, overall = audit["findings"], audit["kept_fraction"]
    shown = _shown(findings)
    names = [one["finding"] for one in shown]
    figures: dict[str, Any] = {}
    if shown:
        figures["enrichment"] = enrichment_figure(shown)
    if overall is not None:
        for group in _GROUPS:
            if counts := audit["kept_by"].get(group):
                figures[f"kept_{group}"] = kept_figure(_largest(counts), overall)
        if set(audit["clusters"]) != {UNKNOWN}:
            clusters = dict(sorted(audit["clusters"].items(), key=lambda one: one[0].zfill(9)))
            figures["kept_cluster"] = kept_figure(_largest(clusters), overall)
    for group, found in audit["findings_by"].items():
        if names and len(found) > 1:
            figures[f"within_{group}"] = group_figure(names, dict(list(found.items())[:_MOST_GROUPS]))
    if names and _has_bands(audit["bands"]):
        figures["bands"] = band_figure(findings, audit["bands"], names)
    if xy is not None and len(xy.xy_M2):
        figures["map"] = map_figure(xy)
    return figures


def _shown(findings: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rarest that have a factor: a positive pair, and a kept pair of known label."""
    return [one for one in findings if one["factor"] is not None][:MOST_FINDINGS]


def _largest(counts: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The groups of most pairs, in their own order."""
    most = set(sorted(counts, key=lambda name: -int(counts[name]["pairs"]))[:_MOST_GROUPS])
    return {name: one for name, one in counts.items() if name in most}


def _has_bands(bands: Mapping[str, Any]) -> bool:
    return bool(set(bands) - {UNKNOWN})


def _verdicts(findings: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    found = [verdict(one) for one in findings if one["factor"] is not None]
    return {name: found.count(name) for name in ("more", "less", "as often")} | {
        "without": sum(one["factor"] is None for one in findings)
    }


def _coverage_rows(coverage: Mapping[str, Any] | None) -> list[tuple[str, float, float]]:
    if coverage is None:
        return []
    names = {"largest": "largest (covering radius)", "p95": "95th percentile", "mean": "mean"}
    return [(text, coverage["subset"][key], coverage["random"][key]) for key, text in names.items()]


def _duplicate_rows(duplicates: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What counts as a copy; how many pairs have one: in the corpus, in the subset, in a random one."""
    rows: list[tuple[str, ...]] = []
    for key, text in (("same_pixels", "the same pixels"), ("near_images", "nearly the same image")):
        if found := duplicates.get(key):
            rows.append((text, f"{found['corpus']:,}", f"{found['kept']:,}", f"{found['kept_if_random']:,.1f}"))
    if near := duplicates.get("near_features"):
        cells = [
            f"{one['near']:,}" + (f" of {one['measured']:,} drawn" if one["sampled"] is not None else "")
            for one in (near["subset"], near["random"])
        ]
        rows.append((f"nearly the same features (cosine {near['subset']['cosine']:g} or more)", "–", *cells))
    return rows


def _examples(examples: Sequence[Example], bands: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Cards by band, in the order of `bands`."""
    cards: dict[str, list[dict[str, Any]]] = {band: [] for band in bands}
    for one in examples:
        short = one.report if len(one.report) <= _SHORT_REPORT else f"{one.report[:_SHORT_REPORT]} …"
        card = {"pair": one, "image": data_uri(one.image), "short": short, "whole": short != one.report}
        cards.setdefault(one.band or UNKNOWN, []).append(card)
    return {band: found for band, found in cards.items() if found}
