"""Report sections and cleaning, against texts in the layouts of MIMIC-CXR and Open-I, split by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chexray.platform.corpus.reports import ReportSections, clean_report, keep_report, split_sections

MIMIC_LIKE = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old woman with cough  // rule out infection

 COMPARISON:  None.

 FINDINGS:

 The lungs are clear of focal consolidation, effusion
 or pneumothorax.  Clips (___) are seen.

 IMPRESSION:

 1. No acute process.
 2. Telephoned at ___.

 RECOMMENDATION(S):  None.
"""


def test_sections_of_mimic_layout_are_findings_and_impression_alone() -> None:
    sections = split_sections(MIMIC_LIKE)
    findings = "The lungs are clear of focal consolidation, effusion or pneumothorax. Clips are seen."
    impression = "1. No acute process. 2. Telephoned at."
    assert sections == ReportSections(findings, impression, f"{findings} {impression}")


@pytest.mark.parametrize(
    ("text", "findings", "impression"),
    [
        ("Findings: Clear lungs. Impression: Normal.", "Clear lungs.", "Normal."),
        ("FINDINGS:Clear lungs.\nCONCLUSIONS: Normal.", "Clear lungs.", "Normal."),
        ("FINDINGS\nClear lungs.\nIMPRESSION\nNormal.", "Clear lungs.", "Normal."),
        ("IMPRESSION: Normal.", None, "Normal."),
        ("FINDINGS AND IMPRESSION: Clear lungs.", "Clear lungs.", None),
        ("FINDINGS/IMPRESSION: Clear lungs.", "Clear lungs.", None),
        ("FINDINGS: Clear.\nCOMPARISON: None.\nFINDINGS: Small heart.", "Clear. Small heart.", None),
        ("FINDINGS: ___\nIMPRESSION: XXXX.", None, None),
        ("We discussed the findings: all clear.", None, None),
        ("Clear lungs.", None, None),
        ("", None, None),
    ],
)
def test_sections_of_one_layout_are_as_split_by_hand(text: str, findings: str | None, impression: str | None) -> None:
    sections = split_sections(text)
    assert (sections.findings, sections.impression) == (findings, impression)


def test_sections_without_findings_or_impression_report_is_the_whole_cleaned_text() -> None:
    text = "FINAL REPORT\nHISTORY: Cough.\n Heart size is  normal.\nLungs clear."
    assert split_sections(text) == ReportSections(None, None, "Cough. Heart size is normal. Lungs clear.")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Heart   size\r\n is\tnormal .", "Heart size is normal."),
        ("XXXX XXXX are clear, XXXX.", "are clear."),
        ("Fracture of rib 4XXXX.", "Fracture of rib 4."),
        ("Compared with ___ , unchanged.", "Compared with, unchanged."),
        ("Seen on [**2101-1-1**] (___).", "Seen on."),
        ("Clips. Impression: stable.", "Clips. stable."),
        ("Pleural_thickening, XX and 3 x 4 mm.", "Pleural_thickening, XX and 3 x 4 mm."),
        ("___", ""),
    ],
)
def test_clean_report_removes_marks_headers_and_space(text: str, cleaned: str) -> None:
    assert clean_report(text) == cleaned


@given(st.lists(st.sampled_from(["FINDINGS", ":", ".", " ", "\n", "___", "XXXX", "a", "Impression", ",", "(", ")"])))
def test_clean_report_of_cleaned_text_changes_nothing(parts: list[str]) -> None:
    cleaned = clean_report("".join(parts))
    assert clean_report(cleaned) == cleaned
    sections = split_sections("".join(parts))
    assert clean_report(sections.report) == sections.report
    assert "__" not in cleaned
    assert "\n" not in cleaned


@pytest.mark.parametrize(
    ("text", "min_words", "reason"),
    [
        ("", 1, "report empty"),
        ("1. 2.", 1, "report empty"),
        ("Normal.", 1, None),
        ("Normal.", 2, "report too short"),
        ("Corazón normal.", 2, None),
    ],
)
def test_keep_report_gives_the_reason_or_none(text: str, min_words: int, reason: str | None) -> None:
    assert keep_report(text, min_words) == reason
