"""The audit of a subset on one page: what was kept more and less often than a random draw would have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chexray.platform.pages.page import Bar, Bars, Block, render_page

_GROUPS = ("dataset", "view", "sex")


def audit_page(name: str, audit: Mapping[str, Any]) -> str:
    """The HTML page of `chexray.curation.audit.audit_subset`'s result. Holds counts alone: no images, no reports."""
    share = audit["kept_fraction"]
    lead = f"{audit['kept']:,} of {audit['pairs']:,} pairs kept" + ("" if share is None else f" ({share:.1%})")
    blocks: list[Block] = [_enrichment(audit["findings"]), _kept("Kept by band", audit["bands"])]
    blocks += [_kept(f"Kept by {group}", audit["kept_by"][group]) for group in _GROUPS]
    blocks.append(_kept("Kept by cluster", audit["clusters"]))
    return render_page(f"Subset {name}", lead, blocks)


def _enrichment(findings: list[Mapping[str, Any]]) -> Bars:
    """Rarest first: prevalence in the subset over that in the corpus; 1 is what a random draw gives on average."""
    longest = max((one["factor"] or 0.0 for one in findings), default=0.0) or 1.0
    rows = []
    for one in findings:
        known = one["prevalence_corpus"]
        if one["factor"] is None:
            rows.append(Bar(one["finding"], 0.0, "-", f"{one['positives']:,} pairs"))
            continue
        span = f"{one['low']:.2f} to {one['high']:.2f}"
        note = f"({span}); {one['positives_kept']:,} of {one['positives']:,} kept, prevalence {known:.2%}"
        rows.append(Bar(one["finding"], one["factor"] / longest, f"{one['factor']:.2f}", note))
    return Bars("Enrichment of findings, rarest first (95 % interval)", rows)


def _kept(title: str, groups: Mapping[str, Mapping[str, Any]]) -> Bars:
    rows = [
        Bar(
            name,
            group["fraction"] or 0.0,
            f"{group['fraction'] or 0.0:.1%}",
            f"{group['kept']:,} of {group['pairs']:,}",
        )
        for name, group in groups.items()
    ]
    return Bars(title, rows)
