"""Report sections and cleaning, against texts in the layouts of MIMIC-CXR and Open-I, split by hand."""

import unicodedata
from typing import Literal

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


WET_READ = """ WET READ: ___ ___ 5:08 PM
  No acute intrathoracic process.
 ______________________________________________________________________________
                                 FINAL REPORT
 REASON FOR EXAMINATION:  Fever.

 Portable AP radiograph of the chest was compared to ___.

 Heart size is top normal.  No pleural effusion is seen.
"""
TWO_PARAGRAPHS = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PORTABLE AP)

 INDICATION:  ___ year old man with a chest tube.

 COMPARISON:  ___.

 As compared to the previous radiograph, the chest tube
 is unchanged.

 No pneumothorax.
"""
VIEWS = """                                 FINAL REPORT
 PA AND LATERAL CHEST, ___

 HISTORY:  Cough.

 CHEST, PA AND LATERAL:  The lungs are clear.

 IMPRESSION:  No pneumonia.
"""
TITLE_OF_VIEWS = """                                 FINAL REPORT
 CHEST, PA LATERAL:

 INDICATION:   Dyspnea.

 The lungs are clear.
"""
RECOMMENDED = """                                 FINAL REPORT
 HISTORY:  Nodule.

 There is a 6 mm nodule in the right lung.

 RECOMMENDATION(S):  CT of the chest.
