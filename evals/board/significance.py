"""Whether a checkpoint is better than the baseline on a benchmark: both on the same samples, corrected for many tests.

Mean AUROCs and means of samples' values are compared by the paired bootstrap over patients, single findings by
DeLong's test too. A number that is no mean over samples (corpus BLEU) is not compared, and says so.

B: samples; F: findings; C: columns, the findings of each seed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from chexray.evals.board.sample_scores import NotCompared, Predictions, SampleValues, read_predictions, read_values
from chexray.evals.board.score_files import DISEASE_PREDICTION, Cell, ScoreRow
from chexray.evals.comparison import Comparison, holm, paired_bootstrap
from chexray.evals.delong import delong, delong_test
from chexray.evals.statistics import DRAWS, LEVEL, FloatArray, Statistic, auroc_statistic, bootstrap, mean_statistic
from chexray.platform.corpus.schema import NO_FINDING

MIN_POSITIVES = 5
"""Of a finding that enters a mean, where the row's variant does not say."""
_ENOUGH = re.compile(r"findings with >= (\d+) positives")
_TOLERANCE = 5e-4
"""Values are stored to six digits, probabilities as float32."""
_SAME = ("version", "twin", "split", "metric", "finding", "method")


@dataclass(frozen=True)
class Contender:
    """A checkpoint on a benchmark: its headline row, and its cells that are done, by seed."""

    row: ScoreRow
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Outcome:
    """A checkpoint less the baseline on the samples that both have. `comparison` is None for the `reason`.

    `p_holm`: the p-value corrected for all benchmarks on which the checkpoint was compared. `notes`: what a reader
    should know, such as that the samples differ.
    """

    comparison: Comparison | None
    samples: int = 0
    p_holm: float = math.nan
    reason: str | None = None
    notes: tuple[str, ...] = ()

    def verdict(self, higher_is_better: bool, level: float = LEVEL) -> str:
        """'better', 'worse', 'no difference shown', or 'not compared'; by the corrected p-value."""
        if self.comparison is None or math.isnan(self.p_holm):
            return "not compared"
        if self.p_holm >= 1 - level or self.comparison.difference == 0:
            return "no difference shown"
        return "better" if (self.comparison.difference > 0) == higher_is_better else "worse"


@dataclass(frozen=True)
class FindingTest:
    """DeLong's test of one finding's AUROC. `p_holm`: corrected for the findings of the benchmark."""

    finding: str
    comparison: Comparison
    positives: int
    negatives: int
    p_holm: float


@dataclass(frozen=True)
class _Compared:
    """Two checkpoints' numbers as functions of the weights of the samples that both have."""

    statistics: tuple[Statistic, Statistic]
    patient_B: npt.NDArray[np.str_]
    notes: tuple[str, ...]


def compare(first: Contender, second: Contender, draws: int = DRAWS, seed: int = 0) -> Outcome:
    """The first checkpoint's headline number less the second's."""
    try:
        found = _compared(first, second)
    except NotCompared as reason:
        return Outcome(None, reason=str(reason))
    (comparison,) = paired_bootstrap(*found.statistics, found.patient_B, draws, seed)
    return Outcome(comparison, len(found.patient_B), notes=found.notes)


def difference_draws(first: Contender, second: Contender, draws: int = DRAWS, seed: int = 0) -> FloatArray:
    """The first checkpoint's headline number less the second's in every paired bootstrap draw [R], NaN where undefined.

    Draw r is of the same patients for all pairs of checkpoints that have the same samples. Raises `NotCompared`.
    """
    found = _compared(first, second)
    ours, theirs = found.statistics
    return bootstrap(lambda weight_RB: ours(weight_RB) - theirs(weight_RB), found.patient_B, draws, seed)[:, 0]


