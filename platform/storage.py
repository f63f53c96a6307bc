"""Local paths and object stores alike: everything that chexray reads or writes passes through here.

A URI is a local path or `scheme://bucket/key` (s3 is installed by default; gs, abfs and others work where their
fsspec driver is). Credentials and endpoints come from the environment (`AWS_PROFILE`, `AWS_ACCESS_KEY_ID`,
`AWS_ENDPOINT_URL`, instance roles), never from a URI or a config.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import fsspec
import pyarrow.fs as pafs

from chexray.platform.errors import UsageError


def is_remote(uri: str) -> bool:
    return "://" in uri and not uri.startswith("file://")


def resolve(uri: str) -> str:
    """The URI as other processes can use it: local paths made absolute, no trailing slash."""
    if is_remote(uri):
        return uri.rstrip("/")
    return str(Path(uri.removeprefix("file://")).expanduser().absolute())


def join(uri: str, *parts: str) -> str:
    return "/".join((uri.rstrip("/"), *(part.strip("/") for part in parts)))


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The fsspec file system of `uri`, and its path there. Listings are never cached: others write too."""
    scheme = uri.split("://", 1)[0] if is_remote(uri) else "file"
    options: dict[str, Any] = {} if scheme == "file" else {"use_listings_cache": False}
    try:
        fs = fsspec.filesystem(scheme, **options)
    except (ValueError, ImportError) as error:
        raise UsageError(f"{uri}: cannot open '{scheme}://' storage ({error})") from error
    return fs, fs._strip_protocol(resolve(uri))


def arrow_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The pyarrow file system of `uri` and its path there, for Parquet and for Ray Train's storage."""
    fs, path = filesystem(uri)
    if not is_remote(uri):
        return pafs.LocalFileSystem(), path
    return pafs.PyFileSystem(pafs.FSSpecHandler(fs)), path


def exists(uri: str) -> bool:
    fs, path = filesystem(uri)
    return bool(fs.exists(path))


def is_dir(uri: str) -> bool:
    fs, path = filesystem(uri)
    return bool(fs.isdir(path))


def is_file(uri: str) -> bool:
    fs, path = filesystem(uri)
    return bool(fs.isfile(path))


def read_bytes(uri: str) -> bytes:
    fs, path = filesystem(uri)
    return bytes(fs.cat_file(path))


def open_read(uri: str) -> IO[bytes]:
    fs, path = filesystem(uri)
    stream: IO[bytes] = fs.open(path, "rb")
    return stream


def list_files(uri: str, suffixes: tuple[str, ...] = ()) -> list[str]:
    """The files below `uri`, recursively: sorted paths relative to it. [] where `uri` does not exist."""
    fs, path = filesystem(uri)
    if not fs.isdir(path):
        return []
    prefix = path.rstrip("/") + "/"
    # Object stores may list empty folders too, under their own names: some keep them, consoles create them.
    found = (str(name) for name, info in fs.find(path, detail=True).items() if info["type"] != "directory")
    names = (name.removeprefix(prefix) for name in found if name.startswith(prefix) and not name.endswith("/"))
    return sorted(name for name in names if not suffixes or name.lower().endswith(suffixes))


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file, atomically: a reader sees the old content or the new, never a part.

    Object stores put a key at once; a local file is written beside its place and renamed.
    """
    fs, path = filesystem(uri)
    if is_remote(uri):
        fs.pipe_file(path, data)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(uri: str) -> Any:
    try:
        return json.loads(read_bytes(uri))
    except ValueError as error:
        raise UsageError(f"{uri}: not a JSON file ({error})") from error


def write_json(uri: str, value: Any) -> None:
    write_bytes(uri, (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode())


def remove_tree(uri: str) -> None:
    """Remove `uri` and all below it; nothing where it does not exist."""
    fs, path = filesystem(uri)
    if is_remote(uri):
        if fs.exists(path):
            fs.rm(path, recursive=True)
    elif Path(path).is_dir() and not Path(path).is_symlink():
        shutil.rmtree(path)
    else:
        Path(path).unlink(missing_ok=True)


def upload_tree(folder: Path, uri: str) -> None:
    """Copy the files of a local folder below `uri`, each atomically."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            write_bytes(join(uri, file.relative_to(folder).as_posix()), file.read_bytes())


@contextmanager
def local_copy(uri: str, suffixes: tuple[str, ...] = ()) -> Iterator[Path]:
    """A local folder or file with the content of `uri`: itself where it is local, else a temporary copy.

    `suffixes` limits a remote folder's copy to the files that end so.
    """
    if not is_remote(uri):
        yield Path(resolve(uri))
        return
    with tempfile.TemporaryDirectory(prefix="chexray-") as name:
        root = Path(name)
        if is_dir(uri):
            for relative in list_files(uri, suffixes):
                target = root / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(read_bytes(join(uri, relative)))
            yield root
        else:
            target = root / uri.rsplit("/", 1)[-1]
            target.write_bytes(read_bytes(uri))
            yield target
