"""`chexray doctor` on set-ups that are broken in one way each: every one has to get its own diagnosis, and advice."""

from __future__ import annotations

import http.server
import json
import math
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from s3_server import free_ports
from stub_head import StubHead, forget_clusters
from typed_command import run

from chexray.platform import storage
from chexray.platform.config import load_recipe
from chexray.platform.doctor import machine, places, software
from chexray.platform.doctor.diagnosis import Diagnosis, worst
from chexray.platform.doctor.training import check_training

TOKEN, GIB = "0123456789abcdef-of-ours", 2**30


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_clusters(monkeypatch, tmp_path)


def installed(**versions: str) -> Callable[[str], str]:
    def of(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    return of


@pytest.mark.parametrize(
    ("running", "state"), [("3.11.0", "ok"), ("3.12.9", "ok"), ("3.10.14", "failure"), ("3.13.0", "failure")]
)
def test_python_outside_its_bounds_is_a_failure(running: str, state: str) -> None:
    found = software.check_python(running, ">=3.11,<3.13")
    assert found.state == state
    assert (found.advice is None) == (state == "ok")


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"torch": "2.9.0", "ray": "2.60.0"}, None),
        ({"torch": "2.9.0+cpu", "ray": "2.61.0", "peft": "0.20"}, None),
        ({"torch": "2.8.1", "ray": "2.60.0"}, "torch 2.8.1, outside >=2.9"),
        ({"torch": "2.9.0"}, "ray is missing"),
        ({"torch": "2.9.0", "ray": "2.60.0", "peft": "0.1"}, "peft 0.1, outside >=0.18"),
        ({}, "torch is missing; ray is missing"),
    ],
)
def test_package_that_is_missing_or_outside_its_bounds_is_named(versions: dict[str, str], said: str | None) -> None:
    wanted = ["torch>=2.9", "ray[default]>=2.60", 'peft>=0.18; extra == "lora"', "old>=1; python_version < '3'"]
    found = software.check_packages(wanted, installed(**versions))
    assert found.state == ("ok" if said is None else "failure")
    assert said is None or found.found == said
    assert software.check_packages(None).state == "warning"


def test_torch_that_cannot_be_imported_says_why() -> None:
    def load() -> Any:
        raise ImportError("libcudart.so.13: cannot open shared object file\nmore")

    found = software.check_torch(load)
    assert found.state == "failure"
    assert found.found == "cannot be used: libcudart.so.13: cannot open shared object file"


def test_gpus_that_the_driver_sees_and_torch_does_not_are_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    none = SimpleNamespace(device_count=lambda: 0)
    torch = SimpleNamespace(__version__="2.15.0", cuda=none, version=SimpleNamespace(cuda="13.0"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert software.check_torch(lambda: torch).found == "2.15.0, no GPU: CPU only"
    program(tmp_path / "nvidia-smi", "echo 'GPU 0: a card'; echo 'GPU 1: a card'")
    found = software.check_torch(lambda: torch)
    assert (found.state, found.found) == ("failure", "2.15.0 (CUDA 13.0) sees no GPU, the driver sees 2")
    assert "CUDA_VISIBLE_DEVICES" in str(found.advice)


def test_gpus_are_named_once() -> None:
    cards = SimpleNamespace(device_count=lambda: 2, get_device_name=lambda card: "a card")
    found = software.check_torch(lambda: SimpleNamespace(__version__="2.15.0", cuda=cards))
    assert (found.state, found.found) == ("ok", "2.15.0, 2 GPU(s): a card")


def test_collectives_work_over_loopback_and_an_interface_that_is_not_there_is_a_failure() -> None:
    assert software.check_all_reduce("gloo") == Diagnosis("collectives", "ok", "gloo, 2 processes over loopback")
    broken = software.check_all_reduce("gloo", environment={"GLOO_SOCKET_IFNAME": "nosuch0"})
    assert broken.state == "failure"
    assert "nosuch0" in broken.found
    assert "GLOO_SOCKET_IFNAME" in str(broken.advice)


def test_collectives_that_do_not_answer_are_given_up() -> None:
    assert software.check_all_reduce("gloo", seconds=0.01).found.endswith("no answer within 0.01 s")


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (("g++", "ninja"), "g++ and ninja"),
        (("g++",), "no ninja on PATH"),
        (("ninja",), "no g++ on PATH"),
        ((), "no g++ and no ninja on PATH"),
    ],
)
def test_compilers_that_are_not_on_the_path_are_warned_of(there: tuple[str, ...], said: str, tmp_path: Path) -> None:
    for name in there:
        program(tmp_path / name, "true")
    found = software.check_compilers(str(tmp_path))
    assert (found.state, found.found) == ("ok" if len(there) == 2 else "warning", said)


