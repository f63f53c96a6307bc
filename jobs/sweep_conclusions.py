"""The end of a sweep: what its trials say together, written down; and what was chosen, scored once on test data."""

from __future__ import annotations

from collections.abc import Sequence

import ray
import torch

from chexray.evals.board.sample_scores import NotCompared
from chexray.evals.statistics import FloatArray
from chexray.evals.sweep.conclusions import Conclusions, Winner, conclude
from chexray.evals.sweep.cost import Device
from chexray.evals.sweep.paired_scores import Pair, paired_runs, score_differences
from chexray.evals.sweep.trials import trial_table
from chexray.jobs.progress import console
from chexray.jobs.sweep_scores import evaluate_on
from chexray.jobs.trial import SweepRun
from chexray.platform import storage
from chexray.platform.errors import UsageError
from chexray.platform.sweep.records import (
    CHECKPOINT,
    CONCLUSIONS,
    SCORES,
    TABLE,
    WINNER,
    TrialRecord,
    trial_folder,
)
from chexray.platform.sweep.space import VALIDATION_LOSS, FullSize
from chexray.platform.training.peak import peak_flops


def write_conclusions(sweep: SweepRun, records: Sequence[TrialRecord]) -> Conclusions:
    """Conclude, write it down, say it, and score the chosen runs on test data."""
    plan = sweep.plan
    draws = _difference_draws(sweep, records)
    device = device_of(plan.space.full_size)
    found = conclude(plan, records, draws, device, plan.space.full_size.pairs)
    table = found.as_table()
    content = {"lines": found.as_lines(), "table": found.as_dict()["designs"], **found.as_dict()}
    storage.write_json(storage.join(sweep.uri, CONCLUSIONS), content)
    storage.write_bytes(storage.join(sweep.uri, TABLE), table.to_csv(index=False).encode())
    for line in found.as_lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if found.winner:
        _score_winner(sweep, found.winner)
    return found


def device_of(config: FullSize) -> Device:
    """Raises `UsageError` for a GPU whose peak is not known."""
    peak = peak_flops(config.gpu, torch.bfloat16)
    if peak is None:
        raise UsageError(
            f"full_size.gpu {config.gpu}: not known; give a name as torch.cuda.get_device_name() does, as "
            "'NVIDIA H100 80GB HBM3' or 'NVIDIA A100-SXM4-80GB'"
        )
    return Device(peak, config.utilisation, config.price_per_hour)


def _difference_draws(sweep: SweepRun, records: Sequence[TrialRecord]) -> dict[Pair, FloatArray]:
    """Of each pair of runs that is compared, over the same patients, as tasks side by side."""
    plan = sweep.plan
    if plan.space.metric == VALIDATION_LOSS:
        return {}
    draw = ray.remote(num_cpus=1)(_draws)
    pairs = paired_runs(trial_table(plan, records))
    scores = [[storage.join(trial_folder(sweep.uri, name), SCORES) for name in pair] for pair in pairs]
    evaluate = plan.recipe.evaluate
    tasks = [draw.remote(*both, plan.space.metric, evaluate.bootstrap, evaluate.seed) for both in scores]
    return {pair: draws for pair, draws in zip(pairs, ray.get(tasks), strict=True) if draws is not None}


def _draws(candidate: str, full: str, metric: str, draws: int, seed: int) -> FloatArray | None:
    """None where the metric has no draws: then seeds alone are compared, which the conclusions say."""
    try:
        return score_differences(candidate, full, metric, draws, seed)
    except NotCompared:
        return None


def _score_winner(sweep: SweepRun, winner: Winner) -> None:
    checkpoints = {name: storage.join(trial_folder(sweep.uri, name), CHECKPOINT) for name in winner.names}
    evaluate_on(sweep, checkpoints, "test", storage.join(sweep.uri, WINNER))