"""


@pytest.mark.parametrize("blank", ["\n\n", "\n \n", "\r\n \r\n"])
@pytest.mark.parametrize(
    ("text", "report"),
    [
        (
            WET_READ,
            "Portable AP radiograph of the chest was compared to. "
            "Heart size is top normal. No pleural effusion is seen.",
        ),
        (
            TWO_PARAGRAPHS,
            "As compared to the previous radiograph, the chest tube is unchanged. No pneumothorax.",
        ),
        (TITLE_OF_VIEWS, "The lungs are clear."),
        (RECOMMENDED, "There is a 6 mm nodule in the right lung."),
        ("                                 FINAL REPORT\n CHEST RADIOGRAPH\n\n No pneumonia.\n", "No pneumonia."),
        ("HISTORY: Cough.\n\nLungs clear.\n", "Lungs clear."),
        ("HISTORY:\n\nCough.\n\nLungs clear.\n", "Lungs clear."),
        ("REPORT: Lungs clear.\n\nHeart normal.", "Lungs clear. Heart normal."),
        ("Lungs clear.\n\nHeart normal.", "Lungs clear. Heart normal."),
        ("HISTORY: Cough. Lungs clear.", "Cough. Lungs clear."),
        ("HISTORY: Cough.\n\n___\n", "Cough."),
    ],
)
def test_sections_without_findings_or_impression_report_is_the_last_paragraphs(
    text: str, report: str, blank: str
) -> None:
    assert split_sections(text.replace("\n\n", blank)) == ReportSections(None, None, report)


def test_sections_with_a_header_of_views_take_it_for_findings() -> None:
    findings, impression = "The lungs are clear.", "No pneumonia."
    assert split_sections(VIEWS) == ReportSections(findings, impression, f"{findings} {impression}")


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("PORTABLE AP CHEST RADIOGRAPH: Clear.", "Clear."),
        ("SUPINE FRONTAL VIEW (AP): Clear.", "Clear."),
        ("Portable chest: Clear.", None),
        ("CHEST TUBE at 9:30 is unchanged.", None),
        ("OTHER: CHEST clear.", None),
    ],
)
def test_sections_of_views_need_capitals_and_a_colon(text: str, findings: str | None) -> None:
    assert split_sections(text).findings == findings


def test_sections_of_long_texts_of_one_kind_take_linear_time() -> None:
    # 0.05 to 0.3 s each, twice that for twice the text; quadratic time would be minutes.
    for part in (" ", "\n", "\n ", "A ", "CHEST ", "PA VIEW, ", "\n \nA"):
        assert split_sections(part * (2**15 // len(part))).findings is None


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
    ("text", "min_words", "max_words", "reason"),
    [
        ("", 1, None, "report empty"),
        ("1. 2.", 1, 5, "report empty"),
        ("Normal.", 1, None, None),
        ("Normal.", 2, None, "report too short"),
        ("Corazón normal.", 2, 2, None),
        ("No acute process.", 1, 2, "report too long"),
    ],
)
def test_keep_report_gives_the_reason_or_none(
    text: str, min_words: int, max_words: int | None, reason: str | None
) -> None:
    assert keep_report(text, min_words, max_words) == reason


SPANISH = "RX TORAX. HALLAZGOS: Derrame izquierdo. CONCLUSION: sin cambios."
FRENCH = "INDICATION: toux. RÉSULTATS: Épanchement pleural gauche.\nCONCLUSION: Stable."
SPANISH_INFORME = """MOTIVO DE CONSULTA: disnea.
TÉCNICA: Proyección PA.
COMPARACIÓN: No disponible.
INFORME: Cardiomegalia.
IMPRESIÓN DIAGNÓSTICA: Sin cambios."""
FRENCH_PLAIN = """RENSEIGNEMENTS CLINIQUES : toux
TECHNIQUE : face
COMPARAISON : aucune
RESULTATS : Pas d'épanchement.
CONCLUSION\u00a0: Normal."""
PORTUGUESE = """INDICAÇÃO: tosse.
TÉCNICA: PA e perfil.
ACHADOS: Derrame à esquerda.
IMPRESSÃO: Estável."""


@pytest.mark.parametrize(
    ("text", "findings", "impression"),
    [
        (SPANISH, "Derrame izquierdo.", "sin cambios."),
        ("DATOS CLÍNICOS: tos.\nHALLAZGO: Nódulo.\nCONCLUSIONES: TC.", "Nódulo.", "TC."),
        ("Datos clinicos: tos. Hallazgos: Nódulo. Impresión: TC.", "Nódulo.", "TC."),
        ("HALLAZGOS\nNódulo.\nIMPRESION\nTC.", "Nódulo.", "TC."),
        ("HALLAZGOS E IMPRESIÓN: Nódulo.", "Nódulo.", None),
        (SPANISH_INFORME, "Cardiomegalia.", "Sin cambios."),
        ("INFORME\nCardiomegalia.\nCONCLUSIÓN: Igual.", "Cardiomegalia.", "Igual."),
        (FRENCH, "Épanchement pleural gauche.", "Stable."),
        (FRENCH_PLAIN, "Pas d'épanchement.", "Normal."),
        (PORTUGUESE, "Derrame à esquerda.", "Estável."),
        ("INDICACAO: tosse.\nACHADOS: Derrame.\nCONCLUSAO: Igual.", "Derrame.", "Igual."),
        ("ACHADOS: Derrame. CONCLUSÃO: Igual.", "Derrame.", "Igual."),
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_sections_of_spanish_french_and_portuguese_headers_are_kept(
    text: str, findings: str | None, impression: str | None, form: Literal["NFC", "NFD"]
) -> None:
    sections = split_sections(unicodedata.normalize(form, text))
    assert (sections.findings, sections.impression) == (findings, impression)


@pytest.mark.parametrize(
    ("text", "findings", "impression"),
    [
        (
            "Pacemaker in place. Large left effusion. Opinion: unchanged.",
            "Pacemaker in place. Large left effusion.",
            "unchanged.",
        ),
        ("REPORT: Large left effusion.\nIMPRESSION: unchanged.", "Large left effusion.", "unchanged."),
        ("INDICATION: Cough.\nREPORT: Large left effusion.\nOPINION: unchanged.", "Large left effusion.", "unchanged."),
        ("Large left effusion.\nCOMPARISON: None.\nOPINION: unchanged.", "Large left effusion.", "unchanged."),
        ("INDICATION: Cough.\nHISTORY: Fall.\nTECHNIQUE: PA.\nCOMPARISON: None.\nIMPRESSION: Clear.", None, "Clear."),
        ("CHEST RADIOGRAPH, 2 VIEWS\nINDICATION: Cough.\nIMPRESSION: Clear.", None, "Clear."),
        ("                  FINAL REPORT\n CHEST RADIOGRAPH\n\n IMPRESSION:  Clear.", None, "Clear."),
        ("IMPRESSION: Clear.\nREPORT: as above.", None, "Clear."),
        ("Rotated.\nFINDINGS: Clear.\nIMPRESSION: Normal.", "Clear.", "Normal."),
    ],
)
def test_sections_with_an_impression_alone_take_text_without_a_header_for_findings(
    text: str, findings: str | None, impression: str
) -> None:
    sections = split_sections(text)
    assert (sections.findings, sections.impression) == (findings, impression)
    assert sections.report == " ".join(part for part in (sections.findings, impression) if part)


@pytest.mark.parametrize(
    "header",
    [
        *("INDICATION", "Clinical indication", "Indication for study", "CLINICAL DETAILS", "Clinical data", "HISTORY"),
        *("PATIENT HISTORY", "TECHNIQUE", "COMPARISON", "PRIOR STUDIES", "VIEWS", "REASON FOR EXAM"),
        *("MOTIVO", "Motivo de la exploración", "DATOS CLÍNICOS", "INDICACIÓN CLÍNICA", "TECNICA", "ANTECEDENTES"),
        *("COMPARACION", "ESTUDIOS PREVIOS", "HISTORIA CLÍNICA", "RENSEIGNEMENTS CLINIQUES", "INDICATION CLINIQUE"),
        *("COMPARAISON", "ANTÉCÉDENTS", "INDICAÇÃO CLÍNICA", "Informações clínicas", "TÉCNICA", "HISTÓRIA CLÍNICA"),
    ],
)
def test_sections_never_take_what_was_known_before_the_examination_for_findings(header: str) -> None:
    sections = split_sections(f"{header}: Left effusion.\nIMPRESSION: Unchanged.")
    assert sections == ReportSections(None, "Unchanged.", "Unchanged.")


@pytest.mark.parametrize(
    "part",
    [
        "FINDINGS: ",
        "FINDINGS:, ",
        "FINDINGS:.",
        ". FINDINGS: ",
        "RÉSULTATS\n",
        "DATOS ",
        ". DATOS  ",
        "MOTIVO DE ",
        "REPORT: a. ",
        "IMPRESSION: a. ",
        "a. REPORT:\n\nb\n\n",
        "(",
        "[**",
        "\u0301\u0327",
        "a\u0301\u0327",
    ],
)
@pytest.mark.timeout(60)  # in time that grows with the square of the length, minutes
def test_sections_of_long_hostile_texts_are_clean(part: str) -> None:
    text = part * (200_000 // len(part))
    for hostile in (text, text[:100_000] + text[:100_000].translate(str.maketrans("([", ")]"))[::-1]):
        sections = split_sections(hostile)
        assert clean_report(sections.report) == sections.report
