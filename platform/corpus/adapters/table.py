"""The CSV files in which datasets list their images."""

from __future__ import annotations

import csv
import gzip
import io
import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from chexray.platform import storage
from chexray.platform.errors import ChexrayError, UsageError

_log = logging.getLogger(__name__)

MAX_TABLE_BYTES = 2 * 2**30
"""PadChest's, the largest, has 80 MB."""
csv.field_size_limit(2**24)


@dataclass(frozen=True)
class Table:
    """A CSV file: `rows` map each column to its text, stripped, '' where missing; never empty."""

    uri: str
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]

    def require(self, columns: Sequence[str]) -> None:
        """UsageError that names the missing columns and those that are there."""
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise UsageError(
                f"{self.uri}: missing column{'s'[: len(missing) > 1]} {', '.join(map(repr, missing))}; "
                f"the file has {', '.join(map(repr, self.columns))}"
            )


def check_root(root: str) -> None:
    """UsageError where a dataset's root is not a folder."""
    if not storage.is_dir(root):
        raise UsageError(f"{root}: no such dataset folder; give the folder that holds its CSV file and images")


def find_table(root: str, names: Sequence[str], columns: Sequence[str]) -> Table:
    """The first of the tables `names` below `root` that is there, with at least `columns`.

    UsageError where none is there, or a column is missing.
    """
    table = find_optional_table(root, names, columns)
    if table is None:
        raise UsageError(f"{root}: no {' or '.join(names)} there; give the folder that holds it")
    return table


def find_optional_table(root: str, names: Sequence[str], columns: Sequence[str]) -> Table | None:
    """As `find_table`, but None where no table is there."""
    for name in names:
        uri = storage.join(root, name)
        if storage.exists(uri):
            table = read_table(uri)
            table.require(columns)
            return table
    return None


def read_table(uri: str, delimiter: str = ",") -> Table:
    """Read a table with a header line, gzipped where its name ends in .gz: UTF-8 (with or without BOM), else Latin-1.

    The fallback is logged: Latin-1 decodes any bytes, right or not. Raises UsageError for a file without
    rows or with a column twice, ChexrayError where a line has more values than there are columns, or where the file
    is no gzip file or unpacks to more than `MAX_TABLE_BYTES`.
    """
    data = storage.read_bytes(uri)
    text = _decode(uri, _unpack(uri, data) if uri.endswith(".gz") else data)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows: list[dict[str, str]] = []
    try:
        columns = [column.strip() for column in next(reader, [])]
        _check_header(uri, columns)
        for values in reader:
            if any(value.strip() for value in values):
                rows.append(_row(f"{uri}, line {reader.line_num}", columns, values))
    except csv.Error as error:
        raise ChexrayError(f"{uri}, line {reader.line_num}: not a CSV file: {error}") from error
    if not rows:
        raise UsageError(f"{uri}: no rows; the file needs a header line and one line per image")
    return Table(uri, tuple(column for column in columns if column), tuple(rows))


def _unpack(uri: str, data: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as stream:
            text = stream.read(MAX_TABLE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ChexrayError(f"{uri}: not a whole gzip file ({error}); download it again") from error
    if len(text) > MAX_TABLE_BYTES:
        raise ChexrayError(f"{uri}: unpacks to more than {MAX_TABLE_BYTES} bytes; no dataset's table is that long")
    return text


def _decode(uri: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _log.warning(
            "%s: not UTF-8 at byte %d, read as Latin-1; save it as UTF-8 if accents look wrong",
            uri,
            error.start,
        )
        return data.decode("latin-1")


def _check_header(uri: str, columns: list[str]) -> None:
    named = [column for column in columns if column]
    repeated = sorted({column for column in named if named.count(column) > 1})
    if repeated:
        raise UsageError(f"{uri}: column {', '.join(map(repr, repeated))} appears more than once")


def _row(where: str, columns: list[str], values: list[str]) -> dict[str, str]:
    if any(value.strip() for value in values[len(columns) :]):
        raise ChexrayError(
            f"{where}: {len(values)} values for {len(columns)} columns; quote values that contain commas"
        )
    padded = [*values, *[""] * (len(columns) - len(values))]
    return {column: value.strip() for column, value in zip(columns, padded, strict=False) if column}
