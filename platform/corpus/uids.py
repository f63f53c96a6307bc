"""Sample ids as 128-bit numbers, and the files of ids by which subsets travel between projects.

DataComp's subset files (Gadre et al. 2023, and its resharder) are `.npy` arrays of dtype `u8,u8`: the upper and the
lower half of each id, in lexicographic order. Lists of ids in `.txt`, `.csv` and `.parquet` are read too.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from chexray.platform import storage
from chexray.platform.errors import UsageError

UID_DTYPE = np.dtype("u8,u8")
ID_SUFFIXES = (".npy", ".txt", ".csv", ".parquet")
_ID = re.compile(r"[0-9a-f]{32}")


def sample_uids(ids: Sequence[str]) -> npt.NDArray[np.void]:
    """[N] of two uint64 each, sorted: 128-bit ids as DataComp's subset files hold them (Gadre et al. 2023)."""
    halves = [(int(i[:16], 16), int(i[16:], 16)) for i in ids]
    return np.sort(np.array(halves, dtype=UID_DTYPE))


def uid_names(uids: npt.NDArray[np.void]) -> list[str]:
    """The sample ids, 32 hex digits each, of [N] of two uint64, in their order."""
    return [f"{high:016x}{low:016x}" for high, low in uids.tolist()]


def write_uids(uri: str, ids: Sequence[str]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, sample_uids(ids), allow_pickle=False)
    storage.write_bytes(uri, buffer.getvalue())


def read_uids(uri: str) -> npt.NDArray[np.void]:
    """[N] of two uint64 each, in the file's order. Raises `UsageError` where the file holds anything else."""
    try:
        loaded: npt.NDArray[np.void] = np.lib.format.read_array(io.BytesIO(storage.read_bytes(uri)), allow_pickle=False)
    except ValueError as error:  # another format, objects, or cut short
        raise UsageError(f"{uri}: not a whole .npy array of numbers ({error})") from error
    if loaded.dtype != UID_DTYPE:
        raise UsageError(f"{uri}: expected 128-bit ids (dtype {UID_DTYPE}), found dtype {loaded.dtype}")
    if loaded.ndim != 1:
        raise UsageError(f"{uri}: expected one dimension, found shape {loaded.shape}")
    return loaded


def id_suffix(uri: str, option: str) -> str:
    """The suffix by which the format of a file of ids is chosen; `UsageError` names `option` for any other."""
    suffix = PurePosixPath(uri).suffix.lower()
    if suffix not in ID_SUFFIXES:
        raise UsageError(f"{option} {uri}: the file's name must end in one of {', '.join(ID_SUFFIXES)}")
    return suffix


def read_ids(uri: str, option: str) -> list[str]:
    """The sample ids that a file lists, in its order and as often as it lists them.

    `.npy`: DataComp's convention, sorted or not. `.txt`: one id a line. `.csv` and `.parquet`: the column `sample_id`;
    with a column `kept`, as a subset's own table has it, of the kept rows alone. Raises `UsageError`, which names
    `option` and never what the file holds: others' tables may say more than ids.
    """
    suffix = id_suffix(uri, option)
    if not storage.is_file(uri):
        raise UsageError(f"{option} {uri}: no such file")
    if suffix == ".npy":
        return uid_names(read_uids(uri))
    if suffix == ".txt":
        return _normal_ids(uri, _read_lines(uri))
    table = _read_csv(uri) if suffix == ".csv" else _read_parquet(uri)
    return _normal_ids(uri, _kept_column(uri, table))


def _read_lines(uri: str) -> list[str | None]:
    try:
        lines = storage.read_bytes(uri).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{uri}: not a text file in UTF-8") from error
    return [line for line in lines if line.strip()]


def _read_csv(uri: str) -> pa.Table:
    # Left to itself Arrow would read an id of digits alone as a number.
    types = pa.csv.ConvertOptions(column_types={"sample_id": pa.string(), "kept": pa.bool_()})
    try:
        return pa.csv.read_csv(pa.BufferReader(storage.read_bytes(uri)), convert_options=types)
    except pa.ArrowInvalid:  # its message quotes the row
        raise UsageError(
            f"{uri}: not a CSV file (UTF-8, commas, a header, as many cells in each row; `kept`: true or false)"
        ) from None


def _read_parquet(uri: str) -> pa.Table:
    try:
        file = pq.ParquetFile(pa.BufferReader(storage.read_bytes(uri)))
        present = [name for name in ("sample_id", "kept") if name in file.schema_arrow.names]
        return file.read(columns=present)
    except (pa.ArrowInvalid, OSError) as error:  # cut short or damaged: Arrow raises either
        raise UsageError(f"{uri}: not a whole Parquet file ({error})") from error


def _kept_column(uri: str, table: pa.Table) -> list[str | None]:
    if "sample_id" not in table.column_names:
        raise UsageError(f"{uri}: has no column 'sample_id'")
    if "kept" in table.column_names:
        kept = table["kept"]
        if not pa.types.is_boolean(kept.type) or kept.null_count:
            raise UsageError(f"{uri}: the column 'kept' must be true or false in every row")
        table = table.filter(kept)
    try:
        ids: list[str | None] = pc.cast(table["sample_id"], pa.string()).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:  # bytes that are no text; lists and structs
        raise UsageError(f"{uri}: the column 'sample_id' is {table['sample_id'].type}, not text") from error
    return ids


def _normal_ids(uri: str, texts: Sequence[str | None]) -> list[str]:
    """The ids in lower case, without blanks around them."""
    ids = [(text or "").strip().lower() for text in texts]
    for number, name in enumerate(ids, start=1):
        if not _ID.fullmatch(name):
            raise UsageError(f"{uri}: id {number} of {len(ids)} is not a sample id (32 hex digits)")
    return ids
