"""The SDK against a real Ray head that asks for a token, and what it says when something is wrong."""

from __future__ import annotations

import http.server
import json
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from corpora import CONFIG, pair, write_corpus
from ranks import MODEL
from ray_head import RayHead, run_chexray
from s3_server import free_ports

from chexray.platform import storage
from chexray.platform.artifacts import Stage
from chexray.platform.config import IngestConfig
from chexray.platform.errors import (
    ChexrayError,
    RunFailedError,
    RunRefusedError,
    RunTimeoutError,
    RunUnfinishedError,
    StoppedError,
    TokenError,
    UnreachableError,
    UsageError,
)
from chexray.platform.head import checked_address, find_token
from chexray.platform.model.checkpoint import export_checkpoint
from chexray.platform.model.encoder import build_model
from chexray.platform.sdk import Client, Run, last_error

SECRET = "s3cret-of-ours"
JOB_SECONDS = 240


@pytest.fixture(autouse=True)
def no_token_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This process has no token of its own, and no home with one."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("head:8265", "http://head:8265"),
        ("http://head:8265/", "http://head:8265"),
        ("https://ray.example/cluster/", "https://ray.example/cluster"),
        ("http://[::1]:8265", "http://[::1]:8265"),
    ],
)
def test_address_is_completed(given: str, address: str) -> None:
    assert checked_address(given) == address


@pytest.mark.parametrize("given", ["ray://head:10001", "", "http://", "head:port", "s3://bucket"])
def test_address_of_something_else_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="http://HEAD:8265"):
        checked_address(given)


def test_address_with_a_password_is_refused_without_it() -> None:
    with pytest.raises(UsageError, match="token=") as refused:
        checked_address(f"https://me:{SECRET}@head")
    assert SECRET not in str(refused.value)


def test_token_is_looked_for_where_ray_keeps_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find_token(None) == (None, None)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("in-the-home\n")
    assert find_token(None) == ("in-the-home", "~/.ray/auth_token")
    (tmp_path / "named").write_text("named")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "named"))
    assert find_token(None)[0] == "named"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "in-the-environment")
    assert find_token(None)[0] == "in-the-environment"
    assert find_token("given")[0] == "given"


@pytest.mark.parametrize("token", ["", " ", f"{SECRET} {SECRET}", f"{SECRET}\nHost: x", f"{SECRET}é"])
def test_token_that_is_none_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(UsageError, match="not a token") as refused:
        find_token(token)
    assert SECRET not in str(refused.value)


def test_token_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "no"))
    with pytest.raises(UsageError, match=r"RAY_AUTH_TOKEN_PATH=.*/no: cannot be read"):
        find_token(None)


@pytest.mark.parametrize(
    ("output", "error"),
    [
        ("", None),
        ("fine\n", "fine"),
        ("start\nerror: --corpus x: no such folder\n\n", "error: --corpus x: no such folder"),
        ("\x1b[31merror: red\x1b[0m\n(pid=1) bye\n", "error: red"),
        ('Traceback ...\n  raise ValueError("x")\nValueError: x\n', "ValueError: x"),
        ("a.b.SomeError: one\nerror: two\n", "error: two"),
    ],
)
def test_last_error_is_the_line_that_names_it(output: str, error: str | None) -> None:
    assert last_error(output) == error


