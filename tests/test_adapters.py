"""NIH, in folders written by hand and the real one; what all adapters share: names, roots, tables."""

import csv
import logging
import re
from collections import Counter
from pathlib import Path

import pytest
from dataset_files import list_folder, pairs_of, rejects_of, write_files

from chexray.platform.corpus.adapters import ADAPTERS, adapter_class, open_adapter
from chexray.platform.corpus.adapters.nih import FINDINGS
from chexray.platform.corpus.adapters.table import read_table
from chexray.platform.corpus.schema import SourcePair
from chexray.platform.errors import UsageError

NIH = Path(__file__).parents[2] / "shared" / "data" / "nih"
NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
)


def nih_row(image: str, labels: str = "Edema", patient: str = "1", age: str = "50") -> str:
    return f"{image},{labels},3,{patient},{age},F,PA,2500,2048,0.1,0.1,\n"


@pytest.mark.skipif(not NIH.is_dir(), reason="needs shared/data/nih")
def test_nih_real_folder_gives_every_row_as_a_pair() -> None:
    pairs = list_folder("nih", NIH)
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
    write_files(tmp_path, {"Data_Entry_2017.csv": csv_text, "images_002/images/00000001_003.png": ""})
    labels = dict.fromkeys((*FINDINGS, "No Finding"), False) | {"Edema": True, "Pleural_Thickening": True}
    assert list_folder("nih", tmp_path) == [
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
    write_files(tmp_path, {"Data_Entry_2017.csv": NIH_HEADER + nih_row("a.png", age=text), "a.png": ""})
    assert pairs_of(list_folder("nih", tmp_path))[0].age_years == age


def test_nih_rows_and_images_without_each_other_are_rejected(tmp_path: Path) -> None:
    rows = [nih_row("a.png"), nih_row("a.png"), nih_row("gone.png"), nih_row("b.png", "Cough")]
    csv_text = NIH_HEADER + "".join(rows)
    images = {"images/a.png": "", "images/b.png": "", "images/more.png": "", "other/a.png": ""}
    write_files(tmp_path, {"Data_Entry_2017_v2020.csv": csv_text, **images})
    entries = list_folder("nih", tmp_path)
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
    write_files(tmp_path, files | {f"images/{name}": "" for name in [*names, "x.png"]})
    entries = list_folder("nih", tmp_path, validation_share=0.5)
    assert rejects_of(entries) == [("images/x.png", "image in neither official split list")]
    assert {pair.source_id for pair in pairs_of(entries) if pair.split == "test"} == set(test)
    patients = {s: {p.patient for p in pairs_of(entries) if p.split == s} for s in ("train", "validation")}
    assert not patients["train"] & patients["validation"]
    assert 12 <= len(patients["validation"]) <= 37  # 49 patients at one half, within 3.5 standard errors


def test_nih_with_one_official_list_alone_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path, {"Data_Entry_2017.csv": NIH_HEADER + nih_row("a.png"), "a.png": "", "test_list.txt": ""})
    with pytest.raises(UsageError, match=r"has test_list.txt but not train_val_list.txt"):
        list_folder("nih", tmp_path)


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
        list_folder("nih", write_files(tmp_path, files))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("adapter", ["folder", "nih"])
def test_adapter_without_its_root_says_which_folder(tmp_path: Path, adapter: str) -> None:
    with pytest.raises(UsageError, match=r"gone: no such dataset folder"):
        list_folder(adapter, tmp_path / "gone")


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter_is_listed_under_its_own_name(name: str) -> None:
    assert adapter_class(name)("x").name == name


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
    assert (found.rows[0]["name"], found.columns) == (text, ("name",))
    assert ("read as Latin-1" in caplog.text) == (encoding == "latin-1")
