"""Artifacts: the folders that stages hand to each other, and the manifests that say what is in them.

`manifest.json` is written last, so its presence means that the artifact is complete. Until then `stage.json` marks
the folder as this stage's own. A stage that finds its own manifest has nothing to do; its own marker: it resumes or
starts clean; another's: it refuses unless told to overwrite.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from chexray.platform import storage
from chexray.platform.errors import ChexrayError, UsageError

Kind = Literal["corpus", "subset", "checkpoint", "scores", "sweep"]
MANIFEST = "manifest.json"
MARKER = "stage.json"
_BEING_REPLACED = "being replaced"
"""In place of a fingerprint, while an overwritten artifact is removed: what is left of it is nobody's."""
FORMAT = 1
"""Raised when an artifact's layout changes in a way that older readers, or newer ones, cannot read."""

_RECORDED_PACKAGES = (
    "chexray",
    "ray",
    "torch",
    "deepspeed",
    "open_clip_torch",
    "timm",
    "transformers",
    "pyarrow",
)


class Manifest(BaseModel):
    """What an artifact is, what it came from and what it cost."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    format: int = FORMAT
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    input_fingerprints: dict[str, str]
    counts: dict[str, Any]
    cost: dict[str, Any]
    started: str
    finished: str
    seconds: float
    packages: dict[str, str]
    git_commit: str | None


def fingerprint(kind: Kind, config: Mapping[str, Any], input_fingerprints: Mapping[str, str]) -> str:
    """16 hex digits that name the whole configuration and the inputs' content, not where they lie."""
    identity = {
        "kind": kind,
        "format": FORMAT,
        "config": config,
        "inputs": dict(sorted(input_fingerprints.items())),
    }
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_manifest(uri: str, kind: Kind | None = None) -> Manifest:
    """The manifest of the artifact at `uri`. Raises `UsageError` where there is none, or one of another kind."""
    what = f"a {kind}" if kind else "an artifact"
    if not storage.exists(storage.join(uri, MANIFEST)):
        if not storage.exists(uri):
            raise UsageError(f"{uri}: no such folder; expected {what}")
        if storage.exists(storage.join(uri, MARKER)):
            raise UsageError(f"{uri}: {what} that was never finished; run the command that writes it again")
        raise UsageError(f"{uri}: not {what} (no {MANIFEST}); give the --out of an earlier chexray command")
    content = storage.read_json(storage.join(uri, MANIFEST))
    if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
        raise UsageError(
            f"{uri}: written in format {content['format']}, this chexray reads format {FORMAT}; "
            "use the chexray that wrote it, or write it again"
        )
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"{uri}/{MANIFEST}: not a chexray manifest ({error.error_count()} errors)") from error
    if kind and manifest.kind != kind:
        raise UsageError(f"{uri}: this is a {manifest.kind}, not a {kind}")
    return manifest


