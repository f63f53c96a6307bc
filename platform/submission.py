"""What a cluster is asked to run: a job's command, the code and files that go along, what it reserves. No Ray here."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import yaml

from chexray.platform import storage
from chexray.platform.errors import UsageError

JOBS = ("ingest", "merge", "curate", "pretrain", "evaluate", "sweep", "subset", "demo")
JOB_KEY, OUT_KEY = "chexray.job", "chexray.out"
"""Names in a submission's metadata: by them a run is found again."""
DATA_FILE, SPACE_FILE, RECIPE_FILE = "data.yaml", "space.yaml", "recipe.yaml"
_CREDENTIALS = re.compile(r"://[^/\s@]*:[^/\s@]*@")
_IN_ONE = ("benchmarks",)
"""Options whose list is one value with commas; other options are repeated."""
_INPUTS = (
    "checkpoint",
    "corpus",
    "data",
    "evaluation",
    "features",
    "reference",
    "root",
    "scorer",
    "space",
    "subset",
    "to",
    "twins",
)
_URIS = ("out", *_INPUTS)
"""Options whose values are artifacts or folders."""


class Resources(TypedDict, total=False):
    """What a run may use.

    `workers` and `gpus` are the job's workers and their GPUs, one each: giving one of them gives the other. `cpus` and
    `memory` (bytes) are set aside for the job's own process, which then need not run on the head.
    """

    workers: int
    gpus: int
    cpus: float
    memory: int


@dataclass(frozen=True)
class Submission:
    """A job as Ray's job server takes it. `files`: texts by name that lie in its working directory."""

    job: str
    arguments: tuple[str, ...]
    metadata: dict[str, str]
    files: dict[str, str]
    cpus: float
    memory: int

    @property
    def entrypoint(self) -> str:
        """The command, quoted for the shell that Ray gives it to."""
        return shlex.join(["python", "-m", f"chexray.jobs.{self.job}", *self.arguments])

    def runtime_env(self, wheel: Path, folder: Path) -> dict[str, Any]:
        """The job's environment: the code, and `folder` with its files. No variables: credentials are the cluster's."""
        environment: dict[str, Any] = {"py_modules": [str(wheel)]}
        return environment | ({"working_dir": str(folder)} if self.files else {})


def build_submission(
    job: str,
    arguments: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    resources: Resources | None = None,
) -> Submission:
    """The submission of `chexray JOB ARGUMENTS --OPTIONS`. Raises `UsageError` where it cannot be right.

    An option's name is that of the command line with underscores. A list repeats it, a mapping repeats it as
    KEY=VALUE, True is the bare flag; None and False leave it out. `data` and a sweep's `space` as mappings go along as
    files, and so does a recipe in a file of this machine. Local paths are made absolute, and have to be the same on
    the cluster.
    """
    require_job(job)
    given = dict(options or {})
    if "address" in given:
        raise UsageError("address: a submitted job runs on the cluster that it is submitted to; leave it out")
    files = _own_recipe(given.get("recipe"))
    if isinstance(given.get("data"), Mapping):
        files[DATA_FILE] = yaml.safe_dump(_resolved(given["data"]), sort_keys=False)
    if isinstance(given.get("space"), Mapping):
        files[SPACE_FILE] = yaml.safe_dump(dict(given["space"]), sort_keys=False)
    given = {name: _resolved(value, name == "checkpoint") if name in _URIS else value for name, value in given.items()}
    given |= {file.removesuffix(".yaml"): file for file in files}
    if given.get("benchmarks") is not None:
        given["benchmarks"], own = _own_benchmarks(names_of(given["benchmarks"]))
        files |= own
    used: dict[str, Any] = {**(resources or {})}
    words = [
        *_positional(job, arguments),
        *_worded(given | _workers(used, given)),
        *_settings(settings or {}),
    ]
    _refuse_credentials([*words, *files.values()])
    metadata = {JOB_KEY: job} | ({OUT_KEY: str(given["out"])} if "out" in given else {})
    return Submission(job, tuple(words), metadata, files, float(used.get("cpus", 0)), int(used.get("memory", 0)))


def check_command(submission: Submission) -> None:
    """Raise `UsageError` where the command line of this very code would not take the arguments."""
    from chexray.platform.command_line import read_command_line

    read_command_line(submission.job, submission.arguments)


