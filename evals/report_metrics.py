"""Generated reports against the radiologists': named variants of BLEU, ROUGE-L, METEOR and of metrics that are models.

One name is used for different numbers in this field, so every value says by which variant it was measured. A metric
whose package or weights are not at hand is a `NotRun` with its reason, never a number.

- BLEU (Papineni et al. 2002), 1 to 4, of the whole corpus, 0 to 1, in two variants: sacrebleu's (Post 2018), and
  pycocoevalcap's, which RadEval uses too.
- ROUGE-L (Lin 2004): the mean of rouge_score's F1, with Porter's stemmer (RadEval) and without (Hugging Face's
  `evaluate`).
- METEOR (Banerjee & Lavie 2005; Lavie & Agarwal 2007): the mean of NLTK's, where WordNet is at hand. NLTK looks a
  word's synonyms up by its stem, and so misses them where the two differ.
- The others: `chexray.evals.radeval_metrics`.

A report that the model left empty counts, with what the metric gives it. A pair whose reference is blank has nothing to
be compared with: it is left out of every metric. Line breaks count as spaces.

Corpus BLEU is no mean over reports but a function of counts that add up, so the bootstrap weighs the counts.
Shapes: B reports, R bootstrap draws, M metrics of a variant, N n-gram orders (1 to 4).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from chexray.evals.results import NotRun, Result, result_of
from chexray.evals.statistics import DRAWS, FloatArray, Patients, Statistic, bootstrap, estimate, mean_statistic

MAX_ORDER = 4
REPORT_GENERATION = "report_generation"


@dataclass(frozen=True)
class Scores:
    """The numbers `metrics` [M] of B reports by one variant, as a function of the reports' weights.

    `value_BM`: what each report got, where a number is the mean of that; None where it is not. Lower is better where
    the variant says so.
    """

    metrics: tuple[str, ...]
    variant: str
    statistic: Statistic
    value_BM: FloatArray | None = None


@dataclass(frozen=True)
class ReportScores:
    """What generated reports are worth. `per_report`: a row for each scored pair, with its own values."""

    results: list[Result]
    not_run: list[NotRun]
    per_report: pa.Table


def evaluate_reports(
    generated_B: Sequence[str],
    reference_B: Sequence[str],
    sample_B: Sequence[str],
    patient_B: Patients,
    draws: int = DRAWS,
    seed: int = 0,
    device: str = "cpu",
    decoding: str = "",
) -> ReportScores:
    """Every metric that can run, with intervals over patients; and those that cannot, with the reason.

    `decoding` ("greedy", say) is put before each variant. Raises ValueError where the sequences differ in length or no
    reference has text.
    """
    lengths = [len(generated_B), len(reference_B), len(sample_B), len(patient_B)]
    if len(set(lengths)) != 1:
        raise ValueError(f"generated_B, reference_B, sample_B, patient_B have lengths {lengths}; allowed: one length")
    kept = [row for row, reference in enumerate(reference_B) if reference.strip()]
    if not kept:
        raise ValueError(
            f"none of {len(reference_B)} references has text; give the reports of a split that has reports"
        )
    generated = [" ".join(generated_B[row].split()) for row in kept]
    reference = [" ".join(reference_B[row].split()) for row in kept]
    scores, not_run = report_scores(generated, reference, device)
    prefix = f"{decoding}; " if decoding else ""
    results = _results(scores, np.asarray(patient_B)[kept], draws, seed, prefix)
    whose = {"sample_id": [sample_B[row] for row in kept], "patient_id": [patient_B[row] for row in kept]}
    texts = whose | {"generated": generated, "reference": reference}
    missing = [NotRun(one.metric, prefix + one.variant, one.reason) for one in not_run]
    return ReportScores(results, missing, pa.table(texts | _columns(scores)))


def report_scores(
    generated_B: Sequence[str], reference_B: Sequence[str], device: str = "cpu"
) -> tuple[list[Scores], list[NotRun]]:
    """Every metric that can run here, and those that cannot.

    Two models are compared on the same reports by `statistics.bootstrap` of the difference of their statistics.
    """
    from chexray.evals.radeval_metrics import model_scores

    always = [*bleu_scores(generated_B, reference_B), *rouge_scores(generated_B, reference_B), distinct(generated_B)]
    meteor = meteor_scores(generated_B, reference_B)
    judged, not_run = model_scores(generated_B, reference_B, device)
    if isinstance(meteor, NotRun):
        return always + judged, [meteor, *not_run]
    return [*always, meteor, *judged], not_run


def bleu_scores(generated_B: Sequence[str], reference_B: Sequence[str]) -> list[Scores]:
    """BLEU-1 to 4 of the corpus, 0 to 1, in both variants."""
    names = tuple(f"bleu_{order}" for order in range(1, MAX_ORDER + 1))
    sacrebleu = ngram_counts(generated_B, reference_B, "13a")
    coco = ngram_counts(generated_B, reference_B, "none")
    return [
        Scores(
            names,
            f"sacrebleu {version('sacrebleu')}: corpus, 0 to 1, 13a tokens, case kept, exponential smoothing",
            lambda weight_RB: sacrebleu_bleu(weight_RB @ sacrebleu),
        ),
        Scores(
            names,
            "pycocoevalcap's: corpus, 0 to 1, tokens between white space, case kept",
            lambda weight_RB: coco_bleu(weight_RB @ coco),
        ),
    ]


def ngram_counts(generated_B: Sequence[str], reference_B: Sequence[str], tokens: str) -> FloatArray:
    """What BLEU is made of, report by report, in columns that add up: float64 [B, 10].

    Matching n-grams of order 1 to 4, the generated report's n-grams of order 1 to 4, its length, the reference's
    length; by sacrebleu with its tokenizer `tokens` ('13a', or 'none': between white space).
    """
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(tokenize=tokens, effective_order=True, max_ngram_order=MAX_ORDER)

    def counts(generated: str, reference: str) -> list[float]:
        score = bleu.sentence_score(generated, [reference])
        return [*score.counts, *score.totals, score.sys_len, score.ref_len]

    return np.array(_per_pair(counts, generated_B, reference_B), dtype=np.float64).reshape(-1, 2 * MAX_ORDER + 2)


def sacrebleu_bleu(count_RX: FloatArray) -> FloatArray:
    """BLEU-1 to 4 [R, 4] in [0, 1] from summed `ngram_counts` [R, 10], as sacrebleu's `compute_bleu` has it.

    With its exponential smoothing: the first order without a match counts as 1/2 match, the next as 1/4, and so on; a
    corpus without any match, or without any n-gram of an order, has 0.
    """
    match_RN, total_RN, length_R, reference_R = _parts(count_RX)
    none_RN = match_RN == 0
    smoothed_RN = np.where(none_RN, 0.5 ** np.cumsum(none_RN, axis=1), match_RN)
    log_RN = np.log(smoothed_RN / np.maximum(total_RN, 1))
    defined_RN = np.logical_and.accumulate(total_RN > 0, axis=1) & ~np.logical_and.accumulate(none_RN, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        penalty_R = np.minimum(0, 1 - reference_R / length_R)
    return np.where(defined_RN, np.exp(_running_mean(log_RN) + penalty_R[:, None]), 0.0)


def coco_bleu(count_RX: FloatArray) -> FloatArray:
    """BLEU-1 to 4 [R, 4] in [0, 1] from summed `ngram_counts` [R, 10], as pycocoevalcap's `BleuScorer` has it.

    It adds 1e-15 to what it divides and 1e-9 to what it divides by, and smooths in no other way.
    """
    tiny, small = 1e-15, 1e-9
    match_RN, total_RN, length_R, reference_R = _parts(count_RX)
    log_RN = np.log((match_RN + tiny) / (total_RN + small))
    penalty_R = np.minimum(0, 1 - (reference_R + small) / (length_R + tiny))
    return np.exp(_running_mean(log_RN) + penalty_R[:, None])


def rouge_scores(generated_B: Sequence[str], reference_B: Sequence[str]) -> list[Scores]:
    """The mean ROUGE-L F1, with and without stemmer. A report without letters or digits has 0."""
    from rouge_score.rouge_scorer import RougeScorer

    scores = []
    for stemmer, name in ((True, "Porter stemmer"), (False, "no stemmer")):
        scorer = RougeScorer(["rougeL"], use_stemmer=stemmer)

        def f1(generated: str, reference: str, scorer: Any = scorer) -> float:
            return float(scorer.score(reference, generated)["rougeL"].fmeasure)

        variant = f"rouge_score {version('rouge-score')}: mean F1, {name}"
        scores.append(mean_scores(("rouge_l",), variant, _per_pair(f1, generated_B, reference_B)))
    return scores


def meteor_scores(generated_B: Sequence[str], reference_B: Sequence[str]) -> Scores | NotRun:
    """The mean METEOR with WordNet's synonyms, where NLTK finds WordNet."""
    import nltk
    from nltk.corpus.reader.wordnet import WordNetCorpusReader
    from nltk.translate.meteor_score import single_meteor_score

    variant = f"nltk {version('nltk')}: mean, WordNet, Porter stemmer, wordpunct tokens, alpha 0.9, beta 3, gamma 0.5"
    try:
        wordnet = WordNetCorpusReader(_wordnet_folder(), None)
    except LookupError:
        reason = (
            "NLTK finds no WordNet here; get it by python -m nltk.downloader wordnet, or set NLTK_DATA to its folder"
        )
        return NotRun("meteor", variant, reason)

    def meteor(generated: str, reference: str) -> float:
        words = nltk.wordpunct_tokenize(reference), nltk.wordpunct_tokenize(generated)
        return float(single_meteor_score(*words, wordnet=wordnet))

    return mean_scores(("meteor",), variant, _per_pair(meteor, generated_B, reference_B))


