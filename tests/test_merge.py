"""Joining corpora, and what is dropped from one: duplicates, patients on two sides, leaks from evaluation sets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from corpora import CONFIG, blobs, encoded, pair, write_corpus

from chexray.platform import storage
from chexray.platform.corpus.drops import decide_drops, drop_from_shard
from chexray.platform.corpus.inspection import inspect_corpus
from chexray.platform.corpus.merge import plan_merge, write_merged_shard
from chexray.platform.corpus.schema import CORPUS_SCHEMA, sample_id
from chexray.platform.corpus.shards import list_shards, read_columns, read_table
from chexray.platform.errors import UsageError


def merged(corpora: list[str], out: str, evaluation: list[str] | None = None) -> dict[str, str]:
    """Merge; returns the reasons of what was dropped, by source."""
    planned = plan_merge(corpora, evaluation or [], CONFIG)
    for shard in planned.shards:
        write_merged_shard(out, shard)
    kept = sum(shard.pairs for shard in list_shards(out))
    assert kept + len(planned.dropped) == planned.listed
    return dict(zip(planned.dropped["source_uri"].to_pylist(), planned.dropped["reason"].to_pylist(), strict=True))


def ids(corpus: str, split: str | None = None) -> set[str]:
    return set(read_columns(corpus, ["sample_id"], split)["sample_id"].to_pylist())  # type: ignore[arg-type]


def test_merge_of_different_corpora_holds_every_row_once_and_sorted(place: str) -> None:
    first = write_corpus(f"{place}/a", [pair(n) for n in range(20)])
    images = {n: encoded(blobs(100 + n)) for n in range(15)}
    second = write_corpus(f"{place}/b", [pair(n, dataset="other", patient=50 + n) for n in range(15)], images)
    out = f"{place}/merged"
    assert merged([first, second], out) == {}
    expected = {
        row["sample_id"]: row for uri in (first, second) for row in read_columns(uri, CORPUS_SCHEMA.names).to_pylist()
    }
    assert {row["sample_id"]: row for row in read_columns(out, CORPUS_SCHEMA.names).to_pylist()} == expected
    for split in ("train", "validation", "test"):
        names = [
            name for s in list_shards(out, split) for name in read_table(f"{out}/{s.path}")["sample_id"].to_pylist()
        ]  # type: ignore[arg-type]
        assert names == sorted(names)
        assert all(shard.pairs == 7 for shard in list_shards(out, split)[:-1])  # type: ignore[arg-type]


def test_merge_does_not_depend_on_the_order_of_different_corpora(tmp_path: Path) -> None:
    first = write_corpus(tmp_path / "a", [pair(n) for n in range(9)])
    images = {0: encoded(blobs(3)), **{n: encoded(blobs(100 + n)) for n in range(1, 9)}}
    second = write_corpus(tmp_path / "b", [pair(n, dataset="other", patient=50 + n) for n in range(9)], images)
    reasons = [merged([first, second], f"{tmp_path}/one"), merged([second, first], f"{tmp_path}/other")]
    assert reasons[0] == reasons[1]
    assert list(reasons[0].values()) == ["duplicate image"]
    contents = [
        {file: storage.read_bytes(f"{tmp_path}/{name}/{file}") for file in storage.list_files(f"{tmp_path}/{name}")}
        for name in ("one", "other")
    ]
    assert contents[0] == contents[1]


def test_merge_of_the_same_pairs_twice_keeps_the_first(tmp_path: Path) -> None:
    first = write_corpus(tmp_path / "a", [pair(n) for n in range(5)])
    second = write_corpus(tmp_path / "b", [pair(n) for n in range(7)])
    assert Counter(merged([first, second], f"{tmp_path}/out").values()) == {"duplicate source id": 5}
    assert len(ids(f"{tmp_path}/out")) == 7


def test_merge_puts_a_patient_of_one_cohort_into_one_split(tmp_path: Path) -> None:
    first = write_corpus(tmp_path / "a", [pair(n, patient=1, cohort="hospital", split="train") for n in range(3)])
    other = [pair(n, patient=1, dataset="other", cohort="hospital", split="test") for n in range(2)]
    second = write_corpus(tmp_path / "b", other, {n: encoded(blobs(100 + n)) for n in range(2)})
    reasons = merged([first, second], f"{tmp_path}/out")
    assert Counter(reasons.values()) == {"patient in two splits": 3}
    assert ids(f"{tmp_path}/out") == ids(second)


def test_ingested_copies_leave_one_pair_and_their_reasons(tmp_path: Path) -> None:
    pairs = [pair(n, patient=n, split="test" if n == 4 else "train") for n in range(6)]
    images = {4: encoded(blobs(1)), 5: encoded(blobs(2), "JPEG", quality=80)}
    corpus = write_corpus(tmp_path, pairs, images)
    rejects = read_table(f"{corpus}/rejects.parquet").to_pylist()
    reasons = {row["source_uri"]: row["reason"] for row in rejects}
    assert reasons["images/1.png"] == "duplicate image"  # pair 4, in the test split, keeps it
    assert sorted(reasons.values()) == ["duplicate image", "near-duplicate image"]
    assert len(ids(corpus)) == 4
    assert sample_id("made", "scan-4") in ids(corpus, "test")


def test_training_pairs_that_an_evaluation_set_holds_are_dropped_and_test_pairs_are_not(tmp_path: Path) -> None:
    held = [pair(n, dataset="exam", patient=100 + n, cohort="house", split="test") for n in range(3)]
    exam = write_corpus(tmp_path / "exam", held)
    pairs = [
        pair(10, patient=1, split="train"),  # the image of 0
        pair(11, patient=2, split="train"),  # the image of 1, as JPEG
        pair(12, patient=102, cohort="house", split="train"),  # another image of the patient of 2
        pair(13, patient=3, split="test"),  # the image of 2, but it trains nothing
        pair(14, patient=4, split="train"),
    ]
    images = {
        0: encoded(blobs(0)),
        1: encoded(blobs(1), "JPEG", quality=85),
        2: encoded(blobs(50)),
        3: encoded(blobs(2)),
        4: encoded(blobs(51)),
    }
    corpus = write_corpus(tmp_path / "own", pairs, images, evaluation=[exam])
    rejects = {row["source_uri"]: row for row in read_table(f"{corpus}/rejects.parquet").to_pylist()}
    assert {source: row["reason"] for source, row in rejects.items()} == {
        "images/10.png": "image of an evaluation set",
        "images/11.png": "near-duplicate of an evaluation image",
        "images/12.png": "patient of an evaluation set",
    }
    assert all("exam" in row["detail"] for row in rejects.values())
    assert ids(corpus) == {pairs[3].sample_id, pairs[4].sample_id}


def test_dropping_interrupted_and_done_again_gives_the_same_shards(tmp_path: Path) -> None:
    pairs = [pair(n, patient=n, split="train") for n in range(12)]
    corpus = write_corpus(tmp_path, pairs, {4: encoded(blobs(1))})
    dropped = decide_drops(corpus, [], CONFIG)
    files = [shard.path for shard in list_shards(corpus)]
    before = [storage.read_bytes(f"{corpus}/{file}") for file in files]
    for file in files:
        drop_from_shard(corpus, file, dropped)
    assert len(ids(corpus)) == 11
    assert before == [storage.read_bytes(f"{corpus}/{file}") for file in files]


def test_merge_of_a_corpus_without_pairs_says_which(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing: a corpus without pairs"):
        plan_merge([f"{tmp_path}/nothing"], [], CONFIG)


def test_inspection_shows_counts_prevalence_rejects_and_random_pairs(tmp_path: Path) -> None:
    pairs = [pair(n, patient=n, split="train", view="PA" if n % 2 else None) for n in range(12)]
    corpus = write_corpus(tmp_path, pairs, {3: b"junk", 4: encoded(blobs(1))})
    page = inspect_corpus(corpus, pairs=5)
    assert "10 pairs of 10 patients, 2 left out" in page
    for text in ("image not readable", "duplicate image", "10 of 10<", "0 of 0, 10 unknown"):
        assert text in page
    assert page.count("<figure>") == 5
    assert inspect_corpus(corpus, pairs=5) == page
    assert inspect_corpus(corpus, pairs=5, seed=1) != page
    assert "SECRET" not in page