def require_job(job: str) -> None:
    """Raise `UsageError` where there is no such job."""
    if job not in JOBS:
        raise UsageError(f"job {job!r}: unknown; allowed: {', '.join(JOBS)}")


def names_of(benchmarks: str | Sequence[str]) -> list[str]:
    """Names of benchmarks, from a list or one text with commas."""
    listed = benchmarks.split(",") if isinstance(benchmarks, str) else benchmarks
    return [name.strip() for name in listed if name.strip()]


def _positional(job: str, arguments: Sequence[str]) -> list[str]:
    """Arguments that are artifacts or files, as other processes can use them; a subset's first is what is done."""
    first = {"merge": 0, "subset": 1}.get(job, len(arguments))
    return [*arguments[:first], *_resolved(arguments[first:])]


def _own_recipe(recipe: Any) -> dict[str, str]:
    """A recipe in a file of this machine goes along."""
    name = str(recipe)
    if not name.endswith((".yaml", ".yml")) or storage.is_remote(name) or not storage.is_file(name):
        return {}
    return {RECIPE_FILE: storage.read_bytes(name).decode("utf-8", errors="replace")}


def _own_benchmarks(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Benchmarks in files of this machine go along; they are then called by their files' names there."""
    files: dict[str, str] = {}
    worded = []
    for name in names:
        if name.endswith((".yaml", ".yml")) and not storage.is_remote(name):
            if not storage.is_file(name):
                raise UsageError(f"benchmarks: {name}: no such file")
            file = f"benchmark-{len(files)}-{Path(name).name}"
            files[file] = storage.read_bytes(name).decode("utf-8", errors="replace")
            name = file
        worded.append(name)
    return worded, files


def has_credentials(text: str) -> bool:
    """Whether there is an address with a name and a password in it: scheme://name:secret@..."""
    return _CREDENTIALS.search(text) is not None


def _refuse_credentials(texts: Sequence[str]) -> None:
    if any(has_credentials(text) for text in texts):
        raise UsageError(
            "an option holds an address with credentials (scheme://name:secret@...), which everyone could read on the "
            "cluster's dashboard; leave them out and keep them in the cluster's own environment"
        )


def _worded(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        flag = "--" + name.rstrip("_").replace("_", "-")
        if value is None or value is False:
            continue
        if value is True:
            yield flag
        elif isinstance(value, Mapping):
            for key, one in value.items():
                yield from (flag, f"{key}={worded(one)}")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            for one in [",".join(value)] if name in _IN_ONE else value:
                yield from (flag, worded(one))
        else:
            yield from (flag, worded(value))


def _settings(settings: Mapping[str, Any]) -> Iterator[str]:
    for key, value in settings.items():
        yield from ("--set", f"{key}={worded(value)}")


def worded(value: Any) -> str:
    """As the command line reads it: text as it is, the rest as YAML (of which JSON is a part): true, null, [a, b]."""
    return str(value) if isinstance(value, str | Path) else json.dumps(value)


def _resolved(value: Any, named: bool = False) -> Any:
    """URIs as other processes can use them, in whatever holds them. `named`: they may be NAME=URI."""
    if isinstance(value, Mapping):
        return {str(name): _resolved(uri) for name, uri in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_resolved(uri, named) for uri in value]
    if not isinstance(value, str | Path):
        return value
    name, separator, uri = str(value).partition("=")
    if named and separator and "/" not in name:
        return f"{name}={storage.resolve(uri)}"
    return storage.resolve(str(value))


def _workers(resources: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """--workers and --gpu for what `resources` says."""
    allowed = tuple(Resources.__annotations__)
    for name, value in resources.items():
        if name not in allowed:
            raise UsageError(f"resources: {name!r} is unknown; allowed: {', '.join(allowed)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise UsageError(f"resources: {name}={value!r}: expected a number, 0 or more")
        if name != "cpus" and value != int(value):
            raise UsageError(f"resources: {name}={value!r}: expected a whole number")
    gpus = int(resources.get("gpus", 0))
    workers = int(resources["workers"]) if "workers" in resources else gpus or None
    if gpus and workers != gpus:
        raise UsageError(f"resources: workers={workers}, gpus={gpus}: each worker takes one GPU; give one of the two")
    chosen = ({} if workers is None else {"workers": workers}) | ({"gpu": True} if gpus else {})
    for name in chosen.keys() & options.keys():
        raise UsageError(f"{name}: given twice, as an option and in resources; give one of them")
    return chosen