def distinct(generated_B: Sequence[str]) -> Scores:
    """How many different texts there are for each report: 1 where no two are alike, 1/B where all are."""
    times = Counter(generated_B)
    return mean_scores(
        ("distinct_reports",),
        "different generated texts over reports; a text that k reports have counts 1/k for each",
        [1 / times[text] for text in generated_B],
    )


def mean_scores(metrics: tuple[str, ...], variant: str, value_BM: Any) -> Scores:
    """Scores that are means of reports' own values [B] or [B, M]; NaN: the metric gave that report none."""
    value_BM = np.asarray(value_BM, dtype=np.float64).reshape(-1, len(metrics))
    return Scores(metrics, variant, mean_statistic(value_BM), value_BM)


def _wordnet_folder() -> Any:
    """Where NLTK has WordNet, unpacked or not. LookupError where it has none."""
    import nltk

    try:
        return nltk.data.find("corpora/wordnet")
    except LookupError:
        return nltk.data.find("corpora/wordnet.zip/wordnet/")


def _results(scores: list[Scores], patient_B: Any, draws: int, seed: int, prefix: str) -> list[Result]:
    """A result for every metric of every variant, all from the same draws of patients."""

    def statistic(weight_RB: FloatArray) -> FloatArray:
        return np.column_stack([one.statistic(weight_RB) for one in scores])

    value_M = statistic(np.ones((1, len(patient_B))))[0]
    draw_RM = bootstrap(statistic, patient_B, draws, seed)
    results = []
    for (one, column), value, draw_R in zip(_numbers(scores), value_M, draw_RM.T, strict=True):
        known_B = np.ones(len(patient_B), bool) if one.value_BM is None else ~np.isnan(one.value_BM[:, column])
        found = estimate(float(value), draw_R, patient_B[known_B])
        results.append(result_of(REPORT_GENERATION, one.metrics[column], prefix + one.variant, found))
    return results


def _numbers(scores: list[Scores]) -> list[tuple[Scores, int]]:
    """Each number: the scores that it is of, and which of their metrics."""
    return [(one, column) for one in scores for column in range(len(one.metrics))]


def _columns(scores: list[Scores]) -> dict[str, Any]:
    """The per-report values as columns, named `metric (variant)`."""
    return {
        f"{one.metrics[column]} ({one.variant})": one.value_BM[:, column]
        for one, column in _numbers(scores)
        if one.value_BM is not None
    }


def _per_pair(score: Callable[[str, str], Any], generated_B: Sequence[str], reference_B: Sequence[str]) -> list[Any]:
    """The score of each pair, computed once for pairs that are equal: models repeat themselves."""
    pairs = list(zip(generated_B, reference_B, strict=True))
    known = {pair: score(*pair) for pair in dict.fromkeys(pairs)}
    return [known[pair] for pair in pairs]


def _parts(count_RX: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    return count_RX[:, :MAX_ORDER], count_RX[:, MAX_ORDER:-2], count_RX[:, -2], count_RX[:, -1]


def _running_mean(log_RN: FloatArray) -> FloatArray:
    return np.asarray(np.cumsum(log_RN, axis=1) / np.arange(1, MAX_ORDER + 1))


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)
