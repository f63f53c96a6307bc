"""CheXpert's four releases: all 223,414 real rows, and folders written by hand."""

import gzip
import json
import re
from collections import Counter
from typing import Any

import pandas as pd
import pytest
from dataset_files import Entry, MemoryDataset, label_file, list_dataset, pairs_of, rejects_of

from chexray.platform.corpus.adapters.cells import CHEXPERT_FINDINGS
from chexray.platform.corpus.adapters.chexpert import FIVE_FINDINGS
from chexray.platform.corpus.reports import split_sections
from chexray.platform.corpus.schema import Reject, SourcePair
from chexray.platform.errors import ChexrayError, UsageError

HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(CHEXPERT_FINDINGS)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(label_file("chexpert_train.csv.gz"), dtype=str, keep_default_na=False)


@pytest.fixture(scope="module")
def entries(table: pd.DataFrame) -> list[Entry]:
    files: dict[str, bytes | str] = {"train.csv.gz": label_file("chexpert_train.csv.gz").read_bytes()}
    return list_dataset("chexpert", files, table.Path.str.removeprefix("CheXpert-v1.0-small/"))


def row(path: str, *cells: str, **labels: str) -> str:
    return ",".join([path, *cells, *(labels.get(name.replace(" ", "_"), "") for name in CHEXPERT_FINDINGS)])


def test_chexpert_real_rows_are_all_pairs_of_the_published_patients(entries: list[Entry], table: pd.DataFrame) -> None:
    pairs = pairs_of(entries)
    assert len(entries) == len(pairs) == len(table) == 223_414
    assert len({pair.source_id for pair in pairs}) == 223_414
    assert len({pair.patient for pair in pairs}) == 64_540
    assert len({pair.study for pair in pairs}) == table.Path.str.rsplit("/", n=1).str[0].nunique() == 187_641
    assert {pair.split for pair in pairs} == {"train"}
    assert {pair.cohort for pair in pairs} == {"chexpert"}
    assert [pair.image for pair in pairs] == table.Path.str.removeprefix("CheXpert-v1.0-small/").tolist()


def test_chexpert_real_labels_count_as_pandas_counts_them(entries: list[Entry], table: pd.DataFrame) -> None:
    values = {name: Counter(pair.labels[name] for pair in pairs_of(entries)) for name in CHEXPERT_FINDINGS}
    for name, counted in values.items():
        cells = table[name].value_counts()
        unknown = cells.get("", 0) + cells.get("-1.0", 0)
        assert (counted[True], counted[False], counted[None]) == (cells["1.0"], cells.get("0.0", 0), unknown)
    known = table[list(CHEXPERT_FINDINGS)].isin(["0.0", "1.0"]).any(axis=1)
    assert sum(not {*pair.labels.values()} - {None} for pair in pairs_of(entries)) == (~known).sum() == 2_560


def test_chexpert_real_views_sexes_and_ages_are_those_of_the_table(entries: list[Entry], table: pd.DataFrame) -> None:
    pairs = pairs_of(entries)
    views = {"AP": 161_590, "PA": 29_420, "LATERAL": 32_387, None: 17}
    assert Counter(pair.view for pair in pairs) == views
    assert Counter(pair.sex for pair in pairs) == {"M": 132_636, "F": 90_777, None: 1}
    assert [pair.age_years for pair in pairs] == [float(age) or None for age in table.Age]


def test_chexpert_row_becomes_a_pair_with_all_its_fields(folder: MemoryDataset) -> None:
    path = "CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg"
    cells = row(path, "Female", "87", "Frontal", "AP", Edema="-1.0", Pneumonia="0.0", Fracture="1.0")
    folder.write("train.csv", f"{HEADER}\n{cells}\n")
    folder.add_images(["train/patient00002/study2/view1_frontal.jpg"])
    labels = dict.fromkeys(CHEXPERT_FINDINGS) | {"Pneumonia": False, "Fracture": True}
    assert folder.listed("chexpert") == [
        SourcePair(
            dataset="chexpert",
            source_id="patient00002/study2/view1_frontal",
            image="train/patient00002/study2/view1_frontal.jpg",
            patient="patient00002",
            study="patient00002/study2",
            view="AP",
            split="train",
            sex="F",
            age_years=87.0,
            labels=labels,
            cohort="chexpert",
        )
    ]


