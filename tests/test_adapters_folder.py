"""The folder adapter, on folders written by hand: its rows, masks and cells, and values that may identify."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from dataset_files import Entry, list_folder, pairs_of, rejects_of, write_files

from chexray.platform.corpus.schema import MaskSource, SourcePair
from chexray.platform.errors import ChexrayError, UsageError

SYNTHETIC = (
    "path,report,patient_id,study_id,view,sex,age,Edema,Mass,No Finding,defect\n"
    'images/p1.png,"FINDINGS: Clear, both.",P1,S1,pa,F,61.0,0,-1,1,\n'
    "images/p2.png,,P2,S2,,,,1.0,,0,truncated\n"
)


def synthetic(root: Path, csv_text: str = SYNTHETIC) -> str:
    names = ("images/p1.png", "images/p2.png", "masks/p1__lungs.png", "masks/p1__left_lung.png", "masks/q.png")
    return write_files(root, {"pairs.csv": csv_text, **dict.fromkeys(names, "")})


def test_folder_of_the_synthetic_layout_gives_pairs_with_labels_and_masks(tmp_path: Path) -> None:
    assert list_folder("folder", synthetic(tmp_path), dataset="synthetic") == [
        SourcePair(
            dataset="synthetic",
            source_id="images/p1.png",
            image="images/p1.png",
            patient="P1",
            study="S1",
            view="PA",
            sex="F",
            age_years=61.0,
            report="FINDINGS: Clear, both.",
            labels={"Edema": False, "Mass": None, "No Finding": True},
            masks={
                "lungs": MaskSource(files=("masks/p1__lungs.png",)),
                "left_lung": MaskSource(files=("masks/p1__left_lung.png",)),
            },
        ),
        SourcePair(
            dataset="synthetic",
            source_id="images/p2.png",
            image="images/p2.png",
            patient="P2",
            study="S2",
            labels={"Edema": True, "Mass": None, "No Finding": False},
        ),
    ]


def test_folder_without_masks_gives_none(tmp_path: Path) -> None:
    assert [pair.masks for pair in pairs_of(list_folder("folder", synthetic(tmp_path), masks=None))] == [{}, {}]


def test_folder_with_named_columns_reads_those(tmp_path: Path) -> None:
    text = "file,text,who,set,left,right\na.png,Clear.,7,VAL,1,u\n"
    write_files(tmp_path, {"list.csv": text, "other.csv": "x\n1\n", "a.png": ""})
    options = {"path": "file", "report": "text", "patient_id": "who", "split": "set", "labels": ["right"]}
    pair = pairs_of(list_folder("folder", tmp_path, csv="list.csv", **options))[0]
    assert (pair.image, pair.report, pair.patient, pair.split) == ("a.png", "Clear.", "7", "validation")
    assert pair.labels == {"right": None}


def test_folder_with_findings_and_impression_columns_joins_them_under_headers(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.csv": "path,findings,impression\na.png,Clear.,Normal.\n", "a.png": ""})
    pair = pairs_of(list_folder("folder", tmp_path))[0]
    assert pair.report == "FINDINGS: Clear.\nIMPRESSION: Normal."


def test_folder_without_patient_ids_makes_each_image_its_own_patient(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.csv": "path,report\na.png,Clear.\nb.png,Clear.\n", "a.png": "", "b.png": ""})
    assert [(p.patient, p.study) for p in pairs_of(list_folder("folder", tmp_path))] == [
        ("a.png", "a.png"),
        ("b.png", "b.png"),
    ]


@pytest.mark.parametrize(
    "path",
    ["../secret.png", "images/../../secret.png", "/etc/secret.png", "C:\\a.png", "..\\secret.png", "s3://b/a.png"],
)
def test_folder_path_that_leaves_the_root_is_rejected(tmp_path: Path, path: str) -> None:
    write_files(tmp_path, {"secret.png": "", "data/images/a.png": "", "data/a.csv": f"path,report\n{path},Clear.\n"})
    rejects = [(path, "path outside the root"), ("images/a.png", "image without a row")]
    assert rejects_of(list_folder("folder", tmp_path / "data")) == rejects


def test_folder_rows_that_are_no_pairs_are_rejected_with_their_reason(tmp_path: Path) -> None:
    rows = ["images/a.png,Clear.,1", ".\\images\\a.png,Clear.,1", "gone.png,Clear.,1", ",Clear.,1", "images/b.png,,u"]
    text = "path,report,Edema\n" + "\n".join(rows)
    write_files(tmp_path, {"a.csv": text, "images/a.png": "", "images/b.png": ""})
    entries = list_folder("folder", tmp_path)
    assert [pair.image for pair in pairs_of(entries)] == ["images/a.png"]
    assert rejects_of(entries) == [
        ("images/a.png", "duplicate row"),
        ("gone.png", "image file missing"),
        ("", "image file missing"),
        ("images/b.png", "no report and no labels"),
    ]


def test_folder_columns_of_text_numbers_or_nothing_are_no_labels(tmp_path: Path) -> None:
    text = "path,Edema,note,count,empty,doubt\na.png,1,ok,3,,-1\nb.png,,,0,,u\nc.png,0.0,,1,,\n"
    write_files(tmp_path, {"a.csv": text, **dict.fromkeys(("a.png", "b.png", "c.png"), "")})
    assert pairs_of(list_folder("folder", tmp_path))[0].labels == {"Edema": True, "doubt": None}
    assert [path for path, _ in rejects_of(list_folder("folder", tmp_path))] == ["b.png"]


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({}, {}, "no CSV file there"),
        ({"a.csv": "", "b.csv": ""}, {}, "2 CSV files (a.csv, b.csv) there"),
        ({"a.csv": "path,report\n"}, {}, "a.csv: no rows"),
        ({"a.csv": "path\nx\n"}, {"csv": "b.csv"}, "b.csv: no such file"),
        ({"a.csv": "image;report\nx;y\n"}, {}, "missing column 'path'; the file has 'image;report'"),
        ({"a.csv": "path,text\nx,y\n"}, {"report": "txt"}, "missing column 'txt'; the file has 'path', 'text'"),
        ({"a.csv": "path,text\nx,y\n"}, {"labels": ["Edema"]}, "missing column 'Edema'"),
        ({"a.csv": "path,path\nx,y\n"}, {}, "column 'path' appears more than once"),
        ({"a.csv": "path,report\nx,Clear, both.\n"}, {}, "a.csv, line 2: 3 values for 2 columns"),
        ({"a.csv": "path,Edema\nx,2\n", "x": ""}, {"labels": ["Edema"]}, "a.csv, row 1: Edema is '2'"),
        ({"a.csv": "path,report,split\nx,y,dev\n", "x": ""}, {}, "split is 'dev'"),
    ],
)
def test_folder_that_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, files: dict[str, str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ChexrayError, match=re.escape(message)) as caught:
        list_folder("folder", write_files(tmp_path, files), **options)
    assert "\n" not in str(caught.value)


def test_folder_with_masks_for_two_images_of_one_name_is_refused(tmp_path: Path) -> None:
    csv_text = "path,report\na/p1.png,Clear.\nb/p1.png,Clear.\n"
    write_files(tmp_path, {"a/p1.png": "", "b/p1.png": ""})
    with pytest.raises(ChexrayError, match="masks of 'p1', but 2 images"):
        list_folder("folder", synthetic(tmp_path, csv_text))


def test_folder_image_without_a_row_is_rejected_and_masks_are_not(tmp_path: Path) -> None:
    names = ("a.png", "stray.JPG", "stray.tiff", "notes.txt", "masks/a__lungs.png")
    write_files(tmp_path, {"list.csv": "path,report\na.png,No finding.\n", **dict.fromkeys(names, "")})
    assert rejects_of(list_folder("folder", tmp_path)) == [
        ("stray.JPG", "image without a row"),
        ("stray.tiff", "image without a row"),
    ]


def list_rows(root: Path, text: str, **options: Any) -> list[Entry]:
    return list_folder("folder", write_files(root, {"list.csv": text, "a.png": "", "b.png": ""}), **options)


def pair(root: Path, column: str, cell: str, **options: Any) -> SourcePair:
    first, *_ = list_rows(root, f"path,report,{column}\na.png,Clear.,{cell}\n", **options)
    assert isinstance(first, SourcePair)
    return first


@pytest.mark.parametrize(
    ("options", "languages"),
    [({}, ["es", "en"]), ({"language": "fr"}, ["es", "fr"])],
)
def test_folder_language_is_the_column_s_or_the_option_s(
    tmp_path: Path, options: dict[str, str], languages: list[str]
) -> None:
    found = list_rows(tmp_path, "path,report,language\na.png,Claro.,ES\nb.png,Clear.,\n", **options)
    assert [entry.language for entry in pairs_of(found)] == languages


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
