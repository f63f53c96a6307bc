"""A job's command line, as one would type it: read by the job's own parser, checked, and made a submission."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from chexray.platform import storage
from chexray.platform.config import load_recipe, recipe_names
from chexray.platform.errors import UsageError
from chexray.platform.submission import Resources, Submission, build_submission, names_of, require_job


@dataclass(frozen=True)
class CommandLine:
    """What was given for a job. `options`: by their names on the command line, with underscores; no defaults."""

    arguments: tuple[str, ...]
    options: dict[str, Any]


def read_command_line(job: str, words: Sequence[str]) -> CommandLine:
    """`chexray JOB WORDS`, read as that would. Raises `UsageError` where the command line of this very code would not
    take it."""
    require_job(job)
    from typer.exceptions import Exit, TyperException
    from typer.main import get_command

    from chexray.platform import evaluate_cli, subset_cli, sweep_cli  # noqa: F401 - they add their commands to `app`
    from chexray.platform.cli import app

    every: Any = get_command(app)
    command, given, chosen = every.commands[job], list(words), []
    try:
        context = command.make_context(job, given)
        while hasattr(command, "resolve_command"):
            name, command, given = command.resolve_command(context, [*context._protected_args, *context.args])
            chosen.append(str(name))
            context = command.make_context(name, given, parent=context)
    except TyperException as error:
        raise UsageError(f"{job}: {error.format_message()}") from error
    except Exit as error:
        raise UsageError(f"{job}: prints and ends, so there is nothing to submit") from error
    return _given(context, chosen)


def build_typed_submission(
    job: str, words: Sequence[str], resources: Resources | None = None, metadata: Mapping[str, str] | None = None
) -> Submission:
    """The submission of `chexray JOB WORDS`. Raises `UsageError` where it cannot be right.

    Local paths are made absolute. The files of this machine that --data, --space, --recipe and --benchmarks name go
    along. `metadata`: more to know the run by, on the cluster's dashboard.
    """
    line = read_command_line(job, words)
    check_options(job, line.options, line.options.get("set", ()))
    options = line.options | _contents(line.options)
    submission = build_submission(job, line.arguments, options, resources=resources)
    return replace(submission, metadata={**(metadata or {}), **submission.metadata})


def check_options(job: str, options: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Raise `UsageError` where a setting or a benchmark is unknown, or a setting not allowed, as far as files that lie
    here can tell. `overrides`: section.key=value."""
    recipe = str(options.get("recipe") or "tiny")
    if recipe in recipe_names() or _is_here(recipe):
        load_recipe(recipe, list(overrides))
    if job == "evaluate" and options.get("benchmarks") is not None:
        _check_benchmarks(names_of(options["benchmarks"]), plain=options.get("corpus") is not None)


def _check_benchmarks(names: list[str], plain: bool) -> None:
    from chexray.evals.specs import choose_specs, plain_specs

    here = [name for name in names if not storage.is_remote(name)]
    if here or not names:
        (plain_specs if plain else choose_specs)(here)


def _given(context: Any, chosen: list[str]) -> CommandLine:
    """What the parser found on the command line itself, not in defaults."""
    arguments, options = list(chosen), {}
    for parameter in context.command.get_params(context):
        source = context.get_parameter_source(parameter.name)
        if source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[parameter.name]
        if parameter.param_type_name == "argument":
            arguments += [value] if isinstance(value, str) else list(value)
        else:
            options[parameter.opts[0].lstrip("-").replace("-", "_")] = value
    return CommandLine(tuple(arguments), options)


def _contents(options: Mapping[str, Any]) -> dict[str, Any]:
    """What --data and --space hold, where they name files of this machine."""
    contents: dict[str, Any] = {}
    if _is_here(options.get("data")):
        from chexray.evals.specs import read_data

        contents["data"] = read_data(options["data"])
    if _is_here(options.get("space")):
        from chexray.platform.sweep.space import read_space

        read_space(options["space"])
        contents["space"] = yaml.safe_load(storage.read_bytes(options["space"]).decode()) or {}
    for name in ("data", "space"):
        uri = options.get(name)
        if uri is not None and name not in contents and not _is_whole(uri):
            raise UsageError(f"--{name} {uri}: no such file here; a file of this machine is sent along")
    return contents


def _is_here(uri: str | None) -> bool:
    return uri is not None and not storage.is_remote(uri) and storage.is_file(uri)


def _is_whole(uri: str) -> bool:
    """Whether it names the same file on the cluster."""
    return storage.is_remote(uri) or Path(uri.removeprefix("file://")).is_absolute()
