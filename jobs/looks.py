"""A trial's looks at the validation split, as Tune is told of them. The controller imports this: nothing heavy."""

from __future__ import annotations

from typing import Any

from ray.tune.integration.ray_train import TuneReportCallback

PROGRESS = "progress"
"""How far a trial is, in per cent of its own budget."""


def progress_of(pairs_seen: int, planned: int) -> int:
    return round(100 * pairs_seen / planned)


class TellLooks(TuneReportCallback):  # type: ignore[misc]
    """Tells Tune of a run's looks. Called in the controller, for every checkpoint."""

    def __init__(self, planned_pairs: int) -> None:
        super().__init__()
        self._planned = planned_pairs

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        if metrics[0]["validation_loss"] is not None:
            progress = progress_of(metrics[0]["pairs_seen"], self._planned)
            super().after_report(run_context, [{**metrics[0], PROGRESS: progress}], None)
