"""A job server that speaks Ray's protocol (version, packages, jobs, logs) and runs nothing: it keeps what it is sent.

Its jobs end as they are told to. What a real head does with them is in test_sdk.py.
"""

from __future__ import annotations

import asyncio
import io
import threading
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray
from aiohttp import web


@dataclass
class StubHead:
    """`token`: what it asks for, if anything. The rest: how a job that is submitted goes."""

    token: str | None = None
    ray_version: str = ray.__version__
    status: str = "SUCCEEDED"
    exit_code: int | None = 0
    message: str | None = None
    output: str = "step 1\nstep 2\n"
    still_runs: threading.Event | None = None
    """The end of the output waits for it."""
    breaks_off: bool = False
    """Whether the connection goes before the end of the output."""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    packages: dict[str, bytes] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    headers: list[str | None] = field(default_factory=list)
    """What each request had as its token."""
    address: str = ""

    def __enter__(self) -> StubHead:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def files(self) -> dict[str, str]:
        """What lies in the working folder that was sent along."""
        (name,) = [name for name in self.packages if name.endswith(".zip")]
        with zipfile.ZipFile(io.BytesIO(self.packages[name])) as archive:
            return {one: archive.read(one).decode() for one in archive.namelist() if not one.endswith("/")}

    async def _start(self) -> None:
        app = web.Application(client_max_size=2**26, middlewares=[self._asked])
        app.add_routes(
            [
                web.get("/api/version", self._version),
                web.get("/api/packages/{protocol}/{name}", self._has_package),
                web.put("/api/packages/{protocol}/{name}", self._take_package),
                web.post("/api/jobs/", self._take_job),
                web.get("/api/jobs/", self._list),
                web.get("/api/jobs/{id}", self._details),
                web.post("/api/jobs/{id}/stop", self._stop),
                web.get("/api/jobs/{id}/logs", self._logs),
                web.get("/api/jobs/{id}/logs/tail", self._tail),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.address = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    @web.middleware
    async def _asked(self, request: web.Request, handler: Any) -> web.StreamResponse:
        given = request.headers.get("Authorization")
        self.headers.append(given)
        if self.token is not None and given != f"Bearer {self.token}":
            return web.Response(status=401 if given is None else 403, text="Unauthorized")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": self.ray_version, "ray_commit": "x"})

    async def _has_package(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if request.match_info["name"] in self.packages else 404)

    async def _take_package(self, request: web.Request) -> web.Response:
        self.packages[request.match_info["name"]] = await request.read()
        return web.Response()

    async def _take_job(self, request: web.Request) -> web.Response:
        name = f"raysubmit_{len(self.jobs):016d}"
        self.jobs[name] = await request.json()
        return web.json_response({"job_id": name, "submission_id": name})

    def _of(self, name: str) -> dict[str, Any]:
        asked = self.jobs[name]
        return {
            "type": "SUBMISSION",
            "submission_id": name,
            "status": self.status,
            "entrypoint": asked["entrypoint"],
            "metadata": asked["metadata"],
            "message": self.message,
            "driver_exit_code": self.exit_code,
            "start_time": 1_790_000_000_000 + 1000 * list(self.jobs).index(name),
            "end_time": None if self.status in ("PENDING", "RUNNING") else 1_790_000_090_500,
        }

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response([self._of(name) for name in self.jobs])

    async def _details(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        return web.json_response(self._of(name)) if name in self.jobs else web.Response(status=404, text="no such job")

    async def _stop(self, request: web.Request) -> web.Response:
        self.stopped.append(request.match_info["id"])
        return web.json_response({"stopped": self.status in ("PENDING", "RUNNING")})

    async def _logs(self, _: web.Request) -> web.Response:
        return web.json_response({"logs": self.output})

    async def _tail(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for line in self.output.splitlines(keepends=True):
            await socket.send_str(line)
        while self.still_runs is not None and not self.still_runs.is_set():
            await asyncio.sleep(0.05)
        if self.breaks_off and request.transport is not None:
            request.transport.abort()
        await socket.close()
        return socket


def forget_clusters(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """No token and no head of this machine's own, and an empty folder as home and to stand in."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(home)
