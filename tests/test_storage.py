"""Storage on a local disk and on a real S3 server: the same answers, and no half-written files."""

from __future__ import annotations

import json
import os
import resource
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chexray.platform import storage
from chexray.platform.errors import UsageError

ANY_BYTES = bytes(range(256)) * 40_000  # 10 MB: above the sizes at which S3 clients split a file


def fill(folder: str) -> None:
    for name in ("b.json", "a/one.parquet", "a/deep/two.PARQUET", "a.txt"):
        storage.write_bytes(storage.join(folder, name), name.encode())


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Writing beyond `size` bytes of a file fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("data", [b"", b"x", ANY_BYTES], ids=["empty", "one byte", "10 MB"])
def test_bytes_written_are_read_back(place: str, data: bytes) -> None:
    uri = storage.join(place, "folder", "file.bin")
    storage.write_bytes(uri, data)
    assert storage.read_bytes(uri) == data
    with storage.open_read(uri) as stream:
        assert stream.read() == data


def test_bytes_written_twice_are_the_second(place: str) -> None:
    uri = storage.join(place, "file")
    storage.write_bytes(uri, b"a longer first content")
    storage.write_bytes(uri, b"second")
    assert storage.read_bytes(uri) == b"second"
    assert storage.list_files(place) == ["file"]


def test_json_written_is_read_back(place: str) -> None:
    value = {"b": [1, 2.5, None, True], "a": {"name": "Pneumothorax, größer"}}
    uri = storage.join(place, "value.json")
    storage.write_json(uri, value)
    assert storage.read_json(uri) == value
    assert json.loads(storage.read_bytes(uri)) == value


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_json_of_a_number_that_json_lacks_is_refused_and_keeps_the_old(place: str, number: float) -> None:
    uri = storage.join(place, "value.json")
    storage.write_json(uri, {"auroc": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        storage.write_json(uri, {"auroc": number})
    assert storage.read_json(uri) == {"auroc": 0.5}


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe"])
def test_json_that_is_not_json_is_refused_with_its_place(place: str, content: bytes) -> None:
    uri = storage.join(place, "value.json")
    storage.write_bytes(uri, content)
    with pytest.raises(UsageError, match=r"value\.json: not a JSON file"):
        storage.read_json(uri)


def test_missing_file_raises_file_not_found(place: str) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(place, "missing.png"))


def test_write_that_fails_halfway_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    uri = str(tmp_path / "file.bin")
    storage.write_bytes(uri, b"old")
    with files_limited_to(4096), pytest.raises(OSError, match="File too large"):
        storage.write_bytes(uri, ANY_BYTES)
    assert storage.read_bytes(uri) == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_write_to_the_name_of_a_folder_leaves_the_folder_and_nothing_else(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "folder" / "file"), b"kept")
    with pytest.raises(IsADirectoryError):
        storage.write_bytes(str(tmp_path / "folder"), b"new")
    assert storage.list_files(str(tmp_path)) == ["folder/file"]


def test_reader_during_writes_sees_one_whole_content_or_the_other(place: str) -> None:
    uri = storage.join(place, "file.bin")
    contents = {bytes([value]) * 3_000_000 for value in (1, 2)}
    storage.write_bytes(uri, bytes([1]) * 3_000_000)

    def write() -> None:
        for _ in range(5):
            for content in contents:
                storage.write_bytes(uri, content)

    writer = threading.Thread(target=write)
    writer.start()
    seen = [storage.read_bytes(uri) for _ in range(20)]
    writer.join()
    assert set(seen) <= contents


def test_list_files_is_recursive_sorted_and_relative(place: str) -> None:
    fill(place)
    assert storage.list_files(place) == ["a.txt", "a/deep/two.PARQUET", "a/one.parquet", "b.json"]
    assert storage.list_files(place + "/") == storage.list_files(place)
    assert storage.list_files(storage.join(place, "a")) == ["deep/two.PARQUET", "one.parquet"]


def test_list_files_with_suffixes_ignores_case_and_others(place: str) -> None:
    fill(place)
    assert storage.list_files(place, (".parquet",)) == ["a/deep/two.PARQUET", "a/one.parquet"]
    assert storage.list_files(place, (".json", ".txt")) == ["a.txt", "b.json"]


