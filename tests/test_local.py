"""What a job asks of Ray before it starts."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from chexray.cluster.local import require_resources
from chexray.platform.config import Runtime
from chexray.platform.errors import UsageError


@pytest.mark.usefixtures("ray_cluster")
def test_resources_of_scorers_are_asked_for_where_each_takes_a_gpu() -> None:
    with pytest.raises(UsageError, match=r"--workers 2 --scorers 3 --gpu: needs 5 GPUs, Ray has 0"):
        require_resources(Runtime(workers=2, scorers=3, gpu=True), scorers=3)
    with pytest.raises(UsageError, match=r"--workers 2 --gpu: needs 2 GPUs, Ray has 0"):
        require_resources(Runtime(workers=2, scorers=3, gpu=True))


@pytest.mark.usefixtures("ray_cluster")
def test_resources_of_scorers_on_cpus_are_the_workers_own() -> None:
    require_resources(Runtime(workers=1, scorers=100), scorers=100)
    with pytest.raises(UsageError, match="--workers 100: needs 101 CPUs"):
        require_resources(Runtime(workers=100))


def test_address_where_nobody_listens_is_refused_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        # In a process of its own, as this one is connected to a Ray.
        program = (
            "from chexray.cluster.local import ray_session; from chexray.platform.config import Runtime\n"
            f"with ray_session(Runtime(address={address!r})): pass"
        )
        # Ray's own attempts take 5 minutes and more.
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert f"UsageError: --address {address}: no Ray cluster answers there" in done.stderr


def test_ray_that_does_not_start_is_an_error_in_words() -> None:
    program = (
        "import ray; from chexray.cluster.local import start_local; from chexray.platform.config import Runtime\n"
        "def init(**_): raise RuntimeError('The current node timed out during startup.\\nMore.')\n"
        "ray.init = init; start_local(Runtime())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=False)
    assert "ChexrayError: Ray did not start on this machine: The current node timed out during startup.;" in done.stderr
