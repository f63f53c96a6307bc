"""`chexray submit` as one types it, against a job server that keeps what it is sent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from stub_head import StubHead, forget_clusters
from typed_command import run

from chexray.platform.command_line import build_typed_submission, read_command_line
from chexray.platform.errors import UsageError
from chexray.platform.head_options import require_safe
from chexray.platform.submission import JOBS, build_submission

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "0123456789abcdef-of-ours"
PRETRAIN = ("pretrain", "--corpus", "s3://b/c", "--out", "s3://b/m", "--workers", "8", "--gpu")


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_clusters(monkeypatch, tmp_path)


@pytest.fixture
def head() -> Iterator[StubHead]:
    with StubHead() as started:
        yield started


def test_submit_sends_the_command_as_it_was_typed_with_the_code(
    head: StubHead, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resources = ["--entrypoint-cpus", "0.5", "--entrypoint-memory", "1000000", "--metadata", "who=us"]
    assert run(monkeypatch, "submit", "--address", head.address, *resources, *PRETRAIN) == 0
    ((name, asked),) = head.jobs.items()
    assert asked["entrypoint"] == f"python -m chexray.jobs.{' '.join(PRETRAIN)}"
    assert asked["metadata"] == {"who": "us", "chexray.job": "pretrain", "chexray.out": "s3://b/m"}
    assert (asked["entrypoint_num_cpus"], asked["entrypoint_memory"]) == (0.5, 1_000_000)
    assert asked["runtime_env"]["py_modules"][0].rpartition("/")[2] in head.packages
    assert next(iter(head.packages)).endswith("-py3-none-any.whl")
    assert "working_dir" not in asked["runtime_env"]
    output = capsys.readouterr()
    assert output.out == f"{name}\nstep 1\nstep 2\n"
    assert "succeeded" in output.err


def test_submit_without_waiting_prints_the_id_alone(
    head: StubHead, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head.status = "RUNNING"
    assert run(monkeypatch, "submit", "--no-wait", "--address", head.address, *PRETRAIN) == 0
    assert capsys.readouterr() == (f"{next(iter(head.jobs))}\n", "")


@pytest.mark.parametrize(
    ("status", "exit_code", "code", "said"),
    [
        ("SUCCEEDED", 0, 0, "succeeded"),
        ("FAILED", 1, 1, "failed with exit code 1: error: no space"),
        ("FAILED", None, 1, "failed: error: no space"),
        ("FAILED", 137, 1, "failed with exit code 137"),
        ("FAILED", 2, 2, "failed with exit code 2"),
        ("FAILED", 143, 143, "was stopped"),
        ("STOPPED", None, 143, "was stopped"),
    ],
)
def test_submit_exits_as_the_job_did(
    status: str,
    exit_code: int | None,
    code: int,
    said: str,
    head: StubHead,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    head.status, head.exit_code, head.message = status, exit_code, "Job failed:\nerror: no space\n"
    assert run(monkeypatch, "submit", "--address", head.address, *PRETRAIN) == code
    assert said in capsys.readouterr().err


def test_submit_sends_files_of_this_machine_along_and_other_paths_whole(
    head: StubHead, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "data.yaml").write_text("nih: corpora/nih\nvindr: s3://b/vindr\n")
    (tmp_path / "ours.yaml").write_text("train: {epochs: 3}\nmodel: {vision: {timm_model: resnet10t}}\n")
    words = ["--checkpoint", "ours=model", "--data", "lists/data.yaml", "--benchmarks", "all", "--out", "scores"]
    command = ["submit", "--no-wait", "--address", head.address, "evaluate", *words, "--recipe", "ours.yaml"]
    assert run(monkeypatch, *command) == 0
    (asked,) = head.jobs.values()
    assert asked["entrypoint"].split()[3:] == [
        *("--checkpoint", f"ours={tmp_path}/model", "--out", f"{tmp_path}/scores"),
        *("--data", "data.yaml", "--benchmarks", "all", "--recipe", "recipe.yaml"),
    ]
    files = head.files()
    # Relative to the file's own folder, as `chexray evaluate` reads it.
    assert yaml.safe_load(files["data.yaml"]) == {"nih": f"{tmp_path}/lists/corpora/nih", "vindr": "s3://b/vindr"}
    assert files["recipe.yaml"] == (tmp_path / "ours.yaml").read_text()


def test_submit_sends_a_space_along(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("methods: [random]\nkeep: [0.5, 1.0]\n")
    built = build_typed_submission("sweep", ["--corpus", "s3://b/c", "--out", "s3://b/s", "--space", "space.yaml"])
    assert yaml.safe_load(built.files["space.yaml"]) == {"methods": ["random"], "keep": [0.5, 1.0]}
    assert built.arguments[-2:] == ("--space", "space.yaml")


@pytest.mark.parametrize(
    ("job", "words", "sent"),
    [
        ("merge", "a s3://b --set x=1 --out m --set y=2", "HERE/a s3://b --out HERE/m --set x=1 --set y=2"),
        (
            "ingest",
            "folder --overwrite --out c --root x --option path=file --option labels=[A,B]",
            "folder --out HERE/c --root HERE/x --option path=file --option labels=[A,B] --overwrite",
        ),
        (
            "subset",
            "import ids.npy --corpus c --out s --max-unknown 0.5",
            "import HERE/ids.npy --corpus HERE/c --out HERE/s --max-unknown 0.5",
        ),
        ("subset", "intersect a b s3://c --out s", "intersect HERE/a HERE/b s3://c --out HERE/s"),
        ("subset", "export s3://s --to ids.txt", "export s3://s --to HERE/ids.txt"),
        (
            "pretrain",
            "--out=m --corpus=s3://c --keep=0.25 --resume --json",
            "--corpus s3://c --out HERE/m --keep 0.25 --resume --json",
        ),
    ],
)
def test_typed_command_keeps_its_values_with_local_paths_made_whole(job: str, words: str, sent: str) -> None:
    line = read_command_line(job, words.split())
    built = build_submission(job, line.arguments, line.options)
    assert " ".join(built.arguments).replace(str(Path.cwd()), "HERE") == sent
    read_command_line(job, built.arguments)


REFUSED = [
    (["train"], ["'train'", "pretrain"]),
    (["pretrain", "--corpus", "s3://b/c"], ["pretrain", "--out"]),
    (["pretrain", "--corpus", "c", "--out", "m", "--epochs", "3"], ["--epochs"]),
    (["pretrain", "--corpus", "c", "--out", "m", "--set", "train.epoch=3"], ["train.epoch"]),
    (["pretrain", "--corpus", "c", "--out", "m", "--address", "auto"], ["--address", "before JOB"]),
    (["curate", "--corpus", "https://me:SECRET@h/c", "--out", "s"], ["credentials"]),
    (
        ["evaluate", "--checkpoint", "m", "--corpus", "c", "--out", "s", "--benchmarks", "triage"],
        ["triage", "zero_shot"],
    ),
    (["sweep", "--corpus", "c", "--out", "s", "--space", "no.yaml"], ["--space no.yaml", "no such file"]),
    (["evaluate", "--checkpoint", "m", "--data", "no.yaml", "--benchmarks", "all", "--out", "s"], ["--data no.yaml"]),
    (["subset", "imprt", "x"], ["imprt"]),
    (["--metadata", "who", "pretrain"], ["--metadata who", "KEY=VALUE"]),
    (["--metadata", "chexray.out=x", "pretrain"], ["chexray's own"]),
    (["--metadata", "from=https://me:SECRET@h", "pretrain"], ["--metadata from", "password"]),
    (["--token-file", "no", *PRETRAIN], ["--token-file no", "no such file"]),
    (["--certificates", "no", *PRETRAIN], ["--certificates no"]),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED, ids=[" ".join(words[:6]) for words, _ in REFUSED])
def test_submit_of_what_cannot_be_right_is_refused_before_anything_is_sent(
    arguments: list[str],
    said: list[str],
    head: StubHead,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, "submit", "--address", head.address, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert all(words in error for words in said), error
    assert "SECRET" not in error
    assert not head.jobs


def test_option_that_submit_does_not_have_is_not_taken_for_a_job(
    head: StubHead, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "submit", "--address", head.address, "--tokenfile", "x", *PRETRAIN) == 2
    assert "--tokenfile" in capsys.readouterr().err
    assert not head.jobs


def test_token_is_found_as_ray_keeps_it_or_in_the_file_that_is_named(
    head: StubHead, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head.token = TOKEN
    command = ["submit", "--no-wait", "--address", head.address, *PRETRAIN]
    assert run(monkeypatch, *command) == 1
    assert "--token-file" in capsys.readouterr().err
    (tmp_path / "mine").write_text(f"{TOKEN}\n")
    assert run(monkeypatch, "submit", "--token-file", "mine", *command[1:]) == 0
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert run(monkeypatch, *command) == 0
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-another-cluster")
    assert run(monkeypatch, *command) == 1
    output = capsys.readouterr()
    assert "refuses the token" in output.err
    assert TOKEN not in output.out + output.err
    assert "of-another-cluster" not in output.err
    assert len(head.jobs) == 2


@pytest.mark.parametrize(("status", "exit_code", "code"), [("SUCCEEDED", 0, 0), ("FAILED", 1, 1)])
def test_connection_that_breaks_off_leaves_the_exit_code_to_the_job(
    status: str,
    exit_code: int,
    code: int,
    head: StubHead,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    head.status, head.exit_code, head.breaks_off = status, exit_code, True
    assert run(monkeypatch, "submit", "--address", head.address, *PRETRAIN) == code
    assert "waiting for the end of run" in capsys.readouterr().err


def test_commands_of_the_pages_are_taken() -> None:
    pages = [(ROOT / name).read_text().replace("\\\n", " ") for name in ("README.md", "docs/submit.md")]
    commands = [line.split() for page in pages for line in page.splitlines() if line.startswith("chexray submit ")]
    assert len(commands) >= 2
    for words in commands:
        job = next(place for place, word in enumerate(words) if word in JOBS)
        build_typed_submission(words[job], words[job + 1 :])


@pytest.mark.parametrize(
    ("address", "has_token", "submits", "said"),
    [
        ("http://head:8265", True, True, "plain text; use a tunnel"),
        ("head:8265", True, False, "plain text"),
        ("http://10.0.0.7:8265", False, True, "no token was found"),
        ("https://head", False, True, "no token was found"),
        ("https://head", True, True, None),
        ("http://head:8265", False, False, None),
        ("http://localhost:8265", True, True, None),
        ("http://127.0.0.1:8265", False, True, None),
        ("http://[::1]:8265", True, True, None),
    ],
)
def test_what_could_be_read_or_misused_on_the_way_is_refused(
    address: str, has_token: bool, submits: bool, said: str | None
) -> None:
    if said is None:
        require_safe(address, has_token, submits)
        return
    with pytest.raises(UsageError, match=said):
        require_safe(address, has_token, submits)


def test_insecure_tries_another_machine_anyway(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    command = ["--address", "http://head.invalid:8265", *PRETRAIN]
    assert run(monkeypatch, "submit", *command) == 2
    assert "--insecure" in capsys.readouterr().err
    assert run(monkeypatch, "submit", "--insecure", *command) == 1
    assert "no answer from a Ray head" in capsys.readouterr().err


def test_interrupt_leaves_the_job_running_and_says_how_to_stop_it(head: StubHead) -> None:
    head.status, head.still_runs = "RUNNING", threading.Event()
    command = [sys.executable, "-c", "from chexray.platform.cli import main; main()", "submit"]
    process = subprocess.Popen(
        [*command, "--address", head.address, *PRETRAIN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    seen = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    head.still_runs.set()
    name = next(iter(head.jobs))
    assert seen == [f"{name}\n", "step 1\n", "step 2\n"]
    assert process.returncode == 130, error
    assert f"chexray jobs stop {name} --address {head.address}" in error
    assert "Traceback" not in error
    assert head.stopped == []
