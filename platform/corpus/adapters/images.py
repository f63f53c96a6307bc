"""Images found by name: many datasets name them without the folder, or in another format than they come in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from chexray.platform.corpus.schema import Reject

RASTER_SUFFIXES = (".jpg", ".jpeg", ".png")
DICOM_SUFFIXES = (".dcm", ".dicom")
IMAGE_SUFFIXES = (*RASTER_SUFFIXES, *DICOM_SUFFIXES)


def file_name(path: str) -> str:
    """The last part of a path. Not pathlib's: it takes 20 times as long, and datasets have 200,000 paths."""
    return path.rsplit("/", 1)[-1]


def stem_of(path: str) -> str:
    """The name without folders and image suffix: '1.2.840' of 'a/1.2.840.dcm', and of '1.2.840' too."""
    name = file_name(path)
    return name.rpartition(".")[0] if name.lower().endswith(IMAGE_SUFFIXES) else name


def files_by_name(paths: Iterable[str]) -> dict[str, str]:
    """From name to path. Of several with one name the first."""
    found: dict[str, str] = {}
    for path in paths:
        found.setdefault(file_name(path), path)
    return found


def images_by_stem(paths: Iterable[str]) -> dict[str, str]:
    """From stem to path, of the images among `paths` (sorted). Of several with one stem the first."""
    found: dict[str, str] = {}
    for path in paths:
        if path.lower().endswith(IMAGE_SUFFIXES):
            found.setdefault(stem_of(path), path)
    return found


def unlisted(images: Iterable[str], seen: set[str]) -> Iterator[Reject]:
    """A reject for every image that is not in `seen`."""
    for path in images:
        if path not in seen:
            yield Reject(path, "image without a row")
