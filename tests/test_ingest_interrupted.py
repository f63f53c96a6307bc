"""Ingestion as real processes that are killed, and over a storage that goes away: the corpus comes out the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from corpora import SALT, blobs, encoded
from s3_server import S3Server

from chexray.platform import storage
from chexray.platform.corpus.shards import list_shards

pytestmark = pytest.mark.usefixtures("ray_cluster")

PAIRS = 90
DEADLINE_SECONDS = 240


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with what there is to count: a copy, a truncated file, a missing one."""
    folder = tmp_path_factory.mktemp("source")
    lines = ["path,report,patient_id"]
    for number in range(PAIRS):
        data = encoded(blobs(3 if number == 50 else number, 200, 240))
        if number != 71:
            (folder / f"{number}.png").write_bytes(data[:900] if number == 70 else data)
        lines.append(f"{number}.png,Opacity number {number} in the left lung.,patient-{number // 2}")
    (folder / "pairs.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = str(tmp_path_factory.mktemp("undisturbed") / "corpus")
    finish(start(str(source), out))
    return content(out)


def start(root: str, out: str, own_ray: bool = False) -> subprocess.Popen[bytes]:
    """An ingestion as its own process, on the Ray of this session or on its own, which inherits our environment."""
    settings = ["ingest.shard_pairs=6", "ingest.codec=png", "ingest.short_side=128", "ingest.polarity=keep"]
    command = [sys.executable, "-m", "chexray.jobs.ingest", "folder", "--root", root, "--out", out]
    command += [f"--set={setting}" for setting in settings]
    if not own_ray:
        command += ["--address", ray.get_runtime_context().gcs_address]
    environment = {**os.environ, "CHEXRAY_SALT": SALT}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0, errors.decode()[-3000:]


def wait_for_shards(process: subprocess.Popen[bytes], out: str, number: int) -> None:
    """Return when the corpus has so many shards, or the process has ended."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while process.poll() is None and len(storage.list_files(f"{out}/shards", (".parquet",))) < number:
        assert time.monotonic() < deadline
        try:
            process.wait(timeout=0.02)
        except subprocess.TimeoutExpired:
            continue


def content(corpus: str) -> dict[str, bytes]:
    """Every file of a corpus but its manifest, which holds times."""
    return {
        file: storage.read_bytes(storage.join(corpus, file))
        for file in storage.list_files(corpus)
        if file not in ("manifest.json", "stage.json")
    }


def test_ingest_killed_at_three_random_moments_and_rerun_gives_the_same_bytes(
    source: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = str(tmp_path / "corpus")
    seed = time.time_ns() % 2**32
    print(f"seed {seed}")  # of the moments, shown where the test fails
    for shards in sorted(random.Random(seed).sample(range(14), 3)):
        process = start(str(source), out)
        wait_for_shards(process, out, shards)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(start(str(source), out))
    assert sum(shard.pairs for shard in list_shards(out)) == PAIRS - 3
    assert content(out) == undisturbed


@pytest.fixture
def server(tmp_path: Path) -> Iterator[S3Server]:
    """An S3 server of this test's own, with the credentials of the session's."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = S3Server(folder)
    try:
        server.start("restarted")
        yield server
    finally:
        server.stop()


def test_ingest_from_s3_to_s3_outlives_a_restart_of_the_server(
    source: Path, undisturbed: dict[str, bytes], server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is killed when a third of the shards is written, and comes back while the workers try again."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    storage.filesystem("s3://restarted")[0].clear_instance_cache()
    storage.upload_tree(source, "s3://restarted/source")
    process = start("s3://restarted/source", "s3://restarted/corpus", own_ray=True)
    wait_for_shards(process, "s3://restarted/corpus", 5)
    assert process.poll() is None
    server.stop()
    server.start("restarted")
    finish(process)
    assert content("s3://restarted/corpus") == undisturbed