def test_chexpert_with_valid_csv_has_it_as_validation_and_rejects_what_is_no_pair(folder: MemoryDataset) -> None:
    rows = [
        row("CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg", "Male", "0", "Frontal", "LL"),
        row("CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg", "Male", "0", "Frontal", "LL"),
        row("CheXpert-v1.0/train/patient00001/study1/view2_lateral.jpg", "Male", "61", "Lateral", ""),
        row("CheXpert-v1.0/train/patient00001/study2/view1_frontal.jpg", "Male", "61", "Frontal", "PA"),
        row("../other.jpg", "Male", "61", "Frontal", "PA"),
    ]
    folder.write("train.csv", "\n".join([HEADER, *rows]))
    valid = row("CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg", "Female", "73", "Frontal", "AP", Edema="1")
    folder.write("valid.csv", f"{HEADER}\n{valid}")
    images = ["view1_frontal.png", "view2_lateral.png"]
    # The download's parts leave the folder `train` out.
    folder.add_images(f"CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/{name}" for name in images)
    folder.add_images(["valid/patient64541/study1/view1_frontal.jpg"])
    entries = folder.listed("chexpert")
    assert [(pair.view, pair.split, pair.age_years) for pair in pairs_of(entries)] == [
        (None, "train", None),
        ("LATERAL", "train", 61.0),
        ("AP", "validation", 73.0),
    ]
    assert rejects_of(entries) == [
        ("CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/view1_frontal.png", "duplicate row"),
        ("CheXpert-v1.0/train/patient00001/study2/view1_frontal.jpg", "image file missing"),
        ("../other.jpg", "path not known"),
    ]


def plus(**cells: str) -> dict[str, str]:
    blank = dict.fromkeys(("section_narrative", "section_findings", "section_impression", "report"), "")
    names = {"frontal_lateral": "Frontal", "ap_pa": "PA", "age": "46.0", "sex": "Female", "split": "train"}
    return {"deid_patient_id": "patient1", "race": "White", **blank, **names, **cells}


def write_plus(folder: MemoryDataset, rows: list[dict[str, str]]) -> None:
    folder.write("df_chexpert_plus_240401.csv", pd.DataFrame(rows).to_csv(index=False))


def test_chexpert_plus_reads_sections_else_the_whole_report(folder: MemoryDataset) -> None:
    view = "patient00007/study{}/view1_frontal"
    texts = [
        {
            "section_findings": "Clear lungs.\n\nNo effusion.",
            "section_impression": "1. Normal.",
            "report": "NARRATIVE: x",
        },
        {"section_impression": "1. Stable.", "report": "NARRATIVE: x"},
        {"report": "NARRATIVE:\nCLINICAL HISTORY: 40-year-old.\nIMPRESSION: 1. Worse."},
        {},
    ]
    rows = [plus(path_to_image=f"train/{view.format(n)}.jpg", **text) for n, text in enumerate(texts)]
    write_plus(folder, rows)
    folder.add_images(f"PNG/train/{view.format(n)}.png" for n in range(4))
    pairs = pairs_of(folder.listed("chexpert-plus"))
    assert [pair.image for pair in pairs] == [f"PNG/train/{view.format(n)}.png" for n in range(4)]
    assert (pairs[0].patient, pairs[0].study, pairs[0].cohort) == ("patient00007", "patient00007/study0", "chexpert")
    assert (pairs[0].view, pairs[0].sex, pairs[0].age_years, pairs[0].split) == ("PA", "F", 46.0, "train")
    sections = [split_sections(pair.report or "") for pair in pairs]
    assert (sections[0].findings, sections[0].impression) == ("Clear lungs. No effusion.", "1. Normal.")
    assert (sections[1].findings, sections[1].impression) == (None, "1. Stable.")
    assert (sections[2].findings, sections[2].impression) == (None, "1. Worse.")
    assert pairs[3].report is None


