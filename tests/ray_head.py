"""A real Ray cluster of one node that asks for a token, from `ray start`: in its own folder, on its own ports."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from s3_server import free_ports

from chexray.platform.errors import UnreachableError
from chexray.platform.sdk import Client

START_SECONDS, STOP_SECONDS, COMMAND_SECONDS = 90, 5, 240
_PORTS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "ray-client-server-port",
    "metrics-export-port",
    "node-manager-port",
    "object-manager-port",
)
_OPTIONS = (
    *("--head", "--block", "--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1"),
    *("--num-cpus", "2", "--object-store-memory", "200000000", "--disable-usage-stats"),
    *("--min-worker-port", "0", "--max-worker-port", "0"),
)


class RayHead:
    """Its token is in a file of its own; its processes know of no other home, and of no checkout on PYTHONPATH."""

    def __init__(self) -> None:
        # Short, as paths of sockets hold 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="cx-"))
        self.token = secrets.token_hex(16)
        (self.folder / "token").write_text(self.token)
        self._ports = free_ports(_PORTS)
        self._log = self.folder / "start.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._ports['dashboard-port']}"

    def start(self) -> Client:
        """Start, and wait until the job server answers. Fails with Ray's last words."""
        ports = [f"--{name}={port}" for name, port in self._ports.items()]
        command = [str(Path(sys.executable).parent / "ray"), "start", *_OPTIONS, *ports, "--temp-dir", str(self.folder)]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, env=self._environment(), cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return Client(self.address, self.token)
            except UnreachableError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"no Ray within {START_SECONDS} s ({error}):\n{self._log.read_text()[-2000:]}")
            try:
                self._process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                continue

    def processes(self) -> list[psutil.Process]:
        """`ray start` and all that it started: with --block they stay its children."""
        if self._process is None or self._process.poll() is not None:
            return []
        parent = psutil.Process(self._process.pid)
        return [parent, *parent.children(recursive=True)]

    def stop(self) -> None:
        """End exactly these processes (`ray stop` would end those of every cluster), and remove the folder."""
        started = self.processes()
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(started, timeout=STOP_SECONDS)
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, timeout=STOP_SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))}
        # Jobs start `python`, and Ray installs their wheels with `pip`.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"), "HOME": str(self.folder)}
        return {**inherited, **own, "PATH": path}


def run_chexray(*words: str) -> subprocess.CompletedProcess[str]:
    """`chexray WORDS` as a process of its own."""
    command = [sys.executable, "-c", "from chexray.platform.cli import main; main()", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