def test_list_files_sees_what_was_written_after_the_last_listing(place: str) -> None:
    fill(place)
    before = storage.list_files(place)
    storage.write_bytes(storage.join(place, "c"), b"")
    assert storage.list_files(place) == sorted([*before, "c"])


def test_list_files_of_a_folder_made_in_a_console_is_empty(s3: str) -> None:
    uri = storage.join(s3, "made-in-a-console")
    fs, path = storage.filesystem(uri)
    fs.pipe_file(f"{path}/", b"")
    assert storage.list_files(uri) == []
    storage.write_bytes(storage.join(uri, "file"), b"")
    assert storage.list_files(uri) == ["file"]


def test_list_files_of_nothing_and_of_a_file_is_empty(place: str) -> None:
    assert storage.list_files(storage.join(place, "missing")) == []
    fill(place)
    assert storage.list_files(storage.join(place, "b.json")) == []


def test_exists_is_dir_and_is_file_tell_files_folders_and_nothing_apart(place: str) -> None:
    fill(place)
    asked = [place, storage.join(place, "a"), storage.join(place, "b.json"), storage.join(place, "b")]
    assert [storage.exists(uri) for uri in asked] == [True, True, True, False]
    assert [storage.is_dir(uri) for uri in asked] == [True, True, False, False]
    assert [storage.is_file(uri) for uri in asked] == [False, False, True, False]


def test_remove_tree_removes_all_below_and_only_that(place: str) -> None:
    fill(place)
    storage.write_bytes(storage.join(place, "ab"), b"a sibling whose name starts the same")
    storage.remove_tree(storage.join(place, "a"))
    assert storage.list_files(place) == ["a.txt", "ab", "b.json"]
    # Not `exists`: this S3 server keeps the emptied folder, which AWS never had.
    assert storage.list_files(storage.join(place, "a")) == []


def test_remove_tree_of_a_file_removes_it_and_of_nothing_does_nothing(place: str) -> None:
    fill(place)
    storage.remove_tree(storage.join(place, "b.json"))
    storage.remove_tree(storage.join(place, "missing"))
    assert storage.list_files(place) == ["a.txt", "a/deep/two.PARQUET", "a/one.parquet"]


def test_remove_tree_of_a_link_removes_the_link_not_the_data(tmp_path: Path) -> None:
    fill(str(tmp_path / "data"))
    (tmp_path / "link").symlink_to(tmp_path / "data")
    storage.remove_tree(str(tmp_path / "link"))
    assert not (tmp_path / "link").exists()
    assert len(storage.list_files(str(tmp_path / "data"))) == 4


def test_local_copy_of_a_folder_has_its_files(place: str) -> None:
    fill(place)
    with storage.local_copy(place) as folder:
        assert {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()} == {
            name: name for name in storage.list_files(place)
        }


def test_local_copy_of_a_file_has_its_name_and_content(place: str) -> None:
    fill(place)
    with storage.local_copy(storage.join(place, "a/one.parquet")) as file:
        assert (file.name, file.read_bytes()) == ("one.parquet", b"a/one.parquet")


def test_local_copy_of_a_remote_folder_takes_the_suffixes_only_and_is_gone_afterwards(s3: str) -> None:
    folder = storage.join(s3, "local-copy")
    fill(folder)
    with storage.local_copy(folder, (".json",)) as copy:
        assert [p.name for p in copy.rglob("*") if p.is_file()] == ["b.json"]
    assert not copy.exists()


def test_local_copy_of_a_local_folder_is_the_folder_itself(tmp_path: Path) -> None:
    fill(str(tmp_path))
    with storage.local_copy(str(tmp_path)) as folder:
        assert folder == tmp_path
    assert (tmp_path / "b.json").exists()


def test_large_files_are_copied_piece_by_piece(place: str, tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(80_000_000)
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "large.npy").write_bytes(content)
    tracemalloc.start()
    storage.upload_tree(tmp_path / "features", place)
    with storage.local_copy(storage.join(place, "large.npy")) as copy:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert copy.read_bytes() == content
    if not storage.is_remote(place):  # S3 clients send several large parts at a time, however large the file is
        assert peak < len(content)


