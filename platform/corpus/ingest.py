"""From what a dataset lists to the shards of a corpus. Pure but for the storage; `jobs/ingest.py` spreads it out.

The list is planned first (splits, order, chunks), then each chunk is read and written on its own. A chunk's rejects
are written before its shard, so a shard that exists is finished, and a rerun after an interruption skips it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from chexray.platform import storage
from chexray.platform.config import IngestConfig
from chexray.platform.corpus import raster
from chexray.platform.corpus.reports import clean_report, keep_report, split_sections
from chexray.platform.corpus.schema import CORPUS_SCHEMA, NO_FINDING, SPLITS, Reject, SourcePair, Split
from chexray.platform.corpus.shards import cut, read_table, shard_path, write_rejects, write_table
from chexray.platform.corpus.splits import SplitFractions, assign_split
from chexray.platform.corpus.templates import write_report
from chexray.platform.errors import UsageError

SALT_VARIABLE = "CHEXRAY_SALT"


@dataclass(frozen=True)
class Chunk:
    """The pairs of one shard, and where the shard goes."""

    shard: str
    split: Split
    pairs: tuple[SourcePair, ...]

    def to_json(self) -> str:
        return json.dumps({"shard": self.shard, "split": self.split, "pairs": [asdict(p) for p in self.pairs]})

    @staticmethod
    def from_json(text: str) -> Chunk:
        values = json.loads(text)
        return Chunk(values["shard"], values["split"], tuple(SourcePair(**pair) for pair in values["pairs"]))


@dataclass(frozen=True)
class Plan:
    """What will be ingested: the chunks, what was rejected before any image was read, and a digest of it all."""

    chunks: tuple[Chunk, ...]
    rejects: tuple[Reject, ...]
    listed: int
    digest: str


def plan(listed: Iterable[SourcePair | Reject], config: IngestConfig) -> Plan:
    """Assign splits, order by sample id and cut into chunks. The order of the listing does not matter.

    A patient has one split: the dataset's own where it gives one (test before validation before train, should it give
    several; the pairs of the others are rejected), else drawn.
    A second pair of the same id (in the order of their image paths) is rejected: ids name pairs for ever, so two of
    them cannot share one.
    """
    entries = list(listed)
    rejects = [entry for entry in entries if isinstance(entry, Reject)]
    pairs: dict[str, SourcePair] = {}
    for entry in sorted((e for e in entries if isinstance(e, SourcePair)), key=lambda e: e.image):
        if entry.sample_id in pairs:
            rejects.append(Reject(entry.image, "duplicate source id"))
        else:
            pairs[entry.sample_id] = _with_canonical_labels(entry)
    split_of = _patient_splits(pairs.values(), config)
    for sample, pair in list(pairs.items()):
        if config.split == "auto" and pair.split not in (None, split_of[_patient(pair)]):
            rejects.append(Reject(pair.image, "patient in two splits", f"{pair.split}, {split_of[_patient(pair)]}"))
            del pairs[sample]
    rejects.sort(key=lambda reject: (reject.source_uri, reject.reason, reject.detail or ""))
    by_split: dict[Split, list[SourcePair]] = {split: [] for split in SPLITS}
    for sample in sorted(pairs):
        by_split[split_of[_patient(pairs[sample])]].append(pairs[sample])
    chunks = tuple(
        Chunk(shard_path(split, number), split, tuple(members))  # type: ignore[arg-type]
        for split in SPLITS
        for number, members in enumerate(cut(by_split[split], config.shard_pairs))
    )
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk.to_json().encode())
    for reject in rejects:
        digest.update(json.dumps(asdict(reject)).encode())
    return Plan(chunks, tuple(rejects), len(entries), digest.hexdigest()[:16])


def read_pair(root: str, source: SourcePair, split: Split, config: IngestConfig, salt: str) -> dict[str, Any] | Reject:
    """Read one pair's files: a row of `CORPUS_SCHEMA`, or the reason why there is none."""
    text = _report_of(source, config)
    if isinstance(text, Reject):
        return text
    try:
        pixels = raster.shrink(
            raster.decode_image(storage.read_bytes(storage.join(root, source.image))), config.short_side
        )
        masks = {
            name: raster.encode_image(_fit_mask(storage.read_bytes(storage.join(root, path)), pixels.shape), "png")
            for name, path in source.masks.items()
        }
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return Reject(source.image, "image file missing")
    except raster.UnreadableImage as error:
        return Reject(source.image, error.reason, error.detail)
    return {
        "sample_id": source.sample_id,
        "dataset": source.dataset,
        "patient_id": _hashed(salt, source.dataset, "patient", source.patient),
        "study_id": _hashed(salt, source.dataset, "study", source.study),
        "view": source.view,
        "split": split,
        "sex": source.sex,
        "age_years": source.age_years,
        "image": raster.encode_image(pixels, config.codec),
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        **text,
        "labels": [(name, None if value is None else int(value)) for name, value in sorted(source.labels.items())],
        "masks": sorted(masks.items()),
        "source_uri": source.image,
    }


