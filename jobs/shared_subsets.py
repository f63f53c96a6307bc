"""The subsets that a sweep's trials share: each is made once, on demand, from features that are scored once a model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import ray

from chexray.curation.whole import needs_features
from chexray.jobs.curate import curate
from chexray.platform import storage
from chexray.platform.artifacts import MANIFEST, Manifest, read_manifest
from chexray.platform.config import Recipe, Runtime
from chexray.platform.ledger import joint_flops
from chexray.platform.sweep.points import Point
from chexray.platform.sweep.records import SUBSETS, SweepPlan

SCORED = "scored"
_OF_SCORING = ("image_size", "precision", "warmup_fraction", "warmup_epochs")


@dataclass(frozen=True)
class Made:
    """What a trial trains on. `uri`: None for every pair. `curation_flops`: as if the trial had chosen alone."""

    uri: str | None
    pairs: int
    curation_flops: int


class _SubsetMaker:
    """Makes one subset after the other. An actor: trials ask it, and wait for what another one has asked for."""

    def __init__(self, plan: SweepPlan, sweep: str, runtime: Runtime) -> None:
        self._plan, self._sweep, self._runtime = plan, sweep, runtime

    def subset_of(self, point: Point) -> Made:
        if point.run().method == "full":
            return Made(None, self._plan.train_pairs, 0)
        recipe = point.recipe(self._plan.recipe)
        features = self._scored(recipe) if needs_features(recipe.curate) else None
        uri = storage.join(self._sweep, SUBSETS, subset_name(point))
        made = curate(recipe, self._plan.corpus, uri, runtime=self._runtime, features=features)
        return Made(uri, int(made.counts["kept"]), int(made.cost["total_flops"]))

    def _scored(self, recipe: Recipe) -> str:
        """A subset of the same scoring model, whose features the others use."""
        scoring = scoring_recipe(self._plan.recipe, recipe)
        digest = _digest(scoring.model_dump(mode="json", include={"model", "train", "curate"}))
        uri = storage.join(self._sweep, SUBSETS, f"{SCORED}-{digest}")
        curate(scoring, self._plan.corpus, uri, runtime=self._runtime)
        return uri


def start_maker(plan: SweepPlan, sweep: str, runtime: Runtime) -> Any:
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_SubsetMaker).remote(plan, sweep, runtime)


def scoring_recipe(base: Recipe, recipe: Recipe) -> Recipe:
    """Of the scorer: the trial's model and how it scores, all else (warm-up, seeds) as in the sweep's own recipe."""
    curation = {name: getattr(recipe.curate, name) for name in _OF_SCORING} | {"selector": "prototype"}
    return base.model_copy(update={"model": recipe.model, "curate": base.curate.model_copy(update=curation)})


def subset_name(point: Point) -> str:
    """The same for points that keep the same pairs."""
    choosing = {key: value for key, value in point.settings.items() if not key.startswith("train.")}
    name = f"{point.method}-{point.keep:g}-s{point.seed}"
    return f"{name}-{_digest(choosing)}" if choosing else name


def shared_flops(sweep: str) -> int:
    """What all subsets of the sweep cost together, with what they share counted once."""
    return joint_flops(_finished_subsets(sweep))


def _finished_subsets(sweep: str) -> list[Manifest]:
    folder = storage.join(sweep, SUBSETS)
    own = [file for file in storage.list_files(folder, (MANIFEST,)) if file.count("/") == 1]  # not a compact corpus's
    return [read_manifest(storage.join(folder, file.split("/")[0]), "subset") for file in own]


def _digest(settings: Any) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
