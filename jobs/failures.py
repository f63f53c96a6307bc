"""From what Ray raises to what went wrong."""

from __future__ import annotations

from ray.exceptions import RayTaskError
from ray.train.v2.api.exceptions import WorkerGroupError


def cause_of(error: BaseException) -> BaseException:
    """The first failure of user code inside the errors that Ray's layers wrap around it."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        inner: BaseException | None = None
        if isinstance(error, WorkerGroupError) and error.worker_failures:
            inner = next(iter(error.worker_failures.values()))
        elif isinstance(error, RayTaskError):
            inner = error.cause if isinstance(error.cause, BaseException) else None
        inner = inner or error.__cause__
        if inner is None:
            return error
        error = inner
    return error
