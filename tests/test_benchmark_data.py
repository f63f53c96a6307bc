"""Rows, labels, encodings and images of benchmarks, on corpora made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from corpora import pair, write_corpus
from safetensors.numpy import save_file

from chexray.evals.benchmark_check import check_benchmark
from chexray.evals.benchmark_data import BenchmarkData, attributes, encoding_file, id_bytes, targets
from chexray.evals.images import StoredPixels
from chexray.evals.scratch_model import save_scratch_model
from chexray.evals.specs import BenchmarkSpec
from chexray.platform.corpus.shards import list_shards, read_columns, read_table
from chexray.platform.errors import UsageError
from chexray.platform.model.preprocess import model_pixels


def spec(**change: object) -> BenchmarkSpec:
    fields = {
        "name": "made",
        "title": "Made",
        "task": "zero_shot",
        "source": "",
        "datasets": ["one"],
        "metric": "mean_auroc",
    }
    return BenchmarkSpec.model_validate(fields | change)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two datasets of 12 test pairs each, two findings, of which one is unknown in the second."""
    root = tmp_path_factory.mktemp("corpora")
    places = {}
    for dataset in ("one", "two"):
        pairs = [
            pair(
                number,
                dataset=dataset,
                split="test",
                sex="F" if number % 2 else "M",
                age_years=None if number == 3 else 10.0 * number,
                labels={"A": number % 3 == 0, "B": None if dataset == "two" else number % 2 == 0},
            )
            for number in range(12)
        ]
        places[dataset] = write_corpus(root / dataset, pairs)
    return places


def test_targets_are_one_zero_and_nan_where_unknown_or_not_of_the_dataset() -> None:
    found = targets([{"A": 1, "B": None}, {"A": 0}, {}], ["A", "B"])
    np.testing.assert_array_equal(found, [[1, np.nan], [0, np.nan], [np.nan, np.nan]])


def test_rows_of_two_corpora_keep_each_ones_order_and_positions(corpora: dict[str, str]) -> None:
    data = BenchmarkData(spec(datasets=["one", "two"]), corpora, "")
    rows = data.rows("test")
    expected = [
        one for uri in corpora.values() for one in read_columns(uri, ["sample_id"], "test")["sample_id"].to_pylist()
    ]
    assert rows["sample_id"].to_pylist() == expected
    assert rows["position"].to_pylist() == [*range(12), *range(12)]
    assert rows["corpus"].to_pylist() == ["one"] * 12 + ["two"] * 12
    assert data.findings == ["A", "B"]
    # 4 of 12 in both; 6 of the 12 that are known.
    np.testing.assert_allclose(data.prevalence_F, [8 / 24, 0.5])


def test_exclusive_rows_have_exactly_one_of_the_findings(corpora: dict[str, str]) -> None:
    data = BenchmarkData(spec(findings=["A", "B"], exclusive=True), {"one": corpora["one"]}, "")
    target = data.targets(data.rows("test"))
    # Of 0 to 11: a multiple of three or even, not both.
    assert len(target) == len([n for n in range(12) if (n % 3 == 0) != (n % 2 == 0)])
    assert set(target.sum(axis=1)) == {1}


def test_encodings_and_images_are_those_of_the_rows_that_are_left(corpora: dict[str, str], tmp_path: Path) -> None:
    for number, (dataset, uri) in enumerate(corpora.items()):
        first = 0
        for shard in list_shards(uri, "test"):
            file = Path(encoding_file(str(tmp_path), dataset, shard.path))
            file.parent.mkdir(exist_ok=True)
            ids = read_table(f"{uri}/{shard.path}", ["sample_id"])["sample_id"].to_pylist()
            position_n1 = np.arange(first, first + shard.pairs, dtype=np.float32)[:, None]
            save_file({"image": position_n1 + 100 * number, "sample_id": id_bytes(ids)}, file)
            first += shard.pairs
    data = BenchmarkData(spec(datasets=["one", "two"], findings=["A", "B"], exclusive=True), corpora, str(tmp_path))
    rows = data.rows("test")
    expected = [
        p + 100 * (c == "two") for p, c in zip(rows["position"].to_pylist(), rows["corpus"].to_pylist(), strict=True)
    ]
    assert data.encoded(rows, "test", "image")[:, 0].tolist() == expected
    with pytest.raises(UsageError, match="gives no feature before its projection"):
        data.encoded(rows, "test", "feature")
    heavy = data.heavy(rows, "test", ["sample_id", "image"])
    assert [one for part in heavy for one in part["sample_id"].to_pylist()] == rows["sample_id"].to_pylist()
    swapped = rows.take([1, 0, *range(2, rows.num_rows)]).set_column(
        rows.column_names.index("position"), "position", rows["position"]
    )
    with pytest.raises(RuntimeError, match="not those of its pairs"):
        data.encoded(swapped, "test", "image")


