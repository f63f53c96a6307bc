"""The files that ingestion's settings name: redaction rules, an image classifier, translators."""

from __future__ import annotations

import hashlib
from functools import cache

from chexray.platform import storage
from chexray.platform.config import IngestConfig
from chexray.platform.corpus.classifier import ImageClassifier
from chexray.platform.corpus.redaction import Rule, parse_rules
from chexray.platform.corpus.translation import Translator
from chexray.platform.errors import UsageError


def redaction_rules(uri: str | None) -> tuple[Rule, ...]:
    """The rules of the file at `uri`. UsageError where it is missing or says something that is not allowed."""
    if uri is None:
        return ()
    try:
        return parse_rules(storage.read_bytes(uri).decode())
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(f"ingest.redaction={uri}: {error}") from error


def file_digests(config: IngestConfig) -> dict[str, str]:
    """What the files are that the settings name, so that a run after one has changed is another run.

    UsageError where one is missing or is not what it should be: before any image is read.
    """
    digests: dict[str, str] = {}
    redaction_rules(config.redaction)
    if config.redaction is not None:
        digests["redaction"] = hashlib.sha256(storage.read_bytes(config.redaction)).hexdigest()[:16]
    if config.classifier is not None:
        labels = classifier_at(config.classifier).labels
        known = {label.casefold() for label in labels}
        unknown = [name for name in config.classes if name.casefold() not in known]
        if unknown:
            raise UsageError(
                f"ingest.classes: {', '.join(map(repr, unknown))} is no label of {config.classifier}, which knows "
                f"{', '.join(labels)}"
            )
        digests["classifier"] = _folder_digest(config.classifier)
    for language, path in sorted(config.translators.items()):
        translator_at(path)
        digests[f"translator {language}"] = _folder_digest(path)
    return digests


def _folder_digest(path: str) -> str:
    """Of the names and sizes of a model's files, and of its configuration."""
    sizes = [(name, storage.file_size(storage.join(path, name))) for name in storage.list_files(path)]
    content = storage.read_bytes(storage.join(path, "config.json"))
    return hashlib.sha256(repr(sizes).encode() + content).hexdigest()[:16]


@cache
def classifier_at(path: str) -> ImageClassifier:
    """The classifier in a folder, loaded once in a process."""
    return ImageClassifier(path)


@cache
def translator_at(path: str) -> Translator:
    """The translator in a folder, loaded once in a process."""
    return Translator(path)
