"""Pretraining as a process that is killed or stopped, with a damaged checkpoint: it ends in the same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from s3_server import S3Server
from safetensors.torch import load_file
from small_runs import SMALL

from chexray.platform import storage
from chexray.platform.artifacts import read_manifest
from chexray.platform.training.state import damage

SAVING = ("run.checkpoint_steps=2", "run.read_steps=1", "run.checkpoints_kept=4")
DEADLINE_SECONDS = 300


def start(corpus: str, out: str, *more: str) -> subprocess.Popen[bytes]:
    """A run on a Ray of its own."""
    command = [sys.executable, "-m", "chexray.jobs.pretrain", "--corpus", corpus, "--out", out]
    command += [f"--set={setting}" for setting in (*SMALL, *SAVING, *more)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def wait_until(found: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not found():
        assert process.poll() is None, process.communicate()[1].decode()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def known(run: Path) -> list[str]:
    """The checkpoints that Ray Train counts on, oldest first."""
    snapshot = run / "checkpoint_manager_snapshot.json"
    if not snapshot.exists():
        return []
    try:
        results = json.loads(snapshot.read_text())["checkpoint_results"]
    except ValueError:  # it is being written
        return []
    return sorted(result["checkpoint_dir_name"] for result in results)


def weights_of(uri: str) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = load_file(f"{uri}/open_clip_model.safetensors")
    return loaded


def check_same_end(out: str, undisturbed: str) -> None:
    ended, expected = weights_of(out), weights_of(undisturbed)
    assert max(float((ended[name] - expected[name]).abs().max()) for name in expected) == 0.0
    assert read_manifest(out).counts["accounts"] == read_manifest(undisturbed).counts["accounts"]


def test_run_of_which_everything_is_killed_goes_on_from_the_newest_checkpoint_that_is_whole(
    small_corpus: str, small_checkpoint: str, tmp_path: Path
) -> None:
    out, run = str(tmp_path / "out"), tmp_path / "out" / "state" / "run"
    first = start(small_corpus, out)
    wait_until(lambda: len(known(run)) >= 2, first)
    for process in [*psutil.Process(first.pid).children(recursive=True), psutil.Process(first.pid)]:
        process.kill()
    first.communicate(timeout=DEADLINE_SECONDS)

    newest = run / known(run)[-1]
    state = next(newest.glob("state/*optim_states.pt"))
    state.write_bytes(state.read_bytes()[:-100])
    second = start(small_corpus, out)
    errors = second.communicate(timeout=DEADLINE_SECONDS)[1].decode()
    assert second.returncode == 0, errors[-3000:]
    assert f"checkpoint {newest.name} is skipped" in errors
    check_same_end(out, small_checkpoint)


@pytest.mark.slow
def test_run_that_is_asked_to_stop_saves_a_checkpoint_and_leaves_and_goes_on_later(
    small_corpus: str, small_checkpoint: str, tmp_path: Path
) -> None:
    out, run = str(tmp_path / "out"), tmp_path / "out" / "state" / "run"
    first = start(small_corpus, out, "run.checkpoint_steps=1000", "run.checkpoint_epochs=2")
    wait_until(lambda: known(run), first)
    first.send_signal(signal.SIGTERM)
    errors = first.communicate(timeout=DEADLINE_SECONDS)[1].decode()
    assert first.returncode == 143, errors[-3000:]
    assert "stopped on request" in errors
    saved = json.loads((run / known(run)[-1] / "run.json").read_text())["next_step"]
    second = start(small_corpus, out)
    assert second.wait(DEADLINE_SECONDS) == 0
    check_same_end(out, small_checkpoint)
    assert read_manifest(out).counts["starts"][0]["step"] == saved


@pytest.fixture
def server(tmp_path: Path, s3: str) -> Iterator[S3Server]:
    """An S3 server of this test's own, with the credentials of the session's."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = S3Server(folder)
    try:
        server.start("away")
        yield server
    finally:
        server.stop()


@pytest.mark.slow
def test_run_trains_on_while_the_storage_is_away_and_its_checkpoint_arrives_later(
    small_corpus: str, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    storage.filesystem("s3://away")[0].clear_instance_cache()
    rare = ("train.epochs=40", "run.checkpoint_steps=1000", "run.checkpoint_epochs=20")
    process, run = start(small_corpus, "s3://away/out", *rare), "s3://away/out/state/run"
    wait_until(lambda: storage.list_files(run, ("run.json",)), process)
    server.stop()
    away = time.time()
    time.sleep(60)  # what is tested is a storage that is away for a minute
    assert process.poll() is None
    back = time.time()
    server.start("away")
    errors = process.communicate(timeout=DEADLINE_SECONDS)[1].decode()
    assert process.returncode == 0, errors[-3000:]
    history = [json.loads(line) for line in storage.read_bytes("s3://away/out/history.jsonl").splitlines()]
    meanwhile = [step for step in history if away < step["time"] < back]
    print(f"{len(meanwhile)} of {len(history)} steps while the storage was away")
    assert len(meanwhile) > 10
    assert len(read_manifest("s3://away/out").counts["accounts"]) == 40
    # The one that was saved meanwhile. (One that was on its way when the server died may be in pieces: see `damage`.)
    saved = {file.split("/")[0] for file in storage.list_files(run, ("run.json",))}
    with storage.local_copy(storage.join(run, max(saved))) as folder:
        assert damage(folder) is None
        assert json.loads((folder / "run.json").read_text())["next_step"] == len(history)
