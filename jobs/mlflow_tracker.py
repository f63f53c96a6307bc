"""Runs in MLflow (Apache-2.0), through `mlflow-skinny`: a server, or a folder of files."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from chexray.jobs.trackers import End, Point, TrackedRun, describe, require_package
from chexray.platform.errors import UsageError

ID_TAG = "chexray.run"
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # usage statistics, to its makers
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # for minutes; `tracking` has its own patience
}
_METRICS_AT_ONCE = 1000
_PARAMS_AT_ONCE = 100
"""Limits of MLflow's REST API."""


class MlflowTracker:
    """Finds its run by a tag. The parameters that a run has stay as they are: MLflow changes none."""

    name = "MLflow"

    def __init__(self) -> None:
        """Raises `UsageError` where the package is missing, or cannot report to what the environment says."""
        require_package("mlflow", "mlflow-skinny")
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            self._client: Any = MlflowClient()
        except MlflowException as error:
            raise UsageError(
                "run.trackers: mlflow has nowhere to report to; set MLFLOW_TRACKING_URI to a server (http://...), or "
                f"install the whole mlflow for a database ({describe(error)})"
            ) from None
        self._id = ""
        self._step = -1

    def open(self, run: TrackedRun) -> int:
        experiment = self._experiment()
        found = self._client.search_runs([experiment], f"tags.`{ID_TAG}` = '{run.id}'", max_results=1)
        if found:
            (shown,) = found
            self._client.update_run(shown.info.run_id, status="RUNNING")
        else:
            shown = self._client.create_run(experiment, tags={**run.tags, ID_TAG: run.id}, run_name=run.name)
        self._id = str(shown.info.run_id)
        self._add_params({name: value for name, value in run.params.items() if name not in shown.data.params})
        logged = self._client.get_metric_history(self._id, "train/loss")
        self._step = max((metric.step for metric in logged), default=-1)
        return self._step + 1

    def log(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, int(point.time * 1000), point.step)
            for point in points
            for name, value in point.values.items()
        ]
        for first in range(0, len(metrics), _METRICS_AT_ONCE):
            self._client.log_batch(self._id, metrics[first : first + _METRICS_AT_ONCE])
        self._step = points[-1].step

    def close(self, end: End, totals: Mapping[str, float]) -> None:
        self.log([Point(self._step, time.time(), dict(totals))])
        self._client.set_terminated(self._id, _STATUS[end])

    def _experiment(self) -> str:
        """The id of the environment's experiment, which is made where it is not there."""
        if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return given
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _add_params(self, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        rows = [Param(name, str(value)) for name, value in params.items()]
        for first in range(0, len(rows), _PARAMS_AT_ONCE):
            self._client.log_batch(self._id, params=rows[first : first + _PARAMS_AT_ONCE])
