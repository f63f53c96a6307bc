"""Bootstrap statistics against scikit-learn, scipy, explicit resampling and hand-computed values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from chexray.evals.statistics import (
    AurocEstimates,
    Estimate,
    FloatArray,
    auroc_differences,
    auroc_estimates,
    auroc_statistic,
    bootstrap,
    bootstrap_weights,
    interval,
    mean_estimates,
    stream_weights,
    weighted_auroc,
    weighted_mean,
)


def scored_sample(seed: int = 0, size: int = 120, findings: int = 3) -> tuple[FloatArray, FloatArray, list[str]]:
    """Scores with ties that tell something of the targets, targets with unknowns, and patients of 1 to 5."""
    generator = np.random.default_rng(seed)
    target_BF = generator.choice([0.0, 1.0, np.nan], p=[0.6, 0.3, 0.1], size=(size, findings))
    score_BF = np.round(generator.normal(size=(size, findings)) + np.nan_to_num(target_BF), 1)
    patient_B = [f"patient {index}" for index in generator.integers(size // 2, size=size)]
    return score_BF, target_BF, patient_B


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), levels=st.integers(1, 5), size=st.integers(1, 30))
def test_weighted_auroc_ties_and_unknowns_equals_sklearn_with_sample_weight(seed: int, levels: int, size: int) -> None:
    generator = np.random.default_rng(seed)
    score_B = generator.integers(levels, size=size).astype(float)
    target_B = generator.choice([0.0, 1.0, np.nan], size=size)
    weight_RB = generator.random((4, size)) * generator.integers(3, size=(4, size))
    for auroc, weight_B in zip(weighted_auroc(score_B, target_B, weight_RB), weight_RB, strict=True):
        used_B = ~np.isnan(target_B) & (weight_B > 0)
        if len(np.unique(target_B[used_B])) < 2:
            assert np.isnan(auroc)
        else:
            expected = roc_auc_score(target_B[used_B], score_B[used_B], sample_weight=weight_B[used_B])
            # Measured worst error: 2.2e-16.
            assert auroc == pytest.approx(expected, abs=1e-12)


def test_weighted_auroc_every_draw_equals_sklearn_on_resampled_rows() -> None:
    score_BF, target_BF, patient_B = scored_sample()
    known_B = ~np.isnan(target_BF[:, 0])
    weight_RB = bootstrap_weights(patient_B, draws=200, seed=3)
    auroc_R = weighted_auroc(score_BF[:, 0], target_BF[:, 0], weight_RB)
    for auroc, weight_B in zip(auroc_R, weight_RB, strict=True):
        rows = np.repeat(np.arange(len(weight_B)), weight_B.astype(int))
        rows = rows[known_B[rows]]
        # Measured worst error: 3.3e-16.
        assert auroc == pytest.approx(roc_auc_score(target_BF[rows, 0], score_BF[rows, 0]), abs=1e-12)


def test_weighted_auroc_hand_computed_tie_counts_one_half() -> None:
    # Positives 2 and 1, negatives 1 and 0: won 3 of 4 pairs and tied one.
    auroc_R = weighted_auroc(np.array([2.0, 1, 1, 0]), np.array([1.0, 1, 0, 0]), np.ones((1, 4)))
    assert auroc_R[0] == 3.5 / 4


def test_weighted_auroc_shapes_that_disagree_raise() -> None:
    with pytest.raises(ValueError, match=r"allowed: \(B,\), \(B,\), \(R, B\)"):
        weighted_auroc(np.zeros(3), np.zeros(3), np.ones((2, 4)))


def test_weighted_mean_missing_values_are_left_out() -> None:
    weight_RB = np.array([[1.0, 1, 1], [2, 1, 5], [0, 0, 3]])
    mean_R = weighted_mean(np.array([1.0, 4.0, np.nan]), weight_RB)
    np.testing.assert_array_equal(mean_R, [2.5, 2.0, np.nan])


@settings(max_examples=40, deadline=None)
@given(
    patient_B=st.lists(st.integers(0, 9), min_size=1, max_size=30),
    seed=st.integers(0, 2**32 - 1),
    chunk=st.integers(1, 9),
)
def test_bootstrap_weights_any_patients_draw_as_many_patients_as_there_are(
    patient_B: list[int], seed: int, chunk: int
) -> None:
    weight_RB = bootstrap_weights(patient_B, draws=8, seed=seed)
    patients, first_P, index_B = np.unique(patient_B, return_index=True, return_inverse=True)
    np.testing.assert_array_equal(weight_RB[:, first_P].sum(axis=1), len(patients))
    np.testing.assert_array_equal(weight_RB, weight_RB[:, first_P][:, index_B])
    np.testing.assert_array_equal(weight_RB, np.round(weight_RB))
    assert (weight_RB >= 0).all()
    streamed = list(stream_weights(patient_B, draws=8, seed=seed, chunk=chunk))
    assert all(len(block) <= chunk for block in streamed)
    np.testing.assert_array_equal(np.concatenate(streamed), weight_RB)


def test_bootstrap_weights_reordered_samples_keep_their_weights() -> None:
    _, _, patient_B = scored_sample()
    order = np.random.default_rng(1).permutation(len(patient_B))
    reordered = bootstrap_weights([patient_B[index] for index in order], draws=20, seed=5)
    np.testing.assert_array_equal(reordered, bootstrap_weights(patient_B, draws=20, seed=5)[:, order])


def test_bootstrap_weights_many_draws_have_multinomial_moments() -> None:
    weight_RB = bootstrap_weights(list(range(20)), draws=20_000, seed=0)
    # Mean 1, variance 1 - 1/20. Measured worst errors over the 20 patients: 0.020 and 0.021.
    np.testing.assert_allclose(weight_RB.mean(axis=0), 1.0, atol=0.03)
    np.testing.assert_allclose(weight_RB.var(axis=0), 0.95, atol=0.06)


@pytest.mark.parametrize(("patient_B", "draws", "message"), [([], 5, "patient_B has shape"), (["a"], 0, "draws is 0")])
def test_bootstrap_weights_invalid_argument_raises(patient_B: list[str], draws: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_weights(patient_B, draws=draws)


def test_interval_known_values_gives_percentiles_and_ignores_undefined() -> None:
    value_R = np.concatenate([np.arange(101.0), [np.nan] * 50])
    # Measured worst error: 2.3e-15.
    assert interval(value_R) == pytest.approx((2.5, 97.5))
    assert interval(value_R, level=0.8) == pytest.approx((10.0, 90.0))
    assert np.isnan(interval(np.full(3, np.nan))).all()
    with pytest.raises(ValueError, match="level is 95; allowed: between 0 and 1"):
        interval(value_R, level=95)


def test_mean_estimates_normal_samples_cover_the_true_mean_at_the_nominal_rate() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for replicate in range(300):
        value_BM = generator.normal(loc=2.0, size=(100, 1))
        (estimate,) = mean_estimates(value_BM, list(range(100)), draws=600, seed=replicate)
        covered += estimate.low <= 2.0 <= estimate.high
    # Nominal 0.95; standard error over 300 replicates 0.013. Measured 0.937.
    assert 0.90 <= covered / 300 <= 0.98


def test_mean_estimates_correlated_images_cover_by_patient() -> None:
    generator = np.random.default_rng(1)
    covered_by_patient = covered_by_image = 0
    for replicate in range(300):
        patient_B = np.repeat(np.arange(50), 4)
        value_BM = (generator.normal(size=50)[patient_B] + 0.3 * generator.normal(size=200))[:, None]
        (by_patient,) = mean_estimates(value_BM, patient_B, draws=400, seed=replicate)
        (by_image,) = mean_estimates(value_BM, np.arange(200), draws=400, seed=replicate)
        covered_by_patient += by_patient.low <= 0 <= by_patient.high
        covered_by_image += by_image.low <= 0 <= by_image.high
    # Measured 0.957 by patient, 0.670 by image, which is what resampling patients is for.
    assert 0.90 <= covered_by_patient / 300 <= 0.98
    assert covered_by_image / 300 < 0.8


def test_mean_estimates_interval_agrees_with_scipy_bootstrap() -> None:
    value_B = np.random.default_rng(2).exponential(size=200)
    (estimate,) = mean_estimates(value_B[:, None], np.arange(200), draws=20_000, seed=0)
    reference = stats.bootstrap(
        (value_B,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(7)
    ).confidence_interval
    # Interval about 0.27 wide; measured worst difference 0.0011.
    assert (estimate.low, estimate.high) == pytest.approx((reference.low, reference.high), abs=0.01)
    assert (estimate.n, estimate.patients, estimate.defined_draws) == (200, 200, 20_000)


def test_mean_estimates_copied_images_leave_the_interval_unchanged() -> None:
    value_BM = np.random.default_rng(3).normal(size=(40, 2))
    patient_B = np.arange(40)
    single = mean_estimates(value_BM, patient_B, draws=300)
    tripled = mean_estimates(np.repeat(value_BM, 3, axis=0), np.repeat(patient_B, 3), draws=300)
    for one, three in zip(single, tripled, strict=True):
        # Measured worst error: 1.1e-16.
        assert (three.value, three.low, three.high) == pytest.approx((one.value, one.low, one.high), abs=1e-12)
        assert (three.n, three.patients) == (120, 40)


def test_auroc_estimates_agree_with_explicit_resampling_of_all_findings_at_once() -> None:
    score_BF, target_BF, patient_B = scored_sample(seed=4)
    estimates = auroc_estimates(score_BF, target_BF, patient_B, draws=200, seed=9)
    draw_RM = np.array(
        [
            resampled_aurocs(score_BF, target_BF, np.repeat(np.arange(len(weight_B)), weight_B.astype(int)))
            for weight_B in bootstrap_weights(patient_B, draws=200, seed=9)
        ]
    )
    value_M = resampled_aurocs(score_BF, target_BF, np.arange(len(score_BF)))
    for estimate, draw_R, value in zip(all_of(estimates), draw_RM.T, value_M, strict=True):
        low, high = np.percentile(draw_R, [2.5, 97.5])
        # Measured worst error: 1.1e-16.
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((value, low, high), abs=1e-12)
        assert estimate.defined_draws == 200
    assert estimates.per_finding[0].n == int((~np.isnan(target_BF[:, 0])).sum())
    assert estimates.mean.patients == len(set(patient_B))


def resampled_aurocs(score_BF: FloatArray, target_BF: FloatArray, rows: npt.NDArray[np.int64]) -> list[float]:
    aurocs = []
    for score_B, target_B in zip(score_BF[rows].T, target_BF[rows].T, strict=True):
        known_B = ~np.isnan(target_B)
        aurocs.append(float(roc_auc_score(target_B[known_B], score_B[known_B])))
    return [*aurocs, sum(aurocs) / len(aurocs)]


def all_of(estimates: AurocEstimates) -> list[Estimate]:
    return [*estimates.per_finding, estimates.mean]


def test_auroc_estimates_same_scores_for_every_finding_do_not_narrow_the_mean() -> None:
    score_BF, target_BF, patient_B = scored_sample(seed=5, findings=1)
    estimates = auroc_estimates(np.repeat(score_BF, 4, axis=1), np.repeat(target_BF, 4, axis=1), patient_B, draws=300)
    # Four copies of one finding: resampled apart, their mean's interval would be half as wide.
    # Measured worst error: 0.
    assert estimates.mean.low == pytest.approx(estimates.per_finding[0].low, abs=1e-12)
    assert estimates.mean.high == pytest.approx(estimates.per_finding[0].high, abs=1e-12)


def test_auroc_estimates_rare_finding_counts_draws_that_lack_it() -> None:
    score_BF, target_BF, patient_B = scored_sample(seed=6)
    target_BF[:, 1] = 0.0
    target_BF[7, 1] = 1.0
    target_BF[:, 2] = np.where(np.isnan(target_BF[:, 2]), np.nan, 0.0)
    estimates = auroc_estimates(score_BF, target_BF, patient_B, draws=500, seed=2)
    # Samples of this patient are all drawn or none, so its lone positive is there when the patient is.
    present = int((bootstrap_weights(patient_B, draws=500, seed=2)[:, 7] > 0).sum())
    assert estimates.per_finding[1].defined_draws == estimates.mean.defined_draws == present
    assert 0 < present < 500
    absent = estimates.per_finding[2]
    assert np.isnan([absent.value, absent.low, absent.high]).all()
    assert absent.defined_draws == 0
    # Measured worst error: 0.
    first_two = (estimates.per_finding[0].value + estimates.per_finding[1].value) / 2
    assert estimates.mean.value == pytest.approx(first_two, abs=1e-12)


def test_auroc_estimates_no_finding_defined_gives_nan_without_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    estimates = auroc_estimates(np.zeros((4, 2)), np.zeros((4, 2)), list("aabc"), draws=10)
    assert np.isnan(estimates.mean.value)
    assert estimates.mean.defined_draws == estimates.mean.n == 0
    assert not recwarn.list


def test_auroc_differences_same_model_is_exactly_zero() -> None:
    score_BF, target_BF, patient_B = scored_sample(seed=7)
    for estimate in all_of(auroc_differences(score_BF, score_BF, target_BF, patient_B, draws=100)):
        assert (estimate.value, estimate.low, estimate.high) == (0.0, 0.0, 0.0)


def test_auroc_differences_use_the_same_draws_for_both_models() -> None:
    first_BF, target_BF, patient_B = scored_sample(seed=8)
    second_BF = first_BF + 0.3 * np.random.default_rng(0).normal(size=first_BF.shape)
    differences = auroc_differences(first_BF, second_BF, target_BF, patient_B, draws=300, seed=4)
    first_RM, second_RM = (
        bootstrap(auroc_statistic(score_BF, target_BF), patient_B, draws=300, seed=4)
        for score_BF in (first_BF, second_BF)
    )
    for estimate, draw_R in zip(all_of(differences), (first_RM - second_RM).T, strict=True):
        assert (estimate.low, estimate.high) == interval(draw_R)
    # Nearly equal models: unpaired, the interval would be about as wide as each model's own.
    own = auroc_estimates(first_BF, target_BF, patient_B, draws=300, seed=4).mean
    assert differences.mean.high - differences.mean.low < 0.5 * (own.high - own.low)


@pytest.mark.parametrize("patients", [3, 5])
def test_estimates_patients_of_another_length_raise(patients: int) -> None:
    with pytest.raises(ValueError, match=r"patient_B has shape .* allowed: \(4,\)"):
        mean_estimates(np.zeros((4, 1)), list(range(patients)))
