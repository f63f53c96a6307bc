"""A hospital's archive becomes a corpus in which nothing of its headers, ids and file names can be found again."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from corpora import blobs
from dicom_files import radiograph, written
from pydicom.uid import generate_uid

from chexray.jobs.ingest import ingest
from chexray.platform.config import load_recipe
from chexray.platform.corpus.salt import SALT_VARIABLE

pytestmark = pytest.mark.usefixtures("ray_cluster")

_FREE_TO_KEEP = {"DX", "CR", "CHEST", "PA", "AP", "F", "M", "MONOCHROME1", "MONOCHROME2", "DERIVED", "PRIMARY"}
_PRIVATE_FILES = (".salt", ".sources.json")


def patient_file(number: int) -> dict[str, Any]:
    return {
        "Modality": "DX",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "PatientName": f"Mustermann{number}^Erika",
        "PatientID": f"MRN0047{number}11",
        "OtherPatientIDs": f"OTHERID{number}77",
        "PatientBirthDate": f"1960030{number % 9 + 1}",
        "PatientSex": "F",
        "PatientAddress": f"Heidestrasse {number}, Koeln",
        "PatientTelephoneNumbers": f"+49221555{number}",
        "StudyDate": f"2020110{number % 9 + 1}",
        "StudyTime": f"11223{number % 10}.5",
        "AccessionNumber": f"ACCESSION{number}",
        "InstitutionName": "Klinikum am Beispielpark",
        "ReferringPhysicianName": "Referring^Rita",
        "PerformingPhysicianName": "Performing^Paul",
        "OperatorsName": "Operator^Olga",
        "StationName": "XRAYROOM3",
        "DeviceSerialNumber": "SERIAL99881",
        "StudyID": f"STUDYID{number}",
        "StudyDescription": "Thorax of Erika",
        "PatientComments": "lives alone",
        "StudyInstanceUID": generate_uid(entropy_srcs=[f"study {number}"]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=[f"series {number}"]),
        "SOPInstanceUID": generate_uid(entropy_srcs=[f"instance {number}"]),
    }


def identifying_values(folder: Path) -> set[str]:
    """Every text of five or more characters in the header of any file, and every part of every file's name."""
    values = set()
    for file in folder.rglob("*.dcm"):
        values.add(file.stem)
        dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        for element in dataset.iterall():
            texts = element.value if isinstance(element.value, list | pydicom.multival.MultiValue) else [element.value]
            for text in texts:
                values.update({str(text), *str(text).split("^")})
    return {value for value in values if len(value) >= 5 and value not in _FREE_TO_KEEP and not _is_number(value)}


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdecimal() and len(text) < 7


def artifact_texts(corpus: Path) -> Iterator[tuple[str, bytes]]:
    """All that an artifact says: the bytes of its files, and the values of its tables, which are compressed there."""
    for file in sorted(corpus.rglob("*")):
        if file.is_file() and file.name not in _PRIVATE_FILES:
            yield file.name, file.read_bytes()
            if file.suffix == ".parquet":
                rows = pq.read_table(file).to_pylist()
                yield f"{file.name} as text", json.dumps(rows, default=lambda data: data.decode("latin-1")).encode()


def test_nothing_identifying_of_an_archive_is_in_its_corpus(
    tmp_path: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(SALT_VARIABLE, raising=False)
    root = tmp_path / "archive"
    reports = ["AccessionNumber,report"]
    for number in range(12):
        elements = patient_file(number)
        data = written(radiograph((blobs(number, 200, 180).astype(np.uint16) * 16), **elements))
        file = root / elements["PatientID"] / f"Mustermann_{elements['AccessionNumber']}_img{number}.dcm"
        file.parent.mkdir(parents=True)
        file.write_bytes(data[:-9000] if number == 7 else data)  # one that is cut, and so becomes a reject
        reports.append(f"{elements['AccessionNumber']},Opacity number {number} in the left lower lobe.")
    for file in (real_data / "dicom").glob("*.dcm"):
        (root / file.name).write_bytes(file.read_bytes())
    (root / "reports.csv").write_text("\n".join(reports))

    out = tmp_path / "corpus"
    options = {"reports": "reports.csv", "report_match": "accession", "report_key": "AccessionNumber"}
    settings = ["ingest.max_reject_rate=0.9", "ingest.test_share=0.3"]
    manifest = ingest(load_recipe("tiny", settings), "archive", str(root), str(out), options)
    assert manifest.counts["pairs"] == 11

    secrets = identifying_values(root) | {"Mustermann", "Erika", "Klinikum"}
    assert len(secrets) > 150
    texts = dict(artifact_texts(out))
    captured = capfd.readouterr()
    texts["what was printed"] = (captured.out + captured.err).encode()
    for name, text in texts.items():
        found = [secret for secret in secrets if secret.encode() in text]
        assert not found, f"{name} holds {found}"
    names = json.loads((out / ".sources.json").read_text())
    assert sum("Mustermann" in path for path in names.values()) == 12
    for private in _PRIVATE_FILES:
        assert stat.S_IMODE((out / private).stat().st_mode) == 0o600
