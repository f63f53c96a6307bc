"""`chexray status`: what is at a storage root, and how far it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chexray.platform.cli import Json, app

if TYPE_CHECKING:
    from chexray.platform.status import ArtifactStatus

_COLOURS = {"finished": "green", "unfinished": "yellow", "unreadable": "red"}
_TO_THE_MINUTE = len("2026-01-31T23:59")


@app.command()
def status(
    uri: Annotated[str, typer.Argument(help="A folder or s3:// prefix that artifacts were written below.")],
    all_: Annotated[
        bool, typer.Option("--all", help="Also list what sweeps and runs made for themselves: trials, subsets.")
    ] = False,
    json_: Json = False,
) -> None:
    """List the artifacts and sweeps at a storage root: what they are, whether they are finished, what they cost."""
    from chexray.platform.status import find_artifacts

    found = find_artifacts(uri)
    shown = [one for one in found if all_ or not one.inside]
    if json_:
        typer.echo(json.dumps({"uri": uri, "artifacts": [asdict(one) for one in shown]}))
        return
    console = Console()
    if not found:
        console.print(f"nothing of chexray below {uri}", markup=False, highlight=False, soft_wrap=True)
        return
    console.print(status_table(shown))
    if hidden := len(found) - len(shown):
        console.print(f"and {hidden} inside these (--all lists them)", style="dim", highlight=False)


def status_table(found: Sequence[ArtifactStatus]) -> Table:
    """A line an artifact; of sweeps, how their trials stand below."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("artifact", overflow="fold")
    for name in ("kind", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("pairs", "PFLOP", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("started (UTC)", no_wrap=True)
    for one in found:
        table.add_row(_name(one), one.kind, Text(one.state, style=_COLOURS[one.state]), *_numbers(one))
    return table


def _name(one: ArtifactStatus) -> Text:
    from chexray.platform.status import trial_words
    from chexray.platform.sweep.records import TrialState

    text = Text(one.path)
    if one.trials is not None:
        text.append(f"\n{trial_words(one.trials, get_args(TrialState)[::-1])}", style="dim")
    if one.problem is not None:
        text.append(f"\n{one.problem}", style="red")
    return text


def _numbers(one: ArtifactStatus) -> tuple[str, str, str, str]:
    from chexray.platform.summary import PETA

    return (
        "-" if one.pairs is None else f"{one.pairs:,}",
        "-" if one.cost is None else f"{one.cost / PETA:.4g}",
        "-" if one.seconds is None else f"{one.seconds:,.0f}",
        "-" if one.started is None else one.started[:_TO_THE_MINUTE].replace("T", " "),
    )