def test_chexpert_plus_takes_the_format_that_is_asked_for_where_both_are_there(folder: MemoryDataset) -> None:
    views = [f"patient0000{n}/study1/view1_frontal" for n in range(3)]
    write_plus(
        folder,
        [plus(path_to_image=f"train/{view}.jpg", split="valid") for view in [*views, "patient9/study1/view1_lateral"]],
    )
    folder.add_images(
        [f"PNG/train/{views[0]}.png", f"DICOM/{views[0]}.dcm", f"DICOM/{views[1]}.dcm", f"PNG/train/{views[2]}.png"]
    )
    for images, first in (("raster", f"PNG/train/{views[0]}.png"), ("dicom", f"DICOM/{views[0]}.dcm")):
        entries = folder.listed("chexpert-plus", images=images)
        assert [pair.image for pair in pairs_of(entries)] == [
            first,
            f"DICOM/{views[1]}.dcm",
            f"PNG/train/{views[2]}.png",
        ]
        assert {pair.split for pair in pairs_of(entries)} == {"validation"}
        assert rejects_of(entries) == [("train/patient9/study1/view1_lateral.jpg", "image file missing")]


def test_chexpert_plus_labels_are_those_of_the_section_unless_it_is_empty(folder: MemoryDataset) -> None:
    paths = [f"train/patient0000{n}/study1/view1_frontal.jpg" for n in range(3)]
    texts = ["1. Edema.", "", "1. Clear."]
    write_plus(
        folder, [plus(path_to_image=p, section_impression=t, report="x") for p, t in zip(paths, texts, strict=True)]
    )
    folder.add_images(paths)
    lines: list[dict[str, Any]] = [
        {"path_to_image": path, **dict.fromkeys(CHEXPERT_FINDINGS), "Edema": value, "No Finding": none}
        for path, value, none in ((paths[0], 1.0, None), (paths[1], None, 1.0), (paths[2], -1.0, 0.0))
    ]
    folder.write("chexbert_labels/impression_fixed.json", "\n".join(json.dumps(line) for line in lines) + "\n")
    labels = [pair.labels for pair in pairs_of(folder.listed("chexpert-plus"))]
    unknown = dict.fromkeys(CHEXPERT_FINDINGS)
    assert labels == [unknown | {"Edema": True}, {}, unknown | {"No Finding": False}]
    assert [pair.labels for pair in pairs_of(folder.listed("chexpert-plus", labels="report"))] == [{}, {}, {}]


@pytest.mark.parametrize("line", ["[]", "{}", '{"path_to_image": "a"}', "no json", '{"path_to_image": 1}'])
def test_chexpert_plus_labels_that_are_none_are_refused_with_their_line(folder: MemoryDataset, line: str) -> None:
    write_plus(folder, [plus(path_to_image="train/patient1/study1/view1_frontal.jpg")])
    folder.write("labels/impression_fixed.json", f"\n{line}\n")
    with pytest.raises(ChexrayError, match=r"impression_fixed.json, line 2: not the labels"):
        folder.listed("chexpert-plus")


def test_chexpert_plus_with_unknown_split_or_option_says_so(folder: MemoryDataset) -> None:
    path = "train/patient1/study1/view1_frontal.jpg"
    write_plus(folder, [plus(path_to_image=path, split="holdout")])
    folder.add_images([path])
    assert folder.listed("chexpert-plus") == [Reject(path, "split not known", "'holdout'")]
    for option in ("images", "labels"):
        with pytest.raises(UsageError, match=f"{option}='x': allowed: "):
            folder.listed("chexpert-plus", **{option: "x"})


TEST_STUDIES = "CheXpert-v1.0/test/patient6474{}/study1"