def correct(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Holm's correction over the outcomes of one checkpoint, one a benchmark; those not compared do not count."""
    p_value_M = [math.nan if one.comparison is None else one.comparison.p_value for one in outcomes]
    return [replace(one, p_holm=float(p)) for one, p in zip(outcomes, holm(p_value_M), strict=True)]


def compare_findings(first: Contender, second: Contender) -> list[FindingTest]:
    """DeLong's test of each finding that both have learned, on the common samples. Raises `NotCompared`."""
    one, other, _ = _common_predictions(first, second)
    tests = []
    for f, finding in enumerate(one.findings):
        target_B = one.target_BF[:, f]
        comparison = _delong(one.probability_SBF[:, :, f], other.probability_SBF[:, :, f], target_B, one.patient_B)
        positives, negatives = (int((target_B == value).sum()) for value in (1, 0))
        tests.append(FindingTest(finding, comparison, positives, negatives, math.nan))
    corrected = holm([test.comparison.p_value for test in tests])
    return [replace(test, p_holm=float(p)) for test, p in zip(tests, corrected, strict=True)]


def _check_alike(first: ScoreRow, second: ScoreRow) -> None:
    for name in _SAME:
        ours, theirs = getattr(first, name), getattr(second, name)
        if ours != theirs:
            raise NotCompared(f"the baseline's {name} is {theirs}, its own {ours}")
    if first.value is None or second.value is None:
        raise NotCompared("its own value is undefined" if first.value is None else "the baseline's value is undefined")


def _compared(first: Contender, second: Contender) -> _Compared:
    """What is compared of two checkpoints. Raises `NotCompared`."""
    _check_alike(first.row, second.row)
    of_aurocs = first.row.task in ("zero_shot", DISEASE_PREDICTION)
    found = _compared_aurocs(first, second) if of_aurocs else _compared_means(first, second)
    notes = found.notes + tuple(_recomputed(first, second, found))
    return replace(found, notes=notes)


def _compared_aurocs(first: Contender, second: Contender) -> _Compared:
    one, other, notes = _common_predictions(first, second)
    findings = _headline_findings(first.row, second.row, one)
    every = np.arange(len(one.sample_B))
    one, other = one.taken(every, findings), other.taken(every, findings)
    return _Compared((_mean_auroc(one), _mean_auroc(other)), one.patient_B, tuple(notes))


def _compared_means(first: Contender, second: Contender) -> _Compared:
    one, other = (read_values(each.row, each.cells) for each in (first, second))
    row_2B, notes = _common(one, other)
    value_2B = [one.value_B[row_2B[0]], other.value_B[row_2B[1]]]
    # A sample without a value of either is of neither mean.
    known_B = ~np.isnan(value_2B[0]) & ~np.isnan(value_2B[1])
    if not known_B.any():
        raise NotCompared("no sample has a value of both")
    if lost := int((~known_B & ~(np.isnan(value_2B[0]) & np.isnan(value_2B[1]))).sum()):
        notes.append(f"{lost:,} samples have a value of one only and are left out")
    ours, theirs = (mean_statistic(value_B[known_B][:, None]) for value_B in value_2B)
    return _Compared((ours, theirs), one.patient_B[row_2B[0]][known_B], tuple(notes))


def _common_predictions(first: Contender, second: Contender) -> tuple[Predictions, Predictions, list[str]]:
    """Both checkpoints' predictions of the common samples, and of the findings that both have learned."""
    one, other = (read_predictions(each.row, each.cells) for each in (first, second))
    row_2B, notes = _common(one, other)
    shared = [name for name in one.findings if name in other.findings]
    one, other = one.taken(row_2B[0], shared), other.taken(row_2B[1], shared)
    if not np.array_equal(one.target_BF, other.target_BF, equal_nan=True):
        raise NotCompared("the two were scored by different labels of the same samples")
    known_BF = ~np.isnan(one.target_BF)
    learned_F = [
        not any(np.isnan(each.probability_SBF[:, known_BF[:, f], f]).any() for each in (one, other))
        for f in range(len(shared))
    ]
    kept = [name for name, learned in zip(shared, learned_F, strict=True) if learned]
    every = np.arange(len(one.sample_B))
    return one.taken(every, kept), other.taken(every, kept), notes


def _common(
    one: Predictions | SampleValues, other: Predictions | SampleValues
) -> tuple[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]], list[str]]:
    shared_B, row_B, other_B = np.intersect1d(one.sample_B, other.sample_B, assume_unique=True, return_indices=True)
    if not len(shared_B):
        raise NotCompared("the two have no sample in common")
    if not np.array_equal(one.patient_B[row_B], other.patient_B[other_B]):
        raise NotCompared("the two name different patients of the same samples")
    notes = []
    if len(shared_B) < max(len(one.sample_B), len(other.sample_B)):
        notes.append(
            f"on the {len(shared_B):,} samples in common, of {len(one.sample_B):,} and the baseline's "
            f"{len(other.sample_B):,}"
        )
    return (row_B, other_B), notes


