"""Which pairs go into which chunk: splits by patient, an order by id, and what is no pair at all."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from corpora import pair
from hypothesis import given
from hypothesis import strategies as st

from chexray.platform.config import IngestConfig
from chexray.platform.corpus.plan import Chunk, plan
from chexray.platform.corpus.schema import MaskSource, RawFormat, Reject, SourcePair

CONFIG = IngestConfig(shard_pairs=7)


@given(st.randoms(use_true_random=False))
def test_plan_does_not_depend_on_the_order_of_the_listing(random_source: random.Random) -> None:
    listed: list[SourcePair | Reject] = [
        *(pair(n) for n in range(20)),
        pair(3, image="other/3.png"),
        Reject("x.png", "view not known"),
        Reject("y.png", "view not known", "lateral"),
        Reject("y.png", "view not known"),
    ]
    expected = plan(listed, CONFIG)
    random_source.shuffle(listed)
    assert plan(listed, CONFIG) == expected


def test_plan_sorts_by_sample_id_and_cuts_into_chunks_of_one_split() -> None:
    planned = plan([pair(n) for n in range(60)], CONFIG)
    assert planned.listed == 60
    for split in ("train", "validation", "test"):
        chunks = [chunk for chunk in planned.chunks if chunk.split == split]
        ids = [source.sample_id for chunk in chunks for source in chunk.pairs]
        assert ids == sorted(ids)
        assert [len(chunk.pairs) for chunk in chunks[:-1]] == [7] * (len(chunks) - 1)
        assert [chunk.shard for chunk in chunks] == [f"shards/{split}-{i:05d}.parquet" for i in range(len(chunks))]
    assert sorted(s.sample_id for c in planned.chunks for s in c.pairs) == sorted(pair(n).sample_id for n in range(60))


def test_plan_keeps_one_pair_of_an_id_and_rejects_the_others() -> None:
    planned = plan([pair(1, image="b.png"), pair(2), pair(1, image="a.png"), pair(1, image="c.png")], CONFIG)
    kept = sorted(source.image for chunk in planned.chunks for source in chunk.pairs)
    assert kept == ["a.png", "images/2.png"]
    assert planned.rejects == (Reject("b.png", "duplicate source id"), Reject("c.png", "duplicate source id"))
    assert planned.listed == 4


def test_plan_digest_changes_with_what_is_listed() -> None:
    base = [pair(n) for n in range(3)]
    listings: list[list[SourcePair | Reject]] = [
        [*base],
        [*base[:2]],
        [*base[:2], pair(2, report="Normal.")],
        [*base, Reject("x", "r")],
    ]
    assert len({plan(listing, CONFIG).digest for listing in listings}) == len(listings)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_plan_puts_all_pairs_of_a_patient_into_one_split(seed: int, patients: list[int]) -> None:
    planned = plan((pair(n, patient) for n, patient in enumerate(patients)), IngestConfig(seed=seed))
    where: dict[str, set[str]] = {}
    for chunk in planned.chunks:
        for source in chunk.pairs:
            where.setdefault(source.patient, set()).add(chunk.split)
    assert all(len(splits) == 1 for splits in where.values())
    assert len(where) == len(set(patients))


def test_plan_shares_of_many_patients_are_those_of_the_settings() -> None:
    planned = plan((pair(n, n) for n in range(4000)), IngestConfig())
    counts = Counter(chunk.split for chunk in planned.chunks for _ in chunk.pairs)
    # Shares 0.7, 0.1, 0.2; four standard deviations of 4,000 draws are at most 0.029. Measured worst 0.003.
    assert [counts[s] / 4000 for s in ("train", "validation", "test")] == pytest.approx([0.7, 0.1, 0.2], abs=0.03)


def test_plan_follows_the_datasets_own_split_unless_told_otherwise() -> None:
    listed = [pair(n, n, split="test") for n in range(10)]
    assert {chunk.split for chunk in plan(listed, CONFIG).chunks} == {"test"}
    assert {chunk.split for chunk in plan(listed, IngestConfig(split="train")).chunks} == {"train"}


def test_chunk_sent_as_json_comes_back_equal() -> None:
    mask = MaskSource(files=("m.png",), runs=("1 2",), runs_size=(9, 9), boxes=((1.5, 2.0, 3.0, 4.0),))
    raw = RawFormat(2048, 2048, 12, True)
    members = (pair(1), pair(2, masks={"lungs": mask}, raw=raw, age_years=40.5))
    chunk = Chunk("shards/train-00000.parquet", "train", members)
    assert Chunk.from_json(chunk.to_json()) == chunk


def test_plan_patient_with_a_given_split_keeps_it_for_all_and_test_before_train() -> None:
    def pair(name: str, split: str | None) -> SourcePair:
        return SourcePair("d", name, f"{name}.png", "p", "s", split=split, labels={"No_finding": True})  # type: ignore[arg-type]

    planned = plan([pair("a", "train"), pair("b", None), pair("c", "test")], IngestConfig())
    kept = {source.source_id: chunk.split for chunk in planned.chunks for source in chunk.pairs}
    assert kept == {"b": "test", "c": "test"}
    assert [reject.reason for reject in planned.rejects] == ["patient in two splits"]
    assert all(source.labels == {"No Finding": True} for chunk in planned.chunks for source in chunk.pairs)


def test_plan_rejects_paths_that_lead_out_of_the_root() -> None:
    tricks = (
        pair(1, image="../1.png"),
        pair(2, image="/etc/passwd"),
        pair(3, report_file="reports/../../x.txt"),
        pair(4, masks={"lungs": MaskSource(files=("C:\\masks\\m.png",))}),
        pair(5, image="s3://other/5.png"),
        pair(6, image=""),
    )
    planned = plan([*tricks, pair(7)], CONFIG)
    assert [source.source_id for chunk in planned.chunks for source in chunk.pairs] == ["scan-7"]
    assert [reject.reason for reject in planned.rejects] == ["path outside the root"] * 6
