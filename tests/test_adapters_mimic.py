"""MIMIC-CXR, as JPEG and as DICOM: folders in the published layout and the pairs that they hold, written by hand."""

import gzip
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dataset_files import Entry, list_folder, write_files

from chexray.platform.corpus.adapters.cells import CHEXPERT_FINDINGS
from chexray.platform.corpus.adapters.mimic import MimicCxrDicomAdapter, MimicCxrJpgAdapter
from chexray.platform.corpus.schema import Reject, SourcePair
from chexray.platform.errors import UsageError

METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns\n"
    "02aa,10000032,50414267,CHEST (PA AND LAT),PA,3056,2544\n"
    "174f,10000032,50414267,CHEST (PA AND LAT),LATERAL,3056,2544\n"
    "2a2d,10000032,53189527,CHEST (PORTABLE AP),AP,3056,2544\n"
    "e084,10000764,57375967,CHEST (PORTABLE AP),,3056,2544\n"
    "ffff,11000001,51111111,CHEST,LL,10,10\n"
)
SPLIT = (
    "dicom_id,study_id,subject_id,split\n"
    "02aa,50414267,10000032,train\n174f,50414267,10000032,train\n2a2d,53189527,10000032,train\n"
    "e084,57375967,10000764,validate\nffff,51111111,11000001,test\n"
)
LABELS = (
    f"subject_id,study_id,{','.join(CHEXPERT_FINDINGS)}\n"
    "10000032,50414267,1.0,0.0,-1.0,,,,,,,,,,,\n"
    "10000764,57375967,,,,,,,,,1.0,,,,,\n"
)
FILES = {
    "mimic-cxr-2.0.0-metadata.csv": METADATA,
    "mimic-cxr-2.0.0-split.csv": SPLIT,
    "mimic-cxr-2.0.0-chexpert.csv": LABELS,
    "files/p10/p10000032/s50414267/02aa.jpg": "",
    "files/p10/p10000032/s50414267/174f.jpg": "",
    "files/p10/p10000032/s53189527/2a2d.jpg": "",
    "files/p10/p10000764/s57375967/e084.jpg": "",
    "files/p11/p11000001/s51111111/ffff.jpg": "",
    "files/p10/p10000032/s50414267.txt": "FINDINGS: Clear.",
    "files/p10/p10000764/s57375967.txt": "FINDINGS: Clear.",
}
FIRST = SourcePair(
    dataset="mimic-cxr-jpg",
    source_id="02aa",
    image="files/p10/p10000032/s50414267/02aa.jpg",
    patient="10000032",
    study="50414267",
    view="PA",
    split="train",
    report_file="files/p10/p10000032/s50414267.txt",
    labels=dict.fromkeys(CHEXPERT_FINDINGS) | {"Atelectasis": True, "Cardiomegaly": False},
    cohort="mimic",
)
EXPECTED = [
    FIRST,
    replace(FIRST, source_id="174f", image="files/p10/p10000032/s50414267/174f.jpg", view="LATERAL"),
    SourcePair(
        dataset="mimic-cxr-jpg",
        source_id="2a2d",
        image="files/p10/p10000032/s53189527/2a2d.jpg",
        patient="10000032",
        study="53189527",
        view="AP",
        split="train",
        cohort="mimic",
    ),
    SourcePair(
        dataset="mimic-cxr-jpg",
        source_id="e084",
        image="files/p10/p10000764/s57375967/e084.jpg",
        patient="10000764",
        study="57375967",
        split="validation",
        report_file="files/p10/p10000764/s57375967.txt",
        labels=dict.fromkeys(CHEXPERT_FINDINGS) | {"No Finding": True},
        cohort="mimic",
    ),
    SourcePair(
        dataset="mimic-cxr-jpg",
        source_id="ffff",
        image="files/p11/p11000001/s51111111/ffff.jpg",
        patient="11000001",
        study="51111111",
        view="LATERAL",
        split="test",
        cohort="mimic",
    ),
]