def test_head_that_is_not_there_is_unreachable() -> None:
    address = f"http://127.0.0.1:{free_ports(('head',))['head']}"
    with pytest.raises(UnreachableError, match=r"Connection refused.*is it up") as refused:
        Client(address, SECRET)
    assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_server_that_is_not_ray_is_told_from_a_head() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(UnreachableError, match=r"HTTP 501.*not Ray's dashboard"):
            Client(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_token_over_plain_http_beyond_this_machine_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="plain text") as warned, pytest.raises(UnreachableError):
        Client("http://head.invalid:8265", SECRET)
    assert SECRET not in str(warned[0].message)


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    started = RayHead()
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture
def client(head: RayHead) -> Client:
    return Client(head.address, head.token)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of 24 pairs of 8 patients, all in the test split."""
    config = IngestConfig.model_validate({**CONFIG.model_dump(), "split": "test"})
    pairs = [pair(n, labels={"Pneumonia": n % 2 == 0, "Edema": n % 3 == 0}) for n in range(24)]
    return write_corpus(tmp_path_factory.mktemp("sdk-corpus"), pairs, config=config)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Untrained."""
    stage = Stage(str(tmp_path_factory.mktemp("sdk") / "checkpoint"), "checkpoint", {})
    stage.begin()
    export_checkpoint(stage.uri, build_model(MODEL, 0).state_dict(), MODEL)
    stage.finish({})
    return stage.uri


def test_evaluation_goes_to_the_cluster_and_its_results_come_back(
    client: Client, corpus: str, checkpoint: str, tmp_path: Path
) -> None:
    out = str(tmp_path / "scores")
    run = client.submit_evals(
        checkpoint=checkpoint,
        corpus=corpus,
        benchmarks=["zero_shot", "retrieval"],
        out=out,
        resources={"cpus": 0.5},
        settings={"evaluate.bootstrap": 20, "evaluate.min_positives": 2},
    )
    assert run.status() in ("PENDING", "RUNNING")
    followed = "".join(run.logs(follow=True))
    assert run.wait(timeout=JOB_SECONDS).status() == "SUCCEEDED", followed
    assert "recall@1" in followed
    assert followed.strip() == run.logs().strip()
    rows = storage.read_json(f"{out}/results.json")
    results, frame = run.results(), run.results_frame()
    assert [(one.metric, one.finding, one.value) for one in results] == [
        (row["metric"], row["finding"], row["value"]) for row in rows
    ]
    assert frame.to_dict("records")[0].keys() == rows[0].keys()
    assert list(frame.columns[:5]) == ["benchmark", "metric", "variant", "finding", "value"]
    assert frame["n"].tolist() == [row["n"] for row in rows]
    # It ran from the wheel: a checkout's code would have recorded its commit.
    assert run.manifest().git_commit is None
    assert run.manifest().config["evaluate"]["bootstrap"] == 20
    board = client.leaderboard([out])
    assert board["benchmark"].tolist() == ["zero_shot", "retrieval"]
    assert board["value"].tolist() == frame[frame["headline"]]["value"].tolist()
    assert client.runs()[0] == run == client.run(run.id)


def test_job_that_is_stopped_says_so_and_has_no_results(head: RayHead, client: Client, tmp_path: Path) -> None:
    run = client.submit("ingest", "synthetic", out=tmp_path / "corpus", option={"count": 100_000, "size": 512})
    with pytest.raises(RunTimeoutError, match=rf"{run.id} \(ingest\): still .* after 0.2 s"):
        run.wait(timeout=0.2)
    with pytest.raises(RunUnfinishedError, match="wait"):
        run.results()
    next(run.logs(follow=True))
    assert not [process.pid for process in head.processes() if knows(process, head.token)]
    assert run.stop()
    for ask in (lambda: run.wait(timeout=JOB_SECONDS), run.results, run.results_frame, run.manifest):
        with pytest.raises(StoppedError, match=rf"{run.id} \(ingest\): was stopped"):
            ask()
    assert run.status() == "STOPPED"
    assert run.stop() is False


def test_job_that_finds_its_settings_wrong_says_what_it_found(client: Client, checkpoint: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "no-corpus")
    run = client.submit_evals(checkpoint=checkpoint, corpus=missing, benchmarks="retrieval", out=str(tmp_path / "s"))
    with pytest.raises(RunRefusedError, match=rf"error: {missing}: no such folder; expected a corpus.*run\.logs"):
        run.wait(timeout=JOB_SECONDS)
    with pytest.raises(UsageError):
        run.results()
    assert isinstance(RunRefusedError(), RunFailedError)


