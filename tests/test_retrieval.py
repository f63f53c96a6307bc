"""Retrieval against the golden files and a brute force that sorts every query's candidates."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.evals.embedding_tasks import EncodedSplit, evaluate_retrieval
from chexray.evals.retrieval import DirectedRetrieval, StoredRows, rank_targets, retrieve
from chexray.platform.evaluate_config import EvaluateConfig

TESTS = Path(__file__).resolve().parent
GOLDEN = TESTS / "../../shared/data/golden/eval_reference.npz"

RANKS_STORED_ROWS = """
import sys
import numpy as np
from chexray.evals.retrieval import StoredRows, rank_targets
sys.path.insert(0, sys.argv[1])
from process_memory import peak_mebibytes
candidates = StoredRows(sys.argv[2])
target = np.random.default_rng(1).integers(400_000, size=64)
rank_targets(candidates[:64], candidates[:2048], target % 2048, chunk=512)
before = peak_mebibytes()
found = rank_targets(candidates[:64], candidates, target, chunk=512)
print(peak_mebibytes() - before, int(found.ahead.sum() + found.tied.sum()))
"""


def scores_of(direction: DirectedRetrieval) -> list[float]:
    return [*direction.recall.values(), direction.mean_rank]


def brute_force_places(query: list[float], candidates: list[list[float]], target: int, decimals: int = 7) -> list[int]:
    """The 1-based places that the target may take when candidates of equal similarity change places."""

    def cosine(candidate: list[float]) -> float:
        dot = sum(a * b for a, b in zip(query, candidate, strict=True))
        norms = sum(a * a for a in query) * sum(b * b for b in candidate)
        return round(dot / norms**0.5, decimals)

    similarity = [cosine(candidate) for candidate in candidates]
    ordered = sorted(similarity, reverse=True)
    return [place for place, value in enumerate(ordered, 1) if value == similarity[target]]


def assert_equals_brute_force(direction: DirectedRetrieval, places_Q: list[list[int]]) -> None:
    for query, places in enumerate(places_Q):
        # Measured worst error: 0.
        assert direction.rank[query] == pytest.approx(sum(places) / len(places), abs=1e-12)
        for k in direction.ks:
            expected = sum(place <= k for place in places) / len(places)
            assert direction.hit(k)[query] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("chunk", [13, 37, 1024])
def test_retrieval_golden_inputs_give_reference_scores_at_any_chunk(chunk: int) -> None:
    if not GOLDEN.exists():
        pytest.skip("golden evaluation values are not here")
    golden = np.load(GOLDEN)
    result = retrieve(golden["rt_image"], golden["rt_text"], golden["rt_report"], chunk=chunk)
    # Measured worst error: 0, in both directions.
    np.testing.assert_allclose(scores_of(result.image_to_text), golden["rt_i2t"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(scores_of(result.text_to_image), golden["rt_t2i"], rtol=0, atol=1e-12)
    assert (result.image_to_text.candidates, result.text_to_image.candidates) == (260, 300)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), pairs=st.integers(1, 14), reports=st.integers(1, 8))
def test_retrieval_repeated_reports_and_ties_equals_brute_force(seed: int, pairs: int, reports: int) -> None:
    generator = np.random.default_rng(seed)
    report_B = [f"report {index}" for index in generator.integers(reports, size=pairs)]
    # Whole numbers in two dimensions: many equal similarities, none nearly equal.
    image_BD = generator.choice([-2.0, -1.0, 1.0, 2.0], size=(pairs, 2))
    text_of = {report: generator.choice([-2.0, -1.0, 1.0, 3.0], size=2) for report in sorted(set(report_B))}
    text_BD = np.array([text_of[report] for report in report_B])
    result = retrieve(image_BD, text_BD, report_B, ks=(1, 2, 5))
    distinct = list(text_of)
    texts = [text_of[report].tolist() for report in distinct]
    assert_equals_brute_force(
        result.image_to_text,
        [
            brute_force_places(image.tolist(), texts, distinct.index(report))
            for image, report in zip(image_BD, report_B, strict=True)
        ],
    )
    assert_equals_brute_force(
        result.text_to_image,
        [brute_force_places(text.tolist(), image_BD.tolist(), index) for index, text in enumerate(text_BD)],
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    pairs=st.integers(1, 60),
    width=st.integers(1, 9),
    chunk=st.integers(1, 70),
)
def test_retrieval_any_chunk_gives_the_same_ranks(seed: int, pairs: int, width: int, chunk: int) -> None:
    generator = np.random.default_rng(seed)
    report_B = generator.integers(1 + pairs // 2, size=pairs).astype(str)
    # Rows repeat, so that ties between blocks of different shapes are part of the claim.
    image_BD = generator.normal(size=(pairs, width))[generator.integers(pairs, size=pairs)]
    text_BD = generator.normal(size=(pairs, width)).astype(np.float32)
    whole, parts = (retrieve(image_BD, text_BD, report_B, chunk=size) for size in (pairs, chunk))
    for one, other in (
        (whole.image_to_text, parts.image_to_text),
        (whole.text_to_image, parts.text_to_image),
    ):
        np.testing.assert_array_equal(one.ahead, other.ahead)
        np.testing.assert_array_equal(one.tied, other.tied)


def test_retrieval_hand_made_case_counts_identical_reports_once() -> None:
    image_BD = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    text_BD = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    result = retrieve(image_BD, text_BD, ["clear", "clear", "effusion"], ks=(1, 2))
    # Image 0 prefers "effusion"; image 1 its own "clear"; image 2 "clear" (0.8) to its own (0.6).
    np.testing.assert_array_equal(result.image_to_text.rank, [2, 1, 2])
    assert result.image_to_text.recall == {1: 1 / 3, 2: 1.0}
    # "clear" orders images 1, 2, 0 and asks twice; "effusion" orders 0, 2, 1.
    np.testing.assert_array_equal(result.text_to_image.rank, [3, 1, 2])
    np.testing.assert_array_equal(result.text_to_image.hits, [[0, 0], [1, 1], [0, 1]])


def test_retrieval_collapsed_encoder_scores_at_chance() -> None:
    result = retrieve(np.ones((20, 4)), np.ones((20, 4)), [str(index) for index in range(20)])
    for direction in (result.image_to_text, result.text_to_image):
        # Measured worst error: 6.9e-18.
        assert direction.recall == pytest.approx({1: 0.05, 5: 0.25, 10: 0.5}, abs=1e-12)
        assert direction.mean_rank == 10.5


def test_retrieval_aligned_pairs_rank_first_and_large_k_always_hits() -> None:
    result = retrieve(np.eye(6), np.eye(6), list("abcdef"), ks=(1, 100))
    assert result.image_to_text.recall == result.text_to_image.recall == {1: 1.0, 100: 1.0}
    assert result.image_to_text.mean_rank == 1.0


@pytest.mark.parametrize(
    ("reports", "ks", "chunk", "message"),
    [
        (["a", "b"], (1,), 4, "report_B"),
        (["a", "b", "c"], (0, 1), 4, "ks is"),
        (["a", "b", "c"], (), 4, "ks is"),
        (["a", "b", "c"], (1,), 0, "chunk is 0"),
    ],
)
def test_retrieval_invalid_argument_raises_naming_it(
    reports: list[str], ks: tuple[int, ...], chunk: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        retrieve(np.ones((3, 2)), np.ones((3, 2)), reports, ks, chunk)


def test_retrieval_embedding_without_direction_raises() -> None:
    text_BD = np.ones((3, 2))
    text_BD[2] = np.nan
    with pytest.raises(ValueError, match="text_BD has a vector of length nan"):
        retrieve(np.ones((3, 2)), text_BD, ["a", "b", "c"])


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    candidates=st.integers(1, 50),
    queries=st.integers(1, 50),
    chunk=st.integers(1, 60),
)
def test_rank_targets_float32_rows_equal_a_sort_in_long_double(
    seed: int, candidates: int, queries: int, chunk: int
) -> None:
    generator = np.random.default_rng(seed)
    candidate_CD = generator.normal(size=(candidates, 6)).astype(np.float32)
    candidate_CD = candidate_CD[generator.integers(candidates, size=candidates)]
    query_QD = generator.normal(size=(queries, 6)).astype(np.float32)
    target_Q = generator.integers(candidates, size=queries)
    found = rank_targets(query_QD, candidate_CD, target_Q, chunk=chunk)

    def unit(
        row_ND: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.longdouble]]:
        exact_ND = row_ND.astype(np.longdouble)
        return np.asarray(exact_ND / np.sqrt((exact_ND * exact_ND).sum(axis=1, keepdims=True)))

    lead_QC = (unit(query_QD)[:, None] * unit(candidate_CD)[None]).sum(axis=2)
    lead_QC = lead_QC - lead_QC[np.arange(queries), target_Q][:, None]
    np.testing.assert_array_equal(found.ahead, (lead_QC > 1e-9).sum(axis=1))
    np.testing.assert_array_equal(found.tied, (abs(lead_QC) <= 1e-9).sum(axis=1) - 1)


def test_rank_targets_neighbouring_float32_values_are_ordered_where_their_products_are_not() -> None:
    """Candidates one float32 step apart, wide enough that float32 products order them by their rounding."""
    generator = np.random.default_rng(0)
    step = np.float32(1e-7)
    candidate_CD = np.repeat(generator.normal(size=(1, 512)).astype(np.float32), 40, axis=0)
    candidate_CD[:, 0] = 1 + step * np.arange(40, dtype=np.float32)
    query_1D = np.zeros((1, 512), np.float32)
    query_1D[0, 0] = 1
    query_1D[0, 1:] = 0.01 * generator.normal(size=511)
    for target in (0, 17, 39):
        found = rank_targets(query_1D, candidate_CD, np.array([target]))
        assert (found.ahead[0], found.tied[0]) == (39 - target, 0)


@pytest.mark.parametrize("chunk", [7, 2048])
def test_retrieve_stored_rows_equal_rows_in_memory(tmp_path: Path, chunk: int) -> None:
    generator = np.random.default_rng(3)
    image_BD, text_BD = generator.normal(size=(2, 90, 8)).astype(np.float32)
    report_B = [f"report {index}" for index in generator.integers(40, size=90)]
    for name, row_BD in (("image", image_BD), ("text", text_BD)):
        np.save(tmp_path / name, row_BD)
    stored = [StoredRows(str(tmp_path / f"{name}.npy")) for name in ("image", "text")]
    whole, parts = retrieve(image_BD, text_BD, report_B), retrieve(*stored, report_B, chunk=chunk)
    for one, other in ((whole.image_to_text, parts.image_to_text), (whole.text_to_image, parts.text_to_image)):
        np.testing.assert_array_equal(one.ahead, other.ahead)
        np.testing.assert_array_equal(one.tied, other.tied)


def test_stored_rows_give_the_rows_asked_for_and_refuse_other_files(tmp_path: Path) -> None:
    row_ND = np.random.default_rng(5).normal(size=(20, 3))
    np.save(tmp_path / "rows.npy", row_ND)
    stored = StoredRows(str(tmp_path / "rows.npy"))
    assert stored.shape == (20, 3)
    for rows in (slice(0, 7), slice(18, 30), slice(25, 30), np.array([4, 5, 6, 0, 19, 19, 18]), np.array([], np.int64)):
        np.testing.assert_array_equal(stored[rows], row_ND[rows])
    for name, other in (("fortran", np.asfortranarray(row_ND)), ("flat", row_ND[0]), ("whole", row_ND.astype(int))):
        np.save(tmp_path / f"{name}.npy", other)
        with pytest.raises(ValueError, match=r"allowed: floats \(N, D\) in C order"):
            StoredRows(str(tmp_path / f"{name}.npy"))[:1]


def test_retrieve_reports_as_numbers_or_texts_are_the_same_targets() -> None:
    generator = np.random.default_rng(4)
    image_BD, text_BD = generator.normal(size=(2, 30, 4))
    number_B = generator.integers(9, size=30)
    by_number = retrieve(image_BD, text_BD, number_B.tolist())
    by_text = retrieve(image_BD, text_BD, np.array([f"report {number}" for number in number_B]))
    assert by_number.image_to_text.candidates == by_text.image_to_text.candidates == len(set(number_B.tolist()))
    np.testing.assert_array_equal(by_number.image_to_text.rank, by_text.image_to_text.rank)


def test_rank_targets_stored_rows_take_a_fraction_of_their_size_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "candidates.npy"
    np.save(file, np.random.default_rng(0).standard_normal((400_000, 64), np.float32))
    command = [sys.executable, "-c", RANKS_STORED_ROWS, str(TESTS), str(file)]
    growth, compared = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    # The file is 98 MiB, 195 in float64; the similarities are 195 MiB. Measured: 3.6 MiB; 103 if it is memory-mapped.
    assert float(growth) < 30
    assert int(compared) > 0


@pytest.mark.parametrize(
    ("queries", "target", "message"),
    [
        ((3, 2), [0, 1, 5], "target_Q holds no or other candidates than the 5"),
        ((3, 2), [0, -1, 2], "target_Q holds no or other"),
        ((0, 2), [], "target_Q holds no or other"),
        ((3, 4), [0, 1, 2], r"allowed: \(Q, D\), \(C, D\), \(Q,\)"),
        ((3, 2), [0, 1], r"have shapes \(3, 2\), \(5, 2\), \(2,\)"),
    ],
)
def test_rank_targets_invalid_argument_raises_naming_it(
    queries: tuple[int, int], target: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rank_targets(np.ones(queries), np.ones((5, 2)), np.array(target, dtype=np.int64))


def test_evaluate_retrieval_says_what_chance_gives() -> None:
    vector_BD = np.eye(4, 8, dtype=np.float32)
    split = EncodedSplit(
        sample_id=list("abcd"),
        patient_id=list("abcd"),
        report=["one", "two", "three", "three"],
        image_BD=vector_BD,
        text_BD=vector_BD,
        findings=[],
        target_BF=np.empty((4, 0)),
        prevalence_F=np.empty(0),
    )
    results, _ = evaluate_retrieval(split, EvaluateConfig(bootstrap=10))
    said = {result.metric: float(result.variant.rpartition("by chance ")[2]) for result in results}
    # By hand: three distinct reports for an image to find, four images for a report.
    assert said["image_to_text_recall@1"] == pytest.approx(1 / 3, abs=1e-3)
    assert said["text_to_image_recall@1"] == pytest.approx(1 / 4, abs=1e-3)
    assert said["image_to_text_recall@10"] == said["text_to_image_recall@5"] == 1
    assert (said["image_to_text_mean_rank"], said["text_to_image_mean_rank"]) == (2, 2.5)