def packed(files: dict[str, str]) -> dict[str, str | bytes]:
    return {
        f"{name}.gz" if name.endswith(".csv") else name: gzip.compress(text.encode()) if name.endswith(".csv") else text
        for name, text in files.items()
    }


def jpg(root: Path, files: Mapping[str, str | bytes], **options: Any) -> list[Entry]:
    return list_folder("mimic-cxr-jpg", write_files(root, files), **options)


@pytest.mark.parametrize("files", [FILES, packed(FILES)], ids=["plain", "packed"])
def test_mimic_jpg_rows_become_pairs_with_all_their_fields(tmp_path: Path, files: dict[str, str | bytes]) -> None:
    assert jpg(tmp_path, files) == EXPECTED


@pytest.mark.parametrize("folder", ["mimic-cxr-reports/", ""])
def test_mimic_jpg_reports_are_found_where_the_archive_was_unpacked(tmp_path: Path, folder: str) -> None:
    files = {f"{folder}{name}" if name.endswith(".txt") else name: text for name, text in FILES.items()}
    paths = [pair.report_file for pair in jpg(tmp_path, files) if isinstance(pair, SourcePair)]
    first, last = (f"{folder}files/p10/{name}.txt" for name in ("p10000032/s50414267", "p10000764/s57375967"))
    assert paths == [first, first, None, last, None]


def test_mimic_jpg_without_reports_warns_that_labels_stand_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        pairs = jpg(tmp_path, {name: text for name, text in FILES.items() if not name.endswith(".txt")})
    assert "no reports, so they are written from labels" in caplog.text
    assert [pair.report_file for pair in pairs if isinstance(pair, SourcePair)] == [None] * 5


def test_mimic_jpg_with_reports_does_not_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    jpg(tmp_path, FILES)
    assert caplog.text == ""


def test_mimic_jpg_labeller_negbio_reads_its_table(tmp_path: Path) -> None:
    row = "10000032,50414267" + ",0.0" * 14
    negbio = f"subject_id,study_id,{','.join(CHEXPERT_FINDINGS)}\n{row}\n"
    pairs = jpg(tmp_path, FILES | {"mimic-cxr-2.0.0-negbio.csv": negbio}, labeller="negbio")
    assert pairs[0] == replace(FIRST, labels=dict.fromkeys(CHEXPERT_FINDINGS, False))