@pytest.mark.parametrize("by_image", [False, True])
def test_chexpert_test_takes_the_first_frontal_view_of_each_study(folder: MemoryDataset, by_image: bool) -> None:
    columns = ",".join(CHEXPERT_FINDINGS)
    labels = ["1" if name == "Edema" else "0" for name in CHEXPERT_FINDINGS]
    if by_image:
        paths = [
            f"test/patient6474{n}/study1/{view}.jpg" for n in (1, 2, 3) for view in ("view1_frontal", "view2_lateral")
        ]
        folder.write("test_labels.csv", "\n".join([f"Path,{columns}", *(",".join([p, *labels]) for p in paths)]))
    else:
        rows = [",".join([TEST_STUDIES.format(n), *labels]) for n in (1, 2, 3)]
        folder.write("groundtruth.csv", "\n".join([f"Study,{columns}", *rows]))
    there = {1: ["view10_frontal", "view2_frontal", "view1_lateral"], 2: ["view1_frontal"], 3: ["view1_lateral"]}
    folder.add_images(f"test/patient6474{n}/study1/{view}.jpg" for n, names in there.items() for view in names)
    entries = folder.listed("chexpert-test")
    assert [(pair.source_id, pair.image, pair.patient, pair.split) for pair in pairs_of(entries)] == [
        ("patient64741/study1", "test/patient64741/study1/view2_frontal.jpg", "patient64741", "test"),
        ("patient64742/study1", "test/patient64742/study1/view1_frontal.jpg", "patient64742", "test"),
    ]
    assert pairs_of(entries)[0].labels == {name: name == "Edema" for name in CHEXPERT_FINDINGS}
    assert rejects_of(entries) == [("patient64743/study1", "image file missing")]


def five(path: str, *present: str, report: str | None = None) -> str:
    cells = [path, *("1" if name in present else "0" for name in FIVE_FINDINGS)]
    return ",".join([*cells, *([f'"{report}"'] if report is not None else [])])


def test_chexpert_5x200_has_one_finding_an_image_and_reports_where_the_file_has_them(folder: MemoryDataset) -> None:
    paths = [f"CheXpert-v1.0/train/patient0000{n}/study1/view1_frontal.jpg" for n in range(4)]
    header = f"Path,{','.join(FIVE_FINDINGS)}"
    folder.add_images(paths[:3])
    rows = [
        five(paths[0], "Edema", report="1. Pulmonary\nedema."),
        five(paths[1], "Edema", "Atelectasis", report="x"),
        five(paths[2], report="x"),
        five(paths[3], "Edema", report="x"),
    ]
    folder.write("chexpert_5x200.csv", "\n".join([f"{header},Report Impression", *rows]))
    entries = folder.listed("chexpert-5x200")
    (pair,) = pairs_of(entries)
    assert pair.labels == {name: name == "Edema" for name in FIVE_FINDINGS}
    assert (pair.split, pair.patient, pair.cohort) == ("test", "patient00000", "chexpert")
    assert split_sections(pair.report or "").impression == "1. Pulmonary edema."
    unclear = "not exactly one of the five findings"
    assert rejects_of(entries) == [(paths[1], unclear), (paths[2], unclear), (paths[3], "image file missing")]
    folder.write("chexpert_5x200.csv", "\n".join([header, five(paths[0], "Edema")]))
    assert pairs_of(folder.listed("chexpert-5x200"))[0].report is None


@pytest.mark.parametrize(
    ("adapter", "files", "message"),
    [
        ("chexpert", {}, "no train.csv or train.csv.gz there"),
        ("chexpert", {"train.csv": "Path,Sex\na,b\n"}, "missing columns 'Age', 'Frontal/Lateral'"),
        ("chexpert-plus", {}, "no df_chexpert_plus_240401.csv there"),
        ("chexpert-plus", {"df_chexpert_plus_240401.csv": "path_to_image\na\n"}, "missing columns 'frontal_lateral'"),
        ("chexpert-test", {}, "no groundtruth.csv or test_labels.csv there"),
        (
            "chexpert-5x200",
            {"chexpert_5x200.csv": "Path,Edema\na,1\n"},
            "missing columns 'Atelectasis'",
        ),
    ],
)
def test_chexpert_folder_without_its_table_or_columns_is_refused(
    folder: MemoryDataset, adapter: str, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        folder.write(name, text)
    with pytest.raises(UsageError, match=re.escape(message)):
        folder.listed(adapter)


def test_chexpert_label_that_is_no_label_is_refused_with_its_row(folder: MemoryDataset) -> None:
    path = "train/patient1/study1/view1_frontal.jpg"
    folder.write(
        "train.csv.gz", gzip.compress(f"{HEADER}\n{row(path, 'Male', '50', 'Frontal', 'AP', Edema='2')}".encode())
    )
    folder.add_images([path])
    with pytest.raises(UsageError, match=r"train.csv.gz, row 1: Edema is '2'"):
        folder.listed("chexpert")
