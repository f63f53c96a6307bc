"""The linear probe against scikit-learn used directly, and what must and must not change what it predicts."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from chexray.evals.linear_probe import ProbePrediction, ProbeProtocol, linear_probe
from chexray.platform.errors import UsageError

Array = npt.NDArray[np.float64]
Split = tuple[Array, Array]


def made(seed: int = 0, train: int = 200, width: int = 12, unknown: float = 0.0) -> tuple[Split, Split, Split]:
    """Train, validation and test features and targets of 3 findings that the features tell of, with noise."""
    draw = np.random.default_rng(seed)
    weight_E3 = draw.normal(size=(width, 3))
    scale_E, shift_E = draw.uniform(0.1, 30, width), draw.normal(size=width) * 10
    splits = []
    for size in (train, 80, 60):
        clean_nE = draw.normal(size=(size, width))
        target_n3 = (clean_nE @ weight_E3 + draw.logistic(size=(size, 3)) * 2 > [0.0, 1.0, 3.0]).astype(np.float64)
        target_n3[draw.random(target_n3.shape) < unknown] = np.nan
        splits.append((clean_nE * scale_E + shift_E, target_n3))
    return splits[0], splits[1], splits[2]


def probe(train: Split, validation: Split, test: Split, protocol: ProbeProtocol | None = None) -> ProbePrediction:
    return linear_probe(train, validation, test[0], "class token", protocol)


@threadpool_limits.wrap(limits=1)
def by_sklearn(
    train: Split, validation: Split, test_nE: Array, strengths: tuple[float, ...]
) -> tuple[Array, list[float]]:
    """Each finding's regression fitted afresh at each C, in float64 and to the end; the best by validation AUROC."""
    columns, chosen = [], []
    for f in range(train[1].shape[1]):
        known_n, checked_n = ~np.isnan(train[1][:, f]), ~np.isnan(validation[1][:, f])
        fits = [
            make_pipeline(StandardScaler(), LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10, max_iter=500))
            for c in strengths
        ]
        scores = []
        for fit in fits:
            fit.fit(train[0][known_n], train[1][known_n, f])
            scores.append(roc_auc_score(validation[1][checked_n, f], fit.decision_function(validation[0][checked_n])))
        best = int(np.argmax(scores))
        columns.append(fits[best].predict_proba(test_nE)[:, 1])
        chosen.append(strengths[best])
    return np.column_stack(columns), chosen


