"""A folder of DICOM files as a hospital exports it, on the local disk and on S3."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from dicom_files import radiograph, written
from pydicom import uid

from chexray.platform import storage
from chexray.platform.corpus.adapters import open_adapter
from chexray.platform.corpus.adapters.archive import ArchiveAdapter
from chexray.platform.corpus.schema import Reject, SourcePair
from chexray.platform.errors import UsageError

SECRETS = ("Doe^Jane", "19600301", "20200301", "General Hospital")


def chest(**elements: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 4096, (40, 50)).astype(np.uint16)
    known = {
        "Modality": "DX",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "PatientName": "Doe^Jane",
        "PatientID": "4711",
        "PatientSex": "F",
        "PatientBirthDate": "19600301",
        "StudyDate": "20200301",
        "InstitutionName": "General Hospital",
        "AccessionNumber": "A1",
        "StudyInstanceUID": "1.2.3.4",
        "SOPInstanceUID": "1.2.3.4.5",
    }
    return written(radiograph(pixels, **known | elements))


def listed(root: str, files: dict[str, bytes | str], **options: Any) -> list[SourcePair | Reject]:
    for path, content in files.items():
        storage.write_bytes(storage.join(root, path), content.encode() if isinstance(content, str) else content)
    return list(open_adapter("archive", root, **options).pairs())


REPORTS = {"reports.csv": "AccessionNumber,report\nA1,No acute disease.\nA2,Left effusion.\n"}


def test_pairs_of_an_archive_are_its_radiographs_with_their_reports(place: str) -> None:
    files: dict[str, bytes | str] = {
        "2020/03/IM0001": chest(),
        "2020/03/lateral.dcm": chest(ViewPosition="LL", SOPInstanceUID="1.2.3.4.6"),
        "2021/x.DCM": chest(AccessionNumber="A2", PatientID="4712", StudyInstanceUID="1.2.3.9", SOPInstanceUID="1.9"),
        "2021/no_report": chest(AccessionNumber="A3"),
        "2021/ct": chest(Modality="CT"),
        "2021/hand": chest(BodyPartExamined="HAND"),
        "2021/notes.txt": "not an image",
        "2021/empty": b"",
        "2021/cut": chest()[:150],
        "DICOMDIR": b"anything",
        "sub/.hidden": b"anything",
    }
    found = listed(place, REPORTS | files, reports="reports.csv")
    first = SourcePair(
        dataset="archive",
        source_id="1.2.3.4.5",
        image="2020/03/IM0001",
        patient="4711",
        study="1.2.3.4",
        view="PA",
        sex="F",
        age_years=60.0,
        report="No acute disease.",
    )
    second = {"patient": "4712", "study": "1.2.3.9", "report": "Left effusion."}
    assert found == [
        first,
        replace(first, image="2020/03/lateral.dcm", source_id="1.2.3.4.6", view="LATERAL"),
        Reject("2021/ct", "not a radiograph"),
        Reject("2021/cut", "image without pixels"),
        Reject("2021/empty", "not a DICOM file"),
        Reject("2021/hand", "not a chest"),
        Reject("2021/no_report", "no report and no labels"),
        Reject("2021/notes.txt", "not a DICOM file"),
        replace(first, image="2021/x.DCM", source_id="1.9", **second),
    ]


def test_rejects_and_raw_fields_of_pairs_hold_nothing_that_identifies(tmp_path: Any) -> None:
    broken = chest().replace(b"CS\x06\x00CHEST ", b"CS\x09\x00Doe^Jane ")
    files = {
        "a": chest(),
        "b": chest(Modality="CT"),
        "c": broken,
        "d": chest(BodyPartExamined="HAND"),
        "e": b"Doe^Jane",
    }
    found = listed(str(tmp_path), REPORTS | files, reports="reports.csv")
    assert len(found) == 5
    for entry in found:
        kept = entry if isinstance(entry, Reject) else replace(entry, patient="", study="", source_id="")
        assert not any(secret in repr(kept) for secret in (*SECRETS, "4711", "1.2.3.4"))


@pytest.mark.parametrize(
    ("match", "table", "report"),
    [
        ("accession", "AccessionNumber,report\nA1,by accession\n", "by accession"),
        ("study", "StudyInstanceUID,report\n1.2.3.4,by study\n", "by study"),
        ("patient", "PatientID,report\n4711,by patient\n", "by patient"),
        ("accession", "AccessionNumber,report\nA1,twice\nA1,twice\n,other\n", "twice"),
        ("accession", "AccessionNumber,findings,impression\nA1,clear,normal\n", "FINDINGS: clear\nIMPRESSION: normal"),
    ],
)
def test_report_is_found_by_the_key_that_is_asked_for(match: str, table: str, report: str, tmp_path: Any) -> None:
    files = {"r.csv": table, "a": chest()}
    (pair,) = listed(str(tmp_path), files, reports="r.csv", report_match=match)
    assert isinstance(pair, SourcePair)
    assert pair.report == report


def test_report_and_labels_come_from_the_columns_that_are_named(tmp_path: Any) -> None:
    table = "acc,befund,Edema,Nodule,Mass\nA1,Kein Befund.,1,0,-1\n"
    options = {"report_key": "acc", "report": "befund", "labels": ["Edema", "Nodule", "Mass"], "language": "de"}
    (pair,) = listed(str(tmp_path), {"r.csv": table, "a": chest()}, reports="r.csv", **options)
    assert isinstance(pair, SourcePair)
    assert (pair.report, pair.language) == ("Kein Befund.", "de")
    assert pair.labels == {"Edema": True, "Nodule": False, "Mass": None}


def test_labels_alone_make_a_pair(tmp_path: Any) -> None:
    files = {"r.csv": "AccessionNumber,Edema\nA1,1\n", "a": chest()}
    (pair,) = listed(str(tmp_path), files, reports="r.csv", labels=["Edema"])
    assert isinstance(pair, SourcePair)
    assert (pair.report, pair.labels) == (None, {"Edema": True})


def test_two_reports_of_one_key_leave_the_image_out(tmp_path: Any) -> None:
    files = {"r.csv": "AccessionNumber,report\nA1,one\nA1,two\n", "a": chest()}
    found = listed(str(tmp_path), files, reports="r.csv")
    assert found == [Reject("a", "several reports match", "2 of one accession")]


def test_view_option_rejects_the_other_view_in_the_list(tmp_path: Any) -> None:
    files = REPORTS | {"a": chest(), "b": chest(ViewPosition="LL")}
    found = listed(str(tmp_path), files, reports="reports.csv", view="frontal")
    assert [type(entry) for entry in found] == [SourcePair, Reject]
    assert found[1] == Reject("b", "lateral view")


@pytest.mark.parametrize(("text", "age"), [("089Y", 89.0), ("090Y", 90.0), ("103Y", 90.0)])
def test_age_of_ninety_and_above_is_ninety(tmp_path: Any, text: str, age: float) -> None:
    (pair,) = listed(str(tmp_path), REPORTS | {"a": chest(PatientAge=text)}, reports="reports.csv")
    assert isinstance(pair, SourcePair)
    assert pair.age_years == age


def test_file_without_identifiers_is_named_by_its_path(tmp_path: Any) -> None:
    data = chest(StudyInstanceUID="", PatientID="").replace(b"\x08\x00\x18\x00UI", b"\x08\x00\x17\x00UI")
    (pair,) = listed(str(tmp_path), REPORTS | {"a/b": data}, reports="reports.csv")
    assert isinstance(pair, SourcePair)
    assert (pair.source_id, pair.study, pair.patient) == ("a/b",) * 3


def test_object_without_pixels_is_a_reject(tmp_path: Any) -> None:
    dataset = radiograph(np.zeros((40, 50), np.uint16), AccessionNumber="A1")
    for name in ("Rows", "Columns", "PixelData"):
        del dataset[name]
    found = listed(str(tmp_path), REPORTS | {"a": written(dataset)}, reports="reports.csv")
    assert found == [Reject("a", "image without pixels")]


def test_deflated_file_is_listed_like_any_other(tmp_path: Any) -> None:
    dataset = radiograph(np.zeros((40, 50), np.uint16), AccessionNumber="A1", PatientID="4711", Modality="CR")
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    (pair,) = listed(str(tmp_path), REPORTS | {"a": written(dataset)}, reports="reports.csv")
    assert isinstance(pair, SourcePair)
    assert (pair.patient, pair.report) == ("4711", "No acute disease.")


def test_headers_of_long_files_are_read_without_their_pixels(s3: str) -> None:
    fetched: list[int] = []
    place = f"{s3}/long-archive"
    pixels = np.zeros((2000, 2500), np.uint16)
    storage.write_bytes(storage.join(place, "a"), written(radiograph(pixels, AccessionNumber="A1", PatientID="4711")))
    storage.write_bytes(storage.join(place, "reports.csv"), REPORTS["reports.csv"].encode())
    fs, _ = storage.filesystem(place)
    fs.connect()
    fs.s3.meta.events.register(
        "after-call.s3.GetObject", lambda parsed, **_: fetched.append(int(parsed["ContentLength"]))
    )
    (pair,) = ArchiveAdapter(place, reports="reports.csv").pairs()
    assert isinstance(pair, SourcePair)
    # measured: 0.13 MB of 10 MB
    assert 0 < sum(fetched) < 500_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reports": "none.csv"}, "no such file; reports names a CSV file below"),
        ({"reports": "r.csv", "report_key": "acc"}, "missing column 'acc'"),
        ({"reports": "r.csv", "report": "text"}, "missing column 'text'"),
        ({"reports": "bare.csv"}, "no column 'report', 'findings' or 'impression'"),
        ({"reports": "r.csv", "report_match": "name"}, "report_match='name': allowed: accession, study, patient"),
        ({"view": "oblique"}, "view='oblique': allowed: any, frontal, lateral"),
        ({"labels": ["Edema"]}, "name columns of the CSV file"),
    ],
)
def test_wrong_options_are_refused_with_what_is_allowed(options: dict[str, Any], message: str, tmp_path: Any) -> None:
    files = {"r.csv": "AccessionNumber,report\nA1,x\n", "bare.csv": "AccessionNumber,x\nA1,x\n"}
    with pytest.raises(UsageError, match=message):
        listed(str(tmp_path), files, **options)


def test_file_behind_a_link_out_of_the_root_is_not_opened(tmp_path: Any) -> None:
    root = tmp_path / "root"
    outside = tmp_path / "outside"
    for folder in (root, outside):
        folder.mkdir()
    (outside / "image").write_bytes(chest())
    (outside / "notes").write_bytes(b"not an image")
    for name, target in (
        ("b", outside / "image"),
        ("c", outside / "notes"),
        ("folder", outside),
        ("inside", root / "a"),
    ):
        (root / name).symlink_to(target)
    files = REPORTS | {"a": chest()}
    found = listed(str(root), files, reports="reports.csv")
    left_out = [entry for entry in found if isinstance(entry, Reject)]
    link = ("link out of the root", "--option follow_links=true allows it")
    assert left_out == [Reject(path, *link) for path in ("b", "c", "folder/image", "folder/notes")]
    assert [entry.image for entry in found if isinstance(entry, SourcePair)] == ["a", "inside"]
    followed = listed(str(root), files, reports="reports.csv", follow_links=True)
    assert [entry.image for entry in followed if isinstance(entry, SourcePair)] == ["a", "b", "folder/image", "inside"]
    assert [entry.reason for entry in followed if isinstance(entry, Reject)] == ["not a DICOM file"] * 2


def test_archive_is_opened_by_its_name_and_is_not_public(tmp_path: Any) -> None:
    assert isinstance(open_adapter("archive", str(tmp_path)), ArchiveAdapter)
    assert not ArchiveAdapter.card.public
