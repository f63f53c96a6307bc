"""Adapters: datasets written by hand, file by file, and the real NIH folder."""

import csv
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from chexray.platform.corpus.adapters import ADAPTERS, open_adapter
from chexray.platform.corpus.adapters.nih import FINDINGS
from chexray.platform.corpus.adapters.table import read_table
from chexray.platform.corpus.schema import MaskSource, Reject, SourcePair
from chexray.platform.errors import ChexrayError, UsageError

NIH = Path(__file__).parents[2] / "shared" / "data" / "nih"
NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def table(rows: Sequence[dict[str, str]]) -> str:
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    return "\n".join(lines) + "\n"


def listed(adapter: str, root: Path, **options: Any) -> list[SourcePair | Reject]:
    return list(open_adapter(adapter, str(root), **options).pairs())


def pairs_of(entries: Iterable[SourcePair | Reject]) -> list[SourcePair]:
    return [entry for entry in entries if isinstance(entry, SourcePair)]


def rejects_of(entries: Iterable[SourcePair | Reject]) -> list[tuple[str, str]]:
    return [(entry.source_uri, entry.reason) for entry in entries if isinstance(entry, Reject)]


def nih_row(image: str, labels: str = "Edema", patient: str = "1", age: str = "50") -> str:
    return f"{image},{labels},3,{patient},{age},F,PA,2500,2048,0.1,0.1,\n"