def test_command_line_submits_follows_and_exits_as_the_job_did(
    head: RayHead, client: Client, checkpoint: str, corpus: str, tmp_path: Path
) -> None:
    address = ("--address", head.address, "--token-file", str(head.folder / "token"))
    evaluation = ("evaluate", "--checkpoint", checkpoint, "--benchmarks", "retrieval", "--out", str(tmp_path / "s"))
    done = run_chexray("submit", *address, *evaluation, "--corpus", corpus, "--set", "evaluate.bootstrap=20")
    refused = run_chexray("submit", *address, *evaluation, "--corpus", str(tmp_path / "no-corpus"))
    listed = run_chexray("jobs", "list", "--json", *address)
    assert [one.returncode for one in (done, refused, listed)] == [0, 2, 0], (done, refused, listed)
    assert "recall@1" in done.stdout
    assert client.run(done.stdout.split()[0]).manifest().config["evaluate"]["bootstrap"] == 20
    assert "no such folder; expected a corpus" in refused.stderr
    assert [job["status"] for job in json.loads(listed.stdout)["jobs"][:2]] == ["FAILED", "SUCCEEDED"]
    assert head.token not in "".join(one.stdout + one.stderr for one in (done, refused, listed))


@pytest.mark.parametrize("token", [None, "of-another-cluster-0123456789"])
def test_wrong_token_is_refused_and_not_repeated(head: RayHead, token: str | None) -> None:
    with pytest.raises(TokenError) as refused:
        Client(head.address, token)
    shown = "".join(traceback.format_exception(refused.value))
    assert "none was given; pass token=" in shown if token is None else "refuses the token" in shown
    assert token is None or token not in shown


def test_address_given_wins_over_the_environment(head: RayHead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    assert Client(head.address, head.token).runs() is not None
    assert repr(Client(head.address, head.token)) == f"Client('{head.address}')"


MISTAKES: list[tuple[Callable[[Client], Any], str]] = [
    (lambda c: evals(c, benchmarks=["zero_shot", "triage"]), "triage: unknown; allowed with --corpus: zero_shot"),
    (lambda c: evals(c, benchmarks=[]), "none given"),
    (lambda c: evals(c, data={"nih": "s3://b/nih"}), "give one of corpus, data, twins"),
    (lambda c: evals(c, prompt="x"), "--prompt"),
    (lambda c: c.submit("pretrain", corpus="s3://b/c"), "--out"),
    (lambda c: c.submit("sweeep"), "'sweeep': unknown"),
    (lambda c: c.run("raysubmit_none"), "raysubmit_none: .* has no such job"),
]


@pytest.mark.parametrize(("ask", "said"), MISTAKES)
def test_mistake_is_refused_before_anything_is_submitted(client: Client, ask: Any, said: str) -> None:
    before = len(client.runs())
    with pytest.raises(UsageError, match=said):
        ask(client)
    assert len(client.runs()) == before


def test_results_that_this_machine_cannot_see_are_said_to_be_elsewhere(client: Client, tmp_path: Path) -> None:
    done = next(run for run in client.runs() if run.status() == "SUCCEEDED")
    elsewhere = Run(done.id, done.job, str(tmp_path / "elsewhere"), done._head)
    with pytest.raises(ChexrayError, match="this machine does not see it; submit with out on storage"):
        elsewhere.results()


def evals(client: Client, **changes: Any) -> Run:
    given = {"checkpoint": "s3://b/m", "corpus": "s3://b/c", "benchmarks": "retrieval", "out": "s3://b/s"}
    return client.submit_evals(**{**given, **changes})


def knows(process: psutil.Process, token: str) -> bool:
    """Whether the token is in what everyone of this user can read of a process."""
    try:
        return token in " ".join([*process.cmdline(), *process.environ().values()])
    except psutil.NoSuchProcess:
        return False
