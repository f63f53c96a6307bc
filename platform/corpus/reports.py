"""Radiology reports: their sections, the text that is trained on, and why a report is not kept."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FINDINGS = r"FINDINGS?"
_IMPRESSION = r"IMPRESSIONS?|CONCLUSIONS?|OPINION|SUMMARY"
_COMBINED = rf"(?:{_FINDINGS})\s*(?:AND|&|/)\s*(?:{_IMPRESSION})"
_OTHER = (
    r"(?:CLINICAL\s+)?(?:INDICATIONS?|HISTORY|INFORMATION)|COMPARISONS?|TECHNIQUE|EXAMINATION|EXAM|PROCEDURE"
    r"|REASON\s+FOR\s+(?:THE\s+)?(?:EXAM(?:INATION)?|STUDY)|RECOMMENDATION(?:S|\(S\))?|NOTIFICATIONS?|WET\s+READ"
    r"|(?:FINAL|RADIOLOGY)\s+REPORT|ADDENDUM|REPORT"
)

# A header stands at the start of a line or after a sentence and ends in a colon. Without a colon it must be
# alone on its line and in capitals, as in MIMIC-CXR's "FINAL REPORT": a wrapped line can be one small word.
_HEADER = re.compile(
    rf"(?:^[ \t]*|(?<=[.?!])\s+)"
    rf"(?:(?i:(?P<combined>{_COMBINED})|(?P<findings>{_FINDINGS})|(?P<impression>{_IMPRESSION})"
    rf"|{_OTHER})[ \t]*:"
    rf"|(?:(?P<combined_alone>{_COMBINED})|(?P<findings_alone>{_FINDINGS})|(?P<impression_alone>{_IMPRESSION})"
    rf"|{_OTHER})[ \t]*$)",
    re.MULTILINE,
)

# What stands for removed names and dates: ___ (MIMIC-CXR), XXXX (Open-I), [**...**] (older MIMIC).
_DEIDENTIFIED = re.compile(r"\[\*\*.*?\*\*\]|_{2,}|(?<![A-Za-z])X{3,}(?![A-Za-z])", re.DOTALL)
_SPACE_BEFORE_MARK = re.compile(r"\s+([.,;:?!)])")
_REPEATED_MARK = re.compile(r"([.,;:])(?:\s*[,;:])+|([,;:])(?=\.)")
_EMPTY_BRACKETS = re.compile(r"\(\s*\)|\[\s*\]|\"\s*\"")
_LEADING_MARKS = re.compile(r"^[\s.,;:)\-]+")
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class ReportSections:
    """Cleaned sections of a report, None where absent, and `report`, the text that is trained on.

    `report` is findings and impression where there is one of them, else the whole cleaned text; it may be
    empty (see `keep_report`).
    """

    findings: str | None
    impression: str | None
    report: str


def split_sections(text: str) -> ReportSections:
    """The findings and the impression of a report (also: conclusion, opinion, summary), cleaned.

    Headers in any case at the start of a line or after a sentence; a section ends at the next known header.
    Repeated sections are joined in order. 'FINDINGS AND IMPRESSION' counts as findings.
    """
    headers = list(_HEADER.finditer(text))
    bodies: dict[str, list[str]] = {"findings": [], "impression": []}
    ends = [*(header.start() for header in headers[1:]), len(text)]
    for header, end in zip(headers, ends, strict=False):
        name = _section_name(header)
        body = clean_report(text[header.end() : end])
        if name and body:
            bodies[name].append(body)
    findings, impression = (" ".join(bodies[name]) or None for name in ("findings", "impression"))
    kept = " ".join(part for part in (findings, impression) if part)
    return ReportSections(findings, impression, clean_report(kept or text))


def clean_report(text: str) -> str:
    """One line of text without section headers, de-identification marks and the space they leave.

    Cleaning a cleaned text changes nothing.
    """
    previous = None
    while text != previous:
        previous = text
        text = _DEIDENTIFIED.sub(" ", _HEADER.sub(" ", text))
        text = _EMPTY_BRACKETS.sub(" ", text)
        text = _SPACE_BEFORE_MARK.sub(r"\1", " ".join(text.split()))
        text = _REPEATED_MARK.sub(r"\1", text)
        text = _LEADING_MARKS.sub("", text)
    return text


def keep_report(text: str, min_words: int = 1) -> str | None:
    """Why a cleaned report is left out, or None to keep it.

    'report empty': no letters at all. 'report too short': fewer than `min_words` words (runs of letters).
    """
    words = len(_WORD.findall(text))
    if words == 0:
        return "report empty"
    return "report too short" if words < min_words else None


def _section_name(header: re.Match[str]) -> str | None:
    groups = {name.removesuffix("_alone") for name, value in header.groupdict().items() if value}
    if groups & {"findings", "combined"}:
        return "findings"
    return "impression" if groups else None
