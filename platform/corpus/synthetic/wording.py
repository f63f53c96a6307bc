"""Reports in a radiologist's words, written from what a study shows: 'FINDINGS: ... IMPRESSION: ...'."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chexray.platform.corpus.synthetic.labels import FINDINGS, Finding
from chexray.platform.corpus.synthetic.phrases import (
    CLOSINGS,
    IMPRESSION,
    NEGATIVE,
    NORMAL_IMPRESSIONS,
    NORMAL_OPENINGS,
    NORMAL_SENTENCES,
    POSITIVE,
    TECHNIQUE,
)


def write_report(rng: np.random.Generator, findings: Sequence[Finding], view: str) -> str:
    """One report. Every present finding is stated in FINDINGS; of the absent ones some are ruled out."""
    if findings:
        return f"FINDINGS: {_abnormal_findings(rng, findings, view)} IMPRESSION: {_impression(rng, findings)}"
    return f"FINDINGS: {_normal_findings(rng, view)} IMPRESSION: {_pick(rng, NORMAL_IMPRESSIONS)}"


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _opening(rng: np.random.Generator, view: str) -> list[str]:
    return [_pick(rng, TECHNIQUE[view])] if rng.random() < 0.35 else []


def _normal_findings(rng: np.random.Generator, view: str) -> str:
    sentences = _opening(rng, view)
    if rng.random() < 0.4:
        sentences.append(_pick(rng, NORMAL_OPENINGS))
    topics = [topic for topic in NORMAL_SENTENCES if rng.random() < 0.72] or list(NORMAL_SENTENCES)[:2]
    sentences += [_pick(rng, NORMAL_SENTENCES[topic]) for topic in topics]
    return " ".join(sentences)


def _abnormal_findings(rng: np.random.Generator, findings: Sequence[Finding], view: str) -> str:
    present = {finding.name for finding in findings}
    sentences = [describe(rng, findings[i]) for i in rng.permutation(len(findings))]
    absent = [name for name in FINDINGS if name in NEGATIVE and name not in present and rng.random() < 0.45]
    negatives = [_pick(rng, NEGATIVE[name]) for name in absent]
    closing = [_pick(rng, CLOSINGS)] if rng.random() < 0.2 else []
    if rng.random() < 0.25:
        return " ".join([*_opening(rng, view), *negatives, *sentences, *closing])
    return " ".join([*_opening(rng, view), *sentences, *negatives, *closing])


def describe(rng: np.random.Generator, finding: Finding) -> str:
    """One sentence that states a present finding with its degree and place."""
    return _sentence(_pick(rng, POSITIVE[finding.name]).format(**_words(rng, finding)))


def _impression(rng: np.random.Generator, findings: Sequence[Finding]) -> str:
    ranked = sorted(findings, key=lambda finding: -finding.severity)
    shown = ranked[: int(rng.integers(1, 4))]
    phrases = [_pick(rng, IMPRESSION[f.name]).format(**_words(rng, f)) for f in shown]
    if len(phrases) > 1 and rng.random() < 0.4:
        return " ".join(f"{i}. {_sentence(phrase)}" for i, phrase in enumerate(phrases, start=1))
    return " ".join(_sentence(phrase) for phrase in phrases)


def _sentence(text: str) -> str:
    text = text.strip()
    return f"{text[0].upper()}{text[1:]}" + ("" if text.endswith(".") else ".")


def _words(rng: np.random.Generator, finding: Finding) -> dict[str, str]:
    degree = 0 if finding.severity < 0.36 else 1 if finding.severity < 0.68 else 2
    size = (("small", "minimal", "tiny"), ("moderate", "moderate-sized"), ("large", "sizeable"))[degree]
    grade = (("mild", "minimal", "slight"), ("moderate",), ("severe", "marked", "pronounced"))[degree]
    side = "left" if finding.laterality == "midline" else finding.laterality
    lung = "both lungs" if side == "bilateral" else f"the {side} lung"
    zone = {"upper": ("upper lung zone", "apical region"), "mid": ("mid lung zone", "perihilar region")}.get(
        finding.zone, ("lower lung zone", "base")
    )
    return {
        "size": _pick(rng, size),
        "grade": _pick(rng, grade),
        "side": side,
        "lung": lung,
        "zone": _pick(rng, zone) + ("s" if side == "bilateral" else ""),
        "level": {"upper": "upper", "mid": "mid", "lower": "lower"}[finding.zone],
        "devices": _join(finding.devices),
    }


def _join(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
