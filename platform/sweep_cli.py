"""`chexray sweep`."""

from __future__ import annotations

from typing import Annotated

import typer

from chexray.platform.cli import Address, Gpu, Json, Overrides, Overwrite, RecipeName, Workers, _report, app
from chexray.platform.config import Runtime, load_recipe
from chexray.platform.errors import UsageError


@app.command()
def sweep(
    corpus: Annotated[str | None, typer.Option(help="The corpus to learn from.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder or s3:// prefix of what is written.")] = None,
    space: Annotated[
        str | None,
        typer.Option(
            help="A YAML file: methods, keep, budgets, seeds, settings, search, scheduler ...", metavar="FILE"
        ),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="A sweep that was broken off, to go on with. Its folder knows all else.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A YAML file, from dataset to corpus, for benchmarks of the registry.")
    ] = None,
    concurrent: Annotated[
        int | None, typer.Option(min=1, help="Trials at once; as many as there is room for if not given.")
    ] = None,
    recipe: RecipeName = "tiny",
    set_: Overrides = None,
    workers: Workers = 1,
    min_workers: Annotated[int | None, typer.Option(min=1, help="A trial goes on with so few.")] = None,
    gpu: Gpu = False,
    address: Address = None,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Pretrain over methods, kept fractions, compute budgets and seeds; say how much data, chosen how, is enough."""
    runtime = Runtime(workers=workers, min_workers=min_workers, gpu=gpu, address=address)
    if resume is not None:
        if corpus or out or space or data or set_ or overwrite:
            raise UsageError("--resume: the sweep's folder says what is swept; leave the other options out")
        from chexray.jobs.sweep import resume as go_on

        _report(resume, go_on(resume, runtime, concurrent), json_)
        return
    if corpus is None or out is None:
        raise UsageError("--corpus and --out: give both, or --resume SWEEP")
    settings = load_recipe(recipe, set_)
    from chexray.platform.sweep.space import read_space

    chosen = read_space(space)
    from chexray.evals.specs import read_data
    from chexray.jobs.sweep import sweep as run

    corpora = read_data(data) if data else None
    manifest = run(settings, corpus, out, chosen, corpora, runtime, overwrite, concurrent)
    _report(out, manifest, json_)
