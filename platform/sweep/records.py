"""A sweep's folder: what is written there about its trials while they run, for those who read it without Ray.

SWEEP/sweep.json                  what is swept: `SweepPlan`
SWEEP/trials/NAME/trial.json      one run: `TrialRecord`, written anew as it goes on
SWEEP/trials/NAME/checkpoint/     its pretraining: an artifact (weights, history.jsonl, tensorboard/)
SWEEP/trials/NAME/scores/         its evaluation on validation data: an artifact
SWEEP/subsets/NAME/               the pairs that trials share: artifacts
SWEEP/conclusions.json, .csv      what the sweep says, at its end
SWEEP/winner/                     the scores of the chosen runs on test data
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chexray.platform import storage
from chexray.platform.config import Recipe
from chexray.platform.errors import UsageError
from chexray.platform.sweep.points import Point
from chexray.platform.sweep.space import SweepSpace

PLAN_FILE, TRIAL_FILE = "sweep.json", "trial.json"
TRIALS, SUBSETS, WINNER = "trials", "subsets", "winner"
CHECKPOINT, SCORES = "checkpoint", "scores"
CONCLUSIONS, TABLE = "conclusions.json", "conclusions.csv"

T = TypeVar("T", bound=BaseModel)

TrialState = Literal["waiting", "running", "trained", "done", "stopped", "failed"]
"""'trained': its checkpoint is there, its scores are not. 'stopped': early, by the scheduler."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Look(_Record):
    """Where a run stood at one of its checkpoints. `validation_loss`: InfoNCE over the validation split."""

    epoch: int
    step: int
    pairs_seen: int
    flops: int
    loss: float
    validation_loss: float | None
    seconds: float
    """Of the trial until then, by the clock."""
    workers: int


class Measured(_Record):
    """A headline number of an evaluation on validation data, with its 95 % interval over patients."""

    value: float | None
    low: float | None = None
    high: float | None = None
    higher_is_better: bool = True


class TrialRecord(_Record):
    """One run of a sweep. `methods`: those whose point it is; several at a kept fraction of 1."""

    name: str
    point: Point
    methods: tuple[str, ...]
    state: TrialState = "waiting"
    reason: str | None = None
    epochs: int | None = None
    pairs_kept: int | None = None
    subset: str | None = None
    """The artifact's path in the sweep's folder; None where every pair is kept."""
    looks: tuple[Look, ...] = ()
    pairs_seen: int = 0
    training_flops: int = 0
    """Of what was trained, validation looks included."""
    train_flops_per_pair: int = 0
    curation_flops: int = 0
    """Of choosing this trial's pairs, as if it had done so alone."""
    metrics: dict[str, Measured] = {}
    """By benchmark.metric."""
    worker_seconds: float = 0.0
    started: float | None = None
    """Seconds since 1970."""
    finished: float | None = None
    tries: int = 0


class SweepPlan(_Record):
    """What is swept over which corpus. `trials`: the names of the runs that are known, in their order."""

    corpus: str
    train_pairs: int
    data: dict[str, str] = Field({}, description="corpora of the registry's benchmarks, by dataset")
    recipe: Recipe
    space: SweepSpace
    trials: tuple[str, ...]
    started: float
    finished: float | None = None
    shared_curation_flops: int = 0
    """What choosing the pairs of all trials cost, with what they share counted once."""


def trial_folder(sweep: str, name: str) -> str:
    return storage.join(sweep, TRIALS, name)


def write_plan(sweep: str, plan: SweepPlan) -> None:
    storage.write_json(storage.join(sweep, PLAN_FILE), plan.model_dump(mode="json"))


def read_plan(sweep: str) -> SweepPlan:
    """Raises `UsageError` where there is no sweep."""
    uri = storage.join(sweep, PLAN_FILE)
    if not storage.exists(uri):
        raise UsageError(f"{sweep}: not a sweep (no {PLAN_FILE}); give the --out of chexray sweep")
    return _read(SweepPlan, uri)


def write_trial(sweep: str, record: TrialRecord) -> None:
    uri = storage.join(trial_folder(sweep, record.name), TRIAL_FILE)
    storage.write_json(uri, record.model_dump(mode="json"))


def read_trial(sweep: str, name: str) -> TrialRecord | None:
    """None where the trial has not begun."""
    uri = storage.join(trial_folder(sweep, name), TRIAL_FILE)
    return _read(TrialRecord, uri) if storage.exists(uri) else None


def read_trials(sweep: str, names: Sequence[str]) -> list[TrialRecord]:
    """Of those that have begun, in the order of `names`."""
    return [record for name in names if (record := read_trial(sweep, name)) is not None]


def _read(kind: type[T], uri: str) -> T:
    try:
        return kind.model_validate(storage.read_json(uri))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{uri}: not as this chexray writes it ({key}: {first['msg']})") from error
