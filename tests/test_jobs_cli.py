"""`chexray jobs` as one types it, against a job server that has jobs and runs nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from stub_head import StubHead, forget_clusters
from typed_command import run


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_clusters(monkeypatch, tmp_path)


@pytest.fixture
def head() -> Iterator[StubHead]:
    with StubHead() as started:
        yield started


def test_jobs_are_listed_with_how_they_stand_the_latest_first(
    head: StubHead, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head.jobs = {
        "raysubmit_old": {"entrypoint": "x", "metadata": {"chexray.job": "ingest", "chexray.out": "s3://b/[c]"}},
        "raysubmit_other": {"entrypoint": "x", "metadata": {}},
        "raysubmit_new": {"entrypoint": "x", "metadata": {"chexray.job": "demo"}},
    }
    assert run(monkeypatch, "jobs", "list", "--address", head.address, "--json") == 0
    old, new = reversed(json.loads(capsys.readouterr().out)["jobs"])
    assert old == {
        "id": "raysubmit_old",
        "job": "ingest",
        "out": "s3://b/[c]",
        "status": "SUCCEEDED",
        "started": 1_790_000_000.0,
        "ended": 1_790_000_090.5,
        "seconds": 90.5,
    }
    assert (new["id"], new["out"], new["started"], new["seconds"]) == ("raysubmit_new", None, 1_790_000_002.0, 88.5)
    assert run(monkeypatch, "jobs", "list", "--address", head.address) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "raysubmit" in line]
    assert [line[0] for line in lines] == ["raysubmit_new", "raysubmit_old"]
    assert lines[1][-2:] == ["90", "s3://b/[c]"]


def test_jobs_logs_prints_what_a_job_printed_and_follows_to_its_exit_code(
    head: StubHead, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head.jobs = {"raysubmit_1": {"entrypoint": "x", "metadata": {"chexray.job": "demo"}}}
    head.status, head.exit_code = "FAILED", 2
    assert run(monkeypatch, "jobs", "logs", "raysubmit_1", "--address", head.address) == 0
    assert capsys.readouterr().out == "step 1\nstep 2\n"
    assert run(monkeypatch, "jobs", "logs", "raysubmit_1", "--follow", "--address", head.address) == 2
    assert capsys.readouterr().out == "step 1\nstep 2\n"


@pytest.mark.parametrize(
    ("status", "said"), [("RUNNING", "was asked to stop"), ("FAILED", "does not run: it is FAILED")]
)
def test_jobs_stop_says_whether_the_job_ran(
    status: str, said: str, head: StubHead, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head.jobs = {"raysubmit_1": {"entrypoint": "x", "metadata": {"chexray.job": "demo"}}}
    head.status = status
    assert run(monkeypatch, "jobs", "stop", "raysubmit_1", "--address", head.address) == 0
    assert said in capsys.readouterr().out
    assert head.stopped == ["raysubmit_1"]


def test_jobs_of_no_such_id_are_refused(
    head: StubHead, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head.jobs = {"raysubmit_other": {"entrypoint": "x", "metadata": {}}}
    for name, said in (("raysubmit_no", "has no such job"), ("raysubmit_other", "no job of chexray")):
        assert run(monkeypatch, "jobs", "stop", name, "--address", head.address) == 2
        assert said in capsys.readouterr().err
    assert head.stopped == []
