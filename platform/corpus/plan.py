"""From what a dataset lists to the chunks that are read, each into one shard. Pure: no file is opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache

from pydantic import TypeAdapter

from chexray.platform.config import IngestConfig
from chexray.platform.corpus.paths import below_root
from chexray.platform.corpus.salt import salted_hash
from chexray.platform.corpus.schema import NO_FINDING, SPLITS, Reject, SourcePair, Split
from chexray.platform.corpus.shards import cut, shard_path
from chexray.platform.corpus.splits import SplitFractions, assign_split


@dataclass(frozen=True)
class Chunk:
    """The pairs of one shard, and where the shard goes."""

    shard: str
    split: Split
    pairs: tuple[SourcePair, ...]

    def to_json(self) -> str:
        return _CHUNK.dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> Chunk:
        return _CHUNK.validate_json(text)


_CHUNK = TypeAdapter(Chunk)


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
    them cannot share one. So is a pair with a path that leads out of the dataset's folder.
    """
    entries = list(listed)
    rejects = [entry for entry in entries if isinstance(entry, Reject)]
    pairs: dict[str, SourcePair] = {}
    for entry in sorted((e for e in entries if isinstance(e, SourcePair)), key=lambda e: e.image):
        if not all(below_root(path) for path in entry.files):
            rejects.append(Reject(entry.image, "path outside the root"))
        elif entry.sample_id in pairs:
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
    return Plan(chunks, tuple(rejects), len(entries), _digest(chunks, rejects))


def with_salted_ids(entries: Iterable[SourcePair | Reject], salt: str) -> Iterator[SourcePair | Reject]:
    """The entries with source ids that only the salt's owner can make: ids of private data are often easy to guess."""
    for entry in entries:
        if isinstance(entry, SourcePair):
            yield replace(entry, source_id=salted_hash(salt, "source id", entry.source_id))
        else:
            yield entry


def _digest(chunks: Iterable[Chunk], rejects: Iterable[Reject]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk.to_json().encode())
    for reject in rejects:
        digest.update(json.dumps(asdict(reject)).encode())
    return digest.hexdigest()[:16]


def _patient(pair: SourcePair) -> tuple[str, str]:
    return pair.cohort or pair.dataset, pair.patient


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
    named = {name: _canonical(name) for name in pair.labels}
    if all(name == canonical for name, canonical in named.items()):
        return pair  # with its labels, which adapters may share among pairs
    return replace(pair, labels={named[name]: value for name, value in pair.labels.items()})


@cache
def _canonical(name: str) -> str:
    return NO_FINDING if " ".join(name.replace("_", " ").split()).casefold() == NO_FINDING.casefold() else name
