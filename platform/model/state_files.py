"""Tensors by name, from the files in which models are published. Nothing but data is read from them.

A `.pt`, `.pth` or `.bin` file is a pickle, which may run any code where it is loaded: it is read with torch's
`weights_only`, which knows tensors and plain containers alone.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from chexray.platform.errors import UsageError, first_line

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
    "model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""Which files of a folder may hold its weights: the first that is there does."""
_NESTED = ("state_dict", "model")


def read_state(path: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of a file, or of a folder's first of `WEIGHT_FILES`.

    Where a torch file holds more than the weights (an optimizer's state, say), they are its entry `state_dict` or
    `model`. The prefix `module.`, which data-parallel training adds, is taken off. Raises `UsageError`, which calls the
    source `name`, where there is no such file, or it holds anything else.
    """
    file = path
    if path.is_dir():
        found = [path / one for one in WEIGHT_FILES if (path / one).exists()]
        if not found:
            raise UsageError(f"{name}: holds none of {', '.join(WEIGHT_FILES)}")
        file = found[0]
    if not file.is_file():
        raise UsageError(f"{name}: no such file")
    try:
        state = _read(file)
    except (SafetensorError, ValueError, KeyError, OSError, EOFError, RuntimeError) as error:
        raise UsageError(f"{name}: {file.name} is not a whole file of weights ({first_line(error)})") from error
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{name}: {file.name} holds more than tensors and plain values, which is not loaded because it could run "
            f"code ({first_line(error)}); where you trust it, load it yourself and save its state dict alone, as "
            "safetensors or with torch.save"
        ) from error
    odd = next((key for key, value in state.items() if not isinstance(value, torch.Tensor)), None)
    if odd is not None or not state:
        what = f"{odd!r} is a {type(state[odd]).__name__}" if odd is not None else "it is empty"
        raise UsageError(f"{name}: {file.name} is not a state dict of tensors ({what})")
    whole = all(key.startswith("module.") for key in state)
    return {key.removeprefix("module.") if whole else key: value for key, value in state.items()}


def _read(file: Path) -> dict[str, Any]:
    if file.name.endswith(".index.json"):
        parts = sorted(set(json.loads(file.read_text())["weight_map"].values()))
        return {key: value for part in parts for key, value in load_file(file.parent / Path(part).name).items()}
    if file.suffix == ".safetensors":
        return dict(load_file(file))
    loaded = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(loaded, dict):
        raise ValueError(f"holds a {type(loaded).__name__}")
    for entry in _NESTED:
        if isinstance(loaded.get(entry), dict):
            return dict(loaded[entry])
    return dict(loaded)
