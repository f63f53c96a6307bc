"""`chexray import-checkpoint`: published weights as a checkpoint."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from chexray.platform.cli import Json, Out, Overwrite, _report, app


@app.command("import-checkpoint")
def import_checkpoint(
    source: Annotated[str, typer.Argument(help="A file of weights, or a folder with them.")],
    out: Out,
    layout: Annotated[
        Literal["auto", "chexficient", "huggingface", "open_clip"],
        typer.Option(help="How its tensors are named: the paper's release, transformers, open_clip."),
    ] = "auto",
    text_tower: Annotated[
        str | None,
        typer.Option(
            help="Folder, s3:// prefix or hub name of the text tower's configuration and tokenizer, where the source "
            "has none. chexficient: emilyalsentzer/Bio_ClinicalBERT unless given."
        ),
    ] = None,
    context_length: Annotated[
        int | None,
        typer.Option(min=8, help="Tokens of a report: of chexficient (256 unless given) and of dual encoders."),
    ] = None,
    model_config: Annotated[
        str | None,
        typer.Option(help="open_clip weights without a configuration: its JSON file, or a model's name as ViT-B-32."),
    ] = None,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Make a checkpoint of published weights: the paper's, a Hugging Face folder, or open_clip's.

    Every tensor must find its place, or nothing is written. Files are read as data alone: no code of theirs runs.
    """
    from chexray.platform.model.importing import import_checkpoint as run

    _report(out, run(source, out, layout, text_tower, context_length, model_config, overwrite), json_)