def ingest_chunk(root: str, out: str, chunk: Chunk, config: IngestConfig, salt: str) -> dict[str, int]:
    """Write one shard and its rejects, or find them written. Returns the counts: pairs kept, pairs rejected."""
    shard_uri, rejects_uri = storage.join(out, chunk.shard), _rejects_uri(out, chunk)
    if not storage.exists(shard_uri):
        rows: list[dict[str, Any]] = []
        rejects: list[dict[str, str | None]] = []
        for source in chunk.pairs:
            result = read_pair(root, source, chunk.split, config, salt)
            if isinstance(result, Reject):
                rejects.append(asdict(result))
            else:
                rows.append(result)
        write_rejects(rejects_uri, rejects)
        write_table(shard_uri, pa.Table.from_pylist(rows, schema=CORPUS_SCHEMA))
    kept = read_table(shard_uri, ["sample_id"]).num_rows
    return {"kept": kept, "rejected": len(chunk.pairs) - kept}


def merge_rejects(out: str, plan: Plan) -> Counter[str]:
    """Write `rejects.parquet` from the plan's and the chunks' rejects, or find it written by an interrupted run.

    Returns how many there are of each reason.
    """
    merged = storage.join(out, "rejects.parquet")
    if not storage.exists(merged):
        rejects: list[dict[str, str | None]] = [asdict(reject) for reject in plan.rejects]
        for chunk in plan.chunks:
            rejects += read_table(_rejects_uri(out, chunk)).to_pylist()
        write_rejects(merged, rejects)
    storage.remove_tree(storage.join(out, "rejects"))
    return Counter(str(reason) for reason in read_table(merged, ["reason"])["reason"].to_pylist())


def salt_for(out: str) -> str:
    """The salt of the corpus's patient and study ids: from the environment, else kept beside the corpus (mode 0600)."""
    given = os.environ.get(SALT_VARIABLE)
    if given is not None:
        if len(given) < 8:
            raise UsageError(f"{SALT_VARIABLE}: {len(given)} characters; a salt needs at least 8")
        return given
    uri = storage.join(out, ".salt")
    if storage.exists(uri):
        return storage.read_bytes(uri).decode()
    salt = secrets.token_hex(16)
    if storage.is_remote(uri):
        storage.write_bytes(uri, salt.encode())
    else:
        part = Path(f"{uri}.part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(salt)
        part.replace(uri)
    return salt


def _patient(pair: SourcePair) -> tuple[str, str]:
    return pair.dataset, pair.patient


def _patient_splits(pairs: Iterable[SourcePair], config: IngestConfig) -> dict[tuple[str, str], Split]:
    """The one split of every patient."""
    train = 1 - config.validation_share - config.test_share
    fractions = SplitFractions(train, config.validation_share, config.test_share)
    given: dict[tuple[str, str], set[Split]] = {}
    for pair in pairs:
        given.setdefault(_patient(pair), set()).update({pair.split} if pair.split else set())
    splits: dict[tuple[str, str], Split] = {}
    for patient, named in given.items():
        if config.split != "auto":
            splits[patient] = config.split
        elif named:
            splits[patient] = max(named, key=SPLITS.index)
        else:
            splits[patient] = assign_split("\x00".join(patient), config.seed, fractions)
    return splits


def _with_canonical_labels(pair: SourcePair) -> SourcePair:
    """The pair with "No Finding" in the one spelling that templates, prompts and means know."""
    labels = {
        NO_FINDING if " ".join(name.replace("_", " ").split()).casefold() == NO_FINDING.casefold() else name: value
        for name, value in pair.labels.items()
    }
    return replace(pair, labels=labels)


def _report_of(source: SourcePair, config: IngestConfig) -> dict[str, str | None] | Reject:
    """The report columns: the radiologist's text, or one written from the labels."""
    if source.report is None:
        if all(value is None for value in source.labels.values()):
            return Reject(source.image, "no report and no labels")
        report = write_report(source.labels, source.sample_id, config.seed)
        return {"findings": None, "impression": None, "report": report, "report_source": "template"}
    sections = split_sections(source.report)
    reason = keep_report(sections.report, config.min_report_words)
    if reason:
        return Reject(source.image, reason)
    return {
        "findings": sections.findings,
        "impression": sections.impression,
        "report": clean_report(sections.report),
        "report_source": "radiologist",
    }


def _fit_mask(data: bytes, shape: tuple[int, ...]) -> raster.Image:
    """The mask at the stored image's size: 0 or 255."""
    mask = raster.decode_mask(data)
    return raster.resize_mask(mask, shape[0], shape[1])


def _hashed(salt: str, *parts: str) -> str:
    return hashlib.sha256("\x00".join((salt, *parts)).encode()).hexdigest()[:32]


def _rejects_uri(out: str, chunk: Chunk) -> str:
    return storage.join(out, "rejects", chunk.shard.removeprefix("shards/"))
