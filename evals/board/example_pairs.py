"""The few pairs of a corpus that a page shows: their images and masks, by sample id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from chexray.platform import storage
from chexray.platform.corpus import raster
from chexray.platform.errors import ChexrayError, UsageError, first_line

_SIDE = 288


def read_pairs(
    corpora: Mapping[str, str], sample_ids: Iterable[str], columns: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Rows by sample id, and a sentence for each corpus that could not be read.

    Only row groups that hold one of the ids are read: shards are sorted by them.
    """
    wanted = set(sample_ids)
    found: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    for uri in dict.fromkeys(corpora.values()):
        if missing := sorted(wanted - found.keys()):
            try:
                found |= _read(uri, missing, columns)
            except (ChexrayError, OSError, pa.ArrowException) as error:
                problems.append(_problem(uri, error))
            except Exception as error:
                # What an object store's client raises has no base class of its own.
                if storage.explain(error) is None:
                    raise
                problems.append(_problem(uri, error))
    if not corpora and wanted:
        problems.append("The scores name no corpus: images are left out.")
    elif not problems and (lost := len(wanted - found.keys())):
        problems.append(f"{lost} of {len(wanted)} example images are not in the corpora that the scores name.")
    return found, problems


def thumbnail(pair: Mapping[str, Any] | None) -> bytes | None:
    """A small JPEG of a pair's image; None where there is none, or it cannot be decoded."""
    if pair is None:
        return None
    try:
        small_HW = raster.shrink(raster.decode_raster(pair["image"]), _SIDE)
    except raster.UnreadableImage:
        return None
    return raster.encode_image(small_HW, "jpeg", quality=85)


def _read(uri: str, sample_ids: Sequence[str], columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    names = storage.list_files(storage.join(uri, "shards"), (".parquet",))
    if not names:
        raise UsageError("no such corpus")
    fs, root = storage.arrow_filesystem(uri)
    chosen = pc.field("sample_id").isin(pa.array(sample_ids, pa.string()))
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        if len(rows) == len(sample_ids):
            break
        table = pq.read_table(f"{root}/shards/{name}", filesystem=fs, columns=["sample_id", *columns], filters=chosen)
        rows |= {row["sample_id"]: row for row in table.to_pylist()}
    return rows


def _problem(uri: str, error: Exception) -> str:
    return f"Corpus {uri} could not be read ({first_line(error)}): images are left out."
