"""The checkpoint that scores pairs: the one that is given, the recipe's own pretrained towers, or a warmed-up one."""

from __future__ import annotations

from chexray.platform import storage
from chexray.platform.artifacts import read_manifest
from chexray.platform.config import Recipe, Runtime
from chexray.platform.model.checkpoint import export_checkpoint, require_checkpoint
from chexray.platform.model.encoder import build_model


def scorer_of(recipe: Recipe, corpus: str, given: str | None, folder: str, runtime: Runtime) -> tuple[str, int]:
    """The scorer's URI, and the FLOPs that were spent on making it. What is made lies below `folder`.

    Towers that start from nothing see nothing in a pair: a warm-up trains them on a random share of the corpus first.
    """
    if given:
        require_checkpoint(given)
        return storage.resolve(given), 0
    used = storage.join(folder, "scorer")
    if recipe.model.pretrained:
        export_checkpoint(used, build_model(recipe.model, recipe.train.seed).state_dict(), recipe.model)
        return used, 0
    # Here and not above: both of them may start with a warm-up.
    from chexray.jobs.curate import curate
    from chexray.jobs.pretrain import pretrain

    config = recipe.curate
    share = {"selector": "random", "keep": config.warmup_fraction, "mode": "budget"}
    epochs = {"epochs": config.warmup_epochs}
    whole = recipe.run.model_copy(update={"checkpoint_epochs": config.warmup_epochs, "trackers": ()})
    warmup = recipe.model_copy(
        update={
            "curate": config.model_copy(update=share),
            "train": recipe.train.model_copy(update=epochs),
            "run": whole,
        }
    )
    sample = storage.join(folder, "warmup")
    curate(warmup, corpus, sample, runtime=runtime)
    pretrain(warmup, corpus, used, sample, runtime)
    return used, int(read_manifest(used, "checkpoint").cost["total_flops"])
