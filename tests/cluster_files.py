"""What cluster/ tells others to run: its files, the commands in them, and what real parsers say of these."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster"
DATA = Path(__file__).parent / "data"
_ENDS = ("&", "&&", "||", "|", ";", ";;", "then", "do")
"""Words of the shell at which a command ends."""


def locked(package: str) -> str:
    """The version of a package in requirements.lock."""
    found = re.search(rf"^{re.escape(package)}==(\S+)", (ROOT / "requirements.lock").read_text(), re.M)
    assert found, package
    return found.group(1)


def texts_of(file: Path, content: str) -> list[str]:
    """The lines of a script, the values of a YAML file, or the lines of a page's blocks of code."""
    if file.suffix == ".yaml":
        return [line for text in _strings(yaml.safe_load(content)) for line in text.splitlines()]
    if file.suffix == ".md":
        content = "\n".join(re.findall(r"^```sh\n(.*?)^```", content, re.M | re.S))
    return [line for line in re.sub(r"\\\n\s*", " ", content).splitlines() if not line.lstrip().startswith("#")]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)
    elif isinstance(value, str):
        yield value


def job_commands(file: Path, content: str) -> list[tuple[str, list[str]]]:
    """Each `python -m chexray.jobs.JOB ...` and `chexray JOB ...`: the job and its arguments."""
    found = []
    for line in texts_of(file, content):
        for match in re.finditer(r"(?:\bpython -m chexray\.jobs\.|^\s*chexray )([a-z]+)(?=\s|$)(.*)", line):
            found.append((match.group(1), _arguments(match.group(2))))
    return found


def ray_starts(file: Path, content: str) -> list[list[str]]:
    """The arguments of each `ray start`."""
    lines = texts_of(file, content)
    return [_arguments(match.group(1)) for line in lines for match in re.finditer(r"\bray start\b(.*)", line)]


def _arguments(text: str) -> list[str]:
    words: list[str] = []
    for word in shlex.split(text, comments=True):
        if word in _ENDS:
            break
        words.append(word.rstrip(";"))
    return words


def check_job(job: str, arguments: list[str]) -> None:
    """Raise `UsageError` where this very code would not take a command, or a setting in it."""
    from chexray.platform.config import load_recipe
    from chexray.platform.submission import JOBS, Submission, check_command

    assert job in JOBS, job
    check_command(Submission(job, tuple(arguments), {}, {}, 0, 0))
    given = [arguments[at + 1] for at, word in enumerate(arguments) if word == "--set"]
    recipe = arguments[arguments.index("--recipe") + 1] if "--recipe" in arguments else "tiny"
    load_recipe(recipe, given)


def check_ray_start(arguments: list[str]) -> None:
    """Raise click's `UsageError` where Ray itself would not take an option of `ray start`."""
    from ray.scripts.scripts import start

    # Numbers that the shell puts in are not numbers yet.
    start.make_context("start", [re.sub(r"\$\w+|\$\{\w+\}", "1", word) for word in arguments])


def dockerfile_problems(text: str) -> list[str]:
    """What is wrong with an image's recipe: unpinned, with secrets, as root, or rebuilding all for a line of code."""
    steps = _instructions(text)
    problems = []
    for name, value in steps:
        if name == "FROM" and not re.fullmatch(r"\S+:[\w.-]*\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?", value):
            problems.append(f"base without a pinned version: {value}")
        if name in ("ENV", "ARG") and re.search(r"secret|token|passw|credential|_key\b", value, re.I):
            problems.append(f"a secret in {name}: {value}")
        if name == "ADD" or (name == "COPY" and {"."} & set(value.split()[:-1])):
            problems.append(f"copies more than it names: {name} {value}")
        if name == "RUN" and "pip install" in value and "--no-cache-dir" not in value:
            problems.append(f"pip's cache stays in the layer: {value}")
        if name == "RUN" and "apt-get install" in value and "rm -rf /var/lib/apt/lists" not in value:
            problems.append(f"apt's lists stay in the layer: {value}")
        if name not in ("FROM", "RUN", "ENV", "ARG", "COPY", "ADD", "USER", "WORKDIR"):
            problems.append(f"unknown instruction: {name}")
    order = [f"{name} {value}" for name, value in steps]
    lock = next((at for at, step in enumerate(order) if step.startswith("COPY requirements.lock ")), None)
    install = next((at for at, step in enumerate(order) if re.search(r"pip install .*--require-hashes", step)), None)
    code = next((at for at, step in enumerate(order) if re.search(r"^COPY dist/.*\.whl", step)), None)
    if lock is None or install is None or code is None or not lock < install < code:
        problems.append("the lock, with hashes, is to be installed before the code is copied")
    users = [value for name, value in steps if name == "USER"]
    if not users or users[-1].split(":")[0] in ("root", "0"):
        problems.append("runs as root")
    return problems


def _instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name.upper(), value.strip()) for name, _, value in (line.partition(" ") for line in joined.splitlines())]
