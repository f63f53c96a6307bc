"""Statistics of reports; oracles are hand-made reports, numpy, and brute force over all pairs."""

from __future__ import annotations

import random

import numpy as np
import pytest

from chexray.platform.corpus import report_statistics as module
from chexray.platform.corpus.report_statistics import WordQuantiles, report_statistics


def reports_of(count: int, seed: int, vocabulary: int = 60, variants: int = 3) -> list[str]:
    """Texts of 5 to 40 words, of which some are others with a word or two replaced."""
    rng = random.Random(seed)
    words = [f"word{index}" for index in range(vocabulary)]
    texts: list[list[str]] = []
    while len(texts) < count:
        text = rng.choices(words, k=rng.randint(5, 40))
        texts.append(text)
        for _ in range(rng.randrange(variants)):
            changed = list(text)
            for _ in range(rng.randrange(3)):
                changed[rng.randrange(len(changed))] = rng.choice(words)
            texts.append(changed)
    return [" ".join(text) for text in texts[:count]]


def brute_force_share(reports: list[str]) -> float:
    """The share of reports with another of Jaccard similarity 0.8 on sets of 3 words."""
    sets = []
    for report in reports:
        words = report.split()
        sets.append({" ".join(words[i : i + 3]) for i in range(len(words) - 2)} or {report})
    near = [any(i != j and len(a & b) >= 0.8 * len(a | b) for j, b in enumerate(sets)) for i, a in enumerate(sets)]
    return sum(near) / len(near)


def test_statistics_of_a_few_reports_are_as_counted_by_hand() -> None:
    reports = [
        "No pneumonia. The heart is normal.",
        "no PNEUMONIA, the heart is normal",
        "No pneumonia; the heart is normal!",
        "Effusion.",
        "effusion",
        "Large mass in the left upper lobe of the lung",
    ]
    found = report_statistics(reports)
    assert (found.number, found.distinct, found.largest_groups) == (6, 3, (3, 2))
    assert found.duplicate_share == 0.5
    assert found.words == WordQuantiles(1, 1, 6, 9.0, 10)
    assert (found.near_duplicate_share, found.near_sample) == (pytest.approx(5 / 6), 6)


def test_statistics_of_no_reports_are_null() -> None:
    found = report_statistics([])
    assert (found.number, found.distinct, found.near_sample, found.largest_groups) == (0, 0, 0, ())
    assert (found.words, found.duplicate_share, found.near_duplicate_share) == (None, None, None)


def test_statistics_of_empty_reports_count_them_as_copies() -> None:
    found = report_statistics(["", "...", "a"])
    assert (found.distinct, found.largest_groups, found.near_duplicate_share) == (2, (2,), pytest.approx(2 / 3))


@pytest.mark.parametrize("seed", range(4))
def test_near_duplicate_share_equals_brute_force(seed: int) -> None:
    reports = reports_of(300, seed)
    expected = brute_force_share(reports)
    assert 0.2 < expected < 0.9
    assert report_statistics(reports).near_duplicate_share == pytest.approx(expected, abs=0.01)  # measured worst: 0


def test_word_quantiles_equal_numpy() -> None:
    reports = reports_of(500, 7)
    counts = [len(report.split()) for report in reports]
    words = report_statistics(reports).words
    assert words is not None
    expected = (min(counts), np.quantile(counts, 0.05), np.median(counts), np.quantile(counts, 0.95), max(counts))
    assert (words.minimum, words.p5, words.median, words.p95, words.maximum) == pytest.approx(expected)


def test_near_duplicates_of_many_reports_are_sampled_and_repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEAR_SAMPLE", 200)
    reports = reports_of(500, 3)
    found = report_statistics(reports, seed=5)
    assert (found.number, found.near_sample) == (500, 200)
    assert found == report_statistics(reports, seed=5)
    assert found.near_duplicate_share != report_statistics(reports, seed=6).near_duplicate_share


def test_statistics_hold_no_text() -> None:
    assert "secretname" not in repr(report_statistics(["secretname has no mass", "secretname has no mass"]))
