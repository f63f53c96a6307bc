"""Subsets as files of ids and as sets, against Python's sets, numpy's own bytes, DataComp's recipe and scikit-learn."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import typed_command
from corpora import pair, write_corpus
from hypothesis import strategies as st
from id_files import hex_id, saved, write_ids

from chexray.curation.subset import (
    SUBSET_SCHEMA,
    chosen_table,
    compare_subsets,
    export_subset,
    kept_ids,
    read_subset,
)
from chexray.jobs.subset import combine_subsets, import_subset
from chexray.jobs.write_subset import AUDITED, write_subset
from chexray.platform import cli, storage, subset_cli
from chexray.platform.artifacts import Stage
from chexray.platform.corpus.shards import read_columns, read_table, require_shards
from chexray.platform.corpus.uids import read_ids, read_uids
from chexray.platform.errors import UsageError

PAIRS = 72
A, B, C = range(16), range(8, 24), range(12, 30)
"""Positions in the train split that the three subsets keep."""
BANDS = ("outlier", "support", "central")

numbers = st.lists(st.integers(0, 2**128 - 1), max_size=30)
small_sets = st.lists(st.frozensets(st.sampled_from("abcdefgh")), min_size=2, max_size=5)


# --- artifacts ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("subsets")


@pytest.fixture(scope="module")
def corpus(root: Path) -> str:
    return write_corpus(root, [pair(number) for number in range(PAIRS)])


@pytest.fixture(scope="module")
def train(corpus: str) -> list[str]:
    """The ids of the train split, in its order."""
    ids: list[str] = read_columns(corpus, ["sample_id"], "train")["sample_id"].to_pylist()
    assert len(ids) >= 30
    return ids


def scores(train: Sequence[str], seed: int) -> pa.Table:
    """A table with made up bands, clusters and distances for every pair."""
    random = np.random.default_rng(seed)
    columns = {
        "sample_id": list(train),
        "dataset": ["made"] * len(train),
        "cluster": random.integers(0, 6, len(train)).astype(np.int32),
        "distance": random.random(len(train)).astype(np.float32),
        "band": random.choice(BANDS, len(train)),
        "kept": [False] * len(train),
    }
    return pa.table(columns, schema=SUBSET_SCHEMA)


def make_subset(out: str, corpus: str, kept: Iterable[str], flops: int, seed: int) -> str:
    stage = Stage(out, "subset", {"made": seed}, {"corpus": (corpus, "corpus")})
    assert stage.begin() is None
    pairs = read_columns(corpus, AUDITED, "train")
    table = chosen_table(pairs, set(kept), scores(pairs["sample_id"].to_pylist(), seed))
    write_subset(stage, corpus, require_shards(corpus, "train"), pairs, table, {"total_flops": flops})
    return out


@pytest.fixture(scope="module")
def subsets(root: Path, corpus: str, train: list[str], ray_cluster: None) -> list[str]:
    chosen = enumerate((A, B, C), start=1)
    return [make_subset(str(root / f"s{n}"), corpus, (train[i] for i in kept), 10**n, n) for n, kept in chosen]


def kept_of(uri: str) -> set[str]:
    return set(kept_ids(read_subset(uri)))


@pytest.mark.parametrize("suffix", [".npy", ".txt", ".csv", ".parquet"])
def test_export_any_suffix_reads_back_and_replaces_a_file_only_when_told(
    suffix: str, subsets: list[str], place: str
) -> None:
    file = f"{place}/kept{suffix}"
    assert export_subset(subsets[0], file) == len(A)
    assert read_ids(file, "FILE") == sorted(kept_of(subsets[0]))
    with pytest.raises(UsageError, match=r"is there already.*--overwrite"):
        export_subset(subsets[1], file)
    assert export_subset(subsets[1], file, overwrite=True) == len(B)
    assert read_ids(file, "FILE") == sorted(kept_of(subsets[1]))


def test_export_then_import_keeps_the_same_pairs_on_either_storage(subsets: list[str], corpus: str, place: str) -> None:
    export_subset(subsets[0], f"{place}/kept.npy")
    manifest = import_subset(f"{place}/kept.npy", corpus, f"{place}/again")
    assert storage.read_bytes(f"{place}/again/kept.npy") == Path(subsets[0], "kept.npy").read_bytes()
    assert kept_of(f"{place}/again") == kept_of(subsets[0])
    counts = {name: manifest.counts[name] for name in ("kept", "repeated_ids", "unknown_ids")}
    assert counts == {"kept": len(A), "repeated_ids": 0, "unknown_ids": 0}
    assert manifest.cost == {"total_flops": 0, "unknown": "imported"}


def test_export_npy_is_the_bytes_of_numpy_and_of_the_subset_itself(
    subsets: list[str], train: list[str], tmp_path: Path
) -> None:
    export_subset(subsets[0], str(tmp_path / "kept.npy"))
    expected = np.array([divmod(int(train[i], 16), 2**64) for i in A], "u8,u8")
    written = (tmp_path / "kept.npy").read_bytes()
    assert written == saved(np.sort(expected)) == Path(subsets[0], "kept.npy").read_bytes()
    assert np.array_equal(read_uids(str(tmp_path / "kept.npy")), np.sort(expected))


def test_export_tables_hold_the_kept_rows_and_lists_one_id_a_line(
    subsets: list[str], train: list[str], tmp_path: Path
) -> None:
    for suffix in (".csv", ".parquet", ".txt"):
        export_subset(subsets[0], str(tmp_path / f"kept{suffix}"))
    rows = {row["sample_id"]: row for row in scores(train, 1).to_pylist()}
    columns = ["sample_id", "dataset", "band", "cluster", "distance"]
    expected = [[rows[name][column] for column in columns] for name in sorted(train[i] for i in A)]
    for frame in (pd.read_csv(tmp_path / "kept.csv"), pd.read_parquet(tmp_path / "kept.parquet")):
        assert list(frame.columns) == columns
        assert frame.drop(columns="distance").to_numpy().tolist() == [row[:4] for row in expected]
        worst = np.abs(frame["distance"].to_numpy(np.float64) - [row[4] for row in expected]).max()
        assert worst < 1e-7  # worst 0 in Parquet, 3e-8 in the CSV's shortest decimals
    assert (tmp_path / "kept.txt").read_text() == "".join(f"{row[0]}\n" for row in expected)


def test_export_to_another_suffix_or_a_folder_is_refused(subsets: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--to .*\.npy, \.txt, \.csv, \.parquet"):
        export_subset(subsets[0], str(tmp_path / "kept.json"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        export_subset(subsets[0], str(tmp_path / "folder.csv"), overwrite=True)


def test_import_writes_what_curation_writes_and_a_rerun_from_any_format_is_a_no_op(
    subsets: list[str], corpus: str, train: list[str], tmp_path: Path
) -> None:
    ids = [train[i] for i in C]
    shuffled = [*ids[::-1], *ids[:3]]
    out = str(tmp_path / "s")
    manifest = import_subset(write_ids(str(tmp_path / "ids.npy"), shuffled), corpus, out)
    assert (manifest.counts["kept"], manifest.counts["repeated_ids"]) == (len(C), 3)
    files = {name for name in storage.list_files(out) if not name.startswith("corpus/")}
    assert files == {"audit.html", "audit.json", "kept.npy", "manifest.json", "stage.json", "subset.parquet"}
    assert storage.list_files(f"{out}/corpus") == storage.list_files(f"{subsets[0]}/corpus")
    whole = read_columns(corpus, ["sample_id", "image", "report"], "train").to_pylist()
    compact = read_columns(f"{out}/corpus", ["sample_id", "image", "report"], "train").to_pylist()
    assert compact == [row for row in whole if row["sample_id"] in ids]
    audit = storage.read_json(f"{out}/audit.json")
    assert (audit["pairs"], audit["kept"]) == (len(train), len(C))
    table = read_table(f"{out}/subset.parquet")
    assert table["sample_id"].to_pylist() == train
    assert table["band"].null_count == len(train)
    again = import_subset(write_ids(str(tmp_path / "ids.csv"), ids), corpus, out)
    assert again == manifest


def test_import_ids_that_the_train_split_lacks_are_refused_unless_their_share_is_allowed(
    corpus: str, train: list[str], tmp_path: Path, ray_cluster: None
) -> None:
    everywhere = read_columns(corpus, ["sample_id", "split"]).to_pylist()
    held_out = next(row["sample_id"] for row in everywhere if row["split"] != "train")
    file = write_ids(str(tmp_path / "ids.txt"), [*train[:7], held_out, hex_id(1), hex_id(2)])
    out = str(tmp_path / "s")
    with pytest.raises(
        UsageError, match=r"3 of its 10 ids .*\(1 of them are in its other splits\).*--max-unknown 0\.3"
    ):
        import_subset(file, corpus, out)
    with pytest.raises(UsageError, match="--max-unknown"):
        import_subset(file, corpus, out, max_unknown=0.29)
    assert not storage.exists(out)
    manifest = import_subset(file, corpus, out, max_unknown=0.3)
    assert (manifest.counts["kept"], manifest.counts["unknown_ids"]) == (7, 3)
    assert kept_of(out) == set(train[:7])


@pytest.mark.parametrize("ids", [[hex_id(1), hex_id(2)], []])
def test_import_of_nothing_that_the_corpus_knows_is_refused_at_any_share(
    ids: list[str], corpus: str, tmp_path: Path
) -> None:
    file = write_ids(str(tmp_path / "ids.txt"), ids)
    with pytest.raises(UsageError, match=r"2 of its 2 ids|lists no id") as refusal:
        import_subset(file, corpus, str(tmp_path / "s"), max_unknown=1.0)
    assert "--max-unknown" not in str(refusal.value)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("intersect", set(A) & set(B) & set(C)),
        ("union", set(A) | set(B) | set(C)),
        ("diff", set(A) - set(B) - set(C)),
    ],
)
def test_combine_three_subsets_keeps_what_sets_say_with_the_scores_of_the_first(
    operation: Any, expected: set[int], subsets: list[str], corpus: str, train: list[str], place: str
) -> None:
    manifest = combine_subsets(operation, subsets, f"{place}/s")
    assert kept_of(f"{place}/s") == {train[i] for i in expected}
    table = read_subset(f"{place}/s")
    for name in ("sample_id", "cluster", "distance", "band"):
        assert table[name].to_pylist() == scores(train, 1)[name].to_pylist()
    assert manifest.cost == {"total_flops": 10 + 100 + 1000}
    assert manifest.counts["kept_by_input"] == {"subset 1": len(A), "subset 2": len(B), "subset 3": len(C)}
    assert manifest.inputs == {"corpus": corpus, **{f"subset {n}": uri for n, uri in enumerate(subsets, start=1)}}
    compact = read_columns(f"{place}/s/corpus", ["sample_id"], "train")["sample_id"].to_pylist()
    assert compact == [train[i] for i in sorted(expected)]
    assert combine_subsets(operation, subsets, f"{place}/s") == manifest
    with pytest.raises(UsageError, match=r"holds another artifact.*--overwrite"):
        combine_subsets("union", subsets[:2], f"{place}/s")


def test_combine_with_an_imported_subset_says_that_its_cost_is_not_known(
    subsets: list[str], corpus: str, train: list[str], tmp_path: Path
) -> None:
    import_subset(write_ids(str(tmp_path / "ids.txt"), train[:9]), corpus, str(tmp_path / "i"))
    manifest = combine_subsets("diff", [subsets[0], str(tmp_path / "i")], str(tmp_path / "s"))
    assert kept_of(str(tmp_path / "s")) == {train[i] for i in set(A) - set(range(9))}
    assert manifest.cost == {"total_flops": 10, "unknown": "imported"}


def test_combine_to_nothing_of_one_subset_or_of_one_twice_is_refused(subsets: list[str], tmp_path: Path) -> None:
    out = str(tmp_path / "s")
    union = str(tmp_path / "union")
    combine_subsets("union", subsets, union)
    with pytest.raises(UsageError, match=r"diff: would keep no pair \(.*s1: 16, .*union: 30 pairs\)"):
        combine_subsets("diff", [subsets[0], union], out)
    for given_ in ([subsets[0]], [subsets[0], f"{subsets[0]}/"]):
        with pytest.raises(UsageError, match="two subsets or more, each once"):
            combine_subsets("union", given_, out)
    assert not storage.exists(out)


def test_combine_subsets_of_other_corpora_is_refused_and_a_moved_corpus_is_asked_for(
    root: Path, tmp_path: Path, ray_cluster: None
) -> None:
    moved = write_corpus(tmp_path / "before", [pair(number) for number in range(9)])
    ids = read_columns(moved, ["sample_id"], "train")["sample_id"].to_pylist()
    mine = [make_subset(str(tmp_path / f"m{n}"), moved, ids[n:], 0, n) for n in (0, 1)]
    other = write_corpus(tmp_path / "other", [pair(number) for number in range(12)])
    foreign = make_subset(str(tmp_path / "foreign"), other, ids[:1], 0, 5)
    with pytest.raises(UsageError, match="was drawn from another corpus"):
        combine_subsets("union", [mine[0], foreign], str(tmp_path / "s"))
    Path(moved).rename(tmp_path / "after")
    with pytest.raises(UsageError, match=r"m0: was drawn from .*, where no corpus is now; say with --corpus"):
        combine_subsets("intersect", mine, str(tmp_path / "s"))
    with pytest.raises(UsageError, match="was drawn from another corpus"):
        combine_subsets("intersect", mine, str(tmp_path / "s"), corpus=other)
    combine_subsets("intersect", mine, str(tmp_path / "s"), corpus=str(tmp_path / "after"))
    assert kept_of(str(tmp_path / "s")) == set(ids[1:])
    across = compare_subsets([mine[0], foreign])
    assert [subset["kept"] for subset in across["subsets"]] == [len(ids), 1]
    assert across["subsets"][0]["corpus"] != across["subsets"][1]["corpus"]
    assert across["all"] == 1


# --- the command line -----------------------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    return typed_command.run(monkeypatch, "subset", *arguments)


def test_cli_exports_imports_combines_and_compares(
    subsets: list[str], corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = subsets
    file, out = str(tmp_path / "kept.npy"), str(tmp_path / "i")
    assert run(monkeypatch, "export", first, "--to", file, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"file": file, "ids": len(A)}
    assert run(monkeypatch, "import", file, "--corpus", corpus, "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["kept"] == len(A)
    sizes = {"intersect": len(set(A) & set(B)), "union": len(set(A) | set(B)), "diff": len(set(A) - set(B))}
    for operation, size in sizes.items():
        assert run(monkeypatch, operation, out, second, "--out", str(tmp_path / operation), "--json") == 0
        assert json.loads(capsys.readouterr().out)["counts"]["kept"] == size
    assert run(monkeypatch, "compare", first, second, third, "--json") == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared == json.loads(json.dumps(compare_subsets(subsets)))
    assert [pair["jaccard"] for pair in compared["overlaps"]] == [8 / 24, 4 / 30, 12 / 22]
    monkeypatch.setenv("COLUMNS", "80")
    assert run(monkeypatch, "compare", first, second) == 0
    printed = capsys.readouterr().out
    assert "0.333" in printed
    assert "in any 24, in all 8" in printed
    assert all(len(line) <= 80 for line in printed.splitlines())
    assert run(monkeypatch, "export", first, "--to", file, "--overwrite") == 0
    assert "16 ids" in capsys.readouterr().out


WRONG = [
    (["export", "{s}", "--to", "{tmp}/x.pkl"], ".npy, .txt, .csv, .parquet"),
    (["export", "{tmp}/no", "--to", "{tmp}/x.npy"], "no such folder"),
    (["export", "{corpus}", "--to", "{tmp}/x.npy"], "this is a corpus, not a subset"),
    (["import", "{tmp}/no.npy", "--corpus", "{corpus}", "--out", "{tmp}/o"], "no such file"),
    (["import", "{tmp}/one.txt", "--corpus", "{s}", "--out", "{tmp}/o"], "this is a subset, not a corpus"),
    (["union", "{s}", "--out", "{tmp}/o"], "give two subsets or more"),
    (["union", "{s}", "{corpus}", "--out", "{tmp}/o"], "this is a corpus, not a subset"),
    (["compare", "{s}"], "give two subsets or more"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG, ids=[f"{a[0]} {i}" for i, (a, _) in enumerate(WRONG)])
def test_cli_wrong_usage_says_what_in_one_line_and_exits_with_2(
    arguments: list[str],
    said: str,
    subsets: list[str],
    corpus: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_ids(str(tmp_path / "one.txt"), [hex_id(1)])
    filled = [argument.format(tmp=tmp_path, s=subsets[0], corpus=corpus) for argument in arguments]
    assert run(monkeypatch, *filled) == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert said in output.err
    assert not output.out


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
def test_job_as_a_module_is_the_command(
    subsets: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert subset_cli.subset_app in [group.typer_instance for group in cli.app.registered_groups]
    monkeypatch.setattr(sys, "argv", ["subset.py", "compare", *subsets[:2], "--json"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("chexray.jobs.subset", run_name="__main__")
    assert stopped.value.code in (0, None)
    assert json.loads(capsys.readouterr().out)["all"] == 8
