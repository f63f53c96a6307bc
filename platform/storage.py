"""Local paths and object stores alike: everything that chexray reads or writes passes through here.

A URI is a local path or `scheme://bucket/key` (s3 is installed by default; gs, abfs and others work where their
fsspec driver is). Credentials and endpoints come from the environment (`AWS_PROFILE`, `AWS_ACCESS_KEY_ID`,
`AWS_ENDPOINT_URL`, instance roles), never from a URI or a config.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any, BinaryIO

import fsspec
import pyarrow.fs as pafs

from chexray.platform.errors import UsageError

S3_TRIES = 13
_COPY_BYTES = 16 * 2**20
_WARN_SECONDS = 15.0
_log = logging.getLogger(__name__)


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
    if scheme in ("s3", "s3a"):
        options |= _patient_s3()
    try:
        fs = fsspec.filesystem(scheme, **options)
    except (ValueError, ImportError) as error:
        raise UsageError(f"{uri}: cannot open '{scheme}://' storage ({error})") from error
    return fs, fs._strip_protocol(resolve(uri))


@cache
def _patient_s3() -> dict[str, Any]:
    """Options with which s3fs outlives a minute without an answer, such as a gateway's restart.

    s3fs waits 0.1 s, then 1.7 times longer each time, up to 15 s; botocore's own tries would multiply that.
    """
    import s3fs
    from botocore import exceptions

    passing = (exceptions.ConnectionError, exceptions.HTTPClientError, ConnectionError, TimeoutError)
    warned = 0.0

    def may_pass(error: Exception) -> bool:
        nonlocal warned
        status = 0
        if isinstance(error, exceptions.ClientError):
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        again = status >= 500 or isinstance(error, passing)
        if again and time.monotonic() - warned > _WARN_SECONDS:
            warned = time.monotonic()
            _log.warning("the object store does not answer (%s), trying again for a while", type(error).__name__)
        return again

    s3fs.core.set_custom_error_handler(may_pass)
    s3fs.S3FileSystem.retries = S3_TRIES
    return {"config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 1}}}


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
    """The files below `uri`, recursively: sorted paths relative to it. [] where `uri` does not exist.

    Links to folders are followed where they lead out of `uri` (what they lead to inside is found anyway), each folder
    once: a loop of links ends.
    """
    fs, path = filesystem(uri)
    if not fs.isdir(path):
        return []
    if not is_remote(uri):
        names = _walk_local(path)
        return sorted(name for name in names if not suffixes or name.lower().endswith(suffixes))
    prefix = path.rstrip("/") + "/"
    # Object stores may list empty folders too, under their own names: some keep them, consoles create them.
    found = (str(name) for name, info in fs.find(path, detail=True).items() if info["type"] != "directory")
    names = (name.removeprefix(prefix) for name in found if name.startswith(prefix) and not name.endswith("/"))
    return sorted(name for name in names if not suffixes or name.lower().endswith(suffixes))


def leads_outside(root: str, path: str) -> bool:
    """Whether a path below a local root is, through links, a file elsewhere. Object stores have no links."""
    if is_remote(root):
        return False
    base = os.path.realpath(resolve(root))
    return not f"{os.path.realpath(join(base, path))}/".startswith(f"{base.rstrip('/')}/")


def file_size(uri: str) -> int:
    """Bytes of a file, without reading it. FileNotFoundError where there is none, or no regular file (a pipe)."""
    fs, path = filesystem(uri)
    if not is_remote(uri) and not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - keeps the errors of the path
        raise FileNotFoundError(errno.ENOENT, "not a regular file", path)
    return int(fs.size(path))


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file, atomically: a reader sees the old content or the new, never a part.

    Object stores put a key at once; a local file is written beside its place and renamed.
    """
    fs, path = filesystem(uri)
    if is_remote(uri):
        fs.pipe_file(path, data)
        return
    with _replaced(Path(path)) as stream:
        stream.write(data)


@contextmanager
def _replaced(target: Path) -> Iterator[BinaryIO]:
    """A file beside `target` to write to, which takes its place at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _walk_local(root: str) -> Iterator[str]:
    """Paths of the regular files below a local folder, relative to it; no pipes, sockets or broken links."""
    base = os.path.realpath(root)
    seen: set[str] = set()

    def walk(folder: str, relative: str) -> Iterator[str]:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = f"{relative}{entry.name}"
                try:
                    is_file, is_folder = entry.is_file(), entry.is_dir()
                except OSError:  # a link that leads to itself
                    continue
                if is_file:
                    yield name
                elif is_folder and not (entry.is_symlink() and _is_walked(entry.path, base, seen)):
                    yield from walk(entry.path, f"{name}/")

    return walk(root, "")


def _is_walked(link: str, base: str, seen: set[str]) -> bool:
    """Whether what the link leads to is found anyway, or was. Remembers it."""
    target = os.path.realpath(link)
    again = target in seen or f"{target}/".startswith(f"{base}/") or f"{base}/".startswith(f"{target}/")
    seen.add(target)
    return again


def explain(error: BaseException) -> str | None:
    """One line where storage itself failed: no answer, no permission, no space. None for other errors."""
    module = type(error).__module__
    if module.startswith(("botocore", "aiobotocore")):
        return f"the object store failed: {error}; check AWS_ENDPOINT_URL and the credentials, then run again"
    if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        return f"storage: {error}; mend that and run again, finished parts are kept"
    return None


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


def clear_folder(uri: str, keep: str) -> None:
    """Remove all below `uri` but the file `keep`, directly in it."""
    fs, path = filesystem(uri)
    if is_remote(uri):
        others = [join(path, name) for name in list_files(uri) if name != keep]
        if others:
            fs.rm(others)
        return
    for entry in Path(path).iterdir():
        if entry.name != keep:
            remove_tree(str(entry))


def upload_tree(folder: Path, uri: str) -> None:
    """Copy the files of a local folder below `uri`, each atomically."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            _upload_file(file, join(uri, file.relative_to(folder).as_posix()))


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
                _download_file(join(uri, relative), target)
            yield root
        else:
            target = root / uri.rsplit("/", 1)[-1]
            _download_file(uri, target)
            yield target


def _upload_file(file: Path, uri: str) -> None:
    """As `write_bytes`, of a file that may not fit in memory."""
    fs, path = filesystem(uri)
    if is_remote(uri):
        fs.put_file(str(file), path)
        return
    with file.open("rb") as content, _replaced(Path(path)) as stream:
        shutil.copyfileobj(content, stream, _COPY_BYTES)


def _download_file(uri: str, target: Path) -> None:
    fs, path = filesystem(uri)
    fs.get_file(path, str(target))
