"""Adapters read a dataset's own files into pairs: which image, which patient, which report or labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

from chexray.platform.corpus.adapters.folder import FolderAdapter
from chexray.platform.corpus.adapters.nih import NihAdapter
from chexray.platform.corpus.adapters.synthetic import SyntheticAdapter
from chexray.platform.corpus.schema import Reject, SourcePair
from chexray.platform.errors import UsageError


class Adapter(Protocol):
    """A dataset below a root URI. `name` is the `dataset` of its pairs."""

    @property
    def name(self) -> str: ...

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """Every pair that the dataset lists, in its own order, or why it is none. Reads no pixels."""
        ...


ADAPTERS: dict[str, type[NihAdapter] | type[FolderAdapter] | type[SyntheticAdapter]] = {
    "folder": FolderAdapter,
    "nih": NihAdapter,
    "synthetic": SyntheticAdapter,
}


def open_adapter(name: str, root: str, **options: Any) -> Adapter:
    """The adapter `name` for the dataset at `root`. UsageError for an unknown name or option."""
    if name not in ADAPTERS:
        raise UsageError(f"adapter {name!r} is not known; known: {', '.join(sorted(ADAPTERS))}")
    adapter = ADAPTERS[name]
    known = [field.name for field in dataclasses.fields(adapter) if field.name != "root"]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise UsageError(f"adapter {name!r} has no option {', '.join(map(repr, unknown))}; it has {', '.join(known)}")
    return adapter(root, **options)
