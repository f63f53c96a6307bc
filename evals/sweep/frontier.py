"""What compute buys: designs over their seeds, the Pareto frontier, curves at one budget, the worth of a GPU-hour.

A design is a method at a kept fraction, a budget and other settings; its seeds are its runs. The frontier is of
designs' means, not of single runs: of many runs the best is the luckiest too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from chexray.evals.sweep.cost import Device
from chexray.evals.sweep.scaling import ScalingFit
from chexray.evals.sweep.trials import DESIGN, FULL, done_trials


@dataclass(frozen=True)
class Curve:
    """The metric over the kept fraction at one budget: means and standard deviations over seeds, by rising fraction.

    `spread`: NaN where there is one seed.
    """

    method: str
    settings: str
    budget: float
    keep: tuple[float, ...]
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class HourValue:
    """What one more GPU-hour brings at a design on the frontier, in the metric; more is better, whatever the metric.

    `source` 'fit': the slope of the design's scaling law by compute, its pairs the same. 'differences': to the next
    design on the frontier, or, at its end, from the one before. None: `per_hour` is not known.
    """

    method: str
    keep: float
    budget: float
    settings: str
    gpu_hours: float
    per_hour: float | None
    source: str | None


def designs(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each method, settings, budget and kept fraction, of the runs that are done.

    `mean`, `spread` (standard deviation, NaN of one seed) and `seeds` of the metric; means of pairs_kept, pairs_seen,
    flops, training_flops and curation_flops; `names` of the runs.
    """
    grouped = done_trials(table).groupby(list(DESIGN), sort=True)
    found = grouped.agg(
        mean=("value", "mean"),
        spread=("value", "std"),
        seeds=("seed", "nunique"),
        **{name: (name, "mean") for name in ("pairs_kept", "pairs_seen", "flops", "training_flops", "curation_flops")},
        names=("name", tuple),
    )
    return found.reset_index()


def distinct_designs(table: pd.DataFrame) -> pd.DataFrame:
    """`designs`, with those that keep everything once: their runs are the same whatever the method."""
    found = designs(table)
    found.loc[found["keep"] == 1, "method"] = FULL
    return found.drop_duplicates(list(DESIGN)).reset_index(drop=True)


def pareto(cost_N: npt.ArrayLike, value_N: npt.ArrayLike, higher_is_better: bool = True) -> npt.NDArray[np.bool_]:
    """Which of N points no other beats: none is as cheap and as good, and cheaper or better. NaN is on no frontier."""
    cost, value = np.asarray(cost_N, np.float64), np.asarray(value_N, np.float64)
    if cost.ndim != 1 or cost.shape != value.shape:
        raise ValueError(f"cost_N, value_N have shapes {cost.shape}, {value.shape}; allowed: the same (N,)")
    value = value if higher_is_better else -value
    on_N = np.zeros(len(cost), dtype=np.bool_)
    best, best_cost = -math.inf, math.nan
    for place in np.lexsort((-value, cost)):
        if np.isnan(cost[place]) or np.isnan(value[place]):
            continue
        if value[place] > best:
            best, best_cost = value[place], cost[place]
        # A twin of the point on the frontier is beaten by nothing either.
        on_N[place] = value[place] == best and cost[place] == best_cost
    return on_N


def frontier(table: pd.DataFrame, higher_is_better: bool) -> pd.DataFrame:
    """The distinct designs on the frontier of FLOPs (their own curation included) and mean metric, by rising FLOPs."""
    found = distinct_designs(table)
    on_N = pareto(found["flops"], found["mean"], higher_is_better)
    return found[on_N].sort_values("flops", kind="stable").reset_index(drop=True)


def iso_compute(table: pd.DataFrame) -> list[Curve]:
    """The curve of each method, settings and budget of which a run is done."""
    curves = []
    for (method, settings, budget), group in designs(table).groupby(["method", "settings", "budget"], sort=True):
        rising = group.sort_values("keep")
        columns = (tuple(rising[name].tolist()) for name in ("keep", "mean", "spread", "seeds"))
        curves.append(Curve(method, settings, float(budget), *columns))
    return curves


def hour_values(
    front: pd.DataFrame, higher_is_better: bool, device: Device, fits: Mapping[tuple[str, str], ScalingFit]
) -> list[HourValue]:
    """At each design of a `frontier`. `fits`: by method and settings; their compute is training FLOPs."""
    hours = [device.hours(flops) for flops in front["flops"]]
    gains = [value if higher_is_better else -value for value in front["mean"]]
    found = []
    for place, row in enumerate(front.itertuples()):
        fit = fits.get((row.method, row.settings))
        slope = math.nan if fit is None else fit.fall_with_compute(row.training_flops) * device.flops_per_hour
        source = "fit"
        if math.isnan(slope):
            slope, source = _neighbour_slope(hours, gains, place), "differences"
        known = not math.isnan(slope)
        found.append(
            HourValue(
                row.method,
                row.keep,
                row.budget,
                row.settings,
                hours[place],
                slope if known else None,
                source if known else None,
            )
        )
    return found


def _neighbour_slope(hours: list[float], gains: list[float], place: int) -> float:
    """To the next point that costs more; from the one before at the end; NaN of a frontier of one."""
    for first, second in ((place, place + 1), (place - 1, place)):
        if first >= 0 and second < len(hours) and hours[second] > hours[first]:
            return (gains[second] - gains[first]) / (hours[second] - hours[first])
    return math.nan
