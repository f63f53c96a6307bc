"""What a job asks of Ray before it starts."""

from __future__ import annotations

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
