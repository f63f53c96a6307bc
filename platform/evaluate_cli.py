"""`chexray evaluate` and `chexray benchmark`: checkpoints on benchmarks."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from chexray.platform import storage
from chexray.platform.cli import Address, Gpu, Json, Out, Overrides, Overwrite, RecipeName, Workers, _report, app
from chexray.platform.config import Runtime, load_recipe
from chexray.platform.errors import UsageError
from chexray.platform.submission import names_of

benchmark_app = typer.Typer(help="Benchmarks in files of your own.", no_args_is_help=True)
app.add_typer(benchmark_app, name="benchmark")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _list_benchmarks(listed: bool) -> None:
    """Runs before other options are needed, or read: the data file is looked for on the command line itself."""
    if listed:
        words = sys.argv[1:]
        after = [value for word, value in pairwise(words) if word == "--data"]
        joined = [word.removeprefix("--data=") for word in words if word.startswith("--data=")]
        print_benchmarks(next(iter(after + joined), None))
        raise typer.Exit


@app.command()
def evaluate(
    checkpoint: Annotated[
        list[str], typer.Option(help="A checkpoint to score, as URI or NAME=URI. Repeatable.", metavar="[NAME=]URI")
    ],
    out: Out,
    corpus: Annotated[str | None, typer.Option(help="A corpus of your own, for plain tasks on its splits.")] = None,
    data: Annotated[
        str | None, typer.Option(help="A YAML file, from dataset to corpus, for the registry's benchmarks.")
    ] = None,
    twins: Annotated[
        str | None, typer.Option(help="A synthetic corpus, on which the benchmarks' twins run.", metavar="CORPUS")
    ] = None,
    benchmarks: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated. With --corpus: zero_shot, retrieval (these two if not given), disease_prediction, "
            "segmentation, report_generation; else names as --list prints them, .yaml files, or all."
        ),
    ] = None,
    listed: Annotated[
        bool,
        typer.Option(
            "--list", is_eager=True, callback=_list_benchmarks, help="List the benchmarks, with --data what is there."
        ),
    ] = False,
    recipe: RecipeName = "tiny",
    set_: Overrides = None,
    workers: Workers = 1,
    gpu: Gpu = False,
    address: Address = None,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Score checkpoints on benchmarks, with intervals over patients; every image is encoded once a checkpoint.

    The same command goes on with an evaluation that was killed or in which something failed.
    """
    if sum(given is not None for given in (corpus, data, twins)) != 1:
        raise UsageError("give one of --corpus (plain tasks), --data (the registry) and --twins (the registry's twins)")
    if benchmarks is None and corpus is None:
        raise UsageError("--benchmarks: which? Give names as --list prints them, .yaml files, or all")
    settings = load_recipe(recipe, set_)
    from chexray.evals.specs import OWN, SYNTHETIC, choose_specs, plain_specs, read_data, twin_of
    from chexray.jobs.evaluate import PLAIN
    from chexray.jobs.evaluate import evaluate_many as run

    names = list(PLAIN) if benchmarks is None else names_of(benchmarks)
    if corpus is not None:
        specs, places = plain_specs(names), {OWN: corpus}
    else:
        specs = choose_specs(names)
        if twins is not None:
            specs, places = {name: twin_of(spec) for name, spec in specs.items()}, {SYNTHETIC: twins}
        else:
            places = read_data(str(data))
            _require_data(names, {name: spec.datasets for name, spec in specs.items()}, places, str(data))
    runtime = Runtime(address=address, workers=workers, gpu=gpu)
    _report(out, run(settings, named_checkpoints(checkpoint), specs, places, out, runtime, overwrite), json_)


@benchmark_app.command("validate")
def validate(
    file: Annotated[str, typer.Argument(help="A benchmark's YAML file.")],
    data: Annotated[str | None, typer.Option(help="Also look whether its corpora are there, and have it all.")] = None,
) -> None:
    """Check a benchmark's file: its fields, and with --data that its corpora have the splits, findings and masks."""
    from chexray.evals.benchmark_check import check_benchmark
    from chexray.evals.specs import load_spec, read_data

    spec = load_spec(file)
    console = Console(soft_wrap=True)
    console.print(f"{spec.name} {spec.version}: {spec.title} ({spec.task})", markup=False, highlight=False)
    if data is None:
        console.print("valid", highlight=False)
        return
    for line in check_benchmark(spec, read_data(data)):
        console.print(line, markup=False, highlight=False)
    console.print("valid, and its data is there", highlight=False)


def named_checkpoints(given: list[str]) -> dict[str, str]:
    """Checkpoints by name: as given, or their folders' names, which must differ."""
    from chexray.jobs.evaluate import checkpoint_name

    found: dict[str, str] = {}
    for text in given:
        name, separator, uri = text.partition("=")
        if not separator or not _NAME.fullmatch(name):
            name, uri = checkpoint_name(text), text
        if name in found:
            raise UsageError(f"--checkpoint {text}: {name} is another's name already; give NAME=URI")
        found[name] = uri
    return found


def print_benchmarks(data: str | None) -> None:
    """The registry: names, tasks, which datasets each needs, and with a data file whether they are there."""
    from chexray.evals.specs import read_data, shipped_specs
    from chexray.platform.artifacts import MANIFEST

    places = {} if data is None else read_data(data)
    there = {name for name, uri in places.items() if storage.exists(storage.join(uri, MANIFEST))}
    table = Table("benchmark", "task", "data", "there", box=box.SIMPLE_HEAD)
    for spec in shipped_specs().values():
        state = "" if data is None else ("yes" if set(spec.datasets) <= there else "no")
        table.add_row(f"{spec.name}\n[dim]{spec.title}[/dim]", spec.task, ", ".join(spec.datasets), state)
    console = Console()
    console.print(table)
    console.print(
        "data: datasets as chexray ingest --list has them; --data FILE says where their corpora are, as lines "
        "'nih: URI'.\nEvery benchmark also runs on synthetic radiographs: --twins CORPUS.",
        style="dim",
        highlight=False,
    )


def _require_data(names: list[str], needed: dict[str, tuple[str, ...]], places: dict[str, str], file: str) -> None:
    """A benchmark that was asked for by its name must have its data; `all` takes those that have."""
    if "all" in names:
        return
    for name, datasets in needed.items():
        if lacking := [dataset for dataset in datasets if dataset not in places]:
            raise UsageError(f"--benchmarks {name}: {file} has no line for {', '.join(lacking)}")
