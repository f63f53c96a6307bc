"""What the driver of a sweep does while Tune runs its trials: it keeps their records, and has the trained evaluated."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import ray
from ray import tune

from chexray.jobs.progress import console
from chexray.jobs.sweep_scores import evaluate_trial
from chexray.jobs.trial import SweepRun
from chexray.platform.errors import first_line
from chexray.platform.sweep.records import Look, Measured, TrialRecord, read_trial, write_plan, write_trial
from chexray.platform.sweep.space import VALIDATION_LOSS

_RETRIES = 2


class SweepWatch(tune.Callback):  # type: ignore[misc]
    """Is told by Tune of every trial. Evaluations run as tasks of their own, beside the trials that train."""

    def __init__(self, sweep: SweepRun) -> None:
        self.sweep = sweep
        self.evaluating: dict[Any, str] = {}
        self.ended: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Tune writes its callbacks down; tasks that run are no part of that."""
        return {"sweep": self.sweep, "evaluating": {}, "ended": self.ended}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        name, plan = self.sweep.name_of(trial), self.sweep.plan
        if name not in plan.trials:  # of a search that asks for its points one by one
            self.sweep = replace(self.sweep, plan=plan.model_copy(update={"trials": (*plan.trials, name)}))
            write_plan(self.sweep.uri, self.sweep.plan)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        record = read_trial(self.sweep.uri, self.sweep.name_of(trial))
        if record and result.get(VALIDATION_LOSS) is not None:
            write_trial(self.sweep.uri, with_look(record, result))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        record = read_trial(self.sweep.uri, self.sweep.name_of(trial))
        if record is None:
            return
        if record.state == "trained":
            self.evaluate(record)
        elif record.state == "failed":
            self._end(record, "failed", record.reason)
        else:
            self._end(record, "stopped", why_stopped(record, self.sweep.plan.space.scheduler.name))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        record = read_trial(self.sweep.uri, self.sweep.name_of(trial))
        if record:
            said = str(trial.get_error() or "its process was lost").strip()
            self._end(record, "failed", said.splitlines()[-1])

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        self.collect(timeout=0)

    def evaluate(self, record: TrialRecord) -> None:
        """Start the evaluation of a trained checkpoint on validation data."""
        options = {"num_cpus": 0, "max_retries": _RETRIES, "name": f"evaluate {record.name}"}
        task = ray.remote(**options)(evaluate_trial).remote(self.sweep, record.name)
        self.evaluating[task] = record.name

    def collect(self, timeout: float | None) -> None:
        """Record the evaluations that have ended; wait for one until `timeout`, for all of them where it is None."""
        while self.evaluating:
            ended, _ = ray.wait(list(self.evaluating), timeout=timeout)
            for task in ended:
                record = read_trial(self.sweep.uri, self.evaluating.pop(task))
                assert record is not None
                try:
                    metrics = {name: Measured.model_validate(one) for name, one in ray.get(task).items()}
                    self._end(record.model_copy(update={"metrics": metrics}), "done", None)
                except ray.exceptions.RayError as error:
                    cause = getattr(error, "cause", None) or error
                    self._end(record, "failed", f"its evaluation: {first_line(cause)}")
            if not ended:
                return

    def _end(self, record: TrialRecord, state: str, reason: str | None) -> None:
        """Record it, and say so: a line for each trial."""
        ended = record.model_copy(update={"state": state, "reason": reason, "finished": round(time.time(), 3)})
        write_trial(self.sweep.uri, ended)
        self.ended.add(record.name)
        plan = self.sweep.plan
        total = plan.space.trials if plan.space.search == "optuna" else len(plan.trials)
        console.print(
            f"{len(self.ended)}/{total} {record.name}: {in_words(ended, plan.space.metric)}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def with_look(record: TrialRecord, result: dict[str, Any]) -> TrialRecord:
    """The record with one more look; a look of the same epoch, from before a restart, is replaced."""
    training = int(result["pairs_seen"]) * record.train_flops_per_pair
    look = Look(
        epoch=result["epoch"],
        step=result["step"],
        pairs_seen=result["pairs_seen"],
        flops=training + record.curation_flops,
        loss=result["loss"],
        validation_loss=result[VALIDATION_LOSS],
        seconds=round(time.time() - (record.started or time.time()), 3),
        workers=result["workers"],
    )
    earlier = tuple(one for one in record.looks if one.epoch < look.epoch)
    known = {"looks": (*earlier, look), "pairs_seen": look.pairs_seen, "training_flops": training}
    return record.model_copy(update=known)


def why_stopped(record: TrialRecord, scheduler: str) -> str:
    last = record.looks[-1] if record.looks else None
    return (
        f"{scheduler}: validation loss {last.validation_loss:.4f} after epoch {last.epoch + 1}" if last else scheduler
    )


def in_words(record: TrialRecord, metric: str) -> str:
    """How a trial ended, in a line."""
    if record.state != "done":
        return f"{record.state} ({record.reason})"
    measured = record.metrics.get(metric)
    value = measured.value if measured else record.looks[-1].validation_loss if record.looks else None
    return f"{metric} {'not defined' if value is None else f'{value:.3f}'}"
