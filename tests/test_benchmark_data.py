"""Rows, labels, encodings and images of benchmarks, on corpora made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from corpora import pair, write_corpus
from safetensors.numpy import save_file

from chexray.evals.benchmark_check import check_benchmark
from chexray.evals.benchmark_data import BenchmarkData, attributes, encoding_file, prevalence, targets
from chexray.evals.images import StoredPixels
from chexray.evals.scratch_model import save_scratch_model
from chexray.evals.specs import BenchmarkSpec
from chexray.platform.corpus.shards import read_columns
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
    np.testing.assert_array_equal(prevalence(found), [0.5, np.nan])


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
    for number, dataset in enumerate(corpora):
        file = Path(encoding_file(str(tmp_path), dataset, "test"))
        file.parent.mkdir()
        arrays = {"image": (np.arange(12, dtype=np.float32)[:, None] + 100 * number)}
        save_file(arrays, file)
    data = BenchmarkData(spec(datasets=["one", "two"], findings=["A", "B"], exclusive=True), corpora, str(tmp_path))
    rows = data.rows("test")
    expected = [
        p + 100 * (c == "two") for p, c in zip(rows["position"].to_pylist(), rows["corpus"].to_pylist(), strict=True)
    ]
    assert data.encoded(rows, "test", "image")[:, 0].tolist() == expected
    with pytest.raises(UsageError, match="gives no feature before its projection"):
        data.encoded(rows, "test", "feature")
    images = data.columns(rows, "test", ["sample_id", "image"])
    assert images["sample_id"].to_pylist() == rows["sample_id"].to_pylist()


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


@pytest.mark.parametrize("budget", [0, 2 * 48 * 48, 2**30])
def test_pixels_are_the_models_whatever_is_kept_of_them(corpora: dict[str, str], budget: int) -> None:
    images = read_columns(corpora["one"], ["image"], "test")["image"].to_pylist()
    pixels = StoredPixels(images, 48, budget)
    for rows in ([3, 1], [1, 5], [3]):
        expected = np.stack([model_pixels(images[row], 48) for row in rows])
        np.testing.assert_array_equal(pixels[np.array(rows)], expected)
    some = pixels.subset(np.array([7, 2, 9]))
    assert (len(pixels), len(some)) == (12, 3)
    np.testing.assert_array_equal(some[np.array([2, 0])], pixels[np.array([9, 7])])


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
