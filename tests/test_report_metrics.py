"""BLEU, ROUGE-L and METEOR against hand-computed cases, brute force and other libraries; and what is not run, and why.

B: reports; R: draws.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import corpus_bleu
from sacrebleu.metrics.bleu import BLEU

from chexray.evals.report_metrics import (
    NotRun,
    Scores,
    bleu_scores,
    coco_bleu,
    evaluate_reports,
    meteor_scores,
    ngram_counts,
    rouge_scores,
    sacrebleu_bleu,
)
from chexray.evals.statistics import stream_weights

GENERATED = ("The heart is normal.", "No effusion or edema.", "", "Lungs clear. No effusion.", "No effusion or edema.")
REFERENCE = (
    "The heart is normal in size.",
    "No pleural effusion or edema.",
    "Right-sided pneumonia.",
    "Lungs are clear. No effusion.",
    "No pleural effusion or edema.",
)
WORDS = st.lists(st.sampled_from("abcd"), max_size=8).map(" ".join)
TEXTS = st.lists(WORDS, min_size=1, max_size=6)


def value(scores: Scores) -> list[float]:
    count = 1 if scores.value_BM is None else len(scores.value_BM)
    return list(scores.statistic(np.ones((1, count)))[0])


def bleu(generated: Sequence[str], reference: Sequence[str], tokens: str = "none") -> list[float]:
    function = coco_bleu if tokens == "none" else sacrebleu_bleu
    return list(function(ngram_counts(generated, reference, tokens).sum(axis=0, keepdims=True))[0])


def sacrebleus_own(generated: Sequence[str], reference: Sequence[str]) -> list[float]:
    return [BLEU(max_ngram_order=n).corpus_score(list(generated), [list(reference)]).score / 100 for n in range(1, 5)]


def rouge(generated: Sequence[str], reference: Sequence[str], variant: int = 1) -> list[float]:
    values = rouge_scores(generated, reference)[variant].value_BM
    assert values is not None
    return list(values[:, 0])


@pytest.mark.parametrize("tokens", ["none", "13a"])
def test_bleu_1_of_papinenis_repeated_word_is_clipped_at_two_sevenths(tokens: str) -> None:
    value = bleu(["the the the the the the the"], ["the cat is on the mat"], tokens)
    assert value[0] == pytest.approx(2 / 7, abs=1e-9)


@pytest.mark.parametrize("tokens", ["none", "13a"])
def test_bleu_of_two_reports_equals_hand_computed_counts(tokens: str) -> None:
    generated = ["a b c d e", "a b x d"]
    reference = ["a b c d e f g", "a b c d"]
    # Matches 5+3, 4+1, 3+0, 2+0 of 5+4, 4+3, 3+2, 2+1; lengths 9 and 11.
    precision = [8 / 9, 5 / 7, 3 / 5, 2 / 3]
    penalty = math.exp(1 - 11 / 9)
    expected = [penalty * math.prod(precision[:n]) ** (1 / n) for n in range(1, 5)]
    # Measured worst error: 2e-10, pycocoevalcap's 1e-9 in the divisors.
    assert bleu(generated, reference, tokens) == pytest.approx(expected, abs=1e-8)


def test_bleu_tokens_and_case_differ_between_the_variants() -> None:
    generated, reference = ["No edema. Heart normal."], ["No edema . Heart normal ."]
    assert bleu(generated, reference, "13a") == pytest.approx([1] * 4, abs=1e-12)
    assert bleu(generated, reference)[0] == pytest.approx(2 / 4 * math.exp(1 - 6 / 4), abs=1e-8)
    assert bleu(["no Edema"], ["No edema"], "13a") == [0, 0, 0, 0]


def test_bleu_of_reports_as_references_is_one_and_of_nothing_is_zero() -> None:
    for tokens in ("none", "13a"):
        assert bleu(REFERENCE, REFERENCE, tokens) == pytest.approx([1] * 4, abs=1e-8)
        assert bleu([""] * 5, REFERENCE, tokens) == [0] * 4


@settings(max_examples=150, deadline=None)
@given(texts=TEXTS, seed=st.integers(0, 2**32 - 1))
def test_bleu_13a_equals_sacrebleus_corpus_score(texts: list[str], seed: int) -> None:
    order = random.Random(seed)
    reference = [" ".join(order.choices("abcd", k=order.randint(1, 8))) for _ in texts]
    # Measured worst error: 5e-16.
    assert bleu(texts, reference, "13a") == pytest.approx(sacrebleus_own(texts, reference), abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_bleu_of_white_space_tokens_equals_nltks_where_every_order_matches(seed: int) -> None:
    order = random.Random(seed)
    common = "w x y z"
    generated, reference = (
        [f"{' '.join(order.choices('abcd', k=order.randint(0, 7)))} {common}" for _ in range(4)] for _ in range(2)
    )
    for n, value in enumerate(bleu(generated, reference), 1):
        weights = [1 / n] * n
        expected = corpus_bleu([[text.split()] for text in reference], [text.split() for text in generated], weights)
        # Measured worst error: 3e-10, pycocoevalcap's 1e-9 in the divisors.
        assert value == pytest.approx(expected, abs=1e-8)


def test_bleu_in_each_draw_equals_that_of_the_reports_drawn() -> None:
    patient = ["p", "q", "q", "r", "s"]
    sacrebleu, coco = bleu_scores(GENERATED, REFERENCE)
    (weight_RB,) = stream_weights(patient, 40, seed=3)
    drawn = [np.repeat(np.arange(5), weight_B.astype(int)) for weight_B in weight_RB]
    for scores, tokens in ((sacrebleu, "13a"), (coco, "none")):
        value_RM = scores.statistic(weight_RB)
        for value_M, rows in zip(value_RM, drawn, strict=True):
            pairs = [GENERATED[row] for row in rows], [REFERENCE[row] for row in rows]
            expected = sacrebleus_own(*pairs) if tokens == "13a" else bleu(*pairs)
            assert list(value_M) == pytest.approx(expected, abs=1e-12)
    assert len({tuple(rows) for rows in drawn}) > 20


def longest_common(first: str, second: str) -> int:
    """Brute force: the longest of all subsequences of the one that is a subsequence of the other."""
    one, other = first.split(), second.split()

    def within(chosen: tuple[str, ...]) -> bool:
        rest = iter(other)
        return all(word in rest for word in chosen)

    lengths = (n for n in range(len(one), 0, -1) if any(map(within, itertools.combinations(one, n))))
    return next(lengths, 0)


@settings(max_examples=100, deadline=None)
@given(generated=WORDS, reference=WORDS)
def test_rouge_l_equals_brute_force_longest_common_subsequence(generated: str, reference: str) -> None:
    common = longest_common(generated, reference)
    total = len(generated.split()) + len(reference.split())
    expected = 2 * common / total if common else 0
    for variant in (0, 1):
        assert rouge([generated], [reference], variant) == pytest.approx([expected], abs=1e-12)


def test_rouge_l_with_stemmer_joins_forms_of_a_word_and_both_ignore_case_and_points() -> None:
    assert rouge(["Effusions!"], ["effusion"], 0) == [1]
    assert rouge(["Effusions!"], ["effusion"], 1) == [0]
    assert rouge(["NO EDEMA."], ["no edema"], 1) == [1]


def test_evaluate_leaves_blank_references_out_and_counts_empty_reports() -> None:
    generated = [*GENERATED, "Something.", ""]
    reference = [*REFERENCE, "  ", ""]
    scores = evaluate_reports(generated, reference, list("abcdefg"), list("pqqrstu"), draws=50)
    assert scores.per_report["sample_id"].to_pylist() == list("abcde")
    assert scores.per_report["generated"].to_pylist() == list(GENERATED)
    by_name = {(one.metric, one.variant): one for one in scores.results}
    assert all((one.n, one.patients) == (5, 4) for one in scores.results)
    (sacrebleu,) = [one for (metric, variant), one in by_name.items() if metric == "bleu_4" and "13a" in variant]
    assert sacrebleu.value == pytest.approx(sacrebleus_own(GENERATED, REFERENCE)[3], abs=1e-6)
    (rouge_l,) = [one for (metric, variant), one in by_name.items() if metric == "rouge_l" and "no stemmer" in variant]
    # 4 of 4+6, 4 of 4+5, none, 4 of 4+5, and the second again.
    assert rouge_l.value == pytest.approx((0.8 + 8 / 9 + 0 + 8 / 9 + 8 / 9) / 5, abs=1e-6)


def test_evaluate_gives_the_same_in_any_order_of_the_rows() -> None:
    patient, order = list("pqqrs"), [4, 2, 0, 3, 1]
    first = evaluate_reports(GENERATED, REFERENCE, list("abcde"), patient, draws=200, seed=4)
    shuffled = (
        [GENERATED[row] for row in order],
        [REFERENCE[row] for row in order],
        [f"{row}" for row in order],
        [patient[row] for row in order],
    )
    assert evaluate_reports(*shuffled, draws=200, seed=4).results == first.results
    assert all(one.low is not None and one.low <= one.value <= one.high for one in first.results)  # type: ignore[operator]


def test_evaluate_of_one_pair_repeated_scores_as_the_pair_and_has_no_spread() -> None:
    pair = ["the heart is normal in size and the lungs"], ["the heart is normal in size and so are the lungs"]
    scores = evaluate_reports(pair[0] * 4, pair[1] * 4, list("abcd"), list("pqrs"), draws=20)
    alone = evaluate_reports(*pair, ["a"], ["p"], draws=20)
    for many, one in zip(scores.results, alone.results, strict=True):
        if many.metric == "distinct_reports":
            continue
        assert many.value == many.low == many.high == one.value
        assert 0 < many.value < 1  # type: ignore[operator]


def test_evaluate_names_the_decoding_in_every_variant() -> None:
    scores = evaluate_reports(GENERATED, REFERENCE, list("abcde"), list("abcde"), draws=10, decoding="greedy")
    assert all(one.variant.startswith("greedy; ") for one in [*scores.results, *scores.not_run])


def test_evaluate_without_any_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="none of 2 references has text"):
        evaluate_reports(["a", "b"], ["", " "], ["1", "2"], ["p", "q"])


def test_evaluate_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match=r"have lengths \[2, 1, 2, 2\]"):
        evaluate_reports(["a", "b"], ["a"], ["1", "2"], ["p", "q"])


def test_meteor_without_wordnet_is_not_run_and_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nltk.data.path", [])
    scores = meteor_scores(GENERATED, REFERENCE)
    assert isinstance(scores, NotRun)
    assert "python -m nltk.downloader wordnet" in scores.reason


def test_meteor_with_a_wordnet_equals_hand_computed_matches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save_wordnet(tmp_path / "corpora" / "wordnet")
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    scores = meteor_scores(["vast effusions seen", "", "nothing"], ["big effusion", "big effusion", "big effusion"])
    assert isinstance(scores, Scores)
    assert scores.value_BM is not None
    # A synonym and a stem match, of 3 and of 2 words, in one chunk of two. NLTK looks synonyms up by their stems.
    precision, recall, penalty = 2 / 3, 2 / 2, 0.5 * (1 / 2) ** 3
    expected = precision * recall / (0.9 * precision + 0.1 * recall) * (1 - penalty)
    assert scores.value_BM[:, 0] == pytest.approx([expected, 0, 0], abs=1e-12)
    assert value(scores) == pytest.approx([expected / 3], abs=1e-12)


def _save_wordnet(folder: Path) -> None:
    """WordNet with one set of synonyms, big and vast, in its own file format."""
    folder.mkdir(parents=True)
    for part in ("noun", "verb", "adj", "adv"):
        for file in (f"index.{part}", f"data.{part}", f"{part}.exc"):
            (folder / file).write_text("")
    (folder / "lexnames").write_text("00\tadj.all\t3\n")
    (folder / "index.sense").write_text("")
    (folder / "cntlist.rev").write_text("")
    licence = "  1 made for this test  \n"
    offset = f"{len(licence):08d}"
    (folder / "data.adj").write_text(f"{licence}{offset} 00 a 02 big 0 vast 0 000 | of great size  \n")
    (folder / "index.adj").write_text(f"{licence}big a 1 0 1 0 {offset}  \nvast a 1 0 1 0 {offset}  \n")


@pytest.mark.parametrize(("texts", "share"), [(["a"] * 4, 0.25), (["a", "b", "c"], 1.0), (["a", "b", "b", "a"], 0.5)])
def test_distinct_reports_are_texts_over_reports(texts: list[str], share: float) -> None:
    found = evaluate_reports(texts, texts, [str(n) for n in range(len(texts))], list(range(len(texts))), draws=10)
    (result,) = (one for one in found.results if one.metric == "distinct_reports")
    assert result.value == pytest.approx(share)
