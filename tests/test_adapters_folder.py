"""The folder adapter's cells: languages, views, ages and values that may identify."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chexray.platform.corpus.adapters import open_adapter
from chexray.platform.corpus.schema import Reject, SourcePair
from chexray.platform.errors import UsageError


def listed(root: Path, table: str, **options: Any) -> list[SourcePair | Reject]:
    (root / "list.csv").write_text(table, encoding="utf-8")
    for name in ("a.png", "b.png"):
        (root / name).write_bytes(b"")
    return list(open_adapter("folder", str(root), **options).pairs())


def pair(root: Path, column: str, cell: str, **options: Any) -> SourcePair:
    first, *_ = listed(root, f"path,report,{column}\na.png,Clear.,{cell}\n", **options)
    assert isinstance(first, SourcePair)
    return first


@pytest.mark.parametrize(
    ("options", "languages"),
    [({}, ["es", "en"]), ({"language": "fr"}, ["es", "fr"])],
)
def test_folder_language_is_the_column_s_or_the_option_s(
    tmp_path: Path, options: dict[str, str], languages: list[str]
) -> None:
    found = listed(tmp_path, "path,report,language\na.png,Claro.,ES\nb.png,Clear.,\n", **options)
    assert [entry.language for entry in found if isinstance(entry, SourcePair)] == languages


def test_folder_language_without_a_column_is_the_option_s(tmp_path: Path) -> None:
    assert pair(tmp_path, "sex", "F", language="pt").language == "pt"
    assert pair(tmp_path, "sex", "F").language == "en"


def test_folder_language_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"list\.csv, row 1: language is 'English': it must be two or three letters"):
        pair(tmp_path, "language", "English")


@pytest.mark.parametrize(
    ("cell", "view"),
    [
        ("pa", "PA"),
        ("AP", "AP"),
        ("Lateral", "LATERAL"),
        ("XTABLE LATERAL", "LATERAL"),
        ("RL", "LATERAL"),
        ("LL", "LATERAL"),
        ("L", "LATERAL"),
        ("profil", "LATERAL"),
        ("", None),
        ("Jane Doe", None),
    ],
)
def test_folder_view_is_one_of_three_or_unknown(tmp_path: Path, cell: str, view: str | None) -> None:
    assert pair(tmp_path, "view", cell).view == view


@pytest.mark.parametrize(
    ("cell", "age"),
    [
        ("61", 61.0),
        ("057Y", 57.0),
        ("89.5", 89.5),
        ("90", 90.0),
        ("103", 90.0),
        ("121", None),
        ("-1", None),
        ("-5.5", None),
        ("?", None),
    ],
)
def test_folder_age_of_ninety_and_above_is_ninety(tmp_path: Path, cell: str, age: float | None) -> None:
    # 45 CFR 164.514(b)(2)(i)(C): ages over 89 are aggregated into one category of 90 or older
    assert pair(tmp_path, "age", cell).age_years == age


@pytest.mark.parametrize(("cell", "sex"), [("f", "F"), ("Female", "F"), ("MALE", "M"), ("O", None), ("", None)])
def test_folder_sex_is_a_letter_or_unknown(tmp_path: Path, cell: str, sex: str | None) -> None:
    assert pair(tmp_path, "sex", cell).sex == sex


@pytest.mark.parametrize(
    ("column", "options", "allowed"),
    [
        ("split", {}, "it must be train, validation, test or empty"),
        ("Edema", {"labels": ["Edema"]}, "a label must be 1, 0, -1, u or empty"),
        ("language", {}, "it must be two or three letters"),
    ],
)
def test_folder_error_quotes_short_cells_alone(
    tmp_path: Path, column: str, options: dict[str, Any], allowed: str
) -> None:
    with pytest.raises(UsageError, match=rf"list\.csv, row 1: {column} is 'twelve chars': {allowed}"):
        pair(tmp_path, column, "twelve chars", **options)
    with pytest.raises(
        UsageError, match=rf"list\.csv, row 1: {column} is a text of 16 characters: {allowed}"
    ) as caught:
        pair(tmp_path, column, "Doe^Jane 1960-03", **options)
    assert "doe" not in str(caught.value).lower()
