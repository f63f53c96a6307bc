"""The scaling law of each method of a sweep: from its runs that are done, one fit for each of its other settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from chexray.evals.sweep.scaling import DRAWS, NoFit, ScalingFit, fit_scaling
from chexray.evals.sweep.trials import FULL, done_trials


@dataclass(frozen=True)
class MethodFit:
    """A method's law, or why there is none. `budget`: of which runs it is; None for all."""

    method: str
    settings: str
    budget: float | None
    result: ScalingFit | NoFit


def fit_methods(
    table: pd.DataFrame, higher_is_better: bool, draws: int = DRAWS, seed: int = 0
) -> tuple[MethodFit, ...]:
    """Each method's law by kept pairs and training FLOPs, and where all its runs carry none, by pairs at each budget.

    Compute is that of the training alone, since choosing pairs teaches the model nothing. The error is 1 less the
    metric where more of it is better. Runs on all pairs belong to every method, and where they carry a law by compute
    they have it as 'full' too.
    """
    done, found = done_trials(table), []
    for (method, settings), runs in done.groupby(["method", "settings"], sort=True):
        if method == FULL or not (runs["keep"] < 1).any():
            continue
        joint = _fit(runs, runs["training_flops"].to_numpy(), higher_is_better, draws, seed)
        found.append(MethodFit(method, settings, None, joint))
        if isinstance(joint, ScalingFit):
            continue
        for budget, some in runs.groupby("budget", sort=True):
            alone = _fit(some, np.ones(len(some)), higher_is_better, draws, seed)
            if isinstance(alone, ScalingFit):
                found.append(MethodFit(method, settings, float(budget), alone))
    for settings, runs in done[done["keep"] == 1].drop_duplicates("name").groupby("settings", sort=True):
        law = _fit(runs, runs["training_flops"].to_numpy(), higher_is_better, draws, seed)
        if isinstance(law, ScalingFit):
            found.append(MethodFit(FULL, settings, None, law))
    return tuple(found)


def _fit(
    runs: pd.DataFrame, compute_N: np.ndarray, higher_is_better: bool, draws: int, seed: int
) -> ScalingFit | NoFit:
    value_N = runs["value"].to_numpy(dtype=np.float64)
    pairs_N = runs["pairs_kept"].to_numpy(dtype=np.float64)
    if np.isnan(pairs_N).any():
        return NoFit("how many pairs a run has kept is not known")
    return fit_scaling(pairs_N, compute_N, 1 - value_N if higher_is_better else value_N, draws, seed)