class Stage:
    """One writing of one artifact. Use `begin`, then `finish`; nothing is complete until `finish` returns."""

    def __init__(
        self,
        out: str,
        kind: Kind,
        config: Mapping[str, Any],
        inputs: Mapping[str, tuple[str, Kind]] | None = None,
        source: tuple[str, str] | None = None,
        overwrite: bool = False,
    ) -> None:
        """`inputs` maps a role to the URI and the kind of a finished artifact, whose manifest must be there.

        `source` is the URI of raw data and a digest of what it lists, for the stage that has no artifact before it.
        """
        self.uri = storage.resolve(out)
        self.kind = kind
        self.config = dict(config)
        self.inputs = {role: storage.resolve(uri) for role, (uri, _) in (inputs or {}).items()}
        self.input_fingerprints = {
            role: read_manifest(uri, expected).fingerprint for role, (uri, expected) in (inputs or {}).items()
        }
        if source:
            self.inputs["source"], self.input_fingerprints["source"] = source
        for role, used in self.inputs.items():
            if f"{used}/".startswith(f"{self.uri}/"):
                raise UsageError(f"--out {self.uri}: holds this run's own {role} ({used}); choose another folder")
        if source and f"{self.uri}/".startswith(f"{source[0]}/"):
            raise UsageError(
                f"--out {self.uri}: lies inside the data that is read ({source[0]}); choose another folder"
            )
        self.fingerprint = fingerprint(kind, self.config, self.input_fingerprints)
        self.overwrite = overwrite
        self.resumed = False
        self._clock = time.monotonic()
        self._started = _now()

    def require_begun(self) -> None:
        """`UsageError` unless this very artifact is there, finished or not: for --resume."""
        if self.overwrite:
            raise UsageError("--resume and --overwrite: give one of them")
        found = self._found()
        if found is None or found["fingerprint"] != self.fingerprint:
            what = "nothing" if found is None else "something else"
            raise UsageError(
                f"--resume: {self.uri} holds {what} and no run of these settings and inputs; without --resume it is "
                "started there"
            )

    def begin(self) -> Manifest | None:
        """Claim the folder. Returns the manifest where this very artifact is already complete, else None.

        `resumed` says whether an earlier, unfinished writing of the same artifact is there. Raises `UsageError`
        where the folder holds something else and `overwrite` is off.
        """
        found = self._found()
        held = None if found is None else str(found["fingerprint"])
        if held == self.fingerprint and not self.overwrite:
            if storage.exists(storage.join(self.uri, MANIFEST)):
                return read_manifest(self.uri, self.kind)
            self.resumed = True
            self._sweep()
        elif found is not None or storage.list_files(self.uri) or storage.is_file(self.uri):
            if held != _BEING_REPLACED:
                self._refuse_unless_told(found)
            self._clear()
        self._mark(self.fingerprint)
        return None

    def finish(self, counts: Mapping[str, Any], cost: Mapping[str, Any] | None = None) -> Manifest:
        """Write the manifest: from here on the artifact is complete."""
        seconds = round(time.monotonic() - self._clock, 3)
        manifest = Manifest(
            kind=self.kind,
            fingerprint=self.fingerprint,
            config=self.config,
            inputs=self.inputs,
            input_fingerprints=self.input_fingerprints,
            counts=dict(counts),
            cost=dict(cost or {}),
            started=self._started,
            finished=_now(),
            seconds=seconds,
            packages=_package_versions(),
            git_commit=_git_commit(),
        )
        storage.write_json(storage.join(self.uri, MANIFEST), manifest.model_dump())
        return manifest

    def path(self, *parts: str) -> str:
        return storage.join(self.uri, *parts)

    def _mark(self, fingerprint: str) -> None:
        marker = {"kind": self.kind, "fingerprint": fingerprint, "config": self.config}
        storage.write_json(storage.join(self.uri, MARKER), marker)

    def _clear(self) -> None:
        """Remove what is there. Interrupted, it leaves what no one takes for finished, and what we go on with."""
        if storage.is_file(self.uri):
            storage.remove_tree(self.uri)
        else:
            self._mark(_BEING_REPLACED)
            storage.remove_tree(storage.join(self.uri, MANIFEST))
            storage.clear_folder(self.uri, keep=MARKER)

    def _sweep(self) -> None:
        """Remove the parts of files that a killed process was writing."""
        if not storage.is_remote(self.uri):
            for part in Path(self.uri).rglob(".*.part"):
                part.unlink()

    def _found(self) -> dict[str, Any] | None:
        """What the folder's manifest or marker says. None where there is none: others write a manifest.json too."""
        for name in (MARKER, MANIFEST):
            uri = storage.join(self.uri, name)
            if storage.exists(uri):
                found = storage.read_json(uri)
                if isinstance(found, dict) and found.get("kind") in get_args(Kind) and "fingerprint" in found:
                    return found
        return None

    def _refuse_unless_told(self, found: dict[str, Any] | None) -> None:
        if found is None:
            raise UsageError(f"--out {self.uri}: not empty and not chexray's; choose another folder")
        if not self.overwrite:
            raise UsageError(
                f"--out {self.uri}: holds another artifact ({found['fingerprint']}; this run would write "
                f"{self.fingerprint}{self._difference(found)}); choose another folder, or give --overwrite to "
                "replace it"
            )

    def _difference(self, found: Mapping[str, Any]) -> str:
        """Which settings differ, where that can be said."""
        if found["kind"] != self.kind or "config" not in found:
            return ""
        ours, theirs = (flat(json.loads(json.dumps(config, default=str))) for config in (self.config, found["config"]))
        names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        return f"; they differ in {', '.join(names[:5])}" if names else "; their inputs differ"


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def require_same_corpus(subset_uri: str, corpus_uri: str, option: str = "--subset") -> None:
    """Raise `UsageError` unless the subset was drawn from this corpus (by content, not by path)."""
    drawn_from = read_manifest(subset_uri, "subset").input_fingerprints.get("corpus")
    corpus = read_manifest(corpus_uri, "corpus").fingerprint
    if drawn_from != corpus:
        raise UsageError(
            f"{option} {subset_uri}: was drawn from another corpus ({drawn_from}) than {corpus_uri} ({corpus}); "
            "give the corpus that it came from, or curate this one"
        )


def check_reject_rate(reasons: Mapping[str, int], total: int, allowed: float, where: str) -> None:
    """Raise `ChexrayError` where more than the `allowed` share of pairs was rejected. `reasons`: how many for each."""
    rejected = sum(reasons.values())
    if total and rejected / total > allowed:
        most = max(reasons, key=lambda reason: reasons[reason])
        raise ChexrayError(
            f"{rejected} of {total} pairs were rejected ({rejected / total:.1%}; allowed {allowed:.1%}), most "
            f"({reasons[most]}) for '{most}'; all reasons in {where}; raise ingest.max_reject_rate and run again to go "
            "on with them left out, or mend the data and run again with --overwrite"
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def _package_versions() -> dict[str, str]:
    return {name: version(name) for name in _RECORDED_PACKAGES}


@cache
def _git_commit() -> str | None:
    """The commit of the checkout that this code runs from; None for an installed wheel, or without git."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    command = ["git", "-C", os.fspath(root), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
