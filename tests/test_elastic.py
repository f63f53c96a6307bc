"""Pretraining on several real nodes of which one is killed: in a process of its own, as it needs a Ray of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).resolve().parents[1] / "benchmarks" / "chaos.py"


@pytest.mark.timeout(900)
def test_run_whose_node_is_killed_goes_on_with_fewer_and_then_more_workers_on_the_same_trajectory(
    tmp_path: Path,
) -> None:
    command = [sys.executable, str(CHAOS), str(tmp_path), "--kills", "1", "--nodes", "2", "--epochs", "30"]
    command += ["--after-steps", "60", "--latest", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=850, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert found["kills"] == 1
    assert len(found["starts"]) >= 2
    assert len({workers for _, workers in found["starts"]}) >= 2
    assert found["starts"][1][0] >= 40  # from a checkpoint, cut for another number of workers
    assert 0 < found["steps_repeated"] < 120
