"""What a sweep says: the smallest fraction as good as all pairs, scaling laws, the frontier, a winner and its cost.

All of it is from validation data.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from chexray.evals.statistics import FloatArray
from chexray.evals.sweep.cost import Cost, Device, run_cost
from chexray.evals.sweep.fits import MethodFit, fit_methods
from chexray.evals.sweep.frontier import Curve, HourValue, distinct_designs, frontier, hour_values, iso_compute
from chexray.evals.sweep.paired_scores import Pair, differences
from chexray.evals.sweep.scaling import ScalingFit
from chexray.evals.sweep.smallest import MethodSmallest, smallest_fraction
from chexray.evals.sweep.trials import DESIGN, FULL, higher_is_better, trial_table
from chexray.evals.sweep.words import cost_line, count_line, fit_lines, frontier_lines, smallest_lines, winner_line
from chexray.platform.sweep.records import SweepPlan, TrialRecord


@dataclass(frozen=True)
class Winner:
    """The chosen design. `names`: of its runs that are done; `value`: their mean metric on validation data."""

    method: str
    settings: str
    budget: float
    keep: float
    names: tuple[str, ...]
    value: float
    flops: float
    reason: str


@dataclass(frozen=True)
class Conclusions:
    """`states`: how many runs are in each, those not begun as 'waiting'. `costs`: 'winner' and 'full' at full size."""

    metric: str
    higher_is_better: bool
    delta: float
    states: dict[str, int]
    smallest: tuple[MethodSmallest, ...]
    fits: tuple[MethodFit, ...]
    curves: tuple[Curve, ...]
    frontier: tuple[dict[str, Any], ...]
    hour_values: tuple[HourValue, ...]
    winner: Winner | None
    full_size_pairs: int | None
    costs: dict[str, Cost]
    designs: tuple[dict[str, Any], ...]
    """One record for each method, settings, budget and kept fraction: the rows of `as_table`."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: numbers that are not defined are None."""
        fits = [
            {"method": one.method, "settings": one.settings, "budget": one.budget}
            | (one.result.as_dict() if isinstance(one.result, ScalingFit) else {"reason": one.result.reason})
            for one in self.fits
        ]
        kept = {name: value for name, value in vars(self).items() if name != "fits"}
        return dict(_plain(kept | {"fits": fits}))

    def as_table(self) -> pd.DataFrame:
        """One row for each method, settings, budget and kept fraction, with what was found of it."""
        return pd.DataFrame(list(self.designs))

    def as_lines(self) -> list[str]:
        """Short sentences for a terminal."""
        lines = [count_line(self.states)]
        lines += smallest_lines(self.smallest, self.delta, self.higher_is_better)
        lines += fit_lines(self.fits)
        lines += frontier_lines(self.frontier, self.hour_values)
        won = self.winner
        if won:
            lines.append(
                winner_line(won.method, won.keep, won.budget, won.settings, won.value, self.metric, won.reason)
            )
        else:
            lines.append("Nothing is chosen: no run is done and has the metric")
        return lines + [cost_line(name, cost, self.full_size_pairs) for name, cost in self.costs.items()]


def conclude(
    plan: SweepPlan,
    trials: Sequence[TrialRecord],
    difference_draws: Mapping[Pair, FloatArray],
    device: Device | None = None,
    full_size_pairs: int | None = None,
    seed: int = 0,
) -> Conclusions:
    """What the trials say, whatever their states.

    `difference_draws`: of each of `paired_runs`, draws [R] as `score_differences` makes them; where a pair has none,
    seeds alone are compared. `device`: without it there are no GPU-hours. `full_size_pairs`: of the corpus whose cost
    is asked for, the sweep's own where None.
    """
    table, better = trial_table(plan, trials), higher_is_better(plan, trials)
    smallest = tuple(_smallest(table, difference_draws, better, plan.space.delta, seed))
    fits = fit_methods(table, better, seed=seed)
    front = frontier(table, better)
    laws = {
        (one.method, one.settings): one.result
        for one in fits
        if isinstance(one.result, ScalingFit) and one.budget is None
    }
    winner = _winner(table, smallest, better)
    pairs = full_size_pairs or plan.train_pairs
    return Conclusions(
        metric=plan.space.metric,
        higher_is_better=better,
        delta=plan.space.delta,
        states=_states(plan, trials),
        smallest=smallest,
        fits=fits,
        curves=tuple(iso_compute(table)),
        frontier=tuple(front.to_dict("records")),
        hour_values=tuple(hour_values(front, better, device, laws)) if device else (),
        winner=winner,
        full_size_pairs=pairs if device else None,
        costs=_costs(table, winner, plan.train_pairs, pairs, device) if device and winner else {},
        designs=tuple(_design_records(table, front, smallest, winner)),
    )


def _states(plan: SweepPlan, trials: Sequence[TrialRecord]) -> dict[str, int]:
    counts = Counter(str(one.state) for one in trials)
    counts["waiting"] += len(set(plan.trials) - {one.name for one in trials})
    return {state: count for state, count in counts.items() if count}