def test_attributes_know_what_is_not_known(corpora: dict[str, str]) -> None:
    rows = BenchmarkData(spec(), {"one": corpora["one"]}, "").rows("test")
    found = attributes(rows)
    ages = rows["age_years"].to_pylist()
    assert [band is None for band in found["age"]] == [age is None for age in ages]
    assert set(found["sex"]) == {"F", "M"}
    assert set(found["dataset"]) == {"one"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"findings": ["Unicorn"]}, "has a label of Unicorn; it has A, B"),
        ({"task": "retrieval", "metric": "image_to_text_recall@1", "split": "validation"}, "no validation split"),
        ({"task": "disease_prediction", "needs": "ingest it so"}, "train split is one of its; ingest it so"),
        ({"task": "segmentation", "metric": "dice", "masks": ["lungs"]}, "the corpus has no train split"),
    ],
)
def test_check_says_what_the_data_lacks(corpora: dict[str, str], change: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        list(check_benchmark(spec(**change), corpora))


def test_check_of_data_that_is_there_counts_it(corpora: dict[str, str]) -> None:
    assert list(check_benchmark(spec(), corpora)) == ["test: 12 pairs of 4 patients, 2 findings"]
    with pytest.raises(UsageError, match="no line for one"):
        list(check_benchmark(spec(), {}))


def test_pixels_are_the_models_and_their_file_goes_with_them(corpora: dict[str, str]) -> None:
    images = read_columns(corpora["one"], ["image"], "test")["image"].to_pylist()
    pixels = StoredPixels(iter(images), 12, 48)
    folder = Path(pixels._folder.name)
    for rows in ([3, 1], [1, 5], [3]):
        expected = np.stack([model_pixels(images[row], 48) for row in rows])
        np.testing.assert_array_equal(pixels[np.array(rows)], expected)
    some = pixels.subset(np.array([7, 2, 9]))
    assert (len(pixels), len(some)) == (12, 3)
    np.testing.assert_array_equal(some[np.array([2, 0])], pixels[np.array([9, 7])])
    assert sum(file.stat().st_size for file in folder.iterdir()) == 12 * 48 * 48
    del pixels, some
    assert not folder.exists()
    with pytest.raises(ValueError, match="12 images are there, 13 were promised"):
        StoredPixels(images, 13, 48)


def test_rows_of_a_merged_corpus_are_those_of_the_dataset_and_another_datasets_corpus_is_refused(
    corpora: dict[str, str], tmp_path: Path
) -> None:
    both = write_corpus(
        tmp_path / "both",
        [pair(number, dataset="two" if number % 3 else "one", split="test", labels={"A": True}) for number in range(9)],
    )
    data = BenchmarkData(spec(), {"one": both}, "")
    assert set(data.rows("test")["dataset"].to_pylist()) == {"one"}
    assert len(data.rows("test")) == 3
    heavy = pa.concat_tables(data.heavy(data.rows("test"), "test", ["sample_id"]))
    assert heavy["sample_id"].to_pylist() == data.rows("test")["sample_id"].to_pylist()
    with pytest.raises(UsageError, match="given as the corpus of one, and its test pairs are of two"):
        BenchmarkData(spec(), {"one": corpora["two"]}, "").rows("test")


def test_splits_that_share_a_patient_are_refused(tmp_path: Path) -> None:
    """One corpus never has such; two of one cohort may, as they are split apart."""
    places = {}
    for dataset, splits in (("one", ["train"]), ("two", ["validation", "test"])):
        pairs = [
            pair(n, patient=n, dataset=dataset, cohort="both", split=splits[n % len(splits)], labels={"A": n < 4})
            for n in range(8)
        ]
        places[dataset] = write_corpus(tmp_path / dataset, pairs)
    data = BenchmarkData(spec(task="disease_prediction", datasets=["one", "two"]), places, "")
    with pytest.raises(UsageError, match="4 patients are in the train and in the validation split"):
        data.rows_by_split()


def test_language_model_from_scratch_is_the_same_of_the_same_reports(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    reports = ["The heart is normal.", "Left pleural effusion.", "No pneumothorax, naïve lungs."]
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save_scratch_model(tmp_path / name, reports, seed)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "a")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    assert [tokenizer.decode(tokenizer.encode(report)) for report in reports] == reports
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
