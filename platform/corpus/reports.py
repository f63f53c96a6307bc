"""Radiology reports: their sections, the text that is trained on, and why a report is not kept."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

# English, Spanish, French and Portuguese, with and without their accents.
_FINDINGS = r"FINDINGS?|HALLAZGOS?|R[ÉE]SULTATS?|ACHADOS?"
_IMPRESSION = (
    r"IMPRESSIONS?|CONCLUSIONS?|OPINION|SUMMARY|(?:IMPRESI[ÓO]N(?:ES)?|IMPRESS(?:[ÃA]O|[ÕO]ES))(?:\s+DIAGN[ÓO]STICA)?"
    r"|CONCLUSI[ÓO]N(?:ES)?|CONCLUS(?:[ÃA]O|[ÕO]ES)"
)
_COMBINED = rf"(?:{_FINDINGS})\s*(?:AND|ET|[YE]|&|/)\s*(?:{_IMPRESSION})"
_TEXT = r"REPORT|INFORME|LAUDO|COMPTE[ -]RENDU"
_OTHER = (
    r"(?:(?:CLINICAL|PATIENT)\s+)?(?:INDICATIONS?(?:\s+FOR\s+(?:THE\s+)?(?:EXAM(?:INATION)?|STUDY))?|HISTORY|INFORMATION)"
    r"|CLINICAL\s+(?:BACKGROUND|CONTEXT|DATA|DETAILS|NOTES?|QUESTION)|VIEWS?|PRIORS?(?:\s+(?:EXAMS?|STUD(?:Y|IES)))?"
    r"|COMPARISONS?(?:\s+(?:EXAM|FILM|STUDY))?"
    r"|TECHNIQUE|(?:TYPE\s+OF\s+)?EXAMINATION|(?:REFERENCE\s+)?EXAM|PROCEDURE"
    r"|REASON\s+FOR\s+(?:THE\s+)?(?:EXAM(?:INATION)?|STUDY)|RECOMMENDATION(?:S|\(S\))?|NOTIFICATIONS?|WET\s+READ"
    r"|(?:FINAL|RADIOLOGY)\s+REPORT|ADDENDUM"
    r"|MOTIVO(?:\s+DEL?(?:\s+LA)?\s+\w{1,20})?|(?:DATOS|DADOS|INFORMACI[ÓO]N|INFORMA[ÇC][ÕO]ES)\s+CL[ÍI]NIC[OA]S?"
    r"|ANTECEDENTES|HIST[ÓO]RIA\s+CL[ÍI]NICA|T[ÉE]CNICA|COMPARACI[ÓO]N|COMPARA[ÇC][ÃA]O|COMPARAISON"
    r"|ESTUDIOS?\s+PREVIOS?|(?:INDICACI[ÓO]N(?:ES)?|INDICA[ÇC](?:[ÃA]O|[ÕO]ES))(?:\s+CL[ÍI]NICAS?)?"
    r"|INDICATIONS?\s+CLINIQUES?|RENSEIGNEMENTS?\s+CLINIQUES?"
    r"|ANT[ÉE]C[ÉE]DENTS"
)

# MIMIC-CXR's reports may name the views instead of 'FINDINGS', in capitals: "CHEST, PA AND LATERAL:".
_VIEWS = (
    r"(?=[A-Z][A-Z ()/,-]{0,80}:)(?=[A-Z ()/,-]{0,80}"
    r"(?:CHEST|PORTABLE|(?:PA|AP) AND LAT|LATERAL AND (?:PA|AP)|(?:ONE|TWO|FRONTAL|PA|AP) VIEWS?))[A-Z ()/,-]+"
)

# A header stands at the start of a line or after a sentence and ends in a colon. Without a colon it must be
# alone on its line and in capitals, as in MIMIC-CXR's "FINAL REPORT": a wrapped line can be one small word.
# French has a space before the colon, which may be one that does not break.
_SPACE = r"[ \t\u00a0\u202f]*"
_START = r"(?:^[ \t]*|(?<=[.?!])\s+)"
_HEADER = re.compile(
    rf"{_START}(?:(?i:(?P<combined>{_COMBINED})|(?P<findings>{_FINDINGS})|(?P<impression>{_IMPRESSION})"
    rf"|(?P<text>{_TEXT})|{_OTHER}){_SPACE}:"
    rf"|(?:(?P<combined_alone>{_COMBINED})|(?P<findings_alone>{_FINDINGS})|(?P<impression_alone>{_IMPRESSION})"
    rf"|(?P<text_alone>{_TEXT})|{_OTHER})[ \t]*$)"
    rf"|^[ \t]*(?P<views>{_VIEWS}):(?=\s)",
    re.MULTILINE,
)
# Headers one after another go at once: one at a time, a text of nothing else takes time with the square of its length.
_HEADER_RUN = re.compile(
    rf"{_START}(?i:(?:(?:{_COMBINED}|{_FINDINGS}|{_IMPRESSION}|{_TEXT}|{_OTHER}){_SPACE}:\s*)+)", re.MULTILINE
)
_ROUNDS = 20
"""Texts of people are clean after three; nested brackets of any depth would take as many as they are deep."""

_SENTENCE = re.compile(r"[.?!]|[^\W\d_A-ZÀ-ÖØ-Þ]")
"""What a title such as 'CHEST RADIOGRAPH, 2 VIEWS' lacks: the end of a sentence, or a small letter."""

# Normalising a whole text takes time with the square of its longest run of accents.
_ACCENTED = re.compile(r"[A-Za-z][\u0300-\u036f]{1,4}")
_BLANK_LINES = re.compile(r"\n\s*\n")

# What stands for removed names and dates: ___ (MIMIC-CXR), XXXX (Open-I), [**...**] (older MIMIC).
_DEIDENTIFIED = re.compile(r"\[\*\*[^\[\]]{0,200}\*\*\]|_{2,}|(?<![A-Za-z])X{3,}(?![A-Za-z])", re.DOTALL)
_SPACE_BEFORE_MARK = re.compile(r"\s+([.,;:?!)])")
_REPEATED_MARK = re.compile(r"([.,;:])(?:\s*[,;:])+|([,;:])(?=\.)")
_EMPTY_BRACKETS = re.compile(r"\(\s*\)|\[\s*\]|\"\s*\"")
_LEADING_MARKS = re.compile(r"^[\s.,;:)\-]+")
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class ReportSections:
    """Cleaned sections of a report, None where absent, and `report`, the text that is trained on.

    `report` is findings and impression where there is one of them. Else it is what follows the headers: of the last
    section with several paragraphs, all but the first, which belongs to the header ("HISTORY: Cough."). Without
    headers or paragraphs it is the whole text. It may be empty (see `keep_report`).
    """

    findings: str | None
    impression: str | None
    report: str


def split_sections(text: str) -> ReportSections:
    """The findings and the impression of a report (also: conclusion, opinion, summary), cleaned.

    Headers in any case at the start of a line or after a sentence, in English, Spanish, French or Portuguese; a
    section ends at the next known header. Repeated sections are joined in order. 'FINDINGS AND IMPRESSION' counts as
    findings, and so do headers that name the views. With an impression but no findings, what stands before it without
    a header of its own (or under 'REPORT:') is the findings; a title is not. The rules of views and of paragraphs are
    those of MIMIC-CXR's own code (Johnson et al., mimic-cxr/txt/section_parser.py).
    """
    text = _ACCENTED.sub(lambda letter: unicodedata.normalize("NFC", letter[0]), text)
    headers = list(_HEADER.finditer(text))
    ends = [*(header.start() for header in headers[1:]), len(text)]
    sections = [(header, text[header.end() : end]) for header, end in zip(headers, ends, strict=False)]
    bodies: dict[str, list[str]] = {"findings": [], "impression": []}
    for header, section in sections:
        name = _section_name(header)
        body = clean_report(section)
        if name and body:
            bodies[name].append(body)
    if bodies["impression"] and not bodies["findings"]:
        bodies["findings"] = _without_header(text[: headers[0].start()], sections)
    findings, impression = (" ".join(bodies[name]) or None for name in ("findings", "impression"))
    kept = " ".join(part for part in (findings, impression) if part)
    return ReportSections(findings, impression, clean_report(kept or _last_paragraphs(sections) or text))


def clean_report(text: str) -> str:
    """One line of text without section headers, de-identification marks and the space they leave.

    Cleaning a cleaned text changes nothing. Of a text that is not clean after `_ROUNDS`, nothing is kept.
    """
    for _ in range(_ROUNDS):
        previous = text
        text = _DEIDENTIFIED.sub(" ", _HEADER.sub(" ", _HEADER_RUN.sub(" ", text)))
        text = _EMPTY_BRACKETS.sub(" ", text)
        text = _SPACE_BEFORE_MARK.sub(r"\1", " ".join(text.split()))
        text = _REPEATED_MARK.sub(r"\1", text)
        text = _LEADING_MARKS.sub("", text)
        if text == previous:
            return text
    return ""


def keep_report(text: str, min_words: int = 1, max_words: int | None = None) -> str | None:
    """Why a cleaned report is left out, or None to keep it.

    'report empty': no letters at all. 'report too short', 'report too long': fewer than `min_words` or more than
    `max_words` words (runs of letters).
    """
    words = len(_WORD.findall(text))
    if words == 0:
        return "report empty"
    if words < min_words:
        return "report too short"
    return "report too long" if max_words is not None and words > max_words else None


def _last_paragraphs(sections: list[tuple[re.Match[str], str]]) -> str | None:
    """Of the last section that has several paragraphs, all but the first; all of them after the header 'REPORT:'."""
    for header, section in reversed(sections):
        # The first may be a removed date alone, as in "COMPARISON: ___.": it counts, though nothing of it is kept.
        first, *others = [text for text in _BLANK_LINES.split(section) if text.strip()] or [""]
        if any(clean_report(text) for text in others):
            return "\n\n".join([first, *others] if _is_text(header) else others)
    return None


def _without_header(start: str, sections: list[tuple[re.Match[str], str]]) -> list[str]:
    """What stands before the first header, and under headers such as 'REPORT:' before the first impression, cleaned."""
    parts = [start]
    for header, section in sections:
        if _section_name(header) == "impression":
            break
        if _is_text(header):
            parts.append(section)
    return [part for part in map(clean_report, parts) if _SENTENCE.search(part)]


def _is_text(header: re.Match[str]) -> bool:
    return header["text"] is not None or header["text_alone"] is not None


def _section_name(header: re.Match[str]) -> str | None:
    groups = {name.removesuffix("_alone") for name, value in header.groupdict().items() if value}
    if groups & {"findings", "combined", "views"}:
        return "findings"
    return "impression" if "impression" in groups else None
