"""The dashboard's server: whom it answers, what it tells browsers not to do, and that a page learns of news."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from made_sweep import made_space, made_sweep
from typer.testing import CliRunner

from chexray.evals.dashboard import server
from chexray.evals.dashboard.server import COOKIE, build_app, is_local, listen, new_token
from chexray.platform.cli import app as cli
from chexray.platform.dashboard_cli import TOKEN_VARIABLE
from chexray.platform.errors import UsageError

TOKEN = "a-token-of-enough-characters"
HOSTILE = "</script><img src=x onerror=alert(1)>"
PATHS = ("/", "/snapshot.json", "/details.json?trial=full-2x-s0", "/nowhere")

Client = TestClient[Any, Any]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made_sweep(tmp_path_factory.mktemp("server") / "sweep", space=made_space(1), text=HOSTILE, steps=20)


def ask(uri: str, token: str | None, questions: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        async with TestClient(TestServer(build_app(uri, token))) as client:
            await questions(client)

    asyncio.run(run())


def test_server_answers_this_machine_by_its_own_names_only(sweep: str) -> None:
    async def questions(client: Client) -> None:
        for host in ("127.0.0.1", "localhost:8270", "LOCALHOST", "[::1]:80", "[::1]"):
            assert (await client.get("/snapshot.json", headers={"Host": host})).status == 200, host
        for host in ("evil.example", "evil.example:8270", "127.0.0.1.evil.example", "localhost.evil.example:80", ""):
            for path in PATHS:
                assert (await client.get(path, headers={"Host": host})).status == 403, host

    ask(sweep, None, questions)


def test_server_with_a_token_asks_for_it_everywhere(sweep: str) -> None:
    async def questions(client: Client) -> None:
        for path in PATHS:
            for given in ("", "?token=", f"?token={TOKEN}x", f"?token={TOKEN[:-1]}"):
                answer = await client.get(path.split("?")[0] + given)
                assert answer.status == 401
                assert "Set-Cookie" not in answer.headers
                assert "random" not in await answer.text()
        assert (await client.get("/snapshot.json", headers={"Cookie": f"{COOKIE}=wrong"})).status == 401

    ask(sweep, TOKEN, questions)


def test_token_in_the_address_becomes_a_cookie_that_suffices(sweep: str) -> None:
    async def questions(client: Client) -> None:
        answer = await client.get(f"/?token={TOKEN}", headers={"Host": "node-7.cluster:8270"})
        assert answer.status == 200
        cookie = answer.headers["Set-Cookie"]
        assert re.search(r"HttpOnly", cookie)
        assert re.search(r"SameSite=Strict", cookie)
        assert TOKEN not in await answer.text()
        client.session.cookie_jar.clear()
        given = {"Cookie": f"{COOKIE}={TOKEN}", "Host": "node-7.cluster:8270"}
        answer = await client.get("/snapshot.json", headers=given)
        assert answer.status == 200
        assert "Set-Cookie" not in answer.headers

    ask(sweep, TOKEN, questions)


@pytest.mark.parametrize("token", [None, TOKEN])
def test_every_answer_has_the_headers_of_safety(sweep: str, token: str | None) -> None:
    async def questions(client: Client) -> None:
        for path in PATHS:
            for cookie in ({}, {"Cookie": f"{COOKIE}={TOKEN}"}):
                answer = await client.get(path, headers=cookie)
                assert answer.headers["X-Frame-Options"] == "DENY"
                assert answer.headers["Cache-Control"] == "no-store"
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Referrer-Policy"] == "no-referrer"
                policy = answer.headers["Content-Security-Policy"]
                assert policy.startswith("default-src 'none'; ")
                assert "frame-ancestors 'none'" in policy
                assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]

    ask(sweep, token, questions)


def test_server_changes_nothing(sweep: str) -> None:
    async def questions(client: Client) -> None:
        for path in PATHS:
            for method in ("POST", "PUT", "DELETE", "PATCH"):
                assert (await client.request(method, path)).status in (404, 405)

    before = sorted((str(file), file.stat().st_mtime_ns) for file in Path(sweep).rglob("*"))
    ask(sweep, None, questions)
    assert sorted((str(file), file.stat().st_mtime_ns) for file in Path(sweep).rglob("*")) == before


def test_other_peoples_text_is_not_in_the_served_page(sweep: str) -> None:
    async def questions(client: Client) -> None:
        assert "onerror=alert" not in await (await client.get("/")).text()
        answer = await client.get("/snapshot.json")
        assert answer.content_type == "application/json"
        assert (await answer.json())["conclusions"]["lines"][-1] == HOSTILE

    ask(sweep, None, questions)


def test_details_are_of_known_trials_only(sweep: str) -> None:
    async def questions(client: Client) -> None:
        found = await (await client.get("/details.json", params={"trial": "prototype-0.1-2x-s0"})).json()
        assert len(found["history"]["loss"]) == 20
        assert found["subset"]["path"] == "subsets/prototype-0.1-s0"
        for name in ("../../etc/passwd", "", "no-such-trial"):
            assert (await client.get("/details.json", params={"trial": name})).status == 404
        assert (await client.get("/details.json")).status == 404

    ask(sweep, None, questions)


def test_page_that_has_the_numbers_is_told_so_until_there_are_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "FRESH_SECONDS", 0.0)
    uri = made_sweep(tmp_path / "sweep", running=True, space=made_space(1), steps=20)

    async def questions(client: Client) -> None:
        first = await client.get("/snapshot.json")
        have = {"If-None-Match": first.headers["ETag"]}
        assert (await client.get("/snapshot.json", headers=have)).status == 304
        next(one for one in Path(uri, "trials").rglob("trial.json") if '"running"' in one.read_text()).unlink()
        assert (await client.get("/snapshot.json", headers=have)).status == 200
        Path(uri, "sweep.json").unlink()
        gone = await client.get("/snapshot.json")
        assert gone.status == 503
        assert "not a sweep" in (await gone.json())["problem"]

    ask(uri, None, questions)


def test_server_without_a_sweep_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a sweep"):
        build_app(str(tmp_path), None)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.7", "node-7", "")),
    ],
)
def test_only_addresses_of_this_machine_are_local(host: str, local: bool) -> None:
    assert is_local(host) is local


def test_port_that_is_taken_is_an_error_that_names_it() -> None:
    taken, address = listen("127.0.0.1", 0)
    port = taken.getsockname()[1]
    assert address == f"http://127.0.0.1:{port}/"
    with taken, pytest.raises(UsageError, match=f"--port {port}: "):
        listen("127.0.0.1", port)


def test_tokens_are_long_and_differ() -> None:
    assert len({new_token() for _ in range(50)}) == 50
    assert min(len(new_token()) for _ in range(50)) >= 32


def test_short_token_of_the_environment_is_refused(sweep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "short")
    result = CliRunner().invoke(cli, ["dashboard", sweep, "--host", "0.0.0.0"])
    assert isinstance(result.exception, UsageError)
    assert str(result.exception) == f"{TOKEN_VARIABLE}: 5 characters; give 16 or more"


def test_export_writes_one_file(sweep: str, tmp_path: Path) -> None:
    to = tmp_path / "page.html"
    result = CliRunner().invoke(cli, ["dashboard", sweep, "--export", str(to)])
    assert result.exit_code == 0, result.output
    assert result.output.split() == ["written:", str(to)]
    page = to.read_text()
    assert "onerror=alert" in page
    assert HOSTILE not in page
    refused = CliRunner().invoke(cli, ["dashboard", sweep, "--export", str(tmp_path)])
    assert "is a folder" in str(refused.exception)
