"""A run as the cluster's list has it: what it is, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from chexray.platform.submission import JOB_KEY, OUT_KEY

Status = Literal["PENDING", "RUNNING", "SUCCEEDED", "STOPPED", "FAILED"]


@dataclass(frozen=True)
class RunRecord:
    """`started`, `ended`: seconds since 1970, None where that has not come yet. `out`: the artifact that it writes."""

    id: str
    job: str
    out: str | None
    status: Status
    started: float | None
    ended: float | None

    def seconds(self, now: float) -> float | None:
        """How long it has run, until `now` (seconds since 1970) where it still does."""
        return None if self.started is None else max(0.0, (self.ended or now) - self.started)


def record_of(details: Any) -> RunRecord | None:
    """Of Ray's JobDetails; None of what was not submitted as a job of chexray."""
    metadata = details.metadata or {}
    if details.submission_id is None or JOB_KEY not in metadata:
        return None
    started, ended = (None if time is None else time / 1000 for time in (details.start_time, details.end_time))
    status: Status = details.status.value
    return RunRecord(details.submission_id, metadata[JOB_KEY], metadata.get(OUT_KEY), status, started, ended)
