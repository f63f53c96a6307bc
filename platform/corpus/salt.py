"""Patient and study ids become salted hashes; the salt stays with whoever ingests.

The salt comes from the environment, where several corpora are to share it (so that a patient of two datasets of one
cohort has one id), or is drawn once and kept beside the corpus, readable by its owner alone.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from chexray.platform import storage
from chexray.platform.artifacts import read_manifest
from chexray.platform.errors import UsageError

SALT_VARIABLE = "CHEXRAY_SALT"
SALT_FILE = ".salt"
_log = logging.getLogger(__name__)


def salt_for(out: str) -> str:
    """The salt for the corpus at `out`: from the environment, else what was kept beside it, else a new one.

    Writes nothing: see `keep_salt`. UsageError where the environment's is too short.
    """
    given = os.environ.get(SALT_VARIABLE)
    if given is not None:
        if len(given) < 8:
            raise UsageError(f"{SALT_VARIABLE}: {len(given)} characters; a salt needs at least 8")
        return given
    uri = storage.join(out, SALT_FILE)
    return storage.read_bytes(uri).decode() if storage.exists(uri) else secrets.token_hex(16)


def keep_salt(out: str, salt: str) -> None:
    """Keep a salt that was drawn beside the corpus (mode 0600). The environment's own is not written down."""
    if SALT_VARIABLE not in os.environ:
        write_private(storage.join(out, SALT_FILE), salt.encode())


def salted_hash(salt: str, *parts: str) -> str:
    """32 hex digits, the same for the same salt and parts."""
    return hashlib.sha256("\x00".join((salt, *parts)).encode()).hexdigest()[:32]


def salt_name(salt: str) -> str:
    """8 hex digits by which two corpora can tell that they share a salt; says nothing of the salt itself."""
    return salted_hash(salt, "the name of this salt")[:8]


def salt_of(corpus: str) -> str | None:
    """The name of the salt of a finished corpus; None where it was merged from corpora of different ones."""
    name = read_manifest(corpus, "corpus").config.get("salt")
    return None if name is None else str(name)


def warn_of_other_salts(name: str | None, corpora: Iterable[str]) -> None:
    """Say which of the corpora were ingested with another salt than that of this name."""
    for uri in corpora:
        if name is None or salt_of(uri) != name:
            _log.warning(
                "%s: ingested with another salt, so images can be compared with it, but not patients; set %s to one "
                "value for all corpora and ingest again with --overwrite",
                uri,
                SALT_VARIABLE,
            )


def write_private(uri: str, data: bytes) -> None:
    """Write a file that its owner alone can read (mode 0600). On object stores the bucket's own policy decides."""
    if storage.is_remote(uri):
        storage.write_bytes(uri, data)
        return
    part = Path(f"{uri}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(data)
    part.replace(uri)
