"""`chexray doctor`: whether this machine, its storage and a cluster's head are fit for work, and what to do if not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chexray.platform.cli import Json, app
from chexray.platform.doctor.diagnosis import Diagnosis, worst

_COLOURS = {"ok": "green", "warning": "yellow", "failure": "red"}


@app.command()
def doctor(
    storage: Annotated[
        str | None, typer.Option(help="Also write, read and delete a small file there.", metavar="URI")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Also ask a cluster's head, as http://HEAD:8265.", metavar="ADDRESS")
    ] = None,
    json_: Json = False,
) -> None:
    """Check versions, GPUs, collectives, compilers, disk, memory and a step of training. Exits with 1 where something
    failed."""
    diagnoses: list[Diagnosis] = []
    # On stderr: stdout holds the table, or the JSON.
    with Console(stderr=True).status("") as progress:
        for name, check in checks(storage, address):
            progress.update(f"checking {name}")
            diagnoses += check()
    state = worst(diagnoses)
    if json_:
        typer.echo(json.dumps({"state": state, "checks": [asdict(diagnosis) for diagnosis in diagnoses]}))
    else:
        Console().print(diagnosis_table(diagnoses))
    if state == "failure":
        raise typer.Exit(1)


def checks(storage: str | None, address: str | None) -> Iterator[tuple[str, Callable[[], list[Diagnosis]]]]:
    """What is looked at, in its order: names, and what looks."""
    from chexray.platform.doctor import places, software

    yield "versions", _versions
    yield "torch", lambda: [software.check_torch()]
    yield "collectives", _collectives
    yield "compilers", lambda: [software.check_compilers()]
    yield "room", _room
    yield "training", _training
    yield "token", lambda: [places.check_token_file(Path.home())]
    if storage is not None:
        yield "storage", lambda: [places.check_storage(storage)]
    if address is not None:
        yield "head", lambda: places.check_head(address)


def diagnosis_table(diagnoses: list[Diagnosis]) -> Table:
    """A line a check, with what to do below what was found."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("found, and what to do", overflow="fold")
    for diagnosis in diagnoses:
        text = Text(diagnosis.found)
        if diagnosis.advice is not None:
            text.append(f"\n{diagnosis.advice}", style="dim")
        table.add_row(diagnosis.check, Text(diagnosis.state, style=_COLOURS[diagnosis.state]), text)
    return table


def _versions() -> list[Diagnosis]:
    import platform

    from chexray.platform.doctor.software import check_packages, check_python, own_requirements

    python, packages = own_requirements()
    return [check_python(platform.python_version(), python), check_packages(packages)]


def _collectives() -> list[Diagnosis]:
    from chexray.platform.doctor.software import check_all_reduce, visible_cards

    cards = visible_cards()
    return [check_all_reduce("nccl", min(cards, 2)) if cards else check_all_reduce("gloo")]


def _room() -> list[Diagnosis]:
    from chexray.platform.doctor import machine

    return [
        machine.check_disk("temporary folder", machine.temporary_folder()),
        machine.check_disk("Ray's folder", machine.ray_folder(), machine.RAY_BYTES, machine.SPILL_SHARE),
        machine.check_shared_memory(machine.shared_bytes()),
        machine.check_memory(machine.available_bytes()),
    ]


def _training() -> list[Diagnosis]:
    from chexray.platform.config import load_recipe
    from chexray.platform.doctor.software import visible_cards
    from chexray.platform.doctor.training import check_training

    return [check_training(load_recipe("tiny"), "cuda" if visible_cards() else "cpu")]
