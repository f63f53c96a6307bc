"""Paths that datasets name: CSV cells are other people's text, and must not lead out of the dataset's folder."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_DRIVE_OR_SCHEME = re.compile(r"[A-Za-z]:|[A-Za-z0-9+.-]+://")


def below_root(text: str) -> str | None:
    """The path, normalised, with forward slashes; None where it leaves the root; '' where there is none."""
    path = PurePosixPath(text.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in text or _DRIVE_OR_SCHEME.match(text):
        return None
    return "" if path == PurePosixPath() else str(path)
