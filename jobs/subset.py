"""Subsets from other subsets, and from files of ids.

As a cluster job: `ray job submit ... -- python -m chexray.jobs.subset import ids.npy --corpus s3://... --out s3://...`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from chexray.cluster.local import ray_session
from chexray.curation.subset import Operation, chosen_table, combine_kept, kept_ids, read_subset
from chexray.jobs.write_subset import AUDITED, write_subset
from chexray.platform import storage
from chexray.platform.artifacts import MANIFEST, Kind, Manifest, Stage, read_manifest, require_same_corpus
from chexray.platform.cli import run_job
from chexray.platform.config import Runtime
from chexray.platform.corpus.shards import read_columns, require_shards
from chexray.platform.corpus.uids import read_ids
from chexray.platform.errors import UsageError
from chexray.platform.ledger import joint_flops

IMPORTED = "imported"
"""Under `unknown` in a subset's cost: what its ids cost to choose is not known here, and counts as nothing."""


def import_subset(
    file: str,
    corpus: str,
    out: str,
    max_unknown: float = 0.0,
    runtime: Runtime | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Keep the pairs of the train split of `corpus` that a file of ids lists (`chexray.platform.corpus.uids`).

    `max_unknown`: the share of the ids, in [0, 1], that the train split may lack. The artifact follows from the ids,
    not from the file's format, order or place.
    """
    listed = read_ids(file, "FILE")
    ids = frozenset(listed)
    if not ids:
        raise UsageError(f"FILE {file}: lists no id")
    digest = hashlib.sha256("".join(sorted(ids)).encode()).hexdigest()[:16]
    stage = Stage(
        out,
        "subset",
        {"subset": {"operation": "import"}},
        {"corpus": (corpus, "corpus")},
        source=(storage.resolve(file), digest),
        overwrite=overwrite,
    )
    corpus = storage.resolve(corpus)
    require_shards(corpus, "train")
    known = ids & frozenset(read_columns(corpus, ["sample_id"], "train")["sample_id"].to_pylist())
    unknown = len(ids) - len(known)
    if not known or unknown / len(ids) > max_unknown:
        raise UsageError(_unknown_message(file, corpus, ids, unknown))
    counts = {"repeated_ids": len(listed) - len(ids), "unknown_ids": unknown}
    return _write(stage, corpus, known, None, {"total_flops": 0, "unknown": IMPORTED}, counts, runtime)


def combine_subsets(
    operation: Operation,
    subsets: Sequence[str],
    out: str,
    corpus: str | None = None,
    runtime: Runtime | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Keep what is in all of the subsets, in any, or (diff) in the first and in none of the others.

    `corpus` is where their corpus lies, if not where the first was made from it. Clusters, distances and bands are the
    first one's. The cost is the sum of theirs, with features that several used counted once.
    """
    if len({storage.resolve(uri) for uri in subsets}) < len(subsets) or len(subsets) < 2:
        raise UsageError(f"{operation}: give two subsets or more, each once ({', '.join(subsets) or 'none given'})")
    manifests = [read_manifest(uri, "subset") for uri in subsets]
    corpus = storage.resolve(corpus) if corpus else _corpus_of(subsets[0], manifests[0])
    for uri in subsets:
        require_same_corpus(uri, corpus)
    inputs: dict[str, tuple[str, Kind]] = {"corpus": (corpus, "corpus")}
    inputs |= {f"subset {n}": (uri, "subset") for n, uri in enumerate(subsets, start=1)}
    stage = Stage(out, "subset", {"subset": {"operation": operation}}, inputs, overwrite=overwrite)
    tables = [read_subset(uri) for uri in subsets]
    given = [kept_ids(table) for table in tables]
    kept = combine_kept(operation, given)
    if not kept:
        sizes = ", ".join(f"{uri}: {len(ids)}" for uri, ids in zip(subsets, given, strict=True))
        raise UsageError(f"{operation}: would keep no pair ({sizes} pairs); look at chexray subset compare")
    cost: dict[str, Any] = {"total_flops": joint_flops(manifests)}
    if any("unknown" in manifest.cost for manifest in manifests):
        cost["unknown"] = IMPORTED
    counts = {"kept_by_input": {f"subset {n}": len(ids) for n, ids in enumerate(given, start=1)}}
    return _write(stage, corpus, kept, tables[0], cost, counts, runtime)


def _write(
    stage: Stage,
    corpus: str,
    kept: frozenset[str],
    scored: pa.Table | None,
    cost: dict[str, Any],
    counts: dict[str, Any],
    runtime: Runtime | None,
) -> Manifest:
    if done := stage.begin():
        return done
    pairs = read_columns(corpus, AUDITED, "train")
    with ray_session(runtime or Runtime()):
        table = chosen_table(pairs, kept, scored)
        return write_subset(stage, corpus, require_shards(corpus, "train"), pairs, table, cost, counts)


def _corpus_of(subset: str, manifest: Manifest) -> str:
    """Where the corpus of a subset lay when it was made. Raises `UsageError` where none is there any more."""
    uri = manifest.inputs["corpus"]
    if not storage.exists(storage.join(uri, MANIFEST)):
        raise UsageError(f"{subset}: was drawn from {uri}, where no corpus is now; say with --corpus where it is")
    return uri


def _unknown_message(file: str, corpus: str, ids: frozenset[str], unknown: int) -> str:
    everywhere = read_columns(corpus, ["sample_id", "split"])
    elsewhere = everywhere.filter(pc.not_equal(everywhere["split"], "train"))["sample_id"].to_pylist()
    held_out = len(ids.intersection(elsewhere))
    told = f"FILE {file}: {unknown} of its {len(ids)} ids are not in the train split of {corpus}"
    if held_out:
        told += f" ({held_out} of them are in its other splits)"
    told += "; give the corpus that the ids were chosen from, or ingest what is missing of it"
    if unknown == len(ids):
        return told
    share = math.ceil(1000 * unknown / len(ids)) / 1000
    return f"{told}, or give --max-unknown {share:g} to go on with the other {len(ids) - unknown}"


if __name__ == "__main__":
    run_job("subset")
