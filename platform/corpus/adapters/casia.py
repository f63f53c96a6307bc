"""CASIA-CXR (Metmer and Yang 2024): 11,111 radiographs with French reports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar

from chexray.platform import storage
from chexray.platform.corpus.adapters.cells import join_sections, read_age, read_sex, read_view
from chexray.platform.corpus.adapters.images import RASTER_SUFFIXES, unlisted
from chexray.platform.corpus.adapters.table import Table, check_root, find_optional_table
from chexray.platform.corpus.paths import below_root
from chexray.platform.corpus.schema import DatasetCard, Reject, SourcePair
from chexray.platform.errors import UsageError

FINDINGS = {
    "Cardiomegaly": "Cardiomegaly",
    "Mass": "Mass",
    "PleuralEffusion": "Pleural Effusion",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
}
"""From the name of a finding's folder to the label."""

COMBINED = "CASIA-CXR_Combined_Reports.csv"
_COLUMNS = ("ImageID", "PatientID", "ImageDir", "Findings", "Impression")


@dataclass(frozen=True)
class CasiaCxrAdapter:
    """CASIA-CXR below `root`: five folders, one a finding, each with its table and images.

    `CASIA-CXR_<finding>/CASIA-CXR_<finding>_Reports.csv` for Cardiomegaly, Mass, PleuralEffusion, Pneumonia and
    Pneumothorax, or `CASIA-CXR_Combined_Reports.csv` at the root with the rows of all. Columns: ExamID, ImageID,
    PatientID, ImageDir, PatientAge ('057Y'), PatientGender, PositionView, Projection, ReportID, Findings, Indication,
    Comparison, Impression. Rows that name no image are placeholders and passed over.

    What ImageDir holds could not be checked: it is taken as a path below the root or below the table's folder, of the
    image or of its folder, and else the image is found by its name, ImageID. `view_columns` are tried in their order.
    The label is the finding of the folder that the image's path names; others are unknown. No official split.
    Licence: given by its authors on request.
    """

    name: ClassVar[str] = "casia-cxr"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="CASIA-CXR",
        use="pretraining",
        images=11_111,
        patients=None,
        reports="fr",
        findings=5,
        masks=(),
        licence="given by its authors on request",
        citation="Metmer and Yang, CASIA-CXR, Neurocomputing, 2024",
        url="https://www.casia-cxr.net",
    )

    root: str
    view_columns: tuple[str, ...] = ("PositionView", "Projection")

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every row with an image, then a reject for every image that no row names."""
        check_root(self.root)
        tables = self._tables()
        listed = storage.list_files(self.root, RASTER_SUFFIXES)
        files = _Images(listed)
        seen: set[str] = set()
        for folder, table in tables.items():
            for row in table.rows:
                if not row["ImageDir"] and not row["ImageID"]:
                    continue
                path = files.find(folder, row["ImageDir"], row["ImageID"])
                if path is None:
                    yield Reject(below_root(row["ImageDir"]) or row["ImageID"], "image file missing")
                elif path in seen:
                    yield Reject(path, "duplicate row")
                else:
                    yield self._pair(row, path, folder)
                seen.add(path or "")
        yield from unlisted(listed, seen)

    def _tables(self) -> dict[str, Table]:
        """The tables by the folder they are in; '' is the root."""
        combined = find_optional_table(self.root, (COMBINED,), _COLUMNS)
        if combined is not None:
            return {"": combined}
        folders = [f"CASIA-CXR_{finding}" for finding in FINDINGS]
        found = {name: find_optional_table(self.root, (f"{name}/{name}_Reports.csv",), _COLUMNS) for name in folders}
        tables = {name: table for name, table in found.items() if table is not None}
        if not tables:
            raise UsageError(f"{self.root}: no {folders[0]}/{folders[0]}_Reports.csv or {COMBINED} there")
        return tables

    def _pair(self, row: dict[str, str], path: str, folder: str) -> SourcePair | Reject:
        finding = _finding(f"{path}/{folder}")
        report = join_sections(row["Findings"], row["Impression"])
        if report is None and finding is None:
            return Reject(path, "no report and no labels")
        views = (read_view(row.get(column, "")) for column in self.view_columns)
        return SourcePair(
            dataset=self.name,
            source_id=path,
            image=path,
            patient=row["PatientID"] or path,
            study=row.get("ExamID") or path,
            view=next((view for view in views if view), None),
            sex=read_sex(row.get("PatientGender", "")),
            age_years=read_age(row.get("PatientAge", "")),
            report=report,
            language="fr",
            labels={finding: True} if finding else {},
        )


class _Images:
    """The images below the root, by their paths and by their names without suffix."""

    def __init__(self, paths: list[str]) -> None:
        self._paths = frozenset(paths)
        self._by_name: dict[str, str | None] = {}
        for path in paths:
            stem = PurePosixPath(path).stem
            self._by_name[stem] = None if stem in self._by_name else path

    def find(self, folder: str, directory: str, image: str) -> str | None:
        """The image at `directory`, in it, or of the name `image` where one file alone has it; None without any."""
        name = PurePosixPath(image).name
        names = ["", name, *(f"{name}{suffix}" for suffix in RASTER_SUFFIXES)]
        for parent in ("", folder):
            for ending in names:
                path = below_root("/".join(part for part in (parent, directory, ending) if part))
                if path in self._paths:
                    return path
        return self._by_name.get(name) or self._by_name.get(PurePosixPath(name).stem)


def _finding(path: str) -> str | None:
    """The label of the last part of the path that is a finding's folder: CASIA-CXR_Mass, CASIA-CXR_Mass_Sample."""
    for part in path.split("/"):
        words = part.removeprefix("CASIA-CXR_").split("_")
        if part.startswith("CASIA-CXR_") and words[0] in FINDINGS:
            return FINDINGS[words[0]]
    return None
