"""A sweep whose driver, and all that it started, is killed: it goes on, to the table of one that nobody disturbed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from small_runs import SMALL

from chexray.platform.sweep.records import TrialRecord, read_plan, read_trials

DEADLINE_SECONDS = 900
SPACE = {
    "methods": ["random", "semdedup"],
    "keep": [0.4, 1.0],
    "budgets": [2],
    "scheduler": {"name": "none", "looks": 2},
}
TRIALS = 3


def _start(*options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "chexray.jobs.sweep", *options, "--concurrent", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def _begin(corpus: str, out: Path, folder: Path) -> subprocess.Popen[bytes]:
    space = folder / "space.yaml"
    space.write_text(yaml.safe_dump(SPACE))
    options = ["--corpus", corpus, "--out", str(out), "--space", str(space)]
    return _start(*options, *(f"--set={setting}" for setting in SMALL))


def _trials(out: Path) -> list[TrialRecord]:
    return read_trials(str(out), read_plan(str(out)).trials) if (out / "sweep.json").exists() else []


def _kill_midway(process: subprocess.Popen[bytes], out: Path) -> dict[str, str]:
    """Everything at once, with a trial done and one in the middle; what each trial's state was."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        states: dict[str, str] = {record.name: record.state for record in _trials(out)}
        looked = [record.name for record in _trials(out) if record.state == "running" and record.looks]
        if "done" in states.values() and looked:
            break
        assert process.poll() is None, process.communicate()[1].decode()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        one.kill()
    process.communicate(timeout=60)
    return states


@pytest.fixture(scope="module")
def undisturbed(small_corpus: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The table of a sweep that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert _begin(small_corpus, folder / "out", folder).wait(timeout=DEADLINE_SECONDS) == 0
    return (folder / "out" / "conclusions.csv").read_text()


@pytest.mark.slow
@pytest.mark.timeout(3 * DEADLINE_SECONDS)
def test_sweep_of_which_everything_is_killed_goes_on_to_the_table_of_an_undisturbed_one(
    small_corpus: str, undisturbed: str, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    states = _kill_midway(_begin(small_corpus, broken, tmp_path), broken)
    done = [name for name, state in states.items() if state == "done"]
    before = {name: (broken / "trials" / name / "trial.json").read_bytes() for name in done}

    resumed = _start("--resume", str(broken))
    said = resumed.communicate(timeout=DEADLINE_SECONDS)
    assert resumed.returncode == 0, said[1].decode()[-3000:]
    assert {name: (broken / "trials" / name / "trial.json").read_bytes() for name in done} == before
    assert len(_trials(broken)) == TRIALS
    assert (broken / "conclusions.csv").read_text() == undisturbed
    assert undisturbed.count("\n") > 1


@pytest.mark.slow
@pytest.mark.timeout(3 * DEADLINE_SECONDS)
def test_sweep_of_which_a_node_is_killed_goes_on_by_itself_to_the_same_table(
    small_corpus: str, undisturbed: str, tmp_path: Path
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump(SPACE))
    script = Path(__file__).with_name("sweep_on_nodes.py")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, str(script), small_corpus, str(tmp_path / "out"), str(space)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert "killed a node" in done.stdout
    assert (tmp_path / "out" / "conclusions.csv").read_text() == undisturbed
