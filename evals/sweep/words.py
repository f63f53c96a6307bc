"""A sweep's conclusions in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chexray.evals.board.words import metric_name
from chexray.evals.sweep.cost import Cost
from chexray.evals.sweep.fits import MethodFit
from chexray.evals.sweep.frontier import HourValue
from chexray.evals.sweep.scaling import AXES, NoFit, Parameter, ScalingFit
from chexray.evals.sweep.smallest import FractionTest, Smallest
from chexray.evals.sweep.trials import FULL

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


def smallest_lines(
    method: str, settings: str, budget: float, found: Smallest, delta: float, higher_is_better: bool
) -> list[str]:
    """What the tests at one budget say: of the smallest fraction that passed, and of what ended them."""
    at = f"At budget {budget:g}, "
    sign = "" if higher_is_better else "; below 0 is worse"
    lines = []
    for one in found.tested:
        if one.keep == found.keep or not one.passed:
            verdict = "is not worse" if one.passed else "is not shown to be no worse"
            name = design_name(method, one.keep, settings)
            lines.append(f"{at}{name} {verdict} than full by more than {delta:g} ({_numbers(one)}{sign})")
            lines += _doubts(one, name)
    if not found.tested:
        lines.append(f"{at}{method}{_with(settings)} is not compared with full: {found.reason}")
    if found.untested:
        kept = ", ".join(f"{keep:g}" for keep in found.untested)
        why = found.reason if found.tested and found.tested[-1].passed else "the tests go down to the first that fails"
        lines.append(f"{at}{method}{_with(settings)} at {kept} is not tested: {why}")
    return lines


def fit_line(fit: MethodFit) -> str:
    """The law with its intervals, or why there is none."""
    at = "" if fit.budget is None else f" at budget {fit.budget:g}"
    name = f"{fit.method}{_with(fit.settings)}{at}"
    if isinstance(fit.result, NoFit):
        return f"{name}: no scaling law: {fit.result.reason}"
    doubts = "".join(f"; {one}" for one in fit.result.warnings)
    return f"{name}: {_law(fit.result)} ({fit.result.runs} runs, {fit.result.rmse:.1%} off){doubts}"


def frontier_lines(front: Sequence[Mapping[str, Any]], values: Sequence[HourValue]) -> list[str]:
    """Each design on the frontier, by rising FLOPs, and what one more GPU-hour brings there."""
    lines = []
    for place, one in enumerate(front):
        name = design_name(one["method"], one["keep"], one["settings"])
        line = f"On the frontier: {name}, budget {one['budget']:g}: {one['mean']:.3f} for {one['flops']:.3g} FLOPs"
        value = values[place] if place < len(values) else None
        if value and value.per_hour is not None:
            source = "by the scaling law" if value.source == "fit" else "by its neighbour"
            line += f", {value.gpu_hours:.3g} GPU-hours; one more brings {value.per_hour:.2g} {source}"
        lines.append(line)
    return lines


def winner_line(method: str, keep: float, budget: float, settings: str, value: float, metric: str, reason: str) -> str:
    name = metric_name(metric.rpartition(".")[2])
    return f"Chosen: {design_name(method, keep, settings)}, budget {budget:g}, {name} {value:.3f}: {reason}"


def cost_line(name: str, cost: Cost, pairs: int | None) -> str:
    of = f" of {pairs:,} pairs" if pairs else ""
    money = "" if cost.money is None else f", {cost.money:,.2f} in money"
    share = f", {cost.curation_flops / cost.flops:.1%} of it curation" if cost.curation_flops else ""
    return (
        f"Cost of the {name} run on a corpus{of}: {cost.flops:.3g} FLOPs{share}, {cost.gpu_hours:,.1f} GPU-hours{money}"
    )


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
