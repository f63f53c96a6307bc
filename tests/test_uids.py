"""Files of ids: numpy's own bytes, DataComp's recipe, and files of others."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from id_files import hex_id, saved, write_ids

from chexray.platform.corpus.uids import read_ids, sample_uids, uid_names, write_uids
from chexray.platform.errors import UsageError

numbers = st.lists(st.integers(0, 2**128 - 1), max_size=30)


def test_uids_of_datacomp_example_are_what_its_readme_saves(tmp_path: Path) -> None:
    """The two uids and the three lines of code of mlfoundations/datacomp's README, given in reverse order."""
    uids = ["6e356964a967af455c8016b75d691203", "139e4a9b22a614771f06c700a8ebe150"]
    write_uids(str(tmp_path / "ours.npy"), uids)
    processed = np.array([(int(uid[:16], 16), int(uid[16:32], 16)) for uid in uids], np.dtype("u8,u8"))
    processed.sort()
    np.save(tmp_path / "theirs.npy", processed)
    written = (tmp_path / "ours.npy").read_bytes()
    assert written == (tmp_path / "theirs.npy").read_bytes()
    assert written[:8] == b"\x93NUMPY\x01\x00"
    halves = struct.pack("<4Q", 0x139E4A9B22A61477, 0x1F06C700A8EBE150, 0x6E356964A967AF45, 0x5C8016B75D691203)
    assert written[-32:] == halves


@given(numbers)
def test_uids_any_ids_are_the_sorted_numbers_and_come_back(values: list[int]) -> None:
    uids = sample_uids([hex_id(value) for value in values])
    ordered = sorted(values)
    expected = b"".join(struct.pack("=QQ", value >> 64, value & (2**64 - 1)) for value in ordered)
    assert uids.tobytes() == expected
    assert uid_names(uids) == [hex_id(value) for value in ordered]


def test_uids_are_found_as_the_resharder_looks_them_up(tmp_path: Path) -> None:
    """DataComp's resharder maps the file into memory and takes a pair as often as bisection finds its uid."""
    values = [int(value) << 64 | 7 for value in np.random.default_rng(0).integers(0, 2**63, 50)]
    write_uids(str(tmp_path / "s.npy"), [hex_id(value) for value in values[:40]])
    subset = np.load(tmp_path / "s.npy", mmap_mode="r")
    for position, value in enumerate(values):
        key = np.array([divmod(value, 2**64)], np.dtype("u8,u8"))[0]
        count = np.searchsorted(subset, key, "right") - np.searchsorted(subset, key, "left")
        assert count == (1 if position < 40 else 0)


@pytest.mark.parametrize("suffix", [".npy", ".txt", ".csv", ".parquet"])
def test_read_ids_of_others_files_gives_them_in_order_with_repeats(suffix: str, place: str) -> None:
    """Ids of digits alone, with zeros first, and one that reads as a number in exponential form stay text."""
    ids = ["f" * 32, "0" * 20 + "123456789012", "1" * 30 + "e5", "f" * 32, "12345678" * 4]
    assert read_ids(write_ids(f"{place}/ids{suffix}", ids), "FILE") == ids


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_read_ids_of_a_table_with_kept_takes_the_kept_rows_alone(suffix: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"sample_id": [hex_id(n) for n in range(4)], "kept": [True, False, False, True]})
    file = tmp_path / f"t{suffix}"
    frame.to_csv(file, index=False) if suffix == ".csv" else frame.to_parquet(file)
    assert read_ids(str(file), "FILE") == [hex_id(0), hex_id(3)]


def parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


REFUSED = [
    ("ids.json", b"[]", r"must end in one of \.npy, \.txt, \.csv, \.parquet"),
    ("ids", b"", r"must end in one of \.npy"),
    ("none.npy", None, "no such file"),
    ("text.npy", b"0" * 32, "not a whole .npy array"),
    ("empty.npy", b"", "not a whole .npy array"),
    ("cut.npy", saved(sample_uids([hex_id(1), hex_id(2)]))[:-5], "not a whole .npy array"),
    ("objects.npy", saved(np.array([{}], dtype=object)), "not a whole .npy array"),
    ("integers.npy", saved(np.arange(3, dtype=np.uint64)), "expected 128-bit ids"),
    ("square.npy", saved(np.zeros((2, 2), "u8,u8")), "expected one dimension"),
    ("bad.txt", f"{hex_id(1)}\n\nJane Doe\n".encode(), "id 2 of 2 is not a sample id"),
    ("short.txt", hex_id(1)[1:].encode(), "32 hex digits"),
    ("latin.txt", "Jané".encode("latin-1"), "UTF-8"),
    ("other.csv", b"id\n1\n", "no column 'sample_id'"),
    ("empty.csv", b"", "not a CSV file"),
    ("ragged.csv", b"sample_id,x\na,1\nJane Doe\n", "not a CSV file"),
    ("kept.csv", b"sample_id,kept\na,Jane Doe\n", "not a CSV file"),
    ("blank.csv", b"sample_id,x\n,Jane Doe\n", "id 1 of 1 is not a sample id"),
    ("text.parquet", b"PAR1", "not a whole Parquet file"),
    ("cut.parquet", parquet(sample_id=[hex_id(1)] * 500)[20:], "not a whole Parquet file"),
    ("other.parquet", parquet(id=[1]), "no column 'sample_id'"),
    ("null.parquet", parquet(sample_id=[hex_id(1), None]), "id 2 of 2"),
    ("kept.parquet", parquet(sample_id=[hex_id(1)] * 2, kept=[True, None]), "'kept' must be true or false"),
    ("counts.parquet", parquet(sample_id=[hex_id(1)], kept=[1]), "'kept' must be true or false"),
    ("lists.parquet", parquet(sample_id=[["Jane Doe"]]), "not text"),
]


@pytest.mark.parametrize(("name", "data", "said"), REFUSED, ids=[name for name, _, _ in REFUSED])
def test_read_ids_of_a_file_that_is_none_says_why_and_quotes_nothing(
    name: str, data: bytes | None, said: str, tmp_path: Path
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=said) as refusal:
        read_ids(str(tmp_path / name), "FILE")
    assert name in str(refusal.value)
    assert "Jane" not in str(refusal.value)
