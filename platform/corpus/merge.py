"""Several corpora into one: pairs sorted by sample id again, each patient in one split, each image once.

Planned from a few columns; each shard of the result is then written on its own, from the rows that it needs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from chexray.platform import storage
from chexray.platform.config import IngestConfig
from chexray.platform.corpus.drops import COLUMNS, Drops, drop_table, find_drops, is_first, without
from chexray.platform.corpus.schema import CORPUS_SCHEMA, SPLITS, Split
from chexray.platform.corpus.shards import cut, list_shards, read_table, shard_path, write_table
from chexray.platform.errors import UsageError


@dataclass(frozen=True)
class MergedShard:
    """A shard of the result, and where its rows are: shard's URI and row numbers, in any order."""

    shard: str
    sources: tuple[tuple[str, tuple[int, ...]], ...]

    def to_json(self) -> str:
        return _MERGED_SHARD.dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> MergedShard:
        return _MERGED_SHARD.validate_json(text)


_MERGED_SHARD = TypeAdapter(MergedShard)


@dataclass(frozen=True)
class MergePlan:
    """What will be written, what is left out and what an evaluation set holds (of `DROP_SCHEMA`) of `listed` pairs."""

    shards: tuple[MergedShard, ...]
    dropped: pa.Table
    leaks: pa.Table
    listed: int


def plan_merge(corpora: Sequence[str], evaluation: Sequence[str], config: IngestConfig) -> MergePlan:
    """Which rows of which corpus go where. Where corpora hold the same pair, the first one's is taken."""
    pairs = pa.concat_tables([_located_rows(uri) for uri in corpora])
    first = is_first(pairs["sample_id"])
    again, pairs = pairs.filter(pa.array(~first)), pairs.filter(pa.array(first))
    drops = _patients_in_two_splits(pairs)
    evaluated = [_located_rows(uri) for uri in evaluation]
    found, leaks = find_drops(without(pairs, drops), evaluated, config)
    drops.update(found)
    repeated: Drops = dict.fromkeys(again["sample_id"].to_pylist(), ("duplicate source id", None))
    dropped = pa.concat_tables([drop_table(pairs, drops), drop_table(again, repeated)])
    shards = _shards(without(pairs, drops), config.shard_pairs)
    return MergePlan(shards, dropped, drop_table(pairs, leaks), len(pairs) + len(again))


def write_merged_shard(out: str, merged: MergedShard) -> int:
    """Write one shard of the result, or find it written. Returns its number of pairs."""
    uri = storage.join(out, merged.shard)
    rows = sum(len(numbers) for _, numbers in merged.sources)
    if not storage.exists(uri):
        parts = [read_table(source).take(pa.array(numbers)) for source, numbers in merged.sources]
        table = pa.concat_tables(parts).sort_by("sample_id")
        write_table(uri, table.select(CORPUS_SCHEMA.names).cast(CORPUS_SCHEMA))
    return rows


def _located_rows(corpus: str) -> pa.Table:
    """`COLUMNS` of all pairs of a corpus, and where each is: `shard` (its URI) and `row`."""
    tables = []
    for shard in list_shards(corpus):
        uri = storage.join(corpus, shard.path)
        table = read_table(uri, COLUMNS)
        missing = [name for name in COLUMNS if name not in table.column_names]
        if missing:
            raise UsageError(f"{uri}: has no column {', '.join(missing)}; ingest the corpus again with this chexray")
        table = table.append_column("shard", pa.repeat(uri, len(table)))
        tables.append(table.append_column("row", pa.array(range(len(table)), pa.int64())))
    if not tables:
        raise UsageError(f"{corpus}: a corpus without pairs")
    return pa.concat_tables(tables)


def _patients_in_two_splits(pairs: pa.Table) -> Drops:
    """The pairs whose patient has others in a later split (test before validation before train)."""
    splits: defaultdict[str, set[Split]] = defaultdict(set)
    patients, named = pairs["patient_id"].to_pylist(), pairs["split"].to_pylist()
    for patient, split in zip(patients, named, strict=True):
        splits[patient].add(split)
    drops: Drops = {}
    for sample, patient, split in zip(pairs["sample_id"].to_pylist(), patients, named, strict=True):
        chosen = max(splits[patient], key=SPLITS.index)
        if split != chosen:
            drops[sample] = ("patient in two splits", f"{split}, {chosen}")
    return drops


def _shards(pairs: pa.Table, shard_pairs: int) -> tuple[MergedShard, ...]:
    merged = []
    for split in SPLITS:
        members = pairs.filter(pc.equal(pairs["split"], split)).sort_by("sample_id").select(["shard", "row"])
        for number, rows in enumerate(cut(members.to_pylist(), shard_pairs)):
            sources: defaultdict[str, list[int]] = defaultdict(list)
            for row in rows:
                sources[row["shard"]].append(row["row"])  # type: ignore[index]
            located = tuple((shard, tuple(numbers)) for shard, numbers in sorted(sources.items()))
            merged.append(MergedShard(shard_path(split, number), located))
    return tuple(merged)
