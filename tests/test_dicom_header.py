"""What DICOM headers say and which images they leave out; expected values are the standard's terms, by hand."""

import io
from typing import Any

import numpy as np
import pytest
from dicom_files import radiograph, written
from pydicom.dataset import Dataset

from chexray.platform.corpus.dicom import read_radiograph
from chexray.platform.corpus.dicom_dataset import parse_dataset
from chexray.platform.corpus.dicom_header import HEADER_TAGS, Header, header_of, keep_header
from chexray.platform.corpus.raster import UnreadableImage


def read_header(file: bytes) -> Header:
    return header_of(parse_dataset(io.BytesIO(file), HEADER_TAGS))


def header(**elements: Any) -> Header:
    return read_header(written(radiograph(np.zeros((40, 50), np.uint16), **elements)))


def code(value: str, meaning: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return [item]


def test_header_of_full_file_holds_what_it_says_and_nothing_that_names_the_patient() -> None:
    found = header(
        Modality="DX",
        BodyPartExamined="CHEST",
        ViewPosition="PA",
        ImageLaterality="U",
        PatientSex="F",
        PatientAge="062Y",
        BurnedInAnnotation="NO",
        Manufacturer="ACME",
        ManufacturerModelName="X1",
        PatientName="Doe^Jane",
        PatientID="4711",
        PatientBirthDate="19600101",
        StudyDate="20220202",
        InstitutionName="General",
    )
    assert found == Header("DX", "CHEST", "PA", "U", 40, 50, "F", 62.0, False, "ACME", "X1")
    assert not any(secret in repr(found) for secret in ("Doe", "4711", "1960", "2022", "General"))


def test_header_of_bare_file_is_unknown_but_for_the_size() -> None:
    assert header() == Header(rows=40, columns=50)


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"ViewPosition": "PA"}, "PA"),
        ({"ViewPosition": "AP"}, "AP"),
        ({"ViewPosition": "LL"}, "LATERAL"),
        ({"ViewPosition": "RL"}, "LATERAL"),
        ({"ViewPosition": "LATERAL"}, "LATERAL"),
        ({"ViewPosition": "lat"}, "LATERAL"),
        ({"ViewPosition": "AP_SUPINE"}, "AP"),
        ({"ViewPosition": "AP LLD"}, "AP"),
        ({"ViewPosition": "XTABLE LATERAL"}, "LATERAL"),
        ({"ViewPosition": "LLD"}, None),
        ({"ViewPosition": "RLO"}, None),
        ({"ViewCodeSequence": code("399348003", "antero-posterior")}, "AP"),
        ({"ViewCodeSequence": code("272479007", "postero-anterior")}, "PA"),
        ({"ViewCodeSequence": code("399173006", "left lateral")}, "LATERAL"),
        ({"ViewCodeSequence": code("X", "postero-anterior")}, "PA"),
        ({"ViewCodeSequence": code("X", "left lateral")}, "LATERAL"),
        ({"ViewCodeSequence": code("X", "left anterior oblique")}, None),
        ({"SeriesDescription": "view: PA"}, "PA"),
        ({"SeriesDescription": "Thorax a.p. liegend"}, "AP"),
        ({"SeriesDescription": "Thorax p. a."}, "PA"),
        ({"SeriesDescription": "Chest Lat."}, "LATERAL"),
        ({"SeriesDescription": "Thorax seitlich"}, "LATERAL"),
        ({"SeriesDescription": "Chest PA and lateral"}, None),
        ({"SeriesDescription": "Chest lateral decubitus"}, None),
        ({"SeriesDescription": "Chest AP left lateral decubitus"}, "AP"),
        ({"SeriesDescription": "BILATERAL RIBS"}, None),
        ({"SeriesDescription": "Chest LL"}, None),
        ({"ProtocolName": "CHEST AP PORTABLE"}, "AP"),
        ({"AcquisitionDeviceProcessingDescription": "CHEST,LATERAL"}, "LATERAL"),
        ({"ViewPosition": "PA", "SeriesDescription": "lateral"}, "PA"),
        ({}, None),
    ],
)
def test_view_of_header_is_the_one_that_is_named(elements: dict[str, Any], expected: str | None) -> None:
    assert header(**elements).view == expected


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"PatientAge": "062Y"}, 62.0),
        ({"PatientAge": "62"}, 62.0),
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientAge": "000D"}, 0.0),
        ({"PatientAge": "090Y"}, 90.0),
        ({"PatientAge": "101Y"}, 90.0),
        ({"PatientAge": "411Y"}, None),
        ({"PatientBirthDate": "19600302", "StudyDate": "20200301"}, 59.0),
        ({"PatientBirthDate": "19600301", "StudyDate": "20200301"}, 60.0),
        ({"PatientBirthDate": "1960.03.01", "StudyDate": "2020.03.01"}, 60.0),
        ({"PatientBirthDate": "19250301", "StudyDate": "20200301"}, 90.0),
        ({"PatientBirthDate": "18500301", "StudyDate": "20200301"}, None),
        ({"PatientBirthDate": "20210301", "StudyDate": "20200301"}, None),
        ({"PatientBirthDate": "19600301"}, None),
        ({"PatientAge": "005Y", "PatientBirthDate": "19600301", "StudyDate": "20200301"}, 5.0),
    ],
)
def test_age_of_header_is_in_years_and_at_most_90(elements: dict[str, Any], expected: float | None) -> None:
    assert header(**elements).age_years == expected


