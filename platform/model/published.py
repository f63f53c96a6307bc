"""Models as others publish them, and how their tensors become those of our dual encoder, name by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from chexray.platform.errors import UsageError

SHOWN = 12
"""How many names an error lists."""


@dataclass(frozen=True)
class Source:
    """Where one of our tensors comes from: one of the file's, or several joined along their first axis."""

    names: tuple[str, ...]
    transposed: bool = False


@dataclass(frozen=True)
class Published:
    """A model in its own layout.

    `cfg`: open_clip's description of the model that it becomes. `text_tower`: folder, URI or hub name of the Hugging
    Face text tower's configuration and tokenizer, None where it has none. `state`: its tensors by its own names.
    `source_of`: from a name of ours to where that tensor comes from. `unused`: pattern of whole names that belong to
    the layout and say nothing about embeddings. `prototypes`: the curator's [K, E], where it has them.
    """

    layout: str
    cfg: dict[str, Any]
    text_tower: str | None
    state: Mapping[str, torch.Tensor]
    source_of: Callable[[str], Source]
    unused: str = ""
    prototypes: torch.Tensor | None = None


def convert(published: Published, ours: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The published tensors under our names, float32, in the shapes of `ours`.

    Every tensor of ours must have its source, and every tensor of the file its use. Raises `UsageError`, which calls
    the file `name`, and lists what is missing, what is unexpected and what has another shape.
    """
    sources = {target: published.source_of(target) for target in ours}
    wanted = {one for source in sources.values() for one in source.names}
    missing = sorted(wanted - published.state.keys())
    unexpected = sorted(one for one in published.state.keys() - wanted if not re.fullmatch(published.unused, one))
    if missing or unexpected:
        raise UsageError(
            f"{name}: is not the {published.layout} model that it looks like: {_listed('missing', missing)}; "
            f"{_listed('unexpected', unexpected)}"
        )
    converted = {target: _joined(published.state, source) for target, source in sources.items()}
    for target in ours:
        if ours[target].numel() == converted[target].numel() == 1:  # a temperature, with or without a dimension
            converted[target] = converted[target].reshape(ours[target].shape)
    other = sorted(
        f"{' + '.join(sources[target].names)} {tuple(converted[target].shape)}, not {tuple(ours[target].shape)}"
        for target in ours
        if converted[target].shape != ours[target].shape
    )
    if other:
        raise UsageError(f"{name}: {_listed('of another shape', other)}")
    return converted


def _joined(state: Mapping[str, torch.Tensor], source: Source) -> torch.Tensor:
    parts = [state[one].to(torch.float32) for one in source.names]
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    return (whole.T if source.transposed else whole).clone(memory_format=torch.contiguous_format)


def _listed(what: str, names: Collection[str]) -> str:
    listed = ", ".join(list(names)[:SHOWN])
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names)} {what} ({listed}{more})" if names else f"none {what}"
