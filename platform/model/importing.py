"""Published weights into a checkpoint of ours: read, mapped name by name, and written as every other checkpoint is."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from pydantic import ValidationError

from chexray.platform import storage
from chexray.platform.artifacts import Manifest, Stage
from chexray.platform.errors import UsageError
from chexray.platform.model.checkpoint import write_checkpoint
from chexray.platform.model.chexficient import is_chexficient, read_chexficient
from chexray.platform.model.encoder import construct, local_text_tower
from chexray.platform.model.huggingface import read_huggingface
from chexray.platform.model.open_clip_files import CONFIG_FILE, read_open_clip
from chexray.platform.model.published import Published, convert
from chexray.platform.model.state_files import read_state

Layout = Literal["auto", "chexficient", "huggingface", "open_clip"]
_READ = (".json", ".safetensors", ".bin", ".pt", ".pth", ".txt", ".model")
"""Files of a published folder that are read, and so make up its content."""


def import_checkpoint(
    source: str,
    out: str,
    layout: Layout = "auto",
    text_tower: str | None = None,
    context_length: int | None = None,
    model_config: str | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Write the published model at `source`, a file or folder, as a checkpoint at `out`.

    `text_tower`: folder, URI or hub name of a text tower's configuration and tokenizer, where the source lacks them.
    `context_length`: tokens, of a text tower that takes any number. `model_config`: of open_clip weights without one.
    Nothing is resampled, dropped or left as it was drawn: positions keep their number, and the image size is theirs.
    Its training data is unknown. Raises `UsageError` where the source is not wholly one of the layouts.
    """
    settings = {
        "layout": layout,
        "text_tower": text_tower,
        "context_length": context_length,
        "model_config": model_config,
    }
    with storage.local_copy(source, _READ) as path, tempfile.TemporaryDirectory(prefix="chexray-") as scratch:
        if not path.exists():
            raise UsageError(f"{source}: no such file or folder")
        origin = (storage.resolve(source), _digest(path))
        stage = Stage(out, "checkpoint", {"import": settings}, source=origin, overwrite=overwrite)
        published = _read(path, source, layout, text_tower, context_length, model_config, Path(scratch))
        cfg = {**published.cfg, "custom_text": True, "nonscalar_logit_scale": True}
        state = _converted(published, cfg, source)
        if done := stage.begin():
            return done
        write_checkpoint(stage.uri, state, cfg, published.text_tower, published.prototypes)
    prototypes = published.prototypes
    counts = {
        "layout": published.layout,
        "image_size": cfg["vision_cfg"]["image_size"],
        "embed_dim": cfg["embed_dim"],
        "parameters": sum(value.numel() for value in state.values()),
        "prototypes": None if prototypes is None else len(prototypes),
    }
    return stage.finish(counts)


def _read(
    path: Path,
    source: str,
    layout: Layout,
    text_tower: str | None,
    context_length: int | None,
    model_config: str | None,
    scratch: Path,
) -> Published:
    if layout not in get_args(Layout):
        raise UsageError(f"--layout {layout}: allowed: {', '.join(get_args(Layout))}")
    state = read_state(path, source)
    found = _layout_of(path, state, model_config) if layout == "auto" else layout
    try:
        if found == "chexficient":
            return read_chexficient(state, source, text_tower, context_length)
        if found == "open_clip":
            return read_open_clip(path, state, source, text_tower, model_config)
        return read_huggingface(path, state, source, context_length, scratch)
    except (ValidationError, ValueError, KeyError, OSError) as error:
        raise UsageError(f"{source}: is not of layout {found} ({type(error).__name__}: {str(error)[:300]})") from error


def _layout_of(path: Path, state: Mapping[str, torch.Tensor], model_config: str | None) -> Layout:
    """By the tensors' names, which say it for certain, or by the files beside them."""
    if is_chexficient(state):
        return "chexficient"
    open_clip = (
        model_config is not None or (path / CONFIG_FILE).is_file() or any(k.startswith("visual.") for k in state)
    )
    return "open_clip" if open_clip else "huggingface"


def _converted(published: Published, cfg: dict[str, Any], source: str) -> dict[str, torch.Tensor]:
    """The state dict of a model of this description, of which the shapes are built and nothing is drawn."""
    text = {**cfg["text_cfg"], "hf_model_pretrained": False} if published.text_tower else cfg["text_cfg"]
    with local_text_tower(published.text_tower, "--text-tower") as text_path, torch.device("meta"):
        try:
            model = construct({**cfg, "text_cfg": text}, text_path)
        except (TypeError, KeyError, ValueError, AssertionError) as error:
            raise UsageError(
                f"{source}: open_clip cannot build the model that it describes ({type(error).__name__}: "
                f"{str(error)[:300]})"
            ) from error
    asked = text.get("context_length", 0)
    if published.text_tower and asked > model.text.context_length:
        raise UsageError(f"--context-length {asked}: the text tower has {model.text.context_length} positions")
    return convert(published, model.state_dict(), source)


def _digest(path: Path) -> str:
    """16 hex digits of the names and contents of what may be read."""
    files = (
        [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.suffix in _READ and one.is_file())
    )
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.relative_to(path) if path.is_dir() else ''}\x00{content}\x00".encode())
    return digest.hexdigest()[:16]