def _headline_findings(first: ScoreRow, second: ScoreRow, predictions: Predictions) -> list[str]:
    """The findings whose AUROC, or mean AUROC, the headline is."""
    if first.metric == "auroc" and first.finding is not None:
        found = [first.finding] if first.finding in predictions.findings else []
    elif first.metric == "mean_auroc":
        least = max(_least_positives(first.variant), _least_positives(second.variant))
        counts_2F = [(predictions.target_BF == value).sum(axis=0) for value in (1, 0)]
        enough_F = np.minimum(*counts_2F) >= max(1, least)
        found = [name for name, yes in zip(predictions.findings, enough_F, strict=True) if yes and name != NO_FINDING]
    else:
        raise NotCompared(f"which findings {first.metric} is over is not known")
    if not found:
        raise NotCompared("no finding of it can be compared on the common samples")
    return found


def _least_positives(variant: str) -> int:
    said = _ENOUGH.search(variant)
    return int(said[1]) if said else MIN_POSITIVES


def _mean_auroc(predictions: Predictions) -> Statistic:
    statistic = auroc_statistic(*predictions.columns())
    return lambda weight_RB: statistic(weight_RB)[:, -1:]


def _recomputed(first: Contender, second: Contender, found: _Compared) -> list[str]:
    """A note where the files of the same samples do not give the headline: then something else was compared."""
    if found.notes:
        return []
    said = []
    for name, each, statistic in zip(("its own", "the baseline's"), (first, second), found.statistics, strict=True):
        value, shown = float(statistic(np.ones((1, len(found.patient_B))))[0, 0]), each.row.value
        if shown is not None and abs(value - shown) > _TOLERANCE * max(1.0, abs(shown)):
            said.append(f"{name} files give {value:.4f}, its headline says {shown:.4f}")
    return said


def _delong(
    first_SB: FloatArray, second_SB: FloatArray, target_B: FloatArray, patient_B: npt.NDArray[np.str_]
) -> Comparison:
    """The mean AUROC of the first's seeds less that of the second's."""
    if len(first_SB) == len(second_SB) == 1:
        return delong_test(first_SB[0], second_SB[0], target_B, patient_B)
    found = delong(np.concatenate([first_SB, second_SB]), target_B, patient_B)
    weight_M = np.repeat([1 / len(first_SB), -1 / len(second_SB)], [len(first_SB), len(second_SB)])
    difference = float(weight_M @ found.auroc_M)
    deviation = math.sqrt(max(0.0, float(weight_M @ found.covariance_MM @ weight_M)))
    if math.isnan(deviation) or deviation < 1e-9:
        p_value = 1.0 if abs(difference) < 1e-9 else math.nan
    else:
        p_value = math.erfc(abs(difference) / (deviation * math.sqrt(2)))
    margin = 1.959963984540054 * deviation
    return Comparison(difference, difference - margin, difference + margin, p_value, "DeLong")
