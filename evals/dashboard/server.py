"""The dashboard's server: read-only, for this machine unless told otherwise, and then only with a token."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from chexray.evals.dashboard.details import DetailReader
from chexray.evals.dashboard.page import policy, script_digests, served_page
from chexray.evals.dashboard.snapshot import SweepReader
from chexray.platform import storage
from chexray.platform.errors import UsageError

COOKIE = "chexray-dashboard"
FRESH_SECONDS = 2.0
"""As long a snapshot answers all who ask: several viewers are one reader of the bucket."""
_LOCAL_NAMES = {"localhost", "127.0.0.1", "[::1]"}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "chexray",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Middleware = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]


def is_local(host: str) -> bool:
    """Whether an address to listen at can be reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    return secrets.token_urlsafe(24)


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """A socket there, and its address for a browser. `UsageError` where that cannot be had."""
    name = host.strip("[]")
    try:
        found = socket.create_server((name, port), family=socket.AF_INET6 if ":" in name else socket.AF_INET)
    except OSError as error:
        raise UsageError(f"--host {host} --port {port}: {error.strerror or error}; give another") from error
    shown = f"[{name}]" if ":" in name else socket.gethostname() if name == "0.0.0.0" else name
    return found, f"http://{shown}:{found.getsockname()[1]}/"


def build_app(uri: str, token: str | None) -> web.Application:
    """The server of a sweep. Without a token it answers only those who call it by a name of this machine.

    Raises `UsageError` where there is no sweep.
    """
    source = _Source(uri)
    source.read()
    guards = (_secured, _with_token(token) if token else _only_local)
    app = web.Application(middlewares=[web.middleware(guard) for guard in guards])
    app.add_routes(
        [web.get("/", _page), web.get("/snapshot.json", source.snapshot), web.get("/details.json", source.details)]
    )
    return app


class _Source:
    """A sweep's JSON, and the digest by which a page knows that it has it already."""

    def __init__(self, uri: str) -> None:
        self._sweep, self._details = SweepReader(uri), DetailReader(uri)
        self._snapshot: dict[str, Any] = {}
        self._body, self._digest, self._read_at = b"", "", float("-inf")
        self._lock = asyncio.Lock()

    def read(self) -> None:
        self._snapshot = self._sweep.snapshot()
        self._body = json.dumps(self._snapshot, allow_nan=False).encode()
        content = {name: value for name, value in self._snapshot.items() if name != "read"}
        self._digest = f'"{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]}"'
        self._read_at = time.monotonic()

    async def snapshot(self, request: web.Request) -> web.Response:
        async with self._lock:
            if time.monotonic() - self._read_at > FRESH_SECONDS:
                try:
                    await asyncio.to_thread(self.read)
                except Exception as error:
                    problem = str(error) if isinstance(error, UsageError) else storage.explain(error)
                    if problem is None:
                        raise
                    return web.json_response({"problem": problem}, status=503)
            body, digest = self._body, self._digest
        if request.headers.get("If-None-Match") == digest:
            return web.Response(status=304, headers={"ETag": digest})
        return _compressed(web.Response(body=body, content_type="application/json", headers={"ETag": digest}))

    async def details(self, request: web.Request) -> web.Response:
        name = request.query.get("trial")
        found = [trial for trial in self._snapshot["trials"] if trial["name"] == name]
        if not found:
            raise web.HTTPNotFound(text="no such trial")
        value = await asyncio.to_thread(self._details.details, found[0])
        return _compressed(web.json_response(value, dumps=lambda one: json.dumps(one, allow_nan=False)))


async def _page(_: web.Request) -> web.Response:
    response = web.Response(text=served_page(), content_type="text/html")
    response.headers["Content-Security-Policy"] = policy(script_digests(), "'self'") + "; frame-ancestors 'none'"
    return _compressed(response)


async def _secured(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Also of refusals."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        response = error
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if isinstance(response, web.HTTPException):
        raise response
    return response


async def _only_local(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Another site's name may be made to lead to this machine; then a browser calls us by that name."""
    name = request.host if request.host.endswith("]") else request.host.rsplit(":", 1)[0]
    if name.lower() not in _LOCAL_NAMES:
        raise web.HTTPForbidden(text="this dashboard is for the machine that it runs on")
    return await handler(request)


def _with_token(token: str) -> Middleware:
    """The token comes in the address once, and from then on in a cookie that scripts and other sites cannot use.

    The page takes it out of the address bar.
    """

    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        by_address = _same(request.query.get("token", ""), token)
        if not by_address and not _same(request.cookies.get(COOKIE, ""), token):
            raise web.HTTPUnauthorized(text="give the address with the token, as chexray dashboard printed it")
        response = await handler(request)
        if by_address:  # no redirect: it would come without the cookie where another site's link led here
            response.set_cookie(COOKIE, token, httponly=True, samesite="Strict", secure=request.secure, path="/")
        return response

    return check


def _same(given: str, token: str) -> bool:
    """In a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode(), token.encode())


def _compressed(response: web.Response) -> web.Response:
    response.enable_compression()
    return response