def _smallest(
    table: pd.DataFrame, draws: Mapping[Pair, FloatArray], better: bool, delta: float, seed: int
) -> list[MethodSmallest]:
    found = []
    smaller = table[(table["keep"] < 1) & (table["method"] != FULL)]
    for (method, settings, budget), group in smaller.groupby(["method", "settings", "budget"], sort=True):
        paired = {float(keep): differences(runs, table, draws, better) for keep, runs in group.groupby("keep")}
        result = smallest_fraction([one for one in paired.values() if one is not None], delta, seed)
        missing = tuple(keep for keep, one in paired.items() if one is None)
        found.append(MethodSmallest(method, settings, float(budget), result, missing))
    return found


def _winner(table: pd.DataFrame, smallest: Sequence[MethodSmallest], better: bool) -> Winner | None:
    """The smallest fraction that is as good as the best runs on all pairs, else the best mean.

    The best at the largest budget, that is: to be as good as all pairs of a small budget, or of settings that do not
    work, says nothing of what others give.
    """
    found = distinct_designs(table)
    if found.empty:
        return None
    full = found[(found["keep"] == 1) & (found["budget"] == found.loc[found["keep"] == 1, "budget"].max())]
    best = full.sort_values("mean", ascending=not better, kind="stable")[["settings", "budget"]].head(1)
    passed = {
        (one.method, one.settings, one.budget, one.result.keep)
        for one in smallest
        if [one.settings, one.budget] in best.to_numpy().tolist() and one.result.keep is not None
    }
    if passed:
        keys = found[list(DESIGN)].apply(tuple, axis=1)
        row = found[keys.isin(passed)].sort_values(["keep", "flops"], kind="stable").iloc[0]
        return _chosen(row, "the smallest fraction not worse than the best full runs of the largest budget")
    most = found[found["seeds"] == found["seeds"].max()]
    row = most.sort_values("mean", ascending=not better, kind="stable").iloc[0]
    return _chosen(row, "the best mean over seeds, as no smaller fraction is shown to be as good as full")


def _chosen(row: pd.Series, reason: str) -> Winner:
    return Winner(
        row["method"],
        row["settings"],
        float(row["budget"]),
        float(row["keep"]),
        tuple(row["names"]),
        float(row["mean"]),
        float(row["flops"]),
        reason,
    )


def _costs(table: pd.DataFrame, winner: Winner, train_pairs: int, pairs: int, device: Device) -> dict[str, Cost]:
    """Of the winner, and of all pairs at its budget and settings, on a corpus of so many pairs."""
    found = distinct_designs(table)
    same = found[(found["settings"] == winner.settings) & (found["budget"] == winner.budget)]
    asked = {"winner": same[(same["method"] == winner.method) & (same["keep"] == winner.keep)]}
    asked |= {"full": same[same["keep"] == 1]} if winner.keep < 1 else {}
    return {
        name: run_cost(
            pairs,
            row["pairs_seen"] / train_pairs,
            row["training_flops"] / row["pairs_seen"],
            row["curation_flops"] / train_pairs,
            device,
        )
        for name, rows in asked.items()
        for _, row in rows.iterrows()
        if row["pairs_seen"] > 0 and row["training_flops"] > 0
    }


def _design_records(
    table: pd.DataFrame, front: pd.DataFrame, smallest: Sequence[MethodSmallest], winner: Winner | None
) -> list[dict[str, Any]]:
    means = {_key(row): row for _, row in distinct_designs(table).iterrows()}
    on_front = {_key(row) for _, row in front.iterrows()}
    tests = {(one.method, one.settings, one.budget, test.keep): test for one in smallest for test in one.result.tested}
    least = {(one.method, one.settings, one.budget, one.result.keep) for one in smallest}
    won = (winner.method, winner.settings, winner.budget, winner.keep) if winner else None
    records = []
    named = table.assign(method=table["method"].where(table["keep"] < 1, FULL)).drop_duplicates([*DESIGN, "name"])
    for key, runs in named.groupby(list(DESIGN), sort=True):
        record = dict(zip(DESIGN, key, strict=True))
        record |= {state: int((runs["state"] == state).sum()) for state in ("done", "stopped", "failed")}
        mean, test = means.get(key), tests.get(key)
        for name in ("mean", "spread", "pairs_kept", "pairs_seen", "flops", "training_flops", "curation_flops"):
            record[name] = math.nan if mean is None else float(mean[name])
        for name in ("difference", "lower", "p_value", "passed", "over", "seeds", "draws"):
            record[name] = None if test is None else getattr(test, name)
        records.append(record | {"on_frontier": key in on_front, "smallest": key in least, "winner": key == won})
    return records


def _key(row: pd.Series) -> tuple[Any, ...]:
    return tuple(row[name] for name in DESIGN)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "__dataclass_fields__"):
        return _plain(asdict(value))
    if isinstance(value, float):
        return None if math.isnan(value) else value
    return value.item() if hasattr(value, "item") else value
