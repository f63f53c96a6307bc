"""PadChest: all 160,861 real rows against counts by pandas, and folders written by hand."""

import ast
from collections import Counter

import pandas as pd
import pytest
from dataset_files import Entry, MemoryDataset, label_file, list_dataset, pairs_of, rejects_of

from chexray.platform.corpus.adapters.padchest import CSV_NAME
from chexray.platform.errors import UsageError


@pytest.fixture(scope="module")
def padchest_table() -> pd.DataFrame:
    columns = ["ImageID", "ImageDir", "PatientID", "StudyID", "Projection", "Report", "MethodLabel", "Labels"]
    return pd.read_csv(label_file(f"{CSV_NAME}.gz"), dtype=str, keep_default_na=False, usecols=columns)


@pytest.fixture(scope="module")
def padchest(padchest_table: pd.DataFrame) -> list[Entry]:
    files: dict[str, bytes | str] = {f"{CSV_NAME}.gz": label_file(f"{CSV_NAME}.gz").read_bytes()}
    return list_dataset("padchest", files, padchest_table.ImageDir + "/" + padchest_table.ImageID)


@pytest.fixture(scope="module")
def padchest_names(padchest_table: pd.DataFrame) -> pd.Series:
    """The labels of each image, '' left out."""
    cells = {cell: set(ast.literal_eval(cell)) if cell != "nan" else set() for cell in padchest_table.Labels.unique()}
    names = padchest_table.Labels.map(lambda cell: frozenset(name.strip() for name in cells[cell]) - {""})
    return names.set_axis(padchest_table.ImageID)


def test_padchest_real_rows_are_all_pairs_but_for_ribs_and_what_is_excluded(
    padchest: list[Entry], padchest_table: pd.DataFrame, padchest_names: pd.Series
) -> None:
    assert len(padchest) == len(padchest_table) == 160_861
    assert padchest_table.PatientID.nunique() == 67_625
    ribs = padchest_table.Projection.isin(["COSTAL", "EXCLUDE"]).to_numpy()
    excluded = padchest_names.map(lambda names: "exclude" in names).to_numpy()
    reasons = Counter(reason for _, reason in rejects_of(padchest))
    assert reasons == {"not a chest": 641, "excluded by the dataset": 1_301}
    assert (ribs.sum(), (excluded & ~ribs).sum()) == (641, 1_301)
    kept = padchest_table[~ribs & ~excluded]
    pairs = pairs_of(padchest)
    assert [pair.source_id for pair in pairs] == kept.ImageID.tolist()
    assert [pair.patient for pair in pairs] == kept.PatientID.tolist()
    assert [pair.image for pair in pairs] == (kept.ImageDir + "/" + kept.ImageID).tolist()
    views = Counter(kept.Projection)
    frontal = {"PA": views["PA"], "AP": views["AP"] + views["AP_horizontal"]}
    expected = {**frontal, "LATERAL": views["L"], None: views["UNK"]}
    assert Counter(pair.view for pair in pairs) == expected
    assert sum(pair.report is None for pair in pairs) == kept.Report.str.strip().isin(["", "nan"]).sum() == 116
    assert {pair.language for pair in pairs} == {"es"}
    assert {pair.split for pair in pairs} == {None}


def test_padchest_real_labels_count_as_pandas_counts_them(padchest: list[Entry], padchest_names: pd.Series) -> None:
    pairs = pairs_of(padchest)
    names = padchest_names[[pair.source_id for pair in pairs]]
    expected = Counter(name for listed in names for name in listed)
    # Pairs of one cell share their labels: counted together, 160,000 dictionaries are 23,000.
    shared = {id(pair.labels): pair.labels for pair in pairs}
    present: Counter[str] = Counter()
    for key, count in Counter(id(pair.labels) for pair in pairs).items():
        present.update({name: count for name, value in shared[key].items() if value})
    unsure_names = {"unchanged", "suboptimal study"}
    others = {"normal", *unsure_names}
    findings = expected.keys() - others
    assert len(findings) == 189
    assert {name: present[name] for name in findings} == {name: expected[name] for name in findings}
    normal = sum("normal" in listed and not listed - others for listed in names)
    assert present["No Finding"] == normal
    assert sum(not pair.labels for pair in pairs) == sum(not listed for listed in names)
    unsure = [bool(listed & unsure_names) and not ("normal" in listed and listed <= others) for listed in names]
    for pair, is_unsure in list(zip(pairs, unsure, strict=True))[::50]:
        absent = {value for name, value in pair.labels.items() if value is not True and name != "No Finding"}
        assert absent <= ({None} if is_unsure else {False})