@pytest.mark.parametrize("unknown", [0.0, 0.3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_probe_noisy_findings_equals_sklearn_used_directly(seed: int, unknown: float) -> None:
    train, validation, test = made(seed, unknown=unknown)
    protocol = ProbeProtocol(tolerance=1e-7)
    found = probe(train, validation, test, protocol)
    expected_n3, strengths = by_sklearn(train, validation, test[0], protocol.strengths)
    assert [choice.strength for choice in found.chosen if choice] == strengths
    # Measured worst error: 5.4e-7.
    np.testing.assert_allclose(found.probability_BF, expected_n3, rtol=0, atol=1e-5)
    assert found.undefined == (None, None, None)


def test_probe_default_tolerance_is_near_the_optimum() -> None:
    train, validation, test = made(4)
    found = probe(train, validation, test)
    expected_n3, _ = by_sklearn(train, validation, test[0], ProbeProtocol().strengths)
    # Measured worst error: 5e-4.
    np.testing.assert_allclose(found.probability_BF, expected_n3, rtol=0, atol=2e-3)


def test_probe_hand_made_case_is_the_root_of_its_score_equation() -> None:
    # Features -1 and 1 are standardised as they are; the finding is present at 1: the bias is 0, and 2 C (1 - p) = w.
    train = (np.array([[-1.0], [1.0]]), np.array([[0.0], [1.0]]))
    found = probe(train, train, train, ProbeProtocol(strengths=(0.5,), tolerance=1e-8))
    weight = 0.4010581375  # w = 1 / (1 + e^w) by bisection
    np.testing.assert_allclose(found.probability_BF[:, 0], 1 / (1 + np.exp([weight, -weight])), rtol=0, atol=1e-6)


def test_probe_separable_data_ranks_perfectly_and_prefers_the_strongest_regularisation() -> None:
    draw = np.random.default_rng(0)
    splits = []
    for size in (40, 20, 30):
        target_n1 = (np.arange(size) % 2 == 0).astype(np.float64)[:, None]
        splits.append((np.hstack([10 * target_n1, draw.normal(size=(size, 7))]), target_n1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = probe(splits[0], splits[1], splits[2])
    assert roc_auc_score(splits[2][1][:, 0], found.probability_BF[:, 0]) == 1.0
    choice = found.chosen[0]
    assert choice is not None
    assert (choice.strength, choice.by) == (1e-5, "validation AUROC")


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_probe_permuted_train_rows_predict_the_same(seed: int) -> None:
    train, validation, test = made(3)
    order = np.random.default_rng(seed).permutation(len(train[0]))
    one = probe(train, validation, test, ProbeProtocol(tolerance=1e-7))
    other = probe((train[0][order], train[1][order]), validation, test, ProbeProtocol(tolerance=1e-7))
    # Measured worst error: 2.2e-16.
    np.testing.assert_allclose(one.probability_BF, other.probability_BF, rtol=0, atol=1e-9)


def test_probe_unknown_labels_equal_dropped_rows_bit_by_bit() -> None:
    train, validation, test = made(5)
    hidden, hidden_too = np.arange(200) % 3 == 0, np.arange(80) % 5 == 0
    masked = tuple(
        (x, np.where(rows[:, None], np.nan, y)) for (x, y), rows in ((train, hidden), (validation, hidden_too))
    )
    dropped = tuple((x[~rows], y[~rows]) for (x, y), rows in ((train, hidden), (validation, hidden_too)))
    one, other = probe(masked[0], masked[1], test), probe(dropped[0], dropped[1], test)
    np.testing.assert_array_equal(one.probability_BF, other.probability_BF)
    assert one.chosen == other.chosen


def test_probe_two_runs_at_any_number_of_threads_give_the_same_bits_and_leave_their_input_alone() -> None:
    train, validation, test = made(6, unknown=0.1)
    before = [array.copy() for split in (train, validation, test) for array in split]
    one, other = probe(train, validation, test), probe(train, validation, test)
    np.testing.assert_array_equal(one.probability_BF, other.probability_BF)
    with_threads = linear_probe(train, validation, test[0], "class token", threads=3)
    np.testing.assert_array_equal(one.probability_BF, with_threads.probability_BF)
    for array, copy in zip((array for split in (train, validation, test) for array in split), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_probe_one_finding_does_not_depend_on_the_others() -> None:
    train, validation, test = made(7, unknown=0.2)
    whole = probe(train, validation, test)
    alone = probe((train[0], train[1][:, 1:2]), (validation[0], validation[1][:, 1:2]), test)
    np.testing.assert_array_equal(whole.probability_BF[:, 1], alone.probability_BF[:, 0])


def test_probe_changed_validation_labels_change_the_choice_only() -> None:
    train, validation, test = made(8, train=40, width=60)
    one = probe(train, validation, test)
    other = probe(train, (validation[0], 1 - validation[1]), test)
    assert [choice.strength for choice in one.chosen if choice] != [
        choice.strength for choice in other.chosen if choice
    ]
    # Where the same C is forced, validation labels have no say.
    fixed = ProbeProtocol(strengths=(0.01,))
    np.testing.assert_array_equal(
        probe(train, validation, test, fixed).probability_BF,
        probe(train, (validation[0], 1 - validation[1]), test, fixed).probability_BF,
    )


def test_probe_standardises_on_train_rows_alone() -> None:
    train, validation, test = made(9)
    one = probe(train, validation, test)
    far = np.vstack([test[0], np.full((1, 12), 1e6)])
    np.testing.assert_array_equal(linear_probe(train, validation, far, "x").probability_BF[:-1], one.probability_BF)
    scaled = linear_probe((train[0] * 64, train[1]), (validation[0] * 64, validation[1]), test[0] * 64, "x")
    # A power of two: the standardised features, and so all that follows, have the same bits.
    np.testing.assert_allclose(scaled.probability_BF, one.probability_BF, rtol=0, atol=1e-12)


def test_probe_one_class_in_train_is_undefined_with_its_reason() -> None:
    train, validation, test = made(10)
    target_n3 = train[1].copy()
    target_n3[:, 0] = np.where(target_n3[:, 0] == 1, np.nan, 0.0)
    target_n3[:, 2] = np.nan
    found = probe((train[0], target_n3), validation, test)
    assert found.undefined == (
        "no positive in the drawn train labels",
        None,
        "no positive and no negative in the drawn train labels",
    )
    assert np.isnan(found.probability_BF[:, [0, 2]]).all()
    assert found.chosen[0] is None
    np.testing.assert_array_equal(found.probability_BF[:, 1], probe(train, validation, test).probability_BF[:, 1])


def test_probe_one_class_in_validation_is_chosen_by_log_loss() -> None:
    train, validation, test = made(11, train=60, width=30)
    one_class = (validation[0], np.where(validation[1] == 1, np.nan, validation[1]))
    found = probe(train, one_class, test)
    for f, choice in enumerate(found.chosen):
        known_n = ~np.isnan(one_class[1][:, f])
        losses = []
        for strength in ProbeProtocol().strengths:
            fixed = probe(train, validation, (validation[0][known_n], test[1]), ProbeProtocol(strengths=(strength,)))
            losses.append(log_loss(np.zeros(known_n.sum()), fixed.probability_BF[:, f], labels=[0, 1]))
        assert choice is not None
        assert choice.by == "validation log loss: one class only"
        # The path from stronger C differs from a fresh start by less than this.
        assert choice.score == pytest.approx(min(losses), abs=2e-3)


def test_probe_finding_unknown_in_validation_takes_the_middle_of_the_grid() -> None:
    train, validation, test = made(12)
    target_n3 = validation[1].copy()
    target_n3[:, 1] = np.nan
    found = probe(train, (validation[0], target_n3), test)
    middle = probe(train, validation, test, ProbeProtocol(strengths=(1e-2,)))
    np.testing.assert_array_equal(found.probability_BF[:, 1], middle.probability_BF[:, 1])
    choice = found.chosen[1]
    assert choice is not None
    assert (choice.strength, choice.by, choice.score) == (1e-2, "the grid's middle: no known validation label", None)


@pytest.mark.parametrize("rows", [0, 80])
def test_probe_without_validation_labels_refuses(rows: int) -> None:
    train, validation, test = made(13)
    nothing = (validation[0][:rows], np.full((rows, 3), np.nan))
    with pytest.raises(UsageError, match=rf"validation split has {rows} samples and no known label .* and C is chosen"):
        probe(train, nothing, test)


def test_probe_very_few_rows_of_wide_features_predicts_without_a_warning() -> None:
    draw = np.random.default_rng(14)
    feature_nE = draw.normal(size=(6, 768)).astype(np.float16)
    feature_nE[:, 5] = 3.0  # a feature that never varies
    target_n1 = np.array([[1.0], [0.0], [1.0], [0.0], [0.0], [0.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = linear_probe((feature_nE, target_n1), (feature_nE, target_n1), feature_nE, "x")
    assert np.isfinite(found.probability_BF).all()
    assert roc_auc_score(target_n1[:, 0], found.probability_BF[:, 0]) == 1.0


def test_probe_protocol_names_feature_and_grid() -> None:
    train, validation, test = made(15)
    found = probe(train, validation, test, ProbeProtocol(strengths=(0.001, 1.0)))
    assert found.protocol == (
        "feature=class token; standardised; logistic regression, C of 0.001,1 by validation AUROC"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t, v, x: ((t[0], t[1][:-1]), v, x),
            r"train has features and targets of shapes \(200, 12\), \(199, 3\)",
        ),
        (lambda t, v, x: (t, (v[0][:, :-1], v[1]), x), r"validation has .* allowed: \(n, 12\), \(n, 3\)"),
        (lambda t, v, x: (t, (v[0], v[1] - 1), x), "target is -1; allowed"),
        (lambda t, v, x: (t, v, np.full_like(x, np.nan)), "a test feature is not finite"),
    ],
)
def test_probe_invalid_argument_raises_naming_it(change: object, message: str) -> None:
    train, validation, test = made(16)
    with pytest.raises(ValueError, match=message):
        linear_probe(*change(train, validation, test[0]), "x")  # type: ignore[operator]


@pytest.mark.parametrize("strengths", [(), (1.0, 0.1), (0.0, 1.0), (1.0, 1.0)])
def test_probe_protocol_wrong_strengths_raises(strengths: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="strengths is"):
        ProbeProtocol(strengths=strengths)
