"""From planned chunks to the shards of a corpus. Pure but for the storage; `jobs/ingest.py` spreads it out.

Each chunk is read and written on its own. A chunk's rejects are written before its shard, so a shard that exists is
finished, and a rerun after an interruption skips it.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa

from chexray.platform import storage
from chexray.platform.corpus.pair_reader import PairReader
from chexray.platform.corpus.plan import Chunk, Plan
from chexray.platform.corpus.salt import write_private
from chexray.platform.corpus.schema import CORPUS_SCHEMA, Reject
from chexray.platform.corpus.shards import read_table, write_rejects, write_table

SOURCE_NAMES = ".sources.json"
"""From the stored hash of a path to the path: the one file, with the salt, that is not to leave the house."""


def ingest_chunk(reader: PairReader, out: str, chunk: Chunk) -> int:
    """Write one shard and its rejects, or find them written. Returns how many pairs that were, kept or rejected."""
    shard_uri, rejects_uri = storage.join(out, chunk.shard), _rejects_uri(out, chunk)
    if not storage.exists(shard_uri):
        rows: list[dict[str, Any]] = []
        rejects: list[Reject] = []
        for source in chunk.pairs:
            result = reader.read(source, chunk.split)
            if isinstance(result, Reject):
                rejects.append(result)
            else:
                rows.append(result)
        write_rejects(rejects_uri, [asdict(_named(reader, reject)) for reject in rejects])
        write_table(shard_uri, pa.Table.from_pylist(rows, schema=CORPUS_SCHEMA))
    return len(chunk.pairs)


def merge_rejects(reader: PairReader, out: str, plan: Plan, dropped: pa.Table) -> Counter[str]:
    """Write `rejects.parquet` from the plan's, the chunks' and the dropped pairs, or find it written by an earlier run.

    `dropped`: of `REJECT_SCHEMA`. Returns how many there are of each reason.
    """
    merged = storage.join(out, "rejects.parquet")
    if not storage.exists(merged):
        rejects: list[dict[str, str | None]] = [asdict(_named(reader, reject)) for reject in plan.rejects]
        for chunk in plan.chunks:
            rejects += read_table(_rejects_uri(out, chunk)).to_pylist()
        write_rejects(merged, [*rejects, *dropped.to_pylist()])
    storage.remove_tree(storage.join(out, "rejects"))
    return Counter(str(reason) for reason in read_table(merged, ["reason"])["reason"].to_pylist())


def write_source_names(reader: PairReader, out: str, plan: Plan) -> None:
    """Where paths may name patients: keep what the stored hashes stand for beside the corpus, for its owner alone."""
    if reader.public:
        return
    paths = {pair.image for chunk in plan.chunks for pair in chunk.pairs} | {r.source_uri for r in plan.rejects}
    names = {reader.name_of(path): path for path in sorted(paths)}
    write_private(storage.join(out, SOURCE_NAMES), json.dumps(names, indent=0).encode())


def _named(reader: PairReader, reject: Reject) -> Reject:
    """The reject as it is stored."""
    return replace(reject, source_uri=reader.name_of(reject.source_uri))


def _rejects_uri(out: str, chunk: Chunk) -> str:
    return storage.join(out, "rejects", chunk.shard.removeprefix("shards/"))
