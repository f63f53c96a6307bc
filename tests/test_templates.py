"""Reports written from labels: what is present is said, what is unknown is not."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chexray.platform.corpus.adapters.nih import FINDINGS
from chexray.platform.corpus.templates import ABNORMAL, MAX_NEGATIVES, NO_FINDINGS, POSITIVE, write_report

labels_of = st.dictionaries(
    st.sampled_from([*FINDINGS, "Support Devices", "Lung Lesion"]), st.sampled_from([True, False, None])
).filter(lambda labels: any(value is not None for value in labels.values()))
NEGATION = re.compile(r"\b(no|negative for)\b")


def statements(report: str) -> dict[str, bool]:
    """An independent reading of a report: finding -> whether its sentence has no negation."""
    found = {}
    for sentence in report.lower().split("."):
        for finding in [*FINDINGS, "Support Devices", "Lung Lesion"]:
            if re.search(rf"\b{finding.replace('_', ' ').lower()}\b", sentence):
                assert finding not in found, "said twice"
                found[finding] = NEGATION.search(sentence) is None
    return found


@given(labels_of, st.text(max_size=8), st.integers(0, 5))
def test_report_of_any_labels_says_all_present_and_nothing_unknown(
    labels: dict[str, bool | None], sample_id: str, seed: int
) -> None:
    said = statements(write_report(labels, sample_id, seed))
    assert {name for name, value in said.items() if value} == {n for n, v in labels.items() if v}
    assert {name for name, value in said.items() if not value} <= {n for n, v in labels.items() if v is False}
    assert len(said) - sum(said.values()) <= MAX_NEGATIVES


@given(labels_of, st.text(max_size=8))
def test_report_of_any_labels_is_clean_text(labels: dict[str, bool | None], sample_id: str) -> None:
    report = write_report(labels, sample_id)
    assert re.fullmatch(r"([A-Z][a-z ,]*\. )*[A-Z][a-z ,]*\.", report)


@given(labels_of, st.text(max_size=8))
def test_report_of_reordered_labels_is_the_same(labels: dict[str, bool | None], sample_id: str) -> None:
    reordered = dict(reversed(labels.items()))
    assert write_report(labels, sample_id) == write_report(reordered, sample_id)


def test_report_of_no_finding_uses_every_wording_and_a_few_negatives() -> None:
    labels = {**dict.fromkeys(FINDINGS, False), "No Finding": True}
    reports = [write_report(labels, str(i)) for i in range(1000)]
    for wording in NO_FINDINGS:
        assert any(wording in report for report in reports)
    counts = {len(statements(report)) for report in reports}
    assert counts == set(range(1, MAX_NEGATIVES + 1))
    assert any("no finding" in report.lower() for report in reports)


def test_report_of_present_finding_uses_short_forms_and_sentences() -> None:
    reports = {write_report({"Pneumonia": True}, str(i)) for i in range(300)}
    assert {"Pneumonia.", "There is pneumonia."} <= reports


def test_report_of_absent_finding_alone_names_it() -> None:
    reports = {write_report({"Pleural_Thickening": False}, str(i)) for i in range(300)}
    assert {"No pleural thickening.", "No evidence of pleural thickening."} <= reports
    assert all("pleural thickening" in report for report in reports)


@pytest.mark.parametrize(
    ("finding", "sentence"),
    [
        ("Mass", "There is a mass."),
        ("Support Devices", "There are support devices."),
        ("Atelectasis", "Atelectasis is present."),
        ("Pneumothorax", "There is pneumothorax."),
    ],
)
def test_report_of_present_finding_agrees_in_number(finding: str, sentence: str) -> None:
    assert sentence in {write_report({finding: True}, str(i)) for i in range(300)}


def test_report_of_abnormal_image_without_known_finding_says_so() -> None:
    assert {write_report({"No Finding": False}, str(i)) for i in range(100)} == set(ABNORMAL)


def test_report_of_no_finding_beside_a_device_does_not_deny_it() -> None:
    for i in range(50):
        report = write_report({"No Finding": True, "Support Devices": True}, str(i))
        assert statements(report) == {"Support Devices": True}
        assert "no" not in report.lower().split()


def test_report_with_another_sample_or_seed_varies_and_repeats_exactly() -> None:
    labels = {"Edema": True, "Mass": False, "Hernia": False}
    assert write_report(labels, "a", 1) == write_report(labels, "a", 1)
    assert len({write_report(labels, str(i)) for i in range(50)}) == len(POSITIVE)
    assert len({write_report(labels, "a", seed) for seed in range(50)}) == len(POSITIVE)


@pytest.mark.parametrize("labels", [{}, {"Edema": None, "No Finding": None}])
def test_report_of_unknown_labels_is_refused(labels: dict[str, bool | None]) -> None:
    with pytest.raises(ValueError, match="at least one must be known"):
        write_report(labels, "a")
