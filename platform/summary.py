"""An artifact in a few lines, for a person at a terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from chexray.platform import storage
from chexray.platform.artifacts import Manifest

PETA = 1e15
_FEW = 2
"""Benchmarks of which every result is shown."""


def print_summary(uri: str, manifest: Manifest) -> None:
    """What it is, what it came from, what is in it, what it cost; and for scores, the results."""
    console = Console()
    console.print(f"[bold]{manifest.kind}[/bold] {uri}  ({manifest.fingerprint})", highlight=False)
    table = Table(show_header=False, box=None, padding=(0, 2))
    for role, source in manifest.inputs.items():
        table.add_row(role, source)
    if manifest.kind != "sweep" and (chosen := manifest.config.get("curate")):
        by = "fixed counts" if chosen["mode"] == "paper" else f"keep {chosen['keep']}"
        table.add_row("selector", f"{chosen['selector']}, {by}")
    for name, value in manifest.counts.items():
        table.add_row(name.replace("_", " "), _text(name, value))
    for name, value in _costs(manifest.cost).items():
        table.add_row(name, value)
    table.add_row("made", f"{manifest.finished} in {manifest.seconds:.0f} s")
    console.print(table)
    rows = result_rows(uri, manifest)
    if rows:
        console.print(results_table(rows))


def print_datasets() -> None:
    """What can be ingested: names, what they hold, how many images are expected, and their licences."""
    from chexray.platform.corpus.adapters import dataset_cards

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("dataset, licence")
    table.add_column("images", justify="right", no_wrap=True)
    for name in ("reports", "findings", "masks", "for"):
        table.add_column(name, no_wrap=True)
    for name, card in dataset_cards().items():
        images = "" if card.images is None else f"{card.images:,}"
        findings = str(card.findings) if card.findings else "-"
        masks = "yes" if card.masks else "-"
        table.add_row(f"{name}\n[dim]{card.licence}[/dim]", images, card.reports or "-", findings, masks, card.use)
    console = Console()
    console.print(table)
    console.print("reports: their language; where there are labels alone, they are written from these", style="dim")


def result_rows(uri: str, manifest: Manifest) -> list[dict[str, Any]]:
    """The results of a scores artifact; none for the others."""
    if manifest.kind != "scores":
        return []
    rows: list[dict[str, Any]] = storage.read_json(storage.join(uri, "results.json"))
    return rows


def results_table(rows: list[dict[str, Any]]) -> Table:
    """One line a result, narrow enough for 80 columns; of many benchmarks, the number that stands for each."""
    if len({(row["checkpoint"], row["benchmark"]) for row in rows}) > _FEW:
        return headlines_table([row for row in rows if row["headline"]])
    table = Table("result", "value", "95 % interval", "n", "positives", box=None)
    for row in rows:
        table.add_row(
            f"{row['metric']} {row['finding'] or ''}".strip().replace("_", " "),
            number(row["value"]),
            span(row["low"], row["high"]),
            str(row["n"]),
            "" if row["positives"] is None else str(row["positives"]),
        )
    return table


def headlines_table(rows: list[dict[str, Any]]) -> Table:
    """A line a benchmark and checkpoint."""
    table = Table("benchmark", "checkpoint", "metric", "value", "95 % interval", "n", box=None)
    for row in rows:
        name = f"{row['metric']} {row['finding'] or ''}".strip().replace("_", " ")
        span_ = span(row["low"], row["high"])
        twin = "\n[dim]synthetic twin[/dim]" if row["twin"] else ""
        table.add_row(row["benchmark"] + twin, row["checkpoint"], name, number(row["value"]), span_, str(row["n"]))
    return table


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def span(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{number(low)} to {number(high)}"


def short_span(low: float | None, high: float | None) -> str:
    """An interval of shares in seven characters: .44-.51."""
    return "-" if low is None or high is None else "-".join(f"{x:.2f}".removeprefix("0") for x in (low, high))


def _text(name: str, value: Any) -> str:
    if name == "starts":
        return ", ".join(f"step {start['step']} with {start['workers']} workers" for start in value)
    if name == "accounts":
        return f"every pair once in each of {len(value)} epochs"
    if isinstance(value, dict):
        return ", ".join(f"{key} {count}" for key, count in value.items()) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "unknown" if value is None else str(value)


def _costs(cost: dict[str, Any]) -> dict[str, str]:
    """The ledger: totals in petaFLOP (by tower where known), pairs, device time, and shares of full training."""
    shown: dict[str, str] = {}
    for name, value in cost.items():
        if name.endswith("_flops"):
            towers = cost.get(f"{name}_by_tower", {})
            parts = ", ".join(f"{tower} {flops / PETA:.4g}" for tower, flops in towers.items())
            label = name.removesuffix("_flops").replace("_", " ")
            shown[f"{label} PFLOP"] = f"{value / PETA:.4g}" + (f" ({parts})" if parts else "")
        elif name.startswith("pairs_"):
            shown[name.replace("_", " ")] = f"{value:,}"
        elif name.endswith("_seconds"):
            shown[name.removesuffix("_seconds").replace("_", " ") + " time"] = f"{value:.0f} s"
    if "compute_vs_full" in cost:
        shown["compute of full-data pretraining"] = f"{cost['compute_vs_full']:.1%}"
    if "curation_epoch_vs_reference" in cost:
        shown["curation epoch without warm-up, of one that trains on all"] = (
            f"{cost['curation_epoch_vs_reference']:.1%}"
        )
    return shown
