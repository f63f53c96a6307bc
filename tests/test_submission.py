"""What is asked of a cluster, without one: commands as a shell reads them, and the wheel as setuptools builds it."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.utils import parse_wheel_filename

from chexray.platform.config import load_recipe
from chexray.platform.errors import UsageError
from chexray.platform.submission import DATA_FILE, JOBS, SPACE_FILE, build_submission, check_command
from chexray.platform.wheel import ROOMS, write_wheel

ROOT = Path(__file__).resolve().parents[1]


def arguments(job: str, *given: str, **options: Any) -> list[str]:
    return list(build_submission(job, given, options).arguments)


def test_jobs_are_the_modules_that_can_be_started() -> None:
    startable = {
        file.stem for file in (ROOT / "jobs").glob("*.py") if re.search(r"^    run_job\(", file.read_text(), re.M)
    }
    assert set(JOBS) == startable


def test_entrypoint_is_the_command_that_one_would_type() -> None:
    options = {
        "checkpoint": "s3://b/m",
        "corpus": "s3://b/c",
        "benchmarks": ["zero_shot", "retrieval"],
        "out": "s3://b/s",
    }
    submission = build_submission("evaluate", (), options, {"evaluate.bootstrap": 50}, {"workers": 2, "cpus": 0.5})
    assert submission.entrypoint == (
        "python -m chexray.jobs.evaluate --checkpoint s3://b/m --corpus s3://b/c --benchmarks zero_shot,retrieval "
        "--out s3://b/s --workers 2 --set evaluate.bootstrap=50"
    )
    assert submission.cpus == 0.5
    assert submission.metadata == {"chexray.job": "evaluate", "chexray.out": "s3://b/s"}
    assert submission.runtime_env(Path("x.whl"), Path("folder")) == {"py_modules": ["x.whl"]}


def test_entrypoint_reaches_the_job_through_a_shell_as_it_was_given() -> None:
    hostile = ["s3://b/a b", "$(touch pwned)", "it's; rm -rf x", '"`id`"', "-", "*"]
    submission = build_submission("curate", (), {"scorer": None, "selector": hostile})
    command = submission.entrypoint.replace("python -m chexray.jobs.curate", "printf '%s\\n'")
    printed = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == [word for value in hostile for word in ("--selector", value)]


def test_options_become_words_by_their_type() -> None:
    assert arguments("pretrain", min_workers=1, resume=True, overwrite=False, subset=None, json_=True) == [
        *("--min-workers", "1"),
        "--resume",
        "--json",
    ]
    assert arguments(
        "ingest", "folder", option={"path": "file", "labels": ["A", "B"]}, evaluation=["s3://a", "s3://b"]
    ) == [
        "folder",
        *("--option", "path=file", "--option", 'labels=["A", "B"]'),
        *("--evaluation", "s3://a", "--evaluation", "s3://b"),
    ]
    assert arguments("evaluate", checkpoint={"ours": "s3://b/m", "theirs": "s3://b/n"}) == [
        *("--checkpoint", "ours=s3://b/m", "--checkpoint", "theirs=s3://b/n")
    ]


def test_local_paths_are_made_absolute_and_other_values_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert arguments("curate", corpus="c", out=Path("o"), recipe="tiny") == [
        *("--corpus", f"{tmp_path}/c", "--out", f"{tmp_path}/o", "--recipe", "tiny")
    ]
    assert arguments("evaluate", checkpoint=["new=m", "x/a=b"]) == [
        *("--checkpoint", f"new={tmp_path}/m", "--checkpoint", f"{tmp_path}/x/a=b")
    ]
    assert arguments("evaluate", corpus="fold=1") == ["--corpus", f"{tmp_path}/fold=1"]
    assert arguments("merge", "a", "s3://b") == [f"{tmp_path}/a", "s3://b"]


def test_settings_arrive_as_the_values_that_they_were() -> None:
    settings = {
        "train.epochs": 5,
        "train.lr": 5e-5,
        "run.trackers": ["mlflow"],
        "run.recompute_activations": True,
        "curate.selector": "random",
        "run.micro_batch": None,
    }
    words = list(build_submission("pretrain", settings=settings).arguments)
    assert words[::2] == ["--set"] * len(settings)
    recipe = load_recipe("tiny", words[1::2])
    assert (recipe.train.epochs, recipe.train.lr, recipe.curate.selector) == (5, 5e-5, "random")
    assert recipe.run.trackers == ("mlflow",)
    assert (recipe.run.micro_batch, recipe.run.recompute_activations) == (None, True)


def test_data_as_a_mapping_goes_along_as_a_file() -> None:
    data = {"nih": "s3://b/nih", "ünïcode: x": "s3://b/o"}
    submission = build_submission("evaluate", (), {"data": data})
    assert submission.arguments == ("--data", DATA_FILE)
    assert yaml.safe_load(submission.files[DATA_FILE]) == data
    assert submission.runtime_env(Path("x.whl"), Path("folder"))["working_dir"] == "folder"
    assert arguments("evaluate", data="s3://b/data.yaml") == ["--data", "s3://b/data.yaml"]


def test_space_of_a_sweep_as_a_mapping_goes_along_as_a_file() -> None:
    space = {"methods": ["random"], "keep": [0.5, 1.0]}
    submission = build_submission("sweep", (), {"corpus": "s3://b/c", "space": space})
    assert submission.arguments == ("--corpus", "s3://b/c", "--space", SPACE_FILE)
    assert yaml.safe_load(submission.files[SPACE_FILE]) == space
    check_command(submission)


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, []),
        ({"cpus": 2}, []),
        ({"workers": 4}, ["--workers", "4"]),
        ({"gpus": 0}, []),
        ({"gpus": 4}, ["--workers", "4", "--gpu"]),
        ({"gpus": 4, "workers": 4}, ["--workers", "4", "--gpu"]),
    ],
)
def test_resources_become_workers_with_a_gpu_each(resources: Any, expected: list[str]) -> None:
    assert list(build_submission("curate", resources=resources).arguments) == expected


@pytest.mark.parametrize(
    ("job", "options", "resources", "said"),
    [
        ("train", {}, {}, ["'train'", "pretrain"]),
        ("curate", {"address": "auto"}, {}, ["address"]),
        ("curate", {}, {"gpu": 1}, ["'gpu'", "workers, gpus, cpus, memory"]),
        ("curate", {}, {"workers": 2, "gpus": 4}, ["workers=2", "gpus=4"]),
        ("curate", {}, {"workers": 1.5}, ["workers=1.5", "whole"]),
        ("curate", {}, {"cpus": -1}, ["cpus=-1"]),
        ("curate", {}, {"cpus": True}, ["cpus=True"]),
        ("curate", {"workers": 2}, {"workers": 2}, ["workers", "twice"]),
    ],
)
def test_submission_that_cannot_be_right_is_refused(job: str, options: Any, resources: Any, said: list[str]) -> None:
    with pytest.raises(UsageError) as refused:
        build_submission(job, (), options, resources=resources)
    assert all(part in str(refused.value) for part in said)


@pytest.mark.parametrize("options", [{"corpus": "s3://me:SECRET@b/c"}, {"data": {"nih": "https://me:SECRET@h/c"}}])
def test_credentials_in_an_address_are_refused_and_not_repeated(options: Any) -> None:
    with pytest.raises(UsageError, match="credentials") as refused:
        build_submission("evaluate", (), options)
    assert "SECRET" not in str(refused.value)
    # Azure's addresses have an @ without a secret before it.
    assert arguments("curate", corpus="abfs://box@account.example/c") == ["--corpus", "abfs://box@account.example/c"]


@pytest.mark.parametrize(
    ("job", "given", "options", "said"),
    [
        ("curate", (), {"corpus": "s3://c"}, "--out"),
        ("curate", (), {"corpus": "s3://c", "out": "s3://o", "selectr": "random"}, "--selectr"),
        ("curate", (), {"corpus": "s3://c", "out": "s3://o", "keep": "much"}, "--keep"),
        ("curate", (), {"corpus": "s3://c", "out": "s3://o", "workers": 0}, "--workers"),
        ("ingest", (), {"out": "s3://o"}, "'name'"),
        ("ingest", ("nih",), {"out": "s3://o", "workers": 2}, "--workers"),
        ("ingest", ("--help",), {}, "nothing to submit"),
    ],
)
def test_command_that_the_job_would_not_take_is_refused(job: str, given: Any, options: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_command(build_submission(job, given, options))


def test_command_that_the_job_takes_passes() -> None:
    check_command(build_submission("merge", ("s3://a", "s3://b"), {"out": "s3://o"}))
    check_command(build_submission("curate", (), {"corpus": "s3://c", "out": "s3://o", "keep": 0.2}, {"a.b": 1}))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wheel(tmp_path_factory.mktemp("wheel"))


def test_wheel_holds_the_modules_that_setuptools_packs(wheel: Path, tmp_path: Path) -> None:
    checkout = copy_of_rooms(tmp_path / "checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=checkout, capture_output=True, check=True)
    theirs = contents(next(tmp_path.glob("*.whl")))
    ours = contents(wheel)
    assert {n: d for n, d in ours.items() if n.startswith("chexray/")} == {
        n: d for n, d in theirs.items() if n.startswith("chexray/")
    }
    info = f"chexray-{version('chexray')}.dist-info"
    assert ours[f"{info}/entry_points.txt"] == theirs[f"{info}/entry_points.txt"]


def test_wheel_is_valid_and_names_no_dependency(wheel: Path, tmp_path: Path) -> None:
    name, of_version, build, _ = parse_wheel_filename(wheel.name)
    assert (name, str(of_version)) == ("chexray", version("chexray"))
    assert build
    held = contents(wheel)
    info = f"chexray-{version('chexray')}.dist-info"
    recorded = dict(line.rsplit(",", 2)[:2] for line in held.pop(f"{info}/RECORD").decode().splitlines())
    assert recorded.pop(f"{info}/RECORD") == ""
    hashes = {
        n: base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=") for n, data in held.items()
    }
    assert recorded == {n: f"sha256={digest}" for n, digest in hashes.items()}
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    installed = Distribution.at(tmp_path / info)
    assert (installed.name, installed.version, installed.requires) == ("chexray", version("chexray"), None)


def test_wheel_of_the_same_code_has_the_same_bytes_and_of_changed_code_another_name(
    wheel: Path, tmp_path: Path
) -> None:
    tree = copy_of_rooms(tmp_path / "tree" / "chexray")
    same = wheel_of(tree.parent, tmp_path)
    assert (same.name, same.read_bytes()) == (wheel.name, wheel.read_bytes())
    with (tree / "jobs" / "curate.py").open("a") as file:
        file.write("# changed\n")
    assert wheel_of(tree.parent, tmp_path).name != wheel.name


def wheel_of(tree: Path, out: Path) -> Path:
    """The wheel that the code below `tree` makes of itself."""
    code = (
        f"import sys; sys.path.insert(0, {str(tree)!r}); from pathlib import Path; "
        f"from chexray.platform.wheel import write_wheel; print(write_wheel(Path({str(out)!r})))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=out).stdout
    return Path(printed.strip())


def copy_of_rooms(target: Path) -> Path:
    for room in ROOMS:
        shutil.copytree(ROOT / room, target / room, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