@pytest.mark.skipif(not NIH.is_dir(), reason="needs shared/data/nih")
def test_nih_real_folder_gives_every_row_as_a_pair() -> None:
    pairs = listed("nih", NIH)
    assert len(pairs) == len(pairs_of(pairs)) == 790
    assert len({pair.patient for pair in pairs_of(pairs)}) == 546
    assert len({pair.sample_id for pair in pairs_of(pairs)}) == 790
    counts: Counter[str] = Counter()
    with (NIH / "Data_Entry_2017_v2020.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            counts.update(row["Finding Labels"].split("|"))
    for name in (*FINDINGS, "No Finding"):
        assert sum(pair.labels[name] is True for pair in pairs_of(pairs)) == counts[name]
    assert all((NIH / pair.image).is_file() for pair in pairs_of(pairs))


def test_nih_row_becomes_a_pair_with_all_its_fields(tmp_path: Path) -> None:
    csv_text = NIH_HEADER + nih_row("00000001_003.png", "Edema|Pleural_Thickening")
    write(tmp_path, {"Data_Entry_2017.csv": csv_text, "images_002/images/00000001_003.png": ""})
    labels = dict.fromkeys((*FINDINGS, "No Finding"), False) | {"Edema": True, "Pleural_Thickening": True}
    assert listed("nih", tmp_path) == [
        SourcePair(
            dataset="nih",
            source_id="00000001_003.png",
            image="images_002/images/00000001_003.png",
            patient="1",
            study="1_3",
            view="PA",
            sex="F",
            age_years=50.0,
            labels=labels,
        )
    ]


@pytest.mark.parametrize(("text", "age"), [("120", 120.0), ("121", None), ("411", None), ("", None), ("0", 0.0)])
def test_nih_age_above_120_is_unknown(tmp_path: Path, text: str, age: float | None) -> None:
    write(tmp_path, {"Data_Entry_2017.csv": NIH_HEADER + nih_row("a.png", age=text), "a.png": ""})
    assert pairs_of(listed("nih", tmp_path))[0].age_years == age


def test_nih_rows_and_images_without_each_other_are_rejected(tmp_path: Path) -> None:
    rows = [nih_row("a.png"), nih_row("a.png"), nih_row("gone.png"), nih_row("b.png", "Cough")]
    csv_text = NIH_HEADER + "".join(rows)
    images = {"images/a.png": "", "images/b.png": "", "images/more.png": "", "other/a.png": ""}
    write(tmp_path, {"Data_Entry_2017_v2020.csv": csv_text, **images})
    entries = listed("nih", tmp_path)
    assert [pair.image for pair in pairs_of(entries)] == ["images/a.png"]
    assert rejects_of(entries) == [
        ("images/a.png", "duplicate row"),
        ("gone.png", "image file missing"),
        ("images/b.png", "label not known"),
        ("images/more.png", "image without a row"),
        ("other/a.png", "duplicate image"),
    ]


def test_nih_with_official_lists_keeps_test_and_splits_the_rest_by_patient(tmp_path: Path) -> None:
    names = [f"{patient}_{image}.png" for patient in range(60) for image in range(2)]
    test = [name for name in names if name.startswith("5")]
    files = {
        "Data_Entry_2017.csv": NIH_HEADER + "".join(nih_row(n, patient=n.split("_")[0]) for n in [*names, "x.png"]),
        "train_val_list.txt": "\n".join(name for name in names if name not in test),
        "test_list.txt": "\n".join(test),
    }
    write(tmp_path, files | {f"images/{name}": "" for name in [*names, "x.png"]})
    entries = listed("nih", tmp_path, validation_share=0.5)
    assert rejects_of(entries) == [("images/x.png", "image in neither official split list")]
    assert {pair.source_id for pair in pairs_of(entries) if pair.split == "test"} == set(test)
    patients = {s: {p.patient for p in pairs_of(entries) if p.split == s} for s in ("train", "validation")}
    assert not patients["train"] & patients["validation"]
    assert 12 <= len(patients["validation"]) <= 37  # 49 patients at one half, within 3.5 standard errors


def test_nih_with_one_official_list_alone_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"Data_Entry_2017.csv": NIH_HEADER + nih_row("a.png"), "a.png": "", "test_list.txt": ""})
    with pytest.raises(UsageError, match=r"has test_list.txt but not train_val_list.txt"):
        listed("nih", tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no Data_Entry_2017_v2020.csv or Data_Entry_2017.csv there"),
        ({"Data_Entry_2017.csv": NIH_HEADER}, "no rows"),
        ({"Data_Entry_2017.csv": ""}, "no rows"),
        ({"Data_Entry_2017.csv": "Image Index,Patient ID\na.png,1\n"}, "missing columns 'Finding Labels', 'Follow"),
    ],
)
def test_nih_folder_that_is_none_is_refused_in_one_line(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        listed("nih", write(tmp_path, files))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


SYNTHETIC = table(
    [
        {
            "path": "images/p1.png",
            "report": '"FINDINGS: Clear, both."',
            "patient_id": "P1",
            "study_id": "S1",
            "view": "pa",
            "sex": "F",
            "age": "61.0",
            "Edema": "0",
            "Mass": "-1",
            "No Finding": "1",
            "defect": "",
        },
        {
            "path": "images/p2.png",
            "report": "",
            "patient_id": "P2",
            "study_id": "S2",
            "view": "",
            "sex": "",
            "age": "",
            "Edema": "1.0",
            "Mass": "",
            "No Finding": "0",
            "defect": "truncated",
        },
    ]
)


def synthetic(root: Path, csv_text: str = SYNTHETIC) -> Path:
    names = ("images/p1.png", "images/p2.png", "masks/p1__lungs.png", "masks/p1__left_lung.png", "masks/q.png")
    return write(root, {"pairs.csv": csv_text, **dict.fromkeys(names, "")})


def test_folder_of_the_synthetic_layout_gives_pairs_with_labels_and_masks(tmp_path: Path) -> None:
    assert listed("folder", synthetic(tmp_path), dataset="synthetic") == [
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
    assert all(not pair.masks for pair in pairs_of(listed("folder", synthetic(tmp_path), masks=None)))


def test_folder_with_named_columns_reads_those(tmp_path: Path) -> None:
    text = "file,text,who,set,left,right\na.png,Clear.,7,VAL,1,u\n"
    write(tmp_path, {"list.csv": text, "other.csv": "x\n1\n", "a.png": ""})
    options = {"path": "file", "report": "text", "patient_id": "who", "split": "set", "labels": ["right"]}
    pair = pairs_of(listed("folder", tmp_path, csv="list.csv", **options))[0]
    assert (pair.image, pair.report, pair.patient, pair.split) == ("a.png", "Clear.", "7", "validation")
    assert pair.labels == {"right": None}


def test_folder_with_findings_and_impression_columns_joins_them_under_headers(tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": "path,findings,impression\na.png,Clear.,Normal.\n", "a.png": ""})
    pair = pairs_of(listed("folder", tmp_path))[0]
    assert pair.report == "FINDINGS: Clear.\nIMPRESSION: Normal."


def test_folder_without_patient_ids_makes_each_image_its_own_patient(tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": "path,report\na.png,Clear.\nb.png,Clear.\n", "a.png": "", "b.png": ""})
    assert [(p.patient, p.study) for p in pairs_of(listed("folder", tmp_path))] == [
        ("a.png", "a.png"),
        ("b.png", "b.png"),
    ]


@pytest.mark.parametrize(
    "path",
    ["../secret.png", "images/../../secret.png", "/etc/secret.png", "C:\\a.png", "..\\secret.png", "s3://b/a.png"],
)
def test_folder_path_that_leaves_the_root_is_rejected(tmp_path: Path, path: str) -> None:
    write(tmp_path, {"secret.png": "", "data/images/a.png": "", "data/a.csv": f"path,report\n{path},Clear.\n"})
    rejects = [(path, "path outside the root"), ("images/a.png", "image without a row")]
    assert rejects_of(listed("folder", tmp_path / "data")) == rejects


def test_folder_rows_that_are_no_pairs_are_rejected_with_their_reason(tmp_path: Path) -> None:
    rows = ["images/a.png,Clear.,1", ".\\images\\a.png,Clear.,1", "gone.png,Clear.,1", ",Clear.,1", "images/b.png,,u"]
    text = "path,report,Edema\n" + "\n".join(rows)
    write(tmp_path, {"a.csv": text, "images/a.png": "", "images/b.png": ""})
    entries = listed("folder", tmp_path)
    assert [pair.image for pair in pairs_of(entries)] == ["images/a.png"]
    assert rejects_of(entries) == [
        ("images/a.png", "duplicate row"),
        ("gone.png", "image file missing"),
        ("", "image file missing"),
        ("images/b.png", "no report and no labels"),
    ]


def test_folder_columns_of_text_numbers_or_nothing_are_no_labels(tmp_path: Path) -> None:
    text = "path,Edema,note,count,empty,doubt\na.png,1,ok,3,,-1\nb.png,,,0,,u\nc.png,0.0,,1,,\n"
    write(tmp_path, {"a.csv": text, **dict.fromkeys(("a.png", "b.png", "c.png"), "")})
    assert pairs_of(listed("folder", tmp_path))[0].labels == {"Edema": True, "doubt": None}
    assert [path for path, _ in rejects_of(listed("folder", tmp_path))] == ["b.png"]


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
        listed("folder", write(tmp_path, files), **options)
    assert "\n" not in str(caught.value)


def test_folder_with_masks_for_two_images_of_one_name_is_refused(tmp_path: Path) -> None:
    csv_text = "path,report\na/p1.png,Clear.\nb/p1.png,Clear.\n"
    write(tmp_path, {"a/p1.png": "", "b/p1.png": ""})
    with pytest.raises(ChexrayError, match="masks of 'p1', but 2 images"):
        listed("folder", synthetic(tmp_path, csv_text))


@pytest.mark.parametrize("adapter", ["folder", "nih"])
def test_adapter_without_its_root_says_which_folder(tmp_path: Path, adapter: str) -> None:
    with pytest.raises(UsageError, match=r"gone: no such dataset folder"):
        listed(adapter, tmp_path / "gone")


def test_open_adapter_with_unknown_name_or_option_lists_the_known() -> None:
    with pytest.raises(UsageError, match=f"'mimic' is not known; known: {', '.join(ADAPTERS)}"):
        open_adapter("mimic", "x")
    with pytest.raises(UsageError, match="no option 'speed'; it has validation_share, seed"):
        open_adapter("nih", "x", speed=1)


@pytest.mark.parametrize(
    ("data", "text", "encoding"),
    [
        ("name\ncorazón\n".encode("utf-8-sig"), "corazón", "utf-8"),
        ("name\ncorazón\n".encode("latin-1"), "corazón", "latin-1"),
        (b'name\r\n"two\r\nlines"\r\n', "two\r\nlines", "utf-8"),
    ],
)
def test_read_table_in_either_encoding_keeps_accents_and_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes, text: str, encoding: str
) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    with caplog.at_level(logging.WARNING):
        found = read_table(str(tmp_path / "a.csv"))
    assert (found.rows[0]["name"], found.columns, found.encoding) == (text, ("name",), encoding)
    assert ("read as Latin-1" in caplog.text) == (encoding == "latin-1")


def test_folder_image_without_a_row_is_rejected_and_masks_are_not(tmp_path: Path) -> None:
    for name in ("a.png", "stray.JPG", "notes.txt", "masks/a__lungs.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "list.csv").write_text("path,report\na.png,No finding.\n")
    assert rejects_of(listed("folder", tmp_path)) == [("stray.JPG", "image without a row")]
