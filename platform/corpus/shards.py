"""Where the pairs of a corpus lie: Parquet shards, each of one split, in an order that is random by construction.

    CORPUS/manifest.json
    CORPUS/rejects.parquet
    CORPUS/shards/train-00000.parquet, ..., validation-00000.parquet, ..., test-00000.parquet

Pairs are sorted by sample id, a hash, before they are cut into shards: each shard is a random sample of its split,
and the same input gives the same shards, whatever the order in which the dataset listed it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from chexray.platform import storage
from chexray.platform.corpus.schema import CORPUS_SCHEMA, REJECT_SCHEMA, SPLITS, Split
from chexray.platform.errors import UsageError

ROW_GROUP_PAIRS = 128
"""Small row groups: a reader that needs a few rows of a shard decompresses little."""


@dataclass(frozen=True)
class Shard:
    """One Parquet file of a corpus: its path below the corpus, its split and its number of pairs."""

    path: str
    split: Split
    pairs: int


def shard_path(split: Split, number: int) -> str:
    return f"shards/{split}-{number:05d}.parquet"


def write_table(uri: str, table: pa.Table) -> None:
    """Write a Parquet file atomically. Images are compressed already, so only the other columns are."""
    sink = pa.BufferOutputStream()
    compression = {name: "none" if name == "image" else "zstd" for name in table.column_names}
    pq.write_table(table, sink, compression=compression, row_group_size=ROW_GROUP_PAIRS)
    storage.write_bytes(uri, sink.getvalue().to_pybytes())


def read_table(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    fs, path = storage.arrow_filesystem(uri)
    return pq.read_table(path, filesystem=fs, columns=list(columns) if columns else None)


def list_shards(corpus: str, split: Split | None = None) -> list[Shard]:
    """The shards of a corpus, of one split or of all, in their order of reading."""
    fs, root = storage.arrow_filesystem(corpus)
    shards = []
    for relative in storage.list_files(storage.join(corpus, "shards"), (".parquet",)):
        shard_split = next((s for s in SPLITS if relative.startswith(f"{s}-")), None)
        if shard_split and split in (None, shard_split):
            rows = pq.read_metadata(f"{root}/shards/{relative}", filesystem=fs).num_rows
            shards.append(Shard(f"shards/{relative}", shard_split, rows))
    return shards


def require_shards(corpus: str, split: Split) -> list[Shard]:
    """The shards of a split that must not be empty. Raises `UsageError` naming the splits that there are."""
    shards = [shard for shard in list_shards(corpus, split) if shard.pairs]
    if not shards:
        present = sorted({shard.split for shard in list_shards(corpus)})
        raise UsageError(
            f"{corpus}: the corpus has no {split} split (it has: {', '.join(present) or 'no pairs'}); ingest with "
            f"--set ingest.split=auto, or with ingest.split={split} where all of the data is for that"
        )
    return shards


def read_columns(corpus: str, columns: Sequence[str], split: Split | None = None) -> pa.Table:
    """Some columns of all pairs (of a split), in the order of reading. For columns that fit in memory."""
    tables = [read_table(storage.join(corpus, shard.path), columns) for shard in list_shards(corpus, split)]
    if not tables:
        return pa.schema([CORPUS_SCHEMA.field(name) for name in columns]).empty_table()
    return pa.concat_tables(tables)


def write_compact_shard(corpus: str, out: str, shard: str, kept_ids: frozenset[str]) -> int:
    """Write the kept rows of one shard below `out`, in their order. Returns how many there are."""
    table = read_table(storage.join(corpus, shard))
    kept = table.filter(pc.is_in(table["sample_id"], value_set=pa.array(sorted(kept_ids), pa.string())))
    write_table(storage.join(out, shard), kept)
    return int(kept.num_rows)


def write_rejects(uri: str, rejects: Sequence[dict[str, str | None]]) -> None:
    write_table(uri, pa.Table.from_pylist(list(rejects), schema=REJECT_SCHEMA))


def cut(items: Sequence[object], size: int) -> Iterator[Sequence[object]]:
    """Successive runs of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
