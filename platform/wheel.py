"""The code that runs here as a wheel, for the nodes of a cluster.

It is put together from the modules' own files, whether they lie in a checkout or are installed. It differs from what
`uv build --wheel` makes in two ways. Ray installs wheels with `pip install --target`, which would bring every
dependency again, beside those that the nodes have: ours names none. And Ray tells wheels apart by their file names
alone: ours carries a digest of what is in it, so that changed code of the same version is not taken for the old.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from chexray.platform.errors import ChexrayError

ROOMS = ("platform", "jobs", "curation", "evals", "cluster")
_SUFFIXES = (".py", ".yaml", ".html", ".js", ".css")
_MARKER = "py.typed"
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold: the same code gives the same bytes."""


def write_wheel(folder: Path) -> Path:
    """Write the wheel into `folder`; the same code gives the same file, name and bytes."""
    files = _modules() | _metadata()
    build = "0" + _digest(b"".join(name.encode() + b"\0" + data for name, data in sorted(files.items()))).hex()[:16]
    info = next(name for name in files if name.endswith("/METADATA")).rpartition("/")[0]
    wheel = f"Wheel-Version: 1.0\nGenerator: chexray\nRoot-Is-Purelib: true\nTag: py3-none-any\nBuild: {build}\n"
    files[f"{info}/WHEEL"] = wheel.encode()
    rows = [f"{name},sha256={_urlsafe(_digest(data))},{len(data)}" for name, data in sorted(files.items())]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    path = folder / f"{info.removesuffix('.dist-info')}-{build}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return path


def _modules() -> dict[str, bytes]:
    """The files of every package beside this one, by their paths in the wheel; manifests for clusters stay behind."""
    root = Path(__file__).resolve().parents[1]
    return {
        f"chexray/{file.relative_to(root).as_posix()}": file.read_bytes()
        for room in ROOMS
        for file in sorted((root / room).rglob("*"))
        if (file.suffix in _SUFFIXES or file.name == _MARKER) and (file.parent / _MARKER).is_file() and file.is_file()
    }


def _metadata() -> dict[str, bytes]:
    """Name, version and commands of the installed distribution, and no dependencies."""
    try:
        installed = distribution("chexray")
    except PackageNotFoundError as error:
        raise ChexrayError("chexray is not installed here, so its version is not known; run make setup") from error
    names = ("Name", "Version", "Summary", "Requires-Python")
    fields = [f"{name}: {installed.metadata[name]}" for name in names]
    info = f"chexray-{installed.version}.dist-info"
    commands = installed.read_text("entry_points.txt") or ""
    return {
        f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", *fields, ""]).encode(),
        f"{info}/entry_points.txt": commands.encode(),
    }


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _urlsafe(digest: bytes) -> str:
    """As RECORD writes hashes (PEP 376): URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
