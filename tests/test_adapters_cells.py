"""What cells of datasets' tables mean, against values that the datasets' own descriptions give."""

import pytest

from chexray.platform.corpus.adapters.cells import join_sections, read_age, read_labels, read_sex, read_view
from chexray.platform.errors import UsageError


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("57", 57.0),
        ("057Y", 57.0),
        ("57 ans", 57.0),
        ("45yrs", 45.0),
        ("18M", 1.5),
        ("18month", 1.5),
        ("487D", pytest.approx(1.3333, abs=1e-3)),
        ("026W", pytest.approx(0.4983, abs=1e-3)),
        ("[45, 46]", 45.0),
        ("['57']", 57.0),
        ("85 or more", 85.0),
        ("62.5", 62.5),
        ("0", 0.0),
        ("120", 120.0),
        ("121", None),
        ("-5", None),
        ("?", None),
        ("", None),
    ],
)
def test_read_age_in_datasets_ways_is_in_years(text: str, age: float | None) -> None:
    assert read_age(text) == age


@pytest.mark.parametrize(
    ("text", "sex"),
    [("F", "F"), ("male", "M"), ("Female", "F"), ("femal", "F"), (" m ", "M"), ("O", None), ("None", None), ("", None)],
)
def test_read_sex_in_datasets_ways_is_a_letter_or_none(text: str, sex: str | None) -> None:
    assert read_sex(text) == sex


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ("PA", ["PA", "pa", "POSTERO_ANTERIOR", "PA LLD", "PA RLD"]),
        ("AP", ["AP", "ap", "ANTERO_POSTERIOR", "AP AXIAL", "AP LLD", "AP RLD"]),
        ("LATERAL", ["LATERAL", "LAT", "LL", "L", "RL", "ll", "lateral", "XTABLE LATERAL", "profil"]),
        (None, ["", "RLO", "LT-DECUB", "RAO", "LPO", "OBLIQUE", "SUPINE", "UNKNOWN", "SWIMMERS", "PA Y LAT", "AP/PA"]),
    ],
)
def test_read_view_of_mimic_brax_bimcv_and_rexgradient_is_one_of_three(view: str | None, words: list[str]) -> None:
    assert [read_view(word) for word in words] == [view] * len(words)


def test_read_labels_of_chexpert_encoding_makes_uncertain_unknown() -> None:
    row = {"a": "1.0", "b": "0", "c": "-1.0", "d": "", "e": "nan", "f": "U"}
    assert read_labels("x.csv", row, row) == {"a": True, "b": False, "c": None, "d": None, "e": None, "f": None}


def test_read_labels_of_another_value_names_file_and_column() -> None:
    with pytest.raises(UsageError, match=r"x\.csv: a is '0\.5': a label must be 1, 0, -1, u or empty"):
        read_labels("x.csv", {"a": "0.5"}, ["a"])


@pytest.mark.parametrize(
    ("findings", "impression", "report"),
    [
        ("Clear.", "Normal.", "FINDINGS: Clear.\nIMPRESSION: Normal."),
        (None, "Normal.", "IMPRESSION: Normal."),
        ("", None, None),
    ],
)
def test_join_sections_keeps_those_that_are_there(
    findings: str | None, impression: str | None, report: str | None
) -> None:
    assert join_sections(findings, impression) == report
