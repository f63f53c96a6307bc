"""A sweep's conclusions in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from chexray.evals.board.words import metric_name
from chexray.evals.sweep.cost import Cost
from chexray.evals.sweep.fits import MethodFit
from chexray.evals.sweep.frontier import HourValue
from chexray.evals.sweep.scaling import AXES, Parameter, ScalingFit
from chexray.evals.sweep.smallest import FractionTest, MethodSmallest
from chexray.evals.sweep.trials import FULL

_UNPAIRED = "no full run of the same seed, budget and settings is done beside it"
_MOST_PER_HOUR = 1.0
_STATES = {
    "done": "done",
    "stopped": "stopped early",
    "failed": "failed",
    "trained": "trained but not scored",
    "running": "running",
    "waiting": "not begun",
}


def count_line(states: Mapping[str, int]) -> str:
    """'12 trials: 9 done, 2 stopped early, 1 failed'."""
    counts = [f"{states[state]:,} {words}" for state, words in _STATES.items() if states.get(state)]
    return f"{_count(sum(states.values()), 'trial')}: {', '.join(counts) or 'none begun'}"


def design_name(method: str, keep: float, settings: str) -> str:
    """'prototype at 0.227', and its settings where it has some."""
    kept = FULL if keep == 1 else f"{method} at {keep:g}"
    return f"{kept}{_with(settings)}"


def smallest_lines(found: Sequence[MethodSmallest], delta: float, higher_is_better: bool) -> list[str]:
    """What the tests say: of the smallest fraction that passed, of what ended them, and of what had none."""
    lines, bare = [], Counter[tuple[str, float]]()
    for one in found:
        if one.result.tested or one.settings == "{}":
            lines += _method_lines(one, delta, "" if higher_is_better else "; below 0 is worse")
        else:
            bare[one.method, one.budget] += 1
    for (method, budget), count in bare.items():
        what = f"with {_count(count, 'choice')} of its other settings"
        lines.append(f"At budget {budget:g}, {method} {what} is not compared with full: {_UNPAIRED}")
    return lines


def fit_lines(fits: Sequence[MethodFit]) -> list[str]:
    """Each law with its intervals, or why there is none; said once of a method's many settings."""
    lines, refused = [], Counter[tuple[str, str]]()
    for fit in fits:
        at = "" if fit.budget is None else f" at budget {fit.budget:g}"
        name = f"{fit.method}{_with(fit.settings)}{at}"
        if isinstance(fit.result, ScalingFit):
            doubts = "".join(f"; {one}" for one in fit.result.warnings)
            lines.append(f"{name}: {_law(fit.result)} ({fit.result.runs} runs, {fit.result.rmse:.1%} off){doubts}")
        elif fit.settings == "{}":
            lines.append(f"{name}: no scaling law: {fit.result.reason}")
        else:
            refused[fit.method, fit.result.reason] += 1
    for (method, reason), count in refused.items():
        lines.append(f"{method} with {_count(count, 'choice')} of its other settings: no scaling law: {reason}")
    return lines


def frontier_lines(front: Sequence[Mapping[str, Any]], values: Sequence[HourValue]) -> list[str]:
    """Each design on the frontier, by rising FLOPs, and what one more GPU-hour brings there."""
    lines = []
    for place, one in enumerate(front):
        name = design_name(one["method"], one["keep"], one["settings"])
        line = f"On the frontier: {name}, budget {one['budget']:g}: {one['mean']:.3f} for {one['flops']:.3g} FLOPs"
        value = values[place] if place < len(values) else None
        if value:
            line += f", {_hours(value.gpu_hours)}"
        # A run of seconds says nothing of an hour more.
        if value and value.per_hour is not None and abs(value.per_hour) <= _MOST_PER_HOUR:
            source = "by the scaling law" if value.source == "fit" else "by its neighbour"
            line += f"; one more brings {value.per_hour:.2g} {source}"
        lines.append(line)
    return lines


def winner_line(method: str, keep: float, budget: float, settings: str, value: float, metric: str, reason: str) -> str:
    name = metric_name(metric.rpartition(".")[2])
    return f"Chosen: {design_name(method, keep, settings)}, budget {budget:g}, {name} {value:.3f}: {reason}"


def cost_line(name: str, cost: Cost, pairs: int | None) -> str:
    of = f" of {pairs:,} pairs" if pairs else ""
    money = "" if cost.money is None else f", a price of {cost.money:,.2f}"
    share = f", {cost.curation_flops / cost.flops:.1%} of it curation" if cost.curation_flops else ""
    return f"Cost of the {name} run on a corpus{of}: {cost.flops:.3g} FLOPs{share}, {_hours(cost.gpu_hours)}{money}"


def _method_lines(found: MethodSmallest, delta: float, sign: str) -> list[str]:
    at, method = f"At budget {found.budget:g}, ", f"{found.method}{_with(found.settings)}"
    lines, result = [], found.result
    for one in result.tested:
        if one.keep == result.keep or not one.passed:
            verdict = "is not worse" if one.passed else "may be worse"
            name = design_name(found.method, one.keep, found.settings)
            lines.append(f"{at}{name} {verdict} than full by more than {delta:g} ({_numbers(one)}{sign})")
            lines += _doubts(one, f"{at}{name}")
    if result.untested:
        ended = result.tested and not result.tested[-1].passed
        why = "none is, after the first that fails" if ended else result.reason
        lines.append(f"{at}{method} is not tested at {_fractions(result.untested)}: {why}")
    if found.not_compared:
        lines.append(f"{at}{method} is not compared with full at {_fractions(found.not_compared)}: {_UNPAIRED}")
    return lines


def _fractions(keeps: Sequence[float]) -> str:
    return ", ".join(f"{keep:g}" for keep in sorted(keeps, reverse=True))


def _hours(hours: float) -> str:
    return f"{hours:,.1f} GPU-hours" if hours >= 10 else f"{hours:.2g} GPU-hours"


def _numbers(one: FractionTest) -> str:
    """'difference -0.003, lower bound -0.008; 3 seeds, 2,000 draws'."""
    return (
        f"difference {one.difference:+.3f}, lower bound {one.lower:+.3f}; "
        f"{_count(one.seeds, 'seed')}, {one.draws:,} draws"
    )


def _doubts(one: FractionTest, name: str) -> list[str]:
    said = []
    if one.over == "patients only":
        said.append(f"{name}: one seed, so the bound is over patients only, and another seed may say otherwise")
    if one.over == "seeds only":
        said.append(f"{name}: no draws over patients, so the bound is over seeds only")
    if one.missing_seeds:
        missing = _count(one.missing_seeds, "seed")
        said.append(f"{name}: {missing} not compared; if stopped early for a high loss, the others flatter")
    return said


def _law(fit: ScalingFit) -> str:
    terms = [_interval(fit.parameters["e_inf"])]
    for axis in fit.axes:
        name, factor, power = AXES[axis]
        terms.append(f"{fit.parameters[factor].value:.3g} * {name} ** -{_interval(fit.parameters[power])}")
    return "error = " + " + ".join(terms)


def _interval(one: Parameter) -> str:
    return f"{one.value:.3g} ({one.low:.3g} to {one.high:.3g})"


def _with(settings: str) -> str:
    return "" if settings == "{}" else f" with {settings}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
