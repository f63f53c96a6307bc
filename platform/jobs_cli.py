"""`chexray jobs`: what a cluster was asked to run, what it printed, and how to stop it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chexray.platform.cli import Json, app
from chexray.platform.head_options import Certificates, HeadAddress, Insecure, NoVerify, TokenFile, connect
from chexray.platform.submit_cli import follow_to_end

if TYPE_CHECKING:
    from chexray.platform.run_record import RunRecord

jobs_app = typer.Typer(help="List, follow and stop the jobs that were submitted to a cluster.", no_args_is_help=True)
app.add_typer(jobs_app, name="jobs")

RunId = Annotated[str, typer.Argument(help="A run's id, as submit and list print it.", metavar="ID")]
_COLOURS = {"SUCCEEDED": "green", "FAILED": "red", "STOPPED": "yellow", "RUNNING": "cyan", "PENDING": "dim"}


@jobs_app.command("list")
def list_(
    address: HeadAddress,
    token_file: TokenFile = None,
    certificates: Certificates = None,
    no_verify: NoVerify = False,
    insecure: Insecure = False,
    json_: Json = False,
) -> None:
    """List the jobs of chexray that the cluster knows, the latest first."""
    records = connect(address, token_file, certificates, no_verify, insecure).records()
    now = time.time()
    if json_:
        typer.echo(json.dumps({"jobs": [asdict(record) | {"seconds": record.seconds(now)} for record in records]}))
        return
    Console().print(jobs_table(records, now))


@jobs_app.command("logs")
def logs(
    run: RunId,
    address: HeadAddress,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until the job ends, and exit as it does. Ctrl+C leaves it running.")
    ] = False,
    token_file: TokenFile = None,
    certificates: Certificates = None,
    no_verify: NoVerify = False,
    insecure: Insecure = False,
) -> None:
    """Print what a job has printed."""
    found = connect(address, token_file, certificates, no_verify, insecure).run(run)
    if follow:
        follow_to_end(found, address)
    else:
        typer.echo(found.logs(), nl=False)


@jobs_app.command("stop")
def stop(
    run: RunId,
    address: HeadAddress,
    token_file: TokenFile = None,
    certificates: Certificates = None,
    no_verify: NoVerify = False,
    insecure: Insecure = False,
) -> None:
    """Ask a job to stop. Pretraining saves a checkpoint first; the same command submitted again goes on."""
    found = connect(address, token_file, certificates, no_verify, insecure).run(run)
    asked = found.stop()
    said = "was asked to stop; it may take a few seconds" if asked else f"does not run: it is {found.status()}"
    typer.echo(f"run {found.id} ({found.job}) {said}")


def jobs_table(records: Sequence[RunRecord], now: float) -> Table:
    """A line a job. `now`: seconds since 1970, until which what still runs is counted."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for name in ("id", "job", "state", "started"):
        table.add_column(name, no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("out", overflow="fold")
    for record in records:
        started = None if record.started is None else datetime.fromtimestamp(record.started).astimezone()
        seconds = record.seconds(now)
        table.add_row(
            record.id,
            record.job,
            Text(record.status, style=_COLOURS.get(record.status, "")),
            "-" if started is None else f"{started:%Y-%m-%d %H:%M:%S}",
            "-" if seconds is None else f"{seconds:,.0f}",
            Text(record.out or "-"),
        )
    return table