def test_age_of_header_in_weeks_is_a_part_of_a_year() -> None:
    assert header(PatientAge="026W").age_years == pytest.approx(26 * 7 / 365.25)


@pytest.mark.parametrize(
    ("found", "view", "expected"),
    [
        (Header(modality="CR"), "any", None),
        (Header(modality="DX"), "any", None),
        (Header(modality="OT"), "any", None),
        (Header(), "frontal", None),
        (Header(modality="CT"), "any", "not a radiograph"),
        (Header(modality="SR"), "any", "not a radiograph"),
        (Header(modality="MG"), "any", "not a radiograph"),
        (Header(body_part="PORT CHEST"), "any", None),
        (Header(body_part="THORAX"), "any", None),
        (Header(body_part="TORAX"), "any", None),
        (Header(body_part="CHESTABDOMEN"), "any", None),
        (Header(body_part="WHOLEBODY"), "any", None),
        (Header(body_part="HAND"), "any", "not a chest"),
        (Header(body_part="ABDOMEN"), "any", "not a chest"),
        (Header(body_part="TSPINE"), "any", "not a chest"),
        (Header(body_part="THORACIC SPINE"), "any", "not a chest"),
        (Header(view="LATERAL"), "any", None),
        (Header(view="LATERAL"), "frontal", "lateral view"),
        (Header(view="PA"), "frontal", None),
        (Header(view="PA"), "lateral", "frontal view"),
        (Header(view="AP"), "lateral", "frontal view"),
        (Header(view="LATERAL"), "lateral", None),
        (Header(), "lateral", None),
    ],
)
def test_keep_header_gives_the_reason(found: Header, view: Any, expected: str | None) -> None:
    assert keep_header(found, view) == expected


def test_body_part_of_header_may_be_a_code() -> None:
    assert header(AnatomicRegionSequence=code("51185008", "Chest")).body_part == "CHEST"


@pytest.mark.parametrize("data", [b"", b"no DICOM", bytes(128) + b"DICN" + bytes(200)])
def test_read_radiograph_of_other_bytes_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableImage, match="image not readable"):
        read_radiograph(data)


def test_read_header_of_file_cut_in_its_header_knows_what_comes_before_the_cut() -> None:
    data = written(radiograph(np.zeros((40, 50), np.uint16), Modality="CR", ViewPosition="PA"))
    found = read_header(data[: data.index(b"PA")])
    assert (found.modality, found.view, found.rows) == ("CR", None, None)
