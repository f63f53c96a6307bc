"""Hugging Face models in local folders: safetensors only, complete; nothing is downloaded and no code of theirs run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chexray.platform.errors import UsageError


def load_local(path: str, loader: Any, kind: str, reader: Any) -> tuple[Any, Any]:
    """A model in evaluation mode by `loader`, one of transformers' Auto classes, and what reads its input by `reader`.

    `kind` names the model in errors. UsageError where the folder is not such a model, has no safetensors, or lacks
    some weights, which would otherwise be random.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise UsageError(f"{path}: no model there; give a local folder with config.json and *.safetensors")
    if not any(folder.glob("*.safetensors")):
        raise UsageError(f"{path}: has no *.safetensors; other weights can run code and are not loaded")
    try:
        model, report = loader.from_pretrained(
            path, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        opened = reader.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not {kind}: {error}") from error
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise UsageError(f"{path}: not {kind}: its weights lack {', '.join(lacking[:3])} and {len(lacking[3:])} more")
    return model.eval(), opened
