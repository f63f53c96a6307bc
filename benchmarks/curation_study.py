"""What curation is worth: models trained on curated, on random and on all pairs, with paired intervals.

    python benchmarks/curation_study.py OUT --dataset synthetic --pairs 9000 --keep 0.227 --seeds 3
    python benchmarks/curation_study.py OUT --dataset nih --root FOLDER --keep 0.25 --seeds 3

The same recipe and epochs for every arm; a seed sets the towers' start, the order of the pairs and the curator's draw.
An arm is a selector's name, with settings after a colon where it has any (prototype:curate.prototypes=32). Intervals
are over patients of the test split, of the mean over seeds, and paired where arms are compared. Goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from chexray.cluster.local import ray_session
from chexray.evals.statistics import auroc_statistic, bootstrap, interval, mean_statistic
from chexray.jobs.curate import curate
from chexray.jobs.evaluate import evaluate
from chexray.jobs.ingest import ingest
from chexray.jobs.pretrain import pretrain
from chexray.platform.config import Recipe, Runtime, load_recipe
from chexray.platform.corpus.schema import NO_FINDING
from chexray.platform.corpus.shards import read_columns, read_table

DRAWS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dataset", choices=("synthetic", "nih"), default="synthetic")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--pairs", type=int, default=9000)
    parser.add_argument("--keep", type=float, default=0.227)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--arms", nargs="+", default=["prototype", "random", "full"])
    parser.add_argument("--set", dest="settings", action="append", default=[])
    given = parser.parse_args()
    recipe = load_recipe(given.recipe, given.settings)
    corpus = str(given.out / f"corpus-{given.dataset}")
    found: dict[str, list[dict[str, Any]]] = {}
    with ray_session(Runtime()):
        options = {"count": given.pairs, "size": 128} if given.dataset == "synthetic" else {}
        ingest(recipe, given.dataset, str(given.root or given.out / "source"), corpus, options)
        for arm in given.arms:
            found[arm] = [_run(given, recipe, corpus, arm, seed) for seed in range(given.seeds)]
            print(arm, json.dumps([run["compute_vs_full"] for run in found[arm]]), flush=True)
    patients = read_columns(corpus, ["sample_id", "patient_id", "labels"])
    _print(found, patients, recipe, given.arms[0])


def _run(given: argparse.Namespace, recipe: Recipe, corpus: str, arm: str, seed: int) -> dict[str, Any]:
    """One arm and seed: subset, checkpoint, scores."""
    selector, _, settings = arm.partition(":")
    changes = [f"curate.selector={selector}", f"curate.keep={given.keep}", f"curate.seed={seed}", f"train.seed={seed}"]
    changes += [setting for setting in settings.split(",") if setting]
    chosen = load_recipe(given.recipe, [*given.settings, *changes])
    share = "all" if selector == "full" else f"keep-{given.keep}"
    folder = given.out / arm.replace(":", "-").replace("=", "-") / share / f"seed-{seed}"
    subset = None
    if selector != "full":
        subset = str(folder / "subset")
        curate(chosen, corpus, subset)
    manifest = pretrain(chosen, corpus, str(folder / "checkpoint"), subset)
    evaluate(chosen, str(folder / "checkpoint"), corpus, str(folder / "scores"))
    return {"scores": str(folder / "scores"), "compute_vs_full": manifest.cost["compute_vs_full"]}


def _print(found: dict[str, list[dict[str, Any]]], patients: Any, recipe: Recipe, first: str) -> None:
    known = {row["sample_id"]: row for row in patients.to_pylist()}
    rare = _rare(patients, recipe.evaluate.rare_below)
    measured = {arm: _measures(runs, known, rare, recipe) for arm, runs in found.items()}
    print(f"rare: {', '.join(sorted(rare))}")
    for name in ("mean_auroc", "mean_auroc_rare", "recall@10"):
        for arm, values in measured.items():
            value, draw_R, seeds = values[name]
            low, high = interval(draw_R)
            line = f"{name:16s} {arm:40s} {value:.3f} ({low:.3f} to {high:.3f}), seeds {np.round(seeds, 3).tolist()}"
            if arm != first:
                low, high = interval(measured[first][name][1] - draw_R)
                line += f"; {first} - {arm}: {measured[first][name][0] - value:+.3f} ({low:+.3f} to {high:+.3f})"
            print(line)
    for arm, runs in found.items():
        print(f"compute_vs_full  {arm:40s} {np.mean([run['compute_vs_full'] for run in runs]):.3f}")


def _measures(runs: list[dict[str, Any]], known: dict[str, Any], rare: set[str], recipe: Recipe) -> dict[str, Any]:
    """Value, bootstrap draws [R] and values by seed of each measure, means over seeds."""
    by_seed: dict[str, list[Any]] = {"mean_auroc": [], "mean_auroc_rare": [], "recall@10": []}
    for run in runs:
        cells = f"{run['scores']}/cells/checkpoint"
        rows = read_table(f"{cells}/zero_shot/{recipe.evaluate.seed}/predictions.parquet").to_pandas()
        wide = rows.pivot(index="sample_id", columns="finding", values=["probability", "target"]).sort_index()
        score_BF = wide["probability"].to_numpy(np.float64)
        target_BF = wide["target"].to_numpy(np.float64)
        names = list(wide["probability"].columns)
        patient = [known[sample]["patient_id"] for sample in wide.index]
        positives_F = (target_BF == 1).sum(0)
        negatives_F = (target_BF == 0).sum(0)
        least = recipe.evaluate.min_positives
        enough = [f != NO_FINDING for f in names] & (positives_F >= least) & (negatives_F >= least)
        for name, chosen in (("mean_auroc", enough), ("mean_auroc_rare", enough & [f in rare for f in names])):
            statistic = auroc_statistic(score_BF[:, chosen], target_BF[:, chosen])
            value = float(statistic(np.ones((1, len(patient))))[0, -1])
            by_seed[name].append((value, bootstrap(statistic, patient, DRAWS, 0)[:, -1]))
        ranks = (
            read_table(f"{cells}/retrieval/{recipe.evaluate.seed}/ranks.parquet")
            .to_pandas()
            .set_index("sample_id")
            .sort_index()
        )
        hit = (ranks[["image_to_text_rank", "text_to_image_rank"]].to_numpy() <= 10).mean(axis=1, keepdims=True)
        statistic = mean_statistic(hit.astype(np.float64))
        by_seed["recall@10"].append((float(hit.mean()), bootstrap(statistic, patient, DRAWS, 0)[:, 0]))
    return {
        name: (np.mean([v for v, _ in values]), np.mean([draw for _, draw in values], axis=0), [v for v, _ in values])
        for name, values in by_seed.items()
    }


def _rare(patients: Any, below: float) -> set[str]:
    counts: dict[str, list[int]] = {}
    for labels in patients["labels"].to_pylist():
        for finding, value in labels or []:
            if value is not None:
                entry = counts.setdefault(finding, [0, 0])
                entry[0] += value
                entry[1] += 1
    counts.pop(NO_FINDING, None)
    return {finding for finding, (positive, known) in counts.items() if positive / known < below}


if __name__ == "__main__":
    main()
