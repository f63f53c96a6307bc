"""BIMCV-COVID19+ (de la Iglesia Vaya et al. 2020): radiographs of COVID-19 patients in Spain with Spanish reports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar

from chexray.platform import storage
from chexray.platform.corpus.adapters.cells import read_age, read_sex, read_view
from chexray.platform.corpus.adapters.table import Table, check_root, read_table
from chexray.platform.corpus.schema import NO_FINDING, DatasetCard, Reject, SourcePair
from chexray.platform.errors import UsageError

LABEL_TABLES = ("labels_covid19_posi.tsv", "labels_covid_posi.tsv")
PARTICIPANTS = "participants.tsv"
_FILE = re.compile(r"(?P<patient>sub-[^_/]+)_(?P<session>ses-[^_/]+)_(?:.*_)?bp-(?P<part>[^_]+)_(?P<rest>.*)\.png$")
_VIEW = re.compile(r"vp-([^_]+)")
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
_ESCAPES = {"\\n": "\n", "\\t": " ", "\\r": " ", "\\'": "'", '\\"': '"'}
_NORMAL = "normal"
_NO_LABEL = frozenset({"", "exclude", "suboptimal study", "unchanged"})
"""What PadChest's vocabulary says of the study and not of the chest."""


@dataclass(frozen=True)
class BimcvCovid19Adapter:
    """BIMCV-COVID19+ below `root`, its archives unpacked there (the `covid19_posi/` in them may stay).

    `sub-S*/ses-E*/mod-rx/sub-S*_ses-E*_..._bp-chest_vp-pa_dx.png`; CT in `mod-ct` is passed over.
    `derivatives/labels/labels_covid19_posi.tsv` (also `labels_covid_posi.tsv`): a row a session, with PatientID
    (sub-S*), ReportID (ses-E*), Report and Labels, the last two written as Python's lists of strings; `report_column`
    and `labels_column` name others. `participants.tsv`, where there is one: participant, gender, age (a list, one a
    study; the first is taken).

    Rows without a radiograph are sessions of CT and passed over; radiographs of a session without a row are rejected.
    Views come from file names: pa, ap, ll, or none; some 30 laterals are named pa or ap. Another body part than the
    chest is rejected. Labels were mined from the reports: one that is not named is unknown, 'normal' alone is No
    Finding. Every patient had a positive test. Pixels are 16-bit. No official split.
    Licence: BIMCV-COVID19 research use agreement.
    """

    name: ClassVar[str] = "bimcv-covid19"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="BIMCV-COVID19+",
        use="pretraining",
        images=None,
        patients=None,
        reports="es",
        findings=0,
        masks=(),
        licence="BIMCV-COVID19 research use agreement",
        citation="de la Iglesia Vaya et al., BIMCV COVID-19+, arXiv 2006.01174, 2020",
        url="https://bimcv.cipf.es/bimcv-projects/bimcv-covid19/",
    )

    root: str
    report_column: str = "Report"
    labels_column: str = "Labels"

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every radiograph, in the order of their paths."""
        check_root(self.root)
        files = storage.list_files(self.root)
        table = self._label_table(files)
        sessions = {(row["PatientID"], row["ReportID"]): row for row in table.rows}
        people = self._participants(files)
        for path in files:
            if "/mod-rx/" in f"/{path}" and path.lower().endswith(".png"):
                yield self._pair(path, sessions, people)

    def _label_table(self, files: list[str]) -> Table:
        path = _shallowest(files, LABEL_TABLES)
        if path is None:
            raise UsageError(f"{self.root}: no derivatives/labels/{' or '.join(LABEL_TABLES)} below it")
        table = read_table(storage.join(self.root, path), "\t")
        table.require(("PatientID", "ReportID", self.report_column, self.labels_column))
        return table

    def _participants(self, files: list[str]) -> dict[str, dict[str, str]]:
        path = _shallowest(files, (PARTICIPANTS,))
        if path is None:
            return {}
        table = read_table(storage.join(self.root, path), "\t")
        table.require(("participant", "gender", "age"))
        return {row["participant"]: row for row in table.rows}

    def _pair(
        self, path: str, sessions: dict[tuple[str, str], dict[str, str]], people: dict[str, dict[str, str]]
    ) -> SourcePair | Reject:
        parts = _FILE.search(path)
        if parts is None:
            return Reject(path, "file name not understood")
        if parts["part"] != "chest":
            return Reject(path, "not a chest", f"body part {parts['part']}")
        patient, session = parts["patient"], parts["session"]
        row = sessions.get((patient, session))
        if row is None:
            return Reject(path, "image without a row")
        report, labels = _read_text(row[self.report_column]), _read_labels(row[self.labels_column])
        if report is None and not labels:
            return Reject(path, "no report and no labels")
        view, person = _VIEW.search(parts["rest"]), people.get(patient, {})
        return SourcePair(
            dataset=self.name,
            source_id=PurePosixPath(path).name,
            image=path,
            patient=patient,
            study=session,
            view=read_view(view[1]) if view else None,
            sex=read_sex(person.get("gender", "")),
            age_years=read_age(person.get("age", "")),
            report=report,
            language="es",
            labels=labels,
        )


def _shallowest(files: list[str], names: tuple[str, ...]) -> str | None:
    """The file of one of the names with the fewest folders above it."""
    found = [path for path in files if PurePosixPath(path).name in names]
    return min(found, key=lambda path: (path.count("/"), path), default=None)


def _read_text(cell: str) -> str | None:
    """The text of a cell: as it is, or the lines of a list of strings as Python writes it."""
    text = "\n".join(_strings(cell)) if cell.startswith("[") else cell
    return text.strip("[] \n") or None


def _read_labels(cell: str) -> dict[str, bool | None]:
    """The findings that a list of strings says are present."""
    names = {text.lower() for text in _strings(cell)} - _NO_LABEL
    if not names:
        return {}
    found = sorted(names - {_NORMAL})
    return {**dict.fromkeys(found, True), NO_FINDING: not found}


def _strings(cell: str) -> list[str]:
    """The quoted strings of a cell. They are separated by commas, tabs or (NumPy's way) nothing."""
    strings = []
    for single, double in _QUOTED.findall(cell):
        text = single or double
        for escape, character in _ESCAPES.items():
            text = text.replace(escape, character)
        strings.append(text.strip())
    return strings
