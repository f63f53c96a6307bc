"""The script for Slurm: its options, and what it does with a signal. Slurm and Ray are stand-ins that note calls."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster_files import CLUSTER, DATA

SCRIPT = CLUSTER / "slurm" / "chexray.sbatch"
STAND_INS = {
    # As srun does: the step ends with it.
    "srun": 'echo "srun $*" >> "$NOTES"; while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"',
    "ray": """echo "ray $*" >> "$NOTES"
[ "$1" = start ] || exit 0
sleep infinity &
trap 'kill %1; echo "ray ended" >> "$NOTES"; exit 0' TERM
stat -c "token %a" "$RAY_AUTH_TOKEN_PATH" >> "$NOTES"
wait""",
    "scontrol": """echo "scontrol $*" >> "$NOTES"
[ "$1" != show ] || printf "first\\nsecond\\n\"""",
    "getent": 'echo "10.0.0.1 STREAM $2"',
    # Given a script on its input, it waits for both nodes, as the real one does.
    "python": f"""[ "$1" = - ] || exec {sys.executable} "$@"
until [ "$(grep -c "^token" "$NOTES")" = "$2" ]; do sleep 0.05; done""",
}
RUN = """
import os, pathlib, signal, sys
notes = pathlib.Path(os.environ["NOTES"])
def leave(*_):
    with notes.open("a") as file: file.write("run saved\\n")
    sys.exit(143)
signal.signal(signal.SIGTERM, leave)
token = pathlib.Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text().strip()
with notes.open("a") as file: file.write(f"run started {os.environ['RAY_ADDRESS']} {token}\\n")
ends = sys.argv[1]
sys.exit(int(ends)) if ends != "never" else signal.pause()
"""


@dataclass(frozen=True)
class Outcome:
    status: int
    notes: list[str]
    left: list[Path]


def run_script(tmp_path: Path, ends: str, script: str | None = None) -> Outcome:
    """Run the script with a run that `ends` with a status, or ('never') that Slurm's signal ends."""
    programs, notes, home = tmp_path / "venv" / "bin", tmp_path / "notes", tmp_path / "home"
    programs.mkdir(parents=True)
    home.mkdir()
    notes.touch()
    for name, body in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n")
        (programs / name).chmod(0o755)
    (programs / "activate").write_text(f"PATH={programs}:$PATH\n")
    (tmp_path / "run.py").write_text(RUN)
    (tmp_path / "script").write_text(script or SCRIPT.read_text())
    slurm = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2"}
    process = subprocess.Popen(
        ["bash", str(tmp_path / "script"), "python", str(tmp_path / "run.py"), ends],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "NOTES": str(notes),
            "CHEXRAY_VENV": str(programs.parent),
            **slurm,
            "SLURM_CPUS_PER_TASK": "8",
        },
    )
    if ends == "never":
        wait_for(lambda: "run started" in notes.read_text() or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
    status = process.wait(timeout=60)
    wait_for(lambda: notes.read_text().count("ray ended") == 2)
    return Outcome(status, notes.read_text().splitlines(), list(home.iterdir()))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def option_problems(text: str) -> list[str]:
    """Options that Slurm does not document, or that come after the first command, where it no longer reads them."""
    words = (DATA / "sbatch-options.txt").read_text().split("\n", 1)[1].split()
    lines = text.splitlines()
    command = next(at for at, line in enumerate(lines) if line.strip() and not line.startswith("#"))
    problems = [line for line in lines[command:] if line.startswith("#SBATCH")]
    for line in lines[:command]:
        if line.startswith("#SBATCH"):
            found = re.fullmatch(r"#SBATCH --([a-z-]+)(=\S+)?", line)
            problems += [] if found and found.group(1) in words else [line]
    return problems


def test_script_is_bash_and_its_options_are_slurms() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    text = SCRIPT.read_text()
    assert option_problems(text) == []
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", text, re.M))
    assert options["signal"] == "B:TERM@120"  # to the script alone, two minutes before the end
    assert options["requeue"] == ""
    assert options["open-mode"] == "append"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("--gpus-per-node", "--gpu-per-node"),
        ("--requeue", "--requeued"),
        ("set -euo", "true\n#SBATCH --nodes=3\nset -euo"),
    ],
)
def test_script_with_an_option_that_slurm_does_not_read_is_refused(before: str, after: str) -> None:
    assert len(option_problems(SCRIPT.read_text().replace(before, after))) == 1


def test_script_that_is_not_bash_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text(SCRIPT.read_text().replace("\nfi\n", "\n", 1))
    assert subprocess.run(["bash", "-n", str(broken)], capture_output=True, check=False).returncode != 0


def test_signal_before_the_limit_reaches_the_run_first_and_puts_the_job_back(tmp_path: Path) -> None:
    outcome = run_script(tmp_path, "never")
    assert outcome.status == 143
    assert outcome.notes.index("run saved") < outcome.notes.index("scontrol requeue 4711")
    assert outcome.notes.index("scontrol requeue 4711") < outcome.notes.index("ray ended")
    worker, head = sorted(note for note in outcome.notes if note.startswith("srun"))
    assert "--nodelist=first ray start --head" in head
    assert "--dashboard-host=127.0.0.1" in head
    assert "--nodes=1 --ntasks=1 --exclude=first ray start --block --address=10.0.0.1:24711" in worker
    assert outcome.notes.count("ray ended") == 2


def test_token_is_new_unreadable_to_others_on_no_command_line_and_gone_afterwards(tmp_path: Path) -> None:
    outcomes = [run_script(tmp_path / one, "0") for one in "ab"]
    tokens = set()
    for outcome in outcomes:
        (started,) = [note for note in outcome.notes if note.startswith("run started")]
        _, _, address, token = started.split()
        assert address == "10.0.0.1:24711"
        assert re.fullmatch(r"[0-9a-f]{64}", token)
        assert [note for note in outcome.notes if token in note] == [started]
        assert outcome.notes.count("token 600") == 2
        assert outcome.left == []
        tokens.add(token)
    assert len(tokens) == 2


@pytest.mark.parametrize("status", [0, 1, 143])
def test_run_that_ends_by_itself_ends_the_job_and_puts_nothing_back(tmp_path: Path, status: int) -> None:
    outcome = run_script(tmp_path, str(status))
    assert outcome.status == status
    assert not any("requeue" in note for note in outcome.notes)
    assert outcome.left == []


def test_script_that_does_not_pass_the_signal_on_loses_the_checkpoint(tmp_path: Path) -> None:
    text = SCRIPT.read_text()
    broken = re.sub(r"^trap 'stopped=yes.*$", "trap 'kill -KILL \"$run\"' TERM", text, flags=re.M)
    assert broken != text
    outcome = run_script(tmp_path, "never", broken)
    assert "run saved" not in outcome.notes
    assert not any("requeue" in note for note in outcome.notes)