def test_disk_is_judged_by_what_is_free_where_the_folder_will_be(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    assert machine.check_disk("disk", folder, wanted=1).state == "ok"
    free = shutil.disk_usage(tmp_path).free
    assert machine.check_disk("disk", folder, wanted=2 * free).state == "warning"
    full = machine.check_disk("disk", folder, wanted=100 * free)
    assert full.state == "failure"
    assert "make room" in str(full.advice)
    assert not folder.exists()
    by_share = machine.check_disk("disk", folder, wanted=1, share=1.1)
    assert (by_share.state, by_share.found.endswith("less than 110%")) == ("failure", True)


def test_folder_that_cannot_be_written_to_is_a_failure() -> None:
    found = machine.check_disk("disk", Path("/proc/none"), wanted=0)
    assert found.state == "failure"
    assert "cannot be written to" in found.found


@pytest.mark.parametrize(
    ("total", "state"), [(None, "warning"), (64 * 2**20, "failure"), (GIB, "warning"), (2 * GIB, "ok")]
)
def test_shared_memory_as_small_as_in_a_plain_container_is_a_failure(total: int | None, state: str) -> None:
    found = machine.check_shared_memory(total)
    assert found.state == state
    assert total is None or state == "ok" or "--shm-size" in str(found.advice)


@pytest.mark.parametrize(
    ("limit", "used", "available"), [("max", "0", 6 * GIB), (str(2 * GIB), str(GIB), GIB), (None, None, 6 * GIB)]
)
def test_memory_is_that_of_the_container(limit: str | None, used: str | None, available: int, tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: {8 * 2**20} kB\nMemAvailable:  {6 * 2**20} kB\n")
    for name, value in (("memory.max", limit), ("memory.current", used)):
        if value is not None:
            (tmp_path / name).write_text(f"{value}\n")
    assert machine.available_bytes(meminfo, tmp_path) == available
    assert machine.check_memory(available).state == "warning"
    assert machine.check_memory(GIB // 2).state == "failure"


@pytest.mark.parametrize("existing", [True, False])
def test_storage_is_left_as_it_was(existing: bool, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    if existing:
        folder.mkdir(parents=True)
        (folder / "mine").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    assert places.check_storage(str(folder)).state == "ok"
    assert sorted(tmp_path.rglob("*")) == before


def test_storage_on_s3_is_left_as_it_was(s3: str) -> None:
    assert places.check_storage(f"{s3}/doctor") == Diagnosis("storage", "ok", f"{s3}/doctor: written, read and deleted")
    assert storage.list_files(f"{s3}/doctor") == []
    wrong = places.check_storage("s3://not a bucket/x")
    assert (wrong.state, "the bucket's name" in str(wrong.advice)) == ("failure", True)


@pytest.mark.parametrize("uri", ["{tmp}/file/below", "/proc/none", "nosuch://bucket/x"])
def test_storage_that_cannot_be_written_to_says_so(uri: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    found = places.check_storage(uri.format(tmp=tmp_path))
    assert found.state == "failure"
    assert "cannot write" in found.found


def test_storage_with_a_password_in_its_address_is_refused_without_it() -> None:
    found = places.check_storage("s3://me:SECRET@bucket/x")
    assert found.state == "failure"
    assert "SECRET" not in str(found)


@pytest.mark.parametrize(
    ("mode", "state"), [(0o600, "ok"), (0o400, "ok"), (0o644, "failure"), (0o620, "failure"), (0o601, "failure")]
)
def test_token_that_others_can_use_is_a_failure(mode: int, state: str, tmp_path: Path) -> None:
    file = token_file(tmp_path, TOKEN)
    file.chmod(mode)
    found = places.check_token_file(tmp_path)
    assert found.state == state
    assert found.advice == (None if state == "ok" else "chmod 600 ~/.ray/auth_token")
    assert TOKEN not in str(found)


def test_token_that_is_none_or_not_where_it_is_said_to_be_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert places.check_token_file(tmp_path).state == "ok"
    token_file(tmp_path, f"{TOKEN} {TOKEN}")
    found = places.check_token_file(tmp_path)
    assert (found.state, "not a token" in found.found, TOKEN in str(found)) == ("failure", True, False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "no"))
    assert "cannot be read" in places.check_token_file(tmp_path).found
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert places.check_token_file(tmp_path) == Diagnosis("token", "ok", "from RAY_AUTH_TOKEN (24 characters)")


def test_head_that_does_not_answer_or_is_none_is_a_failure() -> None:
    (away,) = places.check_head(f"http://127.0.0.1:{free_ports(('head',))['head']}")
    assert (away.state, "no answer" in away.found) == ("failure", True)
    assert "http://HEAD:8265" in places.check_head("ray://head:10001")[0].found
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = places.check_head(f"http://127.0.0.1:{server.server_port}")[0]
        assert "not Ray's dashboard" in found.found
        server.shutdown()


def test_head_is_asked_with_the_token_and_says_what_is_wrong_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with StubHead(token=TOKEN) as head:
        assert "asks for a token, and there is none" in places.check_head(head.address)[0].found
        monkeypatch.setenv("RAY_AUTH_TOKEN", "of-another-cluster")
        refused = places.check_head(head.address)[0]
        assert "refuses the token" in refused.found
        assert "of-another-cluster" not in str(refused)
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
        assert [found.state for found in places.check_head(head.address)] == ["ok", "ok"]
    plain = places.check_head("http://head.invalid:8265")[0]
    assert (plain.state, "plain text" in plain.found) == ("failure", True)


def test_head_of_another_version_or_time_is_warned_of() -> None:
    with StubHead(ray_version="2.1.0") as head:
        version, clock = places.check_head(head.address, datetime.now(UTC) + timedelta(hours=1))
    assert (version.state, "Ray 2.1.0 there" in version.found) == ("warning", True)
    assert (clock.check, clock.state) == ("clock", "warning")
    assert math.isclose(float(clock.found.split()[0]), 3600, abs_tol=5)


def test_training_takes_steps_and_says_why_where_it_cannot() -> None:
    tiny = load_recipe("tiny")
    found = check_training(tiny)
    assert (found.state, found.found.startswith("2 steps on cpu")) == ("ok", True)
    assert check_training(tiny, "nosuch").state == "failure"
    still = tiny.model_copy(update={"train": tiny.train.model_copy(update={"lr": 0.0})})
    assert "no step was taken" in check_training(still).found


def test_worst_state_stands_for_all() -> None:
    ok, warning, failure = (Diagnosis("x", state, "") for state in ("ok", "warning", "failure"))
    found = [worst(given) for given in ([], [ok], [warning, ok], [ok, failure, warning])]
    assert found == ["ok", "ok", "warning", "failure"]


def test_doctor_exits_with_1_where_something_failed_and_prints_no_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token_file(tmp_path, TOKEN).chmod(0o644)
    with StubHead(token=TOKEN) as head:
        code = run(monkeypatch, "doctor", "--json", "--storage", str(tmp_path / "s"), "--address", head.address)
    output = capsys.readouterr()
    told = json.loads(output.out)
    states = {check["check"]: check["state"] for check in told["checks"]}
    assert (code, told["state"], states["token"]) == (1, "failure", "failure")
    well = ("python", "packages", "torch", "collectives", "training", "storage", "head")
    assert [states[name] for name in well] == ["ok"] * len(well)
    assert TOKEN not in output.out + output.err


def token_file(home: Path, text: str) -> Path:
    file = home / ".ray" / "auth_token"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def program(file: Path, script: str) -> None:
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
