"""Images found by name: many datasets name them without the folder, or in another format than they come in."""

from __future__ import annotations

from collections.abc import Iterable

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")


def file_name(path: str) -> str:
    """The last part of a path. Not pathlib's: it takes 20 times as long, and datasets have 200,000 paths."""
    return path.rsplit("/", 1)[-1]


def stem_of(path: str) -> str:
    """The name without folders and image suffix: '1.2.840' of 'a/1.2.840.dcm', and of '1.2.840' too."""
    name = file_name(path)
    return name.rpartition(".")[0] if name.lower().endswith(IMAGE_SUFFIXES) else name


def images_by_stem(paths: Iterable[str]) -> dict[str, str]:
    """From stem to path, of the images among `paths` (sorted). Of several with one stem the first."""
    found: dict[str, str] = {}
    for path in paths:
        if path.lower().endswith(IMAGE_SUFFIXES):
            found.setdefault(stem_of(path), path)
    return found
