"""DeLong's variance against all pairs, the jackknife, another library, hand-computed values and the bootstrap."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from chexray.evals.delong import delong, delong_test
from chexray.evals.statistics import FloatArray, auroc_estimates

Numbers = npt.NDArray[np.int64]


def all_pairs_covariance(score_MB: FloatArray, target_B: FloatArray, patient_B: Numbers) -> FloatArray:
    """Obuchowski 1997 written out: every pair's kernel, patients' sums, and three sums over patients."""
    score_MB, patient_B, target_B = score_MB[:, target_B >= 0], patient_B[target_B >= 0], target_B[target_B >= 0]
    positive, negative = np.flatnonzero(target_B == 1), np.flatnonzero(target_B == 0)
    m, n = len(positive), len(negative)
    patients = sorted(set(patient_B.tolist()))
    sums: list[dict[str, dict[int, float]]] = []
    for score_B in score_MB:
        kernel = [
            [1.0 if score_B[i] > score_B[j] else 0.5 * (score_B[i] == score_B[j]) for j in negative] for i in positive
        ]
        auroc = sum(map(sum, kernel)) / (m * n)
        x = dict.fromkeys(patients, 0.0)
        y = dict.fromkeys(patients, 0.0)
        for i, row in zip(positive, kernel, strict=True):
            x[int(patient_B[i])] += sum(row) / n - auroc
        for number, j in enumerate(negative):
            y[int(patient_B[j])] += sum(row[number] for row in kernel) / m - auroc
        sums.append({"x": x, "y": y})
    with_positive, with_negative = len(set(patient_B[positive])), len(set(patient_B[negative]))

    def scaled(first: dict[int, float], second: dict[int, float], count: int) -> float:
        return count / (count - 1) * sum(first[p] * second[p] for p in patients)

    covariance = np.empty((len(score_MB),) * 2)
    for r, first in enumerate(sums):
        for s, second in enumerate(sums):
            own = scaled(first["x"], second["x"], with_positive) / m**2
            own += scaled(first["y"], second["y"], with_negative) / n**2
            mixed = scaled(first["x"], second["y"], len(patients)) + scaled(first["y"], second["x"], len(patients))
            covariance[r, s] = own + mixed / (m * n)
    return covariance


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.integers(1, 6),
    size=st.integers(6, 40),
    patients=st.integers(4, 40),
)
def test_delong_ties_unknowns_and_repeated_patients_equals_all_pairs(
    seed: int, levels: int, size: int, patients: int
) -> None:
    generator = np.random.default_rng(seed)
    target_B = generator.choice([0.0, 1.0, np.nan], size=size, p=[0.5, 0.4, 0.1])
    score_MB = generator.integers(levels, size=(3, size)).astype(float)
    patient_B = generator.integers(patients, size=size)
    found = delong(score_MB, target_B, patient_B)
    known_B = ~np.isnan(target_B)
    if min(len(set(patient_B[target_B == value])) for value in (0, 1)) < 2:
        assert np.isnan(found.covariance_MM).all()
        return
    expected_M = [roc_auc_score(target_B[known_B], score_B[known_B]) for score_B in score_MB]
    # Measured worst errors: 2.2e-16 and 4.2e-17.
    np.testing.assert_allclose(found.auroc_M, expected_M, atol=1e-12)
    np.testing.assert_allclose(found.covariance_MM, all_pairs_covariance(score_MB, target_B, patient_B), atol=1e-12)
    assert found.patients == len(set(patient_B[known_B]))
    assert found.positives + found.negatives == known_B.sum()


def test_delong_one_image_a_patient_equals_the_two_sample_jackknife() -> None:
    generator = np.random.default_rng(1)
    target_B = np.repeat([1.0, 0.0], [12, 19])
    score_B = np.round(generator.normal(size=31) + target_B, 1)
    variance = 0.0
    for value, count in ((1, 12), (0, 19)):
        left_out = [
            roc_auc_score(np.delete(target_B, one), np.delete(score_B, one))
            for one in np.flatnonzero(target_B == value)
        ]
        variance += (count - 1) / count * float(np.square(np.array(left_out) - np.mean(left_out)).sum())
    # Measured error: 5.2e-18.
    assert delong(score_B[None], target_B, np.arange(31)).covariance_MM[0, 0] == pytest.approx(variance, abs=1e-12)


def test_delong_test_equals_another_library() -> None:
    """Scores with ties; values computed once by MLstatkit 0.1.91 (`Delong_test`)."""
    target_B = np.array([1.0] * 6 + [0.0] * 8)
    first_B = np.array([9, 8, 8, 6, 5, 4, 7, 5, 5, 4, 3, 2, 2, 1]) / 10
    second_B = np.array([7, 9, 5, 5, 6, 2, 8, 5, 3, 6, 4, 4, 1, 2]) / 10
    compared = delong_test(first_B, second_B, target_B, np.arange(14))
    assert compared.difference == pytest.approx(0.8645833333333333 - 0.7083333333333333, abs=1e-12)
    # Measured error: 0.
    assert compared.p_value == pytest.approx(0.10345125086371418, abs=1e-12)
    half = 1.959963984540054 * 0.009207589285714286**0.5
    assert (compared.low, compared.high) == pytest.approx((0.15625 - half, 0.15625 + half), abs=1e-12)
    both = delong(np.stack([first_B, second_B]), target_B, np.arange(14))
    assert both.interval(0) == pytest.approx((0.6733727072353779, 1.0), abs=1e-12)
    assert both.interval(1) == pytest.approx((0.4103473848088619, 1.0), abs=1e-12)


def test_delong_hand_computed_case() -> None:
    # Positives 3, 2 and negatives 2, 1: kernels [[1, 1], [0.5, 1]], AUROC 3.5 / 4.
    found = delong(np.array([[3.0, 2, 2, 1]]), np.array([1.0, 1, 0, 0]), list("abcd"))
    # V10 = (1, 0.75), V01 = (0.75, 1): each has variance 1 / 32, halved.
    assert found.auroc_M[0] == 0.875
    assert found.covariance_MM[0, 0] == pytest.approx(1 / 64 + 1 / 64, abs=1e-15)


def test_delong_copied_images_of_a_patient_add_no_certainty() -> None:
    generator = np.random.default_rng(2)
    target_B = generator.integers(2, size=60).astype(float)
    score_MB = generator.normal(size=(2, 60)) + target_B
    once = delong(score_MB, target_B, np.arange(60))
    thrice = delong(np.repeat(score_MB, 3, axis=1), np.repeat(target_B, 3), np.repeat(np.arange(60), 3))
    # Measured worst error: 8.7e-19.
    np.testing.assert_allclose(thrice.covariance_MM, once.covariance_MM, atol=1e-12)
    as_if_apart = delong(np.repeat(score_MB, 3, axis=1), np.repeat(target_B, 3), np.arange(180))
    assert (np.diag(as_if_apart.covariance_MM) < 0.4 * np.diag(once.covariance_MM)).all()


def test_delong_interval_agrees_with_the_bootstrap_over_patients() -> None:
    generator = np.random.default_rng(3)
    patient_B = generator.integers(300, size=900)
    target_B = (generator.normal(size=300)[patient_B] + 0.5 * generator.normal(size=900) > 0.8).astype(float)
    score_B = target_B + generator.normal(size=300)[patient_B] + generator.normal(size=900)
    low, high = delong(score_B[None], target_B, patient_B).interval()
    reference = auroc_estimates(score_B[:, None], target_B[:, None], patient_B, draws=4000).per_finding[0]
    # Interval 0.1 wide; measured worst difference 0.0018.
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=0.01)


def test_delong_correlated_images_cover_the_true_auroc_by_patient_only() -> None:
    by_patient = by_image = 0
    for replicate in range(300):
        generator = np.random.default_rng(replicate)
        patient_B = np.repeat(np.arange(80), 3)
        target_B = np.repeat(generator.permutation(np.repeat([1.0, 0.0], 40)), 3)
        # Scores of both classes alike: the true AUROC is 0.5.
        score_1B = (generator.normal(size=80)[patient_B] + 0.3 * generator.normal(size=240))[None]
        low, high = delong(score_1B, target_B, patient_B).interval()
        by_patient += low <= 0.5 <= high
        low, high = delong(score_1B, target_B, np.arange(240)).interval()
        by_image += low <= 0.5 <= high
    # Nominal 0.95, standard error 0.013. Measured 0.940 and 0.737.
    assert 0.91 <= by_patient / 300 <= 0.99
    assert by_image / 300 < 0.85


def test_delong_test_equal_models_reject_at_the_nominal_rate() -> None:
    generator = np.random.default_rng(4)
    rejected = 0
    for _ in range(500):
        target_B = generator.permutation(np.repeat([1.0, 0.0], [40, 80]))
        shared_B = target_B + generator.normal(size=120)
        first_B, second_B = shared_B + 0.5 * generator.normal(size=(2, 120))
        rejected += delong_test(first_B, second_B, target_B, np.arange(120)).p_value < 0.05
    # Standard error 0.0097. Measured 0.062.
    assert 0.02 <= rejected / 500 <= 0.08


def test_delong_test_models_that_order_alike_have_no_difference() -> None:
    generator = np.random.default_rng(5)
    target_B = generator.integers(2, size=50).astype(float)
    score_B = generator.normal(size=50)
    compared = delong_test(score_B, np.exp(score_B), target_B, np.arange(50))
    assert (compared.difference, compared.low, compared.high, compared.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_delong_test_swapped_models_change_the_sign_alone() -> None:
    generator = np.random.default_rng(6)
    target_B = generator.choice([0.0, 1.0, np.nan], size=80)
    first_B, second_B = generator.normal(size=(2, 80)) + np.nan_to_num(target_B)
    patient_B = generator.integers(40, size=80)
    there, back = (
        delong_test(one, other, target_B, patient_B) for one, other in ((first_B, second_B), (second_B, first_B))
    )
    # Measured worst error: 0.
    assert (back.difference, back.low, back.high) == pytest.approx((-there.difference, -there.high, -there.low))
    assert back.p_value == pytest.approx(there.p_value)


@pytest.mark.parametrize(
    ("target_B", "patient_B"),
    [
        ([1.0, 1, 1, 1], list("abcd")),
        ([0.0, 0, 0, np.nan], list("abcd")),
        ([np.nan] * 4, list("abcd")),
        ([1.0, 1, 0, 0], list("aabc")),
    ],
)
def test_delong_too_little_to_go_by_gives_nan_without_warning(
    target_B: list[float], patient_B: list[str], recwarn: pytest.WarningsRecorder
) -> None:
    score_B = np.array([0.1, 0.4, 0.2, 0.3])
    found = delong(score_B[None], np.array(target_B), patient_B)
    compared = delong_test(score_B, score_B[::-1], np.array(target_B), patient_B)
    assert np.isnan([*found.interval(), compared.low, compared.high, compared.p_value]).all()
    assert np.isnan(found.auroc_M[0]) == (len(set(target_B) & {0.0, 1.0}) < 2)
    assert not recwarn.list


def test_delong_test_perfect_against_perfectly_wrong_claims_no_certainty() -> None:
    target_B = np.array([1.0, 1, 0, 0])
    compared = delong_test(target_B, -target_B, target_B, list("abcd"))
    assert compared.difference == 1.0
    assert np.isnan(compared.p_value)


def test_delong_wrong_arguments_raise() -> None:
    with pytest.raises(ValueError, match=r"allowed: \(M, B\), \(B,\), \(B,\)"):
        delong(np.zeros((1, 3)), np.zeros(4), list("abcd"))
    with pytest.raises(ValueError, match="target is 2"):
        delong(np.zeros((1, 2)), np.array([2.0, 0.0]), list("ab"))
    with pytest.raises(ValueError, match="score_MB is NaN"):
        delong(np.array([[np.nan, 0.0]]), np.array([1.0, 0.0]), list("ab"))
    with pytest.raises(ValueError, match="level is 95"):
        delong_test(np.ones(2), np.ones(2), np.array([1.0, 0.0]), list("ab"), level=95)
