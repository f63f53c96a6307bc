"""Datasets for tests of adapters: small ones on disk, large ones in memory, and the real label files."""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile

from chexray.platform.corpus.adapters import open_adapter
from chexray.platform.corpus.schema import Reject, SourcePair

Entry = SourcePair | Reject


def label_file(name: str) -> Path:
    """A label file of a public dataset, from the data of the package torchxrayvision, which is not imported."""
    spec = importlib.util.find_spec("torchxrayvision")
    if spec is None or spec.origin is None:
        pytest.skip("needs the label files in the package torchxrayvision")
    path = Path(spec.origin).parent / "data" / name
    if not path.is_file():
        pytest.skip(f"needs {name} of the package torchxrayvision")
    return path


def write_files(root: Path, files: Mapping[str, str | bytes]) -> str:
    """The folder `root` with `files` in it, for an adapter."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return str(root)


def list_folder(adapter: str, root: str | Path, **options: Any) -> list[Entry]:
    return list(open_adapter(adapter, str(root), **options).pairs())


class MemoryDataset:
    """A dataset folder in memory. Images have no content: listing 200,000 of them then takes two seconds."""

    def __init__(self) -> None:
        self.uri = f"memory://{uuid.uuid4().hex}"
        self._fs = fsspec.filesystem("memory")
        self._root = self._fs._strip_protocol(self.uri)
        self._fs.makedirs(self._root)

    def write(self, name: str, content: bytes | str) -> None:
        self._fs.pipe_file(f"{self._root}/{name}", content.encode() if isinstance(content, str) else content)

    def add_images(self, names: Iterable[str]) -> None:
        blank = MemoryFile(self._fs, f"{self._root}/blank", b"")
        self._fs.store.update((f"{self._root}/{name}", blank) for name in names)

    def listed(self, adapter: str, **options: Any) -> list[Entry]:
        return list_folder(adapter, self.uri, **options)

    def remove(self) -> None:
        """Empty the folder. The file system's own `rm` takes minutes for so many files."""
        for path in [path for path in self._fs.store if path.startswith(f"{self._root}/")]:
            del self._fs.store[path]


def list_dataset(adapter: str, files: dict[str, bytes | str], images: Iterable[str], **options: Any) -> list[Entry]:
    """What an adapter lists of a dataset that is gone afterwards: hundreds of thousands of names slow others down."""
    made = MemoryDataset()
    try:
        for name, content in files.items():
            made.write(name, content)
        made.add_images(images)
        return made.listed(adapter, **options)
    finally:
        made.remove()


def pairs_of(entries: Iterable[Entry]) -> list[SourcePair]:
    return [entry for entry in entries if isinstance(entry, SourcePair)]


def rejects_of(entries: Iterable[Entry]) -> list[tuple[str, str]]:
    return [(entry.source_uri, entry.reason) for entry in entries if isinstance(entry, Reject)]