def test_padchest_first_real_rows_have_their_fields(padchest: list[Entry]) -> None:
    first, second = pairs_of(padchest)[:2]
    assert (first.view, first.sex, first.age_years) == ("PA", "F", 84.0)
    assert first.report == "sin hallazg patolog edad pacient ."
    assert (first.labels["No Finding"], first.labels["pneumonia"]) == (True, False)
    assert (second.view, second.sex, second.age_years) == ("LATERAL", "M", 86.0)
    assert {name for name, value in second.labels.items() if value} == {
        "pulmonary fibrosis",
        "chronic changes",
        "kyphosis",
        "pseudonodule",
        "ground glass pattern",
    }
    assert not {"normal", "unchanged", "exclude", "suboptimal study", ""} & second.labels.keys()


def padchest_row(image: str, **cells: str) -> dict[str, str]:
    named = {"StudyID": "7", "PatientID": "9", "PatientBirth": "1930.0", "PatientSex_DICOM": "M", "Projection": "PA"}
    text = {"Report": "sin hallazg .", "MethodLabel": "Physician", "Labels": "['pneumonia']"}
    return {"ImageID": image, "StudyDate_DICOM": "20140915", **named, **text, **cells}


def write_padchest(folder: MemoryDataset, *rows: dict[str, str]) -> None:
    folder.write(CSV_NAME, pd.DataFrame(rows).to_csv(index=False))
    folder.add_images(f"images/{row['ImageID']}" for row in rows)


@pytest.mark.parametrize(
    ("labels", "pneumonia", "normal"),
    [
        ("['pneumonia']", True, False),
        ("['kyphosis']", False, False),
        ("['normal']", False, True),
        ("['normal', 'unchanged']", False, True),
        ("['normal', ' pneumonia']", True, False),
        ("['unchanged']", None, None),
        ("['suboptimal study', 'kyphosis']", None, False),
    ],
)
def test_padchest_labels_say_absent_only_where_the_report_would_name_them(
    folder: MemoryDataset, labels: str, pneumonia: bool | None, normal: bool | None
) -> None:
    write_padchest(folder, padchest_row("a.png", Labels=labels), padchest_row("b.png"))
    pair = pairs_of(folder.listed("padchest"))[0]
    assert (pair.labels["pneumonia"], pair.labels["No Finding"]) == (pneumonia, normal)


@pytest.mark.parametrize("labels", ["", "nan", "['']", "[]"])
def test_padchest_without_labels_knows_nothing(folder: MemoryDataset, labels: str) -> None:
    write_padchest(folder, padchest_row("a.png", Labels=labels))
    assert pairs_of(folder.listed("padchest"))[0].labels == {}


@pytest.mark.parametrize(
    "labels",
    ["normal", "['normal'", "{'a': 1}", "['a', 1]", "__import__('os').getcwd()", "[" * 500, "'normal'", "[['a']]"],
)
def test_padchest_labels_that_are_no_list_of_texts_are_rejected(folder: MemoryDataset, labels: str) -> None:
    write_padchest(folder, padchest_row("a.png", Labels=labels))
    assert rejects_of(folder.listed("padchest")) == [("images/a.png", "labels not readable")]


@pytest.mark.parametrize(
    ("date", "birth", "age"),
    [
        ("20140915", "1930.0", 84.0),
        ("20140915", "2014", 0.0),
        ("20140915", "", None),
        ("", "1930.0", None),
        ("20140915", "2015.0", None),
        ("20140915", "1880.0", None),
        ("20140915", "unknown", None),
    ],
)
def test_padchest_age_is_the_difference_of_two_years(
    folder: MemoryDataset, date: str, birth: str, age: float | None
) -> None:
    write_padchest(folder, padchest_row("a.png", StudyDate_DICOM=date, PatientBirth=birth))
    assert pairs_of(folder.listed("padchest"))[0].age_years == age


def test_padchest_rows_and_images_that_are_no_pairs_are_rejected_with_their_reason(folder: MemoryDataset) -> None:
    rows = [
        padchest_row("a.png", Projection="COSTAL"),
        padchest_row("b.png", Projection="OBLIQUE"),
        padchest_row("c.png", Labels="['exclude', 'normal']"),
        padchest_row("d.png", MethodLabel="RNN_model", PatientSex_DICOM="O", Report="nan"),
    ]
    write_padchest(folder, *rows)
    folder.write(CSV_NAME, pd.DataFrame([*rows, rows[3], padchest_row("gone.png")]).to_csv(index=False))
    folder.add_images(["more/stray.png"])
    entries = folder.listed("padchest")
    (pair,) = pairs_of(entries)
    assert (pair.image, pair.sex, pair.report) == ("images/d.png", None, None)
    assert rejects_of(entries) == [
        ("images/a.png", "not a chest"),
        ("images/b.png", "projection not known"),
        ("images/c.png", "excluded by the dataset"),
        ("images/d.png", "duplicate row"),
        ("gone.png", "image file missing"),
        ("more/stray.png", "image without a row"),
    ]
    assert pairs_of(folder.listed("padchest", reviewed_only=True)) == []


def test_padchest_without_its_table_is_refused(folder: MemoryDataset) -> None:
    with pytest.raises(UsageError, match=f"no {CSV_NAME} or {CSV_NAME}.gz there"):
        folder.listed("padchest")
