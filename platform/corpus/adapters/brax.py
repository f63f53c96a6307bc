"""BRAX (Reis et al. 2022): 40,967 images of 19,351 patients of a hospital in Sao Paulo, Brazil."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from chexray.platform import storage
from chexray.platform.corpus.adapters.cells import CHEXPERT_FINDINGS, read_age, read_labels, read_sex, read_view
from chexray.platform.corpus.adapters.images import unlisted
from chexray.platform.corpus.adapters.table import check_root, find_table
from chexray.platform.corpus.paths import below_root
from chexray.platform.corpus.schema import DatasetCard, Reject, SourcePair

CSV_NAMES = ("master_spreadsheet_update.csv", "master_spreadsheet.csv")
_FORMATS = {"png": ("PngPath", ".png"), "dicom": ("DicomPath", ".dcm")}
_COLUMNS = ("PatientID", "PatientSex", "PatientAge", "AccessionNumber", "ViewPosition", *CHEXPERT_FINDINGS)
MAX_ASPECT_RATIO = 10.0
"""Twelve images are strips of 19:1 to 213:1, no radiographs; every other is below 9:1."""


@dataclass(frozen=True)
class BraxAdapter:
    """BRAX 1.1.0 below `root`, its PNG or its DICOM files by `image_format` (png or dicom).

    `master_spreadsheet_update.csv` with the paths of both below the root (`images/id_*/Study_*/Series_*/image-*.png`,
    `Anonymized_DICOMs/.../image-*.dcm`), PatientID, PatientSex, PatientAge (in groups of five years, '85 or more'),
    AccessionNumber (the study), ViewPosition, Rows, Columns, and CheXpert's 14 labels.

    Labels were mined from Portuguese reports, which are not published: 1, 0, and nothing for uncertain (-1) or not
    mentioned. A quarter of the images have no view. No official split.
    Licence: PhysioNet Credentialed Health Data License 1.5.0.
    """

    name: ClassVar[str] = "brax"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="BRAX",
        use="pretraining",
        images=40_967,
        patients=19_351,
        reports=None,
        findings=14,
        masks=(),
        licence="PhysioNet Credentialed Health Data License 1.5.0",
        citation="Reis et al., BRAX, Scientific Data 9, 487, 2022",
        url="https://physionet.org/content/brax/",
    )

    root: str
    image_format: Literal["png", "dicom"] = "png"

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every row, then a reject for every image of the format that no row names."""
        check_root(self.root)
        column, suffix = _FORMATS[self.image_format]
        table = find_table(self.root, CSV_NAMES, (column, *_COLUMNS))
        listed = storage.list_files(self.root, (suffix,))
        files, seen = frozenset(listed), set[str]()
        for row in table.rows:
            path = below_root(row[column])
            if path is None:
                yield Reject(row[column], "path outside the root")
            elif path in seen:
                yield Reject(path, "duplicate row")
            elif path not in files:
                yield Reject(path, "image file missing", None if path else "the path is empty")
            elif _is_strip(row.get("Rows", ""), row.get("Columns", "")):
                yield Reject(path, "not a chest", f"{row['Rows']} x {row['Columns']} pixels")
            else:
                yield self._pair(table.uri, row, path)
            seen.add(path or "")
        yield from unlisted(listed, seen)

    def _pair(self, where: str, row: dict[str, str], path: str) -> SourcePair:
        return SourcePair(
            dataset=self.name,
            source_id=path,
            image=path,
            patient=row["PatientID"],
            study=row["AccessionNumber"],
            view=read_view(row["ViewPosition"]),
            sex=read_sex(row["PatientSex"]),
            age_years=read_age(row["PatientAge"]),
            labels=read_labels(where, row, CHEXPERT_FINDINGS),
        )


def _is_strip(rows: str, columns: str) -> bool:
    try:
        height, width = float(rows), float(columns)
    except ValueError:
        return False
    return max(height, width) > MAX_ASPECT_RATIO * min(height, width)
