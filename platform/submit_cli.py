"""`chexray submit`: a job of chexray on a cluster, with the code and files of this machine sent along."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from chexray.platform.cli import app
from chexray.platform.errors import ClusterError, UsageError
from chexray.platform.head_options import Certificates, HeadAddress, Insecure, NoVerify, TokenFile, connect
from chexray.platform.submission import JOBS, Resources, has_credentials

if TYPE_CHECKING:
    from chexray.platform.sdk import Run

INTERRUPTED_CODE = 130
"""As of a process that Ctrl+C ended."""
_OWN_METADATA = "chexray."


@app.command(context_settings={"allow_interspersed_args": False})
def submit(
    job: Annotated[str, typer.Argument(help=f"One of {', '.join(JOBS)}.")],
    address: HeadAddress,
    arguments: Annotated[
        list[str] | None, typer.Argument(help="The job's own arguments and options, as `chexray JOB` takes them.")
    ] = None,
    token_file: TokenFile = None,
    certificates: Certificates = None,
    no_verify: NoVerify = False,
    insecure: Insecure = False,
    entrypoint_cpus: Annotated[
        float, typer.Option(min=0, help="CPUs for the job's own process, which then need not run on the head.")
    ] = 0,
    entrypoint_memory: Annotated[int, typer.Option(min=0, help="Bytes of memory for it.")] = 0,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", metavar="KEY=VALUE", help="A note that the dashboard shows. Repeatable."),
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the run's id and return at once.")] = False,
) -> None:
    """Run a job on a cluster: its options come after JOB, those of submit before it.

    Follows what it prints and exits as it does: 1 failed, 2 wrong settings, 143 stopped. Ctrl+C leaves it running.
    """
    notes = _notes(metadata or [])
    # Settings are checked before the head is asked.
    from chexray.platform.command_line import build_typed_submission

    resources: Resources = {"cpus": entrypoint_cpus, "memory": entrypoint_memory}
    submission = build_typed_submission(job, _without_address(arguments or []), resources, notes)
    run = connect(address, token_file, certificates, no_verify, insecure, submits=True).send(submission)
    typer.echo(run.id)
    if not no_wait:
        follow_to_end(run, address)


def follow_to_end(run: Run, address: str) -> None:
    """Print what a run prints until it ends. Raises what `Run.wait` raises where it did not succeed.

    Ctrl+C ends the following alone, with `INTERRUPTED_CODE`.
    """
    try:
        print_as_it_comes(run)
        run.wait()
    except KeyboardInterrupt:
        _say(
            f"run {run.id} ({run.job}) goes on. Follow it: chexray jobs logs {run.id} --follow --address {address}. "
            f"Stop it: chexray jobs stop {run.id} --address {address}"
        )
        raise typer.Exit(INTERRUPTED_CODE) from None
    _say(f"run {run.id} ({run.job}) succeeded")


def print_as_it_comes(run: Run) -> None:
    """Its output until it ends, or until the connection does: whoever waits for the run sees what became of it."""
    try:
        for piece in run.logs(follow=True):
            sys.stdout.write(piece)
            sys.stdout.flush()
    except ClusterError as error:
        _say(f"{error}; waiting for the end of run {run.id}, its output is in chexray jobs logs {run.id}")


def _without_address(words: list[str]) -> list[str]:
    if any(word == "--address" or word.startswith("--address=") for word in words):
        raise UsageError("--address: stands before JOB; a submitted job runs on the cluster that it is submitted to")
    return words


def _notes(given: list[str]) -> dict[str, str]:
    notes: dict[str, str] = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not (key and separator):
            raise UsageError(f"--metadata {text}: expected KEY=VALUE")
        if key.startswith(_OWN_METADATA):
            raise UsageError(f"--metadata {text}: names with {_OWN_METADATA} are chexray's own; choose another")
        if has_credentials(value):
            raise UsageError(f"--metadata {key}: holds an address with a password, which the dashboard would show")
        notes[key] = value
    return notes


def _say(text: str) -> None:
    """On stderr: stdout holds the run's id and what it prints."""
    Console(stderr=True, soft_wrap=True).print(text, style="dim", markup=False, highlight=False)
