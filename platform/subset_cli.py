"""`chexray subset`: subsets as files of ids, and as sets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from chexray.platform.cli import Address, Json, Out, Overwrite, _report, app
from chexray.platform.config import Runtime
from chexray.platform.errors import UsageError
from chexray.platform.summary import number

if TYPE_CHECKING:
    from chexray.curation.subset import Operation

subset_app = typer.Typer(help="Carry subsets between projects as files of ids, and combine them.", no_args_is_help=True)
app.add_typer(subset_app, name="subset")

Subsets = Annotated[list[str], typer.Argument(help="Two or more subsets of one corpus.")]
Corpus = Annotated[
    str | None, typer.Option(help="Their corpus, if it does not lie where the first was drawn from any more.")
]


@subset_app.command("export")
def export(
    subset: Annotated[str, typer.Argument(help="The subset whose kept ids are written.")],
    to: Annotated[
        str,
        typer.Option(help="A file: .npy (DataComp's sorted 128-bit ids), .txt (one id a line), .csv or .parquet."),
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
    json_: Json = False,
) -> None:
    """Write the ids that a subset keeps to one file."""
    from chexray.curation.subset import export_subset

    ids = export_subset(subset, to, overwrite)
    if json_:
        typer.echo(json.dumps({"file": to, "ids": ids}))
    else:
        Console().print(f"written: {to} ({ids:,} ids)", highlight=False, soft_wrap=True, markup=False)


@subset_app.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="A .npy, .txt, .csv or .parquet file of sample ids.")],
    corpus: Annotated[str, typer.Option(help="The corpus that the ids are of.")],
    out: Out,
    max_unknown: Annotated[
        float, typer.Option(min=0, max=1, help="The share of the ids that the train split may lack.")
    ] = 0.0,
    address: Address = None,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Make a subset of a corpus from a file of ids, with its audit and its compact corpus."""
    from chexray.jobs.subset import import_subset as run

    _report(out, run(file, corpus, out, max_unknown, Runtime(address=address), overwrite), json_)


def _add_combining(operation: Operation, text: str) -> None:
    @subset_app.command(operation, help=text)
    def combine(
        subsets: Subsets,
        out: Out,
        corpus: Corpus = None,
        address: Address = None,
        overwrite: Overwrite = False,
        json_: Json = False,
    ) -> None:
        from chexray.jobs.subset import combine_subsets as run

        _report(out, run(operation, subsets, out, corpus, Runtime(address=address), overwrite), json_)


_add_combining("intersect", "Keep what all of the subsets keep.")
_add_combining("union", "Keep what any of the subsets keeps.")
_add_combining("diff", "Keep what the first subset keeps and none of the others does.")


@subset_app.command("compare")
def compare(
    subsets: Annotated[list[str], typer.Argument(help="Two or more subsets; ids are compared, whatever the corpus.")],
    json_: Json = False,
) -> None:
    """Say how large subsets are, and how much each two of them share."""
    from chexray.curation.subset import compare_subsets

    if len(subsets) < 2:
        raise UsageError(f"compare: give two subsets or more ({', '.join(subsets)})")
    compared = compare_subsets(subsets)
    if json_:
        typer.echo(json.dumps(compared))
    else:
        _print_comparison(compared)


def _print_comparison(compared: dict[str, Any]) -> None:
    sizes = Table("", "subset", "kept", "of pairs", box=None)
    for position, subset in enumerate(compared["subsets"], start=1):
        sizes.add_row(str(position), subset["uri"], f"{subset['kept']:,}", f"{subset['pairs']:,}")
    overlaps = Table("subsets", "in both", "only first", "only second", "Jaccard", box=None)
    for pair in compared["overlaps"]:
        counts = [f"{pair[name]:,}" for name in ("both", "only_first", "only_second")]
        overlaps.add_row(f"{pair['first'] + 1}, {pair['second'] + 1}", *counts, number(pair["jaccard"]))
    console = Console()
    console.print(sizes, overlaps)
    console.print(f"in any {compared['any']:,}, in all {compared['all']:,}", highlight=False)
    if len({subset["corpus"] for subset in compared["subsets"]}) > 1:
        console.print("these subsets are of more than one corpus; the ids alone are compared", style="dim")
