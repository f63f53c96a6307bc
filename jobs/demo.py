"""The whole path on synthetic radiographs: curated against random at the same size against full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from chexray.cluster.local import ray_session
from chexray.jobs.curate import curate
from chexray.jobs.evaluate import evaluate, read_results
from chexray.jobs.ingest import ingest
from chexray.jobs.pretrain import pretrain
from chexray.jobs.progress import console
from chexray.platform.artifacts import Manifest
from chexray.platform.cli import run_job
from chexray.platform.config import Recipe, Runtime
from chexray.platform.summary import number, short_span

DEMO_SETTINGS = (
    "ingest.test_share=0.4",
    "ingest.validation_share=0.05",
    "model.vision.timm_model=test_convnext",
    "model.vision.image_size=64",
    "curate.warmup_fraction=0.2",
    "train.epochs=6",
    "run.checkpoint_epochs=6",
    "evaluate.min_positives=3",
)
"""Sized for minutes on 2 cores: a very small image tower, and a test split in which rare findings occur at all."""
RUNS = ("curated", "random", "full")
METRICS = {
    "mean_auroc": "AUROC\nmean",
    "mean_auroc_common": "AUROC\ncommon",
    "mean_auroc_rare": "AUROC\nrare",
    "image_to_text_recall@10": "R@10 image\nto text",
    "text_to_image_recall@10": "R@10 text\nto image",
}


def demo(recipe: Recipe, out: str, pairs: int, as_json: bool = False) -> list[dict[str, Any]]:
    """Ingest, curate, pretrain three times, evaluate each; print one table. Finished stages are not redone."""
    folder = Path(out)
    rows: list[dict[str, Any]] = []
    corpus, runtime = str(folder / "corpus"), Runtime()
    with ray_session(runtime):
        _say(f"drawing and ingesting {pairs} synthetic pairs")
        ingest(recipe, "synthetic", str(folder / f"source-{pairs}"), corpus, {"count": pairs}, runtime)
        for name in RUNS:
            subset = None if name == "full" else str(folder / "subset" / name)
            if subset:
                selector = "prototype" if name == "curated" else name
                _say(f"choosing {recipe.curate.keep:.1%} of the train split: {name}")
                chosen = recipe.model_copy(update={"curate": recipe.curate.model_copy(update={"selector": selector})})
                curate(chosen, corpus, subset, runtime=runtime)
            checkpoint, scores = str(folder / "checkpoint" / name), str(folder / "scores" / name)
            _say(f"pretraining: {name}")
            trained = pretrain(recipe, corpus, checkpoint, subset, runtime)
            _say(f"evaluating: {name}")
            evaluate(recipe, checkpoint, corpus, scores, runtime=runtime)
            rows.append(_row(name, trained, read_results(scores), checkpoint))
    if as_json:
        print(json.dumps(rows))  # noqa: T201 -- the result, for machines
    else:
        _print(rows, folder, recipe)
    return rows


def _row(name: str, trained: Manifest, results: list[dict[str, Any]], checkpoint: str) -> dict[str, Any]:
    found = {result["metric"]: result for result in results if result["finding"] is None}
    return {
        "run": name,
        "checkpoint": checkpoint,
        "pairs": trained.counts["pairs"],
        "compute_vs_full": trained.cost["compute_vs_full"],
        "metrics": {metric: {key: found[metric][key] for key in ("value", "low", "high")} for metric in METRICS},
    }


def _print(rows: list[dict[str, Any]], folder: Path, recipe: Recipe) -> None:
    table = Table(
        "",
        "pairs",
        "compute",
        *METRICS.values(),
        title="What each run reached (95 % intervals over patients)",
        box=box.SIMPLE,
    )
    for row in rows:
        cells = [
            f"{number(metric['value'])}\n[dim]{short_span(metric['low'], metric['high'])}[/dim]"
            for metric in row["metrics"].values()
        ]
        table.add_row(row["run"], str(row["pairs"]), f"{row['compute_vs_full']:.1%}", *cells)
    out = Console()
    out.print(table)
    out.print(
        f"AUROC: mean over findings; rare: prevalence below {recipe.evaluate.rare_below:.0%}. R@10: recall at 10.\n"
        "compute: FLOPs of curation and training, against training on everything.\n"
        f"Artifacts are in {folder}/: corpus, subset, checkpoint, scores. "
        f"Look at one: chexray show {folder}/subset/curated"
    )


def _say(what: str) -> None:
    console.print(f"[dim]demo:[/dim] {what}", highlight=False)


if __name__ == "__main__":
    run_job("demo")
