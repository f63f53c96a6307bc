"""How much two runs of a sweep differ on the same patients, and which runs are to be compared.

Shapes: R bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from chexray.evals.board.sample_scores import NotCompared
from chexray.evals.board.score_files import read_scores
from chexray.evals.board.significance import Contender, difference_draws
from chexray.evals.statistics import DRAWS, FloatArray
from chexray.evals.sweep.smallest import Differences
from chexray.evals.sweep.trials import FULL, done_trials

Pair = tuple[str, str]
"""Names of two runs of one seed, budget and settings: of a smaller fraction, and of all pairs."""


def paired_runs(table: pd.DataFrame) -> list[Pair]:
    """Each pair of runs that is to be compared, once."""
    done = done_trials(table)
    full = _full_runs(done)
    smaller = done[(done["keep"] < 1) & (done["method"] != FULL)]
    keys = zip(smaller["settings"], smaller["budget"], smaller["seed"], smaller["name"], strict=True)
    return list(dict.fromkeys((name, full[key][0]) for *rest, name in keys if (key := tuple(rest)) in full))


def score_differences(candidate: str, full: str, metric: str, draws: int = DRAWS, seed: int = 0) -> FloatArray:
    """The first scores' metric less the second's in every paired bootstrap draw [R], NaN where undefined.

    `candidate`, `full`: URIs of scores of one checkpoint each; `metric`: benchmark.metric, or task.metric. With the
    same `seed`, draw r is of the same patients for all scores of the same samples. Raises `NotCompared` where the
    metric is no mean AUROC and no mean over samples, and `UsageError` where there are no scores.
    """
    return difference_draws(_contender(candidate, metric), _contender(full, metric), draws, seed)


def differences(
    runs: pd.DataFrame, table: pd.DataFrame, draws: Mapping[Pair, FloatArray], higher_is_better: bool
) -> Differences | None:
    """Of one design's `runs`, paired by seed with the full runs of `table`; None where no seed has both.

    Where there are draws of some seeds, the others are left out. Raises ValueError where seeds have different numbers
    of draws.
    """
    full = _full_runs(done_trials(table))
    pairs: dict[Pair, float] = {}
    for row in done_trials(runs).itertuples():
        if (row.settings, row.budget, row.seed) in full:
            name, value = full[row.settings, row.budget, row.seed]
            pairs[row.name, name] = row.value - value
    if drawn := [pair for pair in pairs if pair in draws]:
        pairs = {pair: pairs[pair] for pair in drawn}
    if not pairs:
        return None
    counts = {len(draws[pair]) for pair in drawn}
    if len(counts) > 1:
        raise ValueError(f"draws have lengths {sorted(counts)}; allowed: the same for every seed")
    sign = 1.0 if higher_is_better else -1.0
    difference_S = sign * np.array(list(pairs.values()))
    draw_SR = sign * np.array([draws[pair] for pair in drawn]) if drawn else None
    keep = float(runs["keep"].iloc[0])
    return Differences(keep, difference_S, draw_SR, runs["seed"].nunique() - len(pairs))


def _full_runs(done: pd.DataFrame) -> dict[tuple[str, float, int], tuple[str, float]]:
    """Name and value by settings, budget and seed."""
    full = done[done["keep"] == 1]
    keys = zip(full["settings"], full["budget"], full["seed"], strict=True)
    return dict(zip(keys, zip(full["name"], full["value"], strict=True), strict=True))


def _contender(uri: str, metric: str) -> Contender:
    scores = read_scores(uri)
    benchmark, _, name = metric.partition(".")
    rows = [row for row in scores.rows if benchmark in (row.benchmark, row.task) and row.metric == name]
    if len({(row.checkpoint, row.benchmark) for row in rows}) != 1:
        found = ", ".join(sorted({f"{row.benchmark} of {row.checkpoint}" for row in rows})) or "none"
        raise NotCompared(f"{metric} of one checkpoint on one benchmark is needed, found {found}")
    row = next((row for row in rows if row.headline), rows[0])
    cells = [cell for cell in scores.cells if cell.done and cell.benchmark == row.benchmark]
    return Contender(row, tuple(cells))