def test_mimic_jpg_missing_extra_and_unsplit_images_are_rejected(tmp_path: Path) -> None:
    files = dict(FILES)
    del files["files/p10/p10000032/s50414267/02aa.jpg"]
    files["files/p12/p12000000/s1/new.jpg"] = ""
    files["mimic-cxr-2.0.0-metadata.csv"] += "174f,10000032,50414267,,PA,1,1\n"
    files["mimic-cxr-2.0.0-split.csv"] = SPLIT.replace("2a2d,53189527,10000032,train\n", "")
    assert [entry for entry in jpg(tmp_path, files) if isinstance(entry, Reject)] == [
        Reject("files/p10/p10000032/s50414267/02aa.jpg", "image file missing"),
        Reject("files/p10/p10000032/s53189527/2a2d.jpg", "image not in the official split"),
        Reject("files/p10/p10000032/s50414267/174f.jpg", "duplicate row"),
        Reject("files/p12/p12000000/s1/new.jpg", "image without a row"),
    ]


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({}, {}, "no mimic-cxr-2.0.0-metadata.csv.gz or mimic-cxr-2.0.0-metadata.csv there"),
        ({"mimic-cxr-2.0.0-metadata.csv": "dicom_id\na\n"}, {}, "missing columns 'subject_id', 'study_id', 'ViewPos"),
        ({"mimic-cxr-2.0.0-metadata.csv": METADATA}, {}, "no mimic-cxr-2.0.0-split.csv.gz"),
        (
            FILES | {"mimic-cxr-2.0.0-split.csv": "dicom_id,split\n02aa,dev\n"},
            {},
            "split is 'dev': it must be train, v",
        ),
        (FILES, {"labeller": "radiologist"}, "labeller='radiologist': allowed: chexpert, negbio"),
        (FILES, {"labeller": "negbio"}, "no mimic-cxr-2.0.0-negbio.csv.gz"),
        (
            FILES | {"mimic-cxr-2.0.0-chexpert.csv": LABELS.replace("-1.0", "2")},
            {},
            "Consolidation is '2': a label must be 1, 0, -1, u or empty",
        ),
    ],
)
def test_mimic_jpg_that_cannot_be_read_is_refused(
    tmp_path: Path, files: dict[str, str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        jpg(tmp_path, files, **options)


@pytest.mark.parametrize("adapter", [MimicCxrJpgAdapter, MimicCxrDicomAdapter])
def test_mimic_without_its_root_says_which_folder(tmp_path: Path, adapter: Any) -> None:
    with pytest.raises(UsageError, match="gone: no such dataset folder"):
        list(adapter(str(tmp_path / "gone")).pairs())


DICOM = {
    "cxr-record-list.csv": (
        "subject_id,study_id,dicom_id,path\n"
        "10000032,50414267,02aa,files/p10/p10000032/s50414267/02aa.dcm\n"
        "10000032,53189527,2a2d,files/p10/p10000032/s53189527/2a2d.dcm\n"
        "10000764,57375967,e084,files/p10/p10000764/s57375967/e084.dcm\n"
        "10000764,57375967,evil,../../etc/passwd\n"
    ),
    "cxr-study-list.csv": (
        "subject_id,study_id,path\n"
        "10000032,50414267,files/p10/p10000032/s50414267.txt\n"
        "10000764,57375967,files/p10/p10000764/s57375967.txt\n"
    ),
    "files/p10/p10000032/s50414267/02aa.dcm": "",
    "files/p10/p10000032/s53189527/2a2d.dcm": "",
    "files/p10/p10000032/s53189527/stray.dcm": "",
    "files/p10/p10000032/s50414267.txt": "FINDINGS: Clear.",
}


def dicom_pair(study: str, dicom: str, **fields: Any) -> SourcePair:
    image = f"files/p10/p10000032/s{study}/{dicom}.dcm"
    return SourcePair("mimic-cxr-dicom", dicom, image, "10000032", study, cohort="mimic", **fields)


@pytest.mark.parametrize("files", [DICOM, packed(DICOM)], ids=["plain", "packed"])
def test_mimic_dicom_records_become_pairs_without_split_view_and_labels(
    tmp_path: Path, files: dict[str, str | bytes]
) -> None:
    assert list(MimicCxrDicomAdapter(write_files(tmp_path, files)).pairs()) == [
        dicom_pair("50414267", "02aa", report_file="files/p10/p10000032/s50414267.txt"),
        dicom_pair("53189527", "2a2d"),
        Reject("files/p10/p10000764/s57375967/e084.dcm", "image file missing"),
        Reject("../../etc/passwd", "path outside the root"),
        Reject("files/p10/p10000032/s53189527/stray.dcm", "image without a row"),
    ]


def test_mimic_dicom_beside_tables_of_the_jpeg_set_uses_them(tmp_path: Path) -> None:
    tables = {name: text for name, text in FILES.items() if name.endswith(".csv")}
    pairs = list(MimicCxrDicomAdapter(write_files(tmp_path, DICOM | tables)).pairs())
    report = "files/p10/p10000032/s50414267.txt"
    assert pairs[0] == dicom_pair("50414267", "02aa", view="PA", split="train", report_file=report, labels=FIRST.labels)
    assert pairs[1] == dicom_pair("53189527", "2a2d", view="AP", split="train")


def test_mimic_patient_has_one_cohort_in_both_sets(tmp_path: Path) -> None:
    both = [*jpg(tmp_path, FILES | DICOM)[:1], *list(MimicCxrDicomAdapter(str(tmp_path)).pairs())[:1]]
    assert {(pair.cohort, pair.patient) for pair in both if isinstance(pair, SourcePair)} == {("mimic", "10000032")}
    assert len({pair.sample_id for pair in both if isinstance(pair, SourcePair)}) == 2
