"""The command line. Heavy libraries are imported by the commands that need them, so that `--help` is quick."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from chexray.platform.artifacts import Manifest
from chexray.platform.config import Recipe, Runtime, load_recipe
from chexray.platform.errors import ChexrayError, UsageError

app = typer.Typer(
    help="Pretrain chest X-ray image-report models on a curated fraction of the data, and evaluate them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Out = Annotated[str, typer.Option(help="Folder or s3:// prefix of what is written.")]
RecipeName = Annotated[str, typer.Option("--recipe", help="A shipped recipe (tiny, paper) or a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One setting, as train.epochs=5. Repeatable."),
]
Workers = Annotated[int, typer.Option(min=1, help="Training workers, or encoders.")]
Gpu = Annotated[bool, typer.Option("--gpu", help="Give each worker one GPU.")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster's address; without it Ray starts on this machine.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another artifact that is at --out.")]
Evaluation = Annotated[
    list[str] | None,
    typer.Option("--evaluation", help="A corpus for evaluation: what it holds is kept out of training. Repeatable."),
]
Keep = Annotated[float | None, typer.Option(help="Fraction of the train split to keep.")]
Scorer = Annotated[str | None, typer.Option(help="A checkpoint that scores the pairs.")]
Curation = Literal["paper", "streaming"]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def _list_datasets(listed: bool) -> None:
    if listed:
        from chexray.platform.summary import print_datasets

        print_datasets()
        raise typer.Exit


@app.command()
def ingest(
    name: Annotated[str, typer.Argument(help="A dataset's name, as --list prints it; folder for your own.")],
    out: Out,
    root: Annotated[str | None, typer.Option(help="Where the dataset's own files are (synthetic: made there).")] = None,
    split: Annotated[str, typer.Option(help="auto, or one split for all pairs: train, validation, test.")] = "auto",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="An option of the dataset, as report=text_column."),
    ] = None,
    evaluation: Evaluation = None,
    listed: Annotated[
        bool, typer.Option("--list", is_eager=True, callback=_list_datasets, help="List the datasets, and stop.")
    ] = False,
    recipe: RecipeName = "tiny",
    set_: Overrides = None,
    address: Address = None,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Read a dataset into a corpus: images re-encoded once, reports cleaned, patients split, bad pairs set aside."""
    # Here, and below, settings are checked before anything heavy is imported.
    settings = load_recipe(recipe, [*(set_ or []), f"ingest.split={split}"] if split != "auto" else set_)
    from chexray.jobs.ingest import ingest as run

    if root is None and name == "synthetic":
        root = f"{out.rstrip('/')}-source"
    if root is None:
        raise UsageError(f"--root: where are the files of '{name}'?")
    runtime = Runtime(address=address)
    manifest = run(settings, name, root, out, _options(option), runtime, overwrite, evaluation or [])
    _report(out, manifest, json_)


