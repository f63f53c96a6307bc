"""A Ray to run on: the cluster that is there, or one started on this machine with explicit resources."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import joblib
import ray
from ray.data import DataContext

from chexray.platform.config import Runtime
from chexray.platform.errors import ChexrayError, UsageError, first_line

OBJECT_STORE_BYTES = 1_000_000_000
_ANSWER_SECONDS = 10
SPARE_CPUS = 1
"""Logical CPUs beyond the trainers': without one the tasks that feed a trainer would wait for it for ever."""


@contextmanager
def ray_session(runtime: Runtime, scorers: int = 0) -> Iterator[None]:
    """Connect to Ray for the time of a job, and disconnect from what was connected to or started here.

    Inside a submitted job, or with `runtime.address`, the cluster's own Ray; else a local one that ends with the
    session. Does nothing where this process is connected already. `scorers`: how many work beside the workers.
    """
    if ray.is_initialized():
        require_resources(runtime, scorers)
        yield
        return
    quiet()
    address = runtime.address or os.environ.get("RAY_ADDRESS")
    if address:
        _require_answer(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise UsageError(f"--address {address}: no Ray cluster answers there") from error
    else:
        start_local(runtime)
    try:
        require_resources(runtime, scorers)
        yield
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Raise `UsageError` at once where nobody listens: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return  # a name that Ray finds by itself, as 'auto'
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        raise UsageError(f"--address {address}: no Ray cluster answers there ({error.strerror or error})") from error


def require_resources(runtime: Runtime, scorers: int = 0) -> None:
    """Raise `UsageError` where Ray lacks what the workers, and scorers beside them, need: it would wait for ever."""
    # Scorers take a GPU each; on CPUs they share the trainers' cores.
    workers = runtime.min_workers or runtime.workers
    name, needed = ("GPU", workers + scorers) if runtime.gpu else ("CPU", workers + SPARE_CPUS)
    have = ray.cluster_resources().get(name, 0)
    if have < needed:
        beside = f" --scorers {scorers}" if runtime.gpu and scorers else ""
        flags = f"--{'min-' if runtime.min_workers else ''}workers {workers}{beside}" + (
            " --gpu" if runtime.gpu else ""
        )
        raise UsageError(f"{flags}: needs {needed} {name}s, Ray has {have:g}")


def start_local(runtime: Runtime) -> None:
    cores = runtime.cpus or joblib.cpu_count()
    try:
        ray.init(
            address="local",
            num_cpus=max(cores, runtime.workers + SPARE_CPUS),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (RuntimeError, ConnectionError, TimeoutError) as error:
        raise ChexrayError(
            f"Ray did not start on this machine: {first_line(error)}; is it busy with something else, or out of memory "
            "or of space below the temporary folder? Try again, or give the --address of a cluster"
        ) from error


def quiet() -> None:
    """Keep Ray's own chatter out of the job's output; errors still come through."""
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A stage may wait long for its consumer (a training step on a slow machine): that is no failure.
    context.execution_no_progress_timeout_s = -1
