"""From a listing to shards: the plan, the rows, the rejects, what a rerun skips, and that no patient is named."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from corpora import CONFIG, SALT, encoded, pair, write_corpus

from chexray.platform import storage
from chexray.platform.artifacts import read_manifest
from chexray.platform.config import IngestConfig
from chexray.platform.corpus.ingest import ingest_chunk, merge_rejects
from chexray.platform.corpus.order import Window
from chexray.platform.corpus.pair_reader import PairReader
from chexray.platform.corpus.plan import Chunk, plan
from chexray.platform.corpus.reading import read_window
from chexray.platform.corpus.schema import CORPUS_SCHEMA, REJECT_SCHEMA, MaskSource, Reject, SourcePair, sample_id
from chexray.platform.corpus.shards import list_shards, read_columns, read_table, require_shards
from chexray.platform.errors import UsageError

NO_DROPS = REJECT_SCHEMA.empty_table()


def png(height: int = 96, width: int = 128, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    return encoded(pixels)


def put_images(root: str, pairs: list[SourcePair]) -> None:
    for number, source in enumerate(pairs):
        storage.write_bytes(storage.join(root, source.image), png(seed=number))


def ingest_all(root: str, out: str, pairs: list[SourcePair | Reject], config: IngestConfig = CONFIG) -> Counter[str]:
    planned = plan(pairs, config)
    for chunk in planned.chunks:
        ingest_chunk(PairReader(root, config, SALT), out, chunk)
    return merge_rejects(PairReader("", CONFIG, SALT), out, planned, NO_DROPS)


def one_row(root: str, source: SourcePair, config: IngestConfig = CONFIG) -> dict[str, Any]:
    row = PairReader(root, config, SALT).read(source, "train")
    assert not isinstance(row, Reject), row
    return row


def test_row_holds_the_pair(tmp_path: Path) -> None:
    source = pair(1, view="PA", sex="F", age_years=61.0)
    put_images(str(tmp_path), [source])
    row = one_row(str(tmp_path), source)
    assert set(row) == set(CORPUS_SCHEMA.names)
    assert row["sample_id"] == sample_id("made", "scan-1")
    assert (row["dataset"], row["view"], row["split"], row["sex"], row["age_years"]) == ("made", "PA", "train", "F", 61)
    assert (row["height"], row["width"]) == (64, 85)  # 96 x 128 with its short side at 64: 128 * 64 / 96 = 85.3
    assert PIL.Image.open(io.BytesIO(row["image"])).size == (85, 64)
    assert (row["findings"], row["impression"]) == ("Opacity number 1 in the left lung.", "Pneumonia.")
    assert row["report"] == "Opacity number 1 in the left lung. Pneumonia."
    assert row["report_source"] == "radiologist"
    assert row["source_uri"] == "images/1.png"


def test_row_keeps_pixels_exactly_where_nothing_is_shrunk_and_the_codec_is_png(tmp_path: Path) -> None:
    source = pair(1)
    put_images(str(tmp_path), [source])
    row = one_row(str(tmp_path), source, IngestConfig(short_side=None, codec="png"))
    np.testing.assert_array_equal(
        np.array(PIL.Image.open(io.BytesIO(row["image"]))), np.array(PIL.Image.open(tmp_path / source.image))
    )


def test_row_labels_read_back_are_one_zero_and_null(place: str) -> None:
    source = pair(1)
    put_images(place, [source])
    out = storage.join(place, "corpus")
    ingest_chunk(PairReader(place, CONFIG, SALT), out, Chunk("shards/train-00000.parquet", "train", (source,)))
    table = read_table(storage.join(out, "shards/train-00000.parquet"))
    assert table.schema.equals(CORPUS_SCHEMA)
    assert table["labels"].to_pylist() == [[("Edema", 0), ("Hernia", None), ("Pneumonia", 1)]]
    assert table["masks"].to_pylist() == [[]]
    assert table["age_years"].to_pylist() == [None]


def test_row_without_a_report_has_one_written_from_its_labels(tmp_path: Path) -> None:
    source = pair(1, report=None, labels={"Pneumonia": True, "Edema": None})
    put_images(str(tmp_path), [source])
    row = one_row(str(tmp_path), source)
    assert row["report_source"] == "template"
    assert (row["findings"], row["impression"]) == (None, None)
    assert "pneumonia" in row["report"].lower()
    assert "edema" not in row["report"].lower()


def test_row_mask_is_black_and_white_png_of_the_stored_size(tmp_path: Path) -> None:
    source = pair(1, masks={"right": MaskSource(files=("masks/r.png",)), "left": MaskSource(files=("masks/l.png",))})
    put_images(str(tmp_path), [source])
    halves = {"l": np.zeros((192, 256), np.uint8), "r": np.zeros((192, 256), np.uint8)}
    halves["l"][:, 128:], halves["r"][:96] = 255, 255
    for name, mask in halves.items():
        storage.write_bytes(str(tmp_path / "masks" / f"{name}.png"), encoded(mask))
    row = one_row(str(tmp_path), source)
    masks = {name: np.array(PIL.Image.open(io.BytesIO(data))) for name, data in row["masks"]}
    assert list(masks) == ["left", "right"]
    assert all(mask.shape == (64, 85) and set(np.unique(mask)) == {0, 255} for mask in masks.values())
    # 85 columns: the middle one is half white, and half counts as white or not.
    assert abs((masks["left"] == 255).mean() - 0.5) <= 0.5 / 85 + 1e-9
    assert (masks["right"] == 255).mean() == 0.5


@pytest.mark.parametrize(
    ("reason", "changes", "content"),
    [
        ("image file missing", {}, None),
        ("image file missing", {"image": ""}, png()),
        ("image empty", {}, b""),
        ("image not readable", {}, b"not an image at all"),
        ("image truncated", {}, png()[:3000]),
        ("image constant", {}, encoded(np.full((64, 64), 7, np.uint8))),
        ("image too small", {}, png(20, 64)),
        ("report empty", {"report": "___ 123"}, png()),
        ("no report and no labels", {"report": None, "labels": {"Edema": None}}, png()),
    ],
)
def test_pair_that_is_damaged_is_rejected_with_its_reason(
    tmp_path: Path, reason: str, changes: dict[str, Any], content: bytes | None
) -> None:
    source = pair(1, **changes)
    if content is not None:
        storage.write_bytes(str(tmp_path / "images" / "1.png"), content)
    result = PairReader(str(tmp_path), CONFIG, SALT).read(source, "train")
    assert isinstance(result, Reject)
    assert (result.source_uri, result.reason) == (source.image, reason)


def test_pair_with_a_short_report_is_rejected_where_more_words_are_asked_for(tmp_path: Path) -> None:
    result = PairReader(str(tmp_path), IngestConfig(min_report_words=3), SALT).read(
        pair(1, report="Normal chest."), "train"
    )
    assert result == Reject("images/1.png", "report too short")


def test_ingest_with_damaged_images_counts_every_pair_once(place: str) -> None:
    pairs = [pair(n) for n in range(30)]
    put_images(place, pairs)
    for number, content in ((3, b""), (4, b"junk"), (5, png()[:2000]), (6, encoded(np.zeros((50, 50), np.uint8)))):
        storage.write_bytes(storage.join(place, pairs[number].image), content)
    storage.remove_tree(storage.join(place, pairs[7].image))
    out = storage.join(place, "corpus")
    listed: list[SourcePair | Reject] = [*pairs, pair(8, image="twice.png"), Reject("z.png", "view not known")]
    planned = plan(listed, CONFIG)
    assert sum(ingest_chunk(PairReader(place, CONFIG, SALT), out, chunk) for chunk in planned.chunks) == 30
    reasons = merge_rejects(PairReader("", CONFIG, SALT), out, planned, NO_DROPS)
    assert reasons == {
        "image empty": 1,
        "image not readable": 1,
        "image truncated": 1,
        "image constant": 1,
        "image file missing": 1,
        "duplicate source id": 1,
        "view not known": 1,
    }
    assert 25 + reasons.total() == planned.listed
    rejects = read_table(storage.join(out, "rejects.parquet"))
    assert rejects.schema.equals(REJECT_SCHEMA)
    expected = [*(f"images/{n}.png" for n in range(3, 8)), "twice.png", "z.png"]
    assert sorted(rejects["source_uri"].to_pylist()) == expected
    shards = sorted(chunk.shard for chunk in planned.chunks)
    assert storage.list_files(out, (".parquet",)) == ["rejects.parquet", *shards]
    assert read_columns(out, ["sample_id"]).num_rows == 25


def test_chunk_whose_pairs_are_all_damaged_gives_an_empty_shard(tmp_path: Path) -> None:
    chunk = Chunk("shards/train-00000.parquet", "train", (pair(1), pair(2)))
    assert ingest_chunk(PairReader(str(tmp_path), CONFIG, SALT), str(tmp_path / "out"), chunk) == 2
    assert list_shards(str(tmp_path / "out"))[0].pairs == 0
    with pytest.raises(UsageError, match="the corpus has no train split"):
        require_shards(str(tmp_path / "out"), "train")


def test_ingest_interrupted_goes_on_with_the_missing_shards_only(place: str) -> None:
    pairs = [pair(n) for n in range(30)]
    put_images(place, pairs)
    storage.write_bytes(storage.join(place, pairs[0].image), b"junk")
    whole, resumed = storage.join(place, "whole"), storage.join(place, "resumed")
    planned = plan(pairs, CONFIG)
    for chunk in planned.chunks:
        ingest_chunk(PairReader(place, CONFIG, SALT), whole, chunk)
    half = len(planned.chunks) // 2
    for chunk in planned.chunks[:half]:
        ingest_chunk(PairReader(place, CONFIG, SALT), resumed, chunk)
    # Without their images, finished shards can only be taken as they are.
    for source in itertools.chain.from_iterable(chunk.pairs for chunk in planned.chunks[:half]):
        storage.remove_tree(storage.join(place, source.image))
    for chunk in planned.chunks:
        ingest_chunk(PairReader(place, CONFIG, SALT), resumed, chunk)
    assert (
        merge_rejects(PairReader("", CONFIG, SALT), resumed, planned, NO_DROPS)
        == merge_rejects(PairReader("", CONFIG, SALT), whole, planned, NO_DROPS)
        == {"image not readable": 1}
    )
    assert read_columns(resumed, CORPUS_SCHEMA.names).equals(read_columns(whole, CORPUS_SCHEMA.names))


def test_merge_of_rejects_interrupted_after_it_wrote_gives_the_same_counts(tmp_path: Path) -> None:
    pairs = [pair(n) for n in range(5)]
    first = ingest_all(str(tmp_path), str(tmp_path / "out"), [*pairs])
    assert first == {"image file missing": 5}
    assert ingest_all(str(tmp_path), str(tmp_path / "out"), [*pairs]) == first


def test_ingest_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    pairs = [pair(n) for n in range(12)]
    put_images(str(tmp_path), pairs)
    contents = []
    for name, order in (("one", pairs), ("two", pairs[::-1])):
        out = str(tmp_path / name)
        ingest_all(str(tmp_path), out, [*order])
        contents.append({file: storage.read_bytes(storage.join(out, file)) for file in storage.list_files(out)})
    assert contents[0] == contents[1]


def test_raw_patient_and_study_ids_are_in_no_column_and_no_file_of_the_corpus(tmp_path: Path) -> None:
    pairs = [pair(n) for n in range(12)]
    put_images(str(tmp_path), pairs)
    storage.write_bytes(str(tmp_path / pairs[0].image), b"junk")
    out = str(tmp_path / "out")
    ingest_all(str(tmp_path), out, [*pairs, pair(1, image="twice.png")])
    rows = read_columns(out, CORPUS_SCHEMA.names).to_pylist() + read_table(f"{out}/rejects.parquet").to_pylist()
    assert len(rows) == 13
    for row in rows:
        for column, value in row.items():
            assert "SECRET" not in str(value), column
    assert all(b"SECRET" not in storage.read_bytes(storage.join(out, name)) for name in storage.list_files(out))


def test_patient_ids_group_the_same_pairs_as_the_raw_ones_and_change_with_salt_and_dataset(tmp_path: Path) -> None:
    pairs = [pair(n) for n in range(9)]
    put_images(str(tmp_path), pairs)
    hashed = [one_row(str(tmp_path), source)["patient_id"] for source in pairs]
    assert all(len(value) == 32 and set(value) <= set("0123456789abcdef") for value in hashed)
    raw = [source.patient for source in pairs]
    assert [hashed.index(value) for value in hashed] == [raw.index(value) for value in raw]
    salted = PairReader(str(tmp_path), CONFIG, "another salt").read(pairs[0], "train")
    elsewhere = one_row(str(tmp_path), pair(0, dataset="other"))
    assert isinstance(salted, dict)
    assert len({hashed[0], salted["patient_id"], elsewhere["patient_id"], salted["study_id"]}) == 4


def test_require_shards_of_a_split_that_is_empty_names_those_that_there_are(tmp_path: Path) -> None:
    pairs = [pair(n, split="test") for n in range(3)]
    put_images(str(tmp_path), pairs)
    ingest_all(str(tmp_path), str(tmp_path / "out"), [*pairs])
    assert [shard.pairs for shard in require_shards(str(tmp_path / "out"), "test")] == [3]
    with pytest.raises(UsageError, match=r"has no train split \(it has: test\)"):
        require_shards(str(tmp_path / "out"), "train")


def test_window_read_gives_the_rows_at_its_positions_in_their_order(place: str) -> None:
    pairs = [pair(n, split="train") for n in range(20)]
    put_images(place, pairs)
    out = storage.join(place, "corpus")
    ingest_all(place, out, [*pairs])
    shards = list_shards(out, "train")
    assert [shard.pairs for shard in shards] == [7, 7, 6]
    window = Window(1, 0, 0, tuple(shard.path for shard in shards), 20, 5)
    positions = np.array([0, 3, 4, 19])
    blocks = list(read_window(out, window, positions, 32))
    ids = read_columns(out, ["sample_id"])["sample_id"].to_pylist()
    assert blocks[0]["sample_id"].tolist() == [ids[window.permutation()[p]] for p in positions]
    assert (blocks[0]["image"].shape, blocks[0]["image"].dtype) == ((4, 32, 32), np.uint8)
    by_id = {source.sample_id: source for source in pairs}
    numbers = [by_id[sample].source_id.removeprefix("scan-") for sample in blocks[0]["sample_id"]]
    expected = [f"Opacity number {number} in the left lung. Pneumonia." for number in numbers]
    assert blocks[0]["report"].tolist() == expected


def test_corpus_of_which_every_pair_is_rejected_has_no_drops_and_counts_them(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, [pair(number) for number in range(3)], dict.fromkeys(range(3), b"no image"))
    counts = read_manifest(corpus).counts
    assert (counts["listed"], counts["pairs"], counts["rejected"]) == (3, 0, 3)