@app.command()
def merge(
    corpora: Annotated[list[str], typer.Argument(help="The corpora to join.")],
    out: Out,
    evaluation: Evaluation = None,
    recipe: RecipeName = "tiny",
    set_: Overrides = None,
    address: Address = None,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Join corpora into one: no image twice, no patient in two splits, nothing that an evaluation set holds."""
    settings = load_recipe(recipe, set_)
    from chexray.jobs.merge import merge as run

    manifest = run(settings, corpora, out, evaluation or [], Runtime(address=address), overwrite)
    _report(out, manifest, json_)


@app.command()
def inspect(
    corpus: Annotated[str, typer.Argument(help="The corpus to look at.")],
    out: Annotated[str | None, typer.Option(help="The page's file; without it CORPUS/inspect.html.")] = None,
    pairs: Annotated[int, typer.Option(min=0, max=500, help="Random pairs on the contact sheet.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Which random pairs.")] = 0,
) -> None:
    """Write one HTML page about a corpus: counts, prevalence, report lengths, what was left out, random pairs."""
    from chexray.platform import storage
    from chexray.platform.corpus.inspection import inspect_corpus

    page = out or storage.join(corpus, "inspect.html")
    if storage.is_dir(page):
        page = storage.join(page, "inspect.html")
    storage.write_bytes(page, inspect_corpus(corpus, pairs, seed).encode())
    Console().print(f"written: {page} (it shows images and reports of the corpus)", highlight=False, soft_wrap=True)


@app.command()
def curate(
    corpus: Annotated[str, typer.Option(help="The corpus to choose from.")],
    out: Out,
    keep: Keep = None,
    selector: Annotated[
        str | None, typer.Option(help="prototype, random, term_coverage, stratified, similarity, density, ...")
    ] = None,
    scorer: Scorer = None,
    features: Annotated[
        str | None, typer.Option(help="A subset of the corpus whose features are used instead of scoring again.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="The reference checkpoint of selector learnability.")] = None,
    recipe: RecipeName = "tiny",
    set_: Overrides = None,
    workers: Workers = 1,
    gpu: Gpu = False,
    address: Address = None,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Choose the pairs to train on: a subset with its audit, and the kept pairs as a compact corpus."""
    settings = _with(recipe, set_, {"curate.keep": keep, "curate.selector": selector})
    from chexray.jobs.curate import curate as run

    runtime = Runtime(address=address, workers=workers, gpu=gpu)
    _report(out, run(settings, corpus, out, scorer, runtime, overwrite, features, reference), json_)


@app.command()
def pretrain(
    corpus: Annotated[str, typer.Option(help="The corpus to train on.")],
    out: Out,
    subset: Annotated[str | None, typer.Option(help="Train on the pairs that this subset of it keeps.")] = None,
    curation: Annotated[
        Curation | None,
        typer.Option(help="Choose pairs in the first epoch: inside its steps (paper), or ahead of them (streaming)."),
    ] = None,
    keep: Keep = None,
    scorer: Scorer = None,
    recipe: RecipeName = "tiny",
    set_: Overrides = None,
    workers: Workers = 1,
    min_workers: Annotated[
        int | None, typer.Option(min=1, help="Go on with as few as these while nodes are away; --workers is the most.")
    ] = None,
    scorers: Annotated[int, typer.Option(min=1, help="Scorers beside the workers, with --curation streaming.")] = 1,
    gpu: Gpu = False,
    address: Address = None,
    resume: Annotated[bool, typer.Option(help="Only go on with a run that is there, and never start one.")] = False,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Train a dual encoder with Ray Train and DeepSpeed: a checkpoint that open_clip loads.

    --curation paper keeps the paper's fixed counts of each global batch; with --keep, that fraction of it. The same
    command goes on with a run that was interrupted.
    """
    if keep is not None and curation is None:
        raise UsageError("--keep: is for runs that choose their pairs (--curation), or for chexray curate")
    settings = load_recipe(recipe, curation_settings(curation, keep, set_ or []))
    from chexray.jobs.pretrain import pretrain as run

    runtime = Runtime(address=address, workers=workers, min_workers=min_workers, scorers=scorers, gpu=gpu)
    _report(out, run(settings, corpus, out, subset, runtime, overwrite, curation, scorer, resume), json_)


@app.command()
def show(
    uri: Annotated[str, typer.Argument(help="A corpus, subset, checkpoint or scores.")], json_: Json = False
) -> None:
    """Say what an artifact is, what it came from, what is in it and what it cost."""
    from chexray.platform.artifacts import read_manifest

    _report(uri, read_manifest(uri), json_)


@app.command()
def demo(
    out: Annotated[str, typer.Option(help="Folder for all that the demo writes.")] = "demo-out",
    recipe: RecipeName = "tiny",
    set_: Overrides = None,
    pairs: Annotated[int, typer.Option(min=200, help="Synthetic pairs to draw.")] = 900,
    json_: Json = False,
) -> None:
    """Run the whole path on synthetic radiographs: curated against random against full."""
    from chexray.jobs.demo import DEMO_SETTINGS
    from chexray.jobs.demo import demo as run

    run(load_recipe(recipe, [*DEMO_SETTINGS, *(set_ or [])]), out, pairs, json_)


def main() -> None:
    """Entry point: errors that a user can act on become one line, and their exit code."""
    # Here and not above: they take their options from this module.
    from chexray.platform import (  # noqa: F401 - they add their commands to `app`
        dashboard_cli,
        doctor_cli,
        evaluate_cli,
        import_cli,
        jobs_cli,
        leaderboard_cli,
        status_cli,
        submit_cli,
        subset_cli,
        sweep_cli,
    )

    try:
        app(standalone_mode=True)
    except ChexrayError as error:
        _exit(str(error), error.exit_code)
    except Exception as error:
        # What workers raise arrives wrapped by Ray.
        from chexray.jobs.failures import cause_of
        from chexray.platform import storage

        cause = cause_of(error)
        explained = str(cause) if isinstance(cause, ChexrayError) else storage.explain(cause)
        if explained is None:
            raise
        _exit(explained, cause.exit_code if isinstance(cause, ChexrayError) else ChexrayError.exit_code)


def _exit(message: str, code: int) -> None:
    Console(stderr=True, soft_wrap=True).print(f"error: {message}", style="red", markup=False, highlight=False)
    sys.exit(code)


def run_job(name: str) -> None:
    """`python -m chexray.jobs.NAME ...` is `chexray NAME ...`: what a submitted job starts."""
    sys.argv[1:1] = [name]
    main()


def curation_settings(curation: Curation | None, keep: float | None, chosen: list[str]) -> list[str]:
    """`--set` and the options as settings: the paper's fixed counts, unless a fraction or a mode is asked for."""
    if keep is not None and "curate.mode=paper" in chosen:
        raise UsageError(
            "--keep and --set curate.mode=paper: fixed counts leave no fraction to choose; give one of them"
        )
    asked = keep is not None or any(one.startswith(("curate.keep=", "curate.mode=")) for one in chosen)
    fixed = ["curate.mode=paper"] if curation == "paper" and not asked else []
    return [*fixed, *chosen, *([f"curate.keep={keep}"] if keep is not None else [])]


def _with(recipe: str, overrides: list[str] | None, given: dict[str, Any]) -> Recipe:
    """The recipe with `--set`, and with the options that were given over that."""
    chosen = [f"{key}={value}" for key, value in given.items() if value is not None]
    return load_recipe(recipe, [*(overrides or []), *chosen])


def _options(given: list[str] | None) -> dict[str, Any]:
    """`key=value` options of an adapter; values are YAML, so lists are written [a, b]."""
    import yaml

    options: dict[str, Any] = {}
    for text in given or []:
        key, separator, value = text.partition("=")
        if not separator:
            raise UsageError(f"--option {text}: expected key=value")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"--option {text}: {value!r} is not a YAML value (quote it?)") from error
    return options


def _report(uri: str, manifest: Manifest, as_json: bool) -> None:
    if as_json:
        from chexray.platform.summary import result_rows

        print(json.dumps({"uri": uri, **manifest.model_dump(), "results": result_rows(uri, manifest)}))  # noqa: T201
        return
    from chexray.platform.summary import print_summary

    print_summary(uri, manifest)