def test_upload_tree_copies_every_file(place: str, tmp_path: Path) -> None:
    fill(str(tmp_path / "source"))
    storage.upload_tree(tmp_path / "source", storage.join(place, "copy"))
    copied = storage.list_files(storage.join(place, "copy"))
    assert copied == storage.list_files(str(tmp_path / "source"))
    assert all(storage.read_bytes(storage.join(place, "copy", name)) == name.encode() for name in copied)


def test_arrow_filesystem_reads_what_storage_wrote(place: str) -> None:
    table = pa.table({"x": [1, 2, 3]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    storage.write_bytes(storage.join(place, "t.parquet"), sink.getvalue().to_pybytes())
    fs, path = storage.arrow_filesystem(storage.join(place, "t.parquet"))
    assert pq.read_table(path, filesystem=fs).equals(table)


def test_resolve_makes_local_paths_absolute_and_drops_trailing_slashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert storage.resolve("out/") == str(tmp_path / "out")
    assert storage.resolve("~/out") == str(tmp_path / "home" / "out")
    assert storage.resolve(f"file://{tmp_path}/out") == str(tmp_path / "out")
    assert storage.resolve("s3://bucket/key/") == "s3://bucket/key"


def test_join_puts_one_slash_between_parts() -> None:
    assert storage.join("s3://bucket/", "/a/", "b") == "s3://bucket/a/b"
    assert storage.join("/data", "a/b.json") == "/data/a/b.json"


def test_unknown_scheme_is_refused_with_its_name() -> None:
    with pytest.raises(UsageError, match="nowhere://x: cannot open 'nowhere://' storage"):
        storage.exists("nowhere://x")


def test_list_files_with_link_loops_ends_and_lists_each_file_once(tmp_path: Path) -> None:
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root" / "a" / "1.png").write_bytes(b"x")
    (tmp_path / "elsewhere" / "2.png").write_bytes(b"x")
    (tmp_path / "root" / "a" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "self").symlink_to(tmp_path / "root" / "self")
    (tmp_path / "root" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "elsewhere")
    assert storage.list_files(str(tmp_path / "root"), (".png",)) == ["a/1.png", "out/2.png"]


def test_leads_outside_is_said_of_links_that_leave_the_root_only(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "1.png").write_bytes(b"x")
    (tmp_path / "2.png").write_bytes(b"x")
    (root / "inside").symlink_to(root / "1.png")
    (root / "outside").symlink_to(tmp_path / "2.png")
    (tmp_path / "rootlike").mkdir()
    (root / "sibling").symlink_to(tmp_path / "rootlike")
    (tmp_path / "linked-root").symlink_to(root)
    outside = {name: storage.leads_outside(str(root), name) for name in ("1.png", "inside", "outside", "sibling/x")}
    assert outside == {"1.png": False, "inside": False, "outside": True, "sibling/x": True}
    assert not storage.leads_outside(str(tmp_path / "linked-root"), "1.png")
    assert not storage.leads_outside("s3://bucket/root", "1.png")


def test_explain_says_what_to_do_where_storage_failed_and_nothing_of_other_errors() -> None:
    from botocore.exceptions import EndpointConnectionError

    no_answer = storage.explain(EndpointConnectionError(endpoint_url="http://127.0.0.1:1"))
    assert no_answer is not None
    assert "AWS_ENDPOINT_URL" in no_answer
    assert storage.explain(PermissionError(13, "Permission denied", "corpus/x")) is not None
    assert storage.explain(OSError(28, "No space left on device")) is not None
    assert storage.explain(ValueError("a bug")) is None


def test_pipes_are_not_listed_and_have_no_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"xy")
    assert storage.list_files(str(tmp_path)) == ["b.png"]
    assert storage.file_size(str(tmp_path / "b.png")) == 2
    with pytest.raises(FileNotFoundError):
        storage.file_size(str(tmp_path / "a.png"))


def test_clear_folder_keeps_one_file(place: str) -> None:
    for name in ("keep.json", "a/b.txt", "c.txt"):
        storage.write_bytes(storage.join(place, name), b"x")
    storage.clear_folder(place, keep="keep.json")
    assert storage.list_files(place) == ["keep.json"]
