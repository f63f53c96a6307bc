"""PadChest (Bustos et al. 2020): 160,861 images with Spanish reports, from San Juan hospital in Alicante."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from chexray.platform import storage
from chexray.platform.corpus.adapters.cells import read_age, read_sex
from chexray.platform.corpus.adapters.images import IMAGE_SUFFIXES, images_by_stem, stem_of, unlisted
from chexray.platform.corpus.adapters.table import check_root, find_table
from chexray.platform.corpus.schema import NO_FINDING, DatasetCard, Reject, SourcePair

CSV_NAME = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
VIEWS = {"PA": "PA", "L": "LATERAL", "AP": "AP", "AP_horizontal": "AP", "UNK": None}
NO_CHEST = ("COSTAL", "EXCLUDE")
"""Projections that are left out: views of the ribs, and what its radiologists set aside."""

_COLUMNS = (
    "ImageID",
    "StudyDate_DICOM",
    "StudyID",
    "PatientID",
    "PatientBirth",
    "PatientSex_DICOM",
    "Projection",
    "Report",
    "MethodLabel",
    "Labels",
)
_NORMAL, _EXCLUDE = "normal", "exclude"
_UNSURE = ("unchanged", "suboptimal study")
"""With these, findings may be there that are not listed."""
_NO_FINDINGS = frozenset({"", _NORMAL, _EXCLUDE, *_UNSURE})

Labels = dict[str, bool | None]


@dataclass(frozen=True)
class PadChestAdapter:
    """PadChest below `root`: its CSV file there (gzipped or not), images anywhere below (folders 0 to 54), by name.

    Reports are Spanish, one a study, without header, stemmed and without accents ('sin hallazg patolog'): a
    translator must cope with that. Without a report the pair's is written from the labels.

    Labels are of the report: present where listed. Of a study that is 'unchanged' or 'suboptimal' the others are
    unknown, else absent. 'No Finding' is 'normal' with nothing else listed. Without any label, or only an empty one,
    all are unknown. 'exclude' and cells that are no list of texts are rejected, as are images of the ribs.
    `reviewed_only`: the 39,053 images that physicians labelled, not those of the recurrent network (F1 0.93).

    The age is the year of the study less that of birth. There are no official splits. Some 20 images of the release
    are truncated or broken, which shows when they are read.
    Expected: 160,861 images (PA 91,728, lateral 49,579, AP 18,905) of 67,625 patients; 1,942 are rejected here.
    Licence: PadChest Dataset Research Use Agreement.
    """

    name: ClassVar[str] = "padchest"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="PadChest",
        use="either",
        images=160_861,
        patients=67_625,
        reports="es",
        findings=190,
        masks=(),
        licence="PadChest Dataset Research Use Agreement",
        citation="Bustos et al., PadChest, Medical Image Analysis 66, 2020",
        url="https://bimcv.cipf.es/bimcv-projects/padchest/",
    )

    root: str
    reviewed_only: bool = False

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every row, then a reject for every image that no row names."""
        check_root(self.root)
        table = find_table(self.root, (CSV_NAME, f"{CSV_NAME}.gz"), _COLUMNS)
        files = storage.list_files(self.root, IMAGE_SUFFIXES)
        images = images_by_stem(files)
        labels = _read_labels({row["Labels"] for row in table.rows})
        seen: set[str] = set()
        for row in table.rows:
            image = stem_of(row["ImageID"])
            path = images.get(image, row["ImageID"])
            if path in seen:
                yield Reject(path, "duplicate row")
            elif image not in images:
                yield Reject(path, "image file missing")
            elif row["MethodLabel"] == "Physician" or not self.reviewed_only:
                yield self._pair(row, path, labels[row["Labels"]])
            seen.add(path)
        yield from unlisted(files, seen)

    def _pair(self, row: dict[str, str], path: str, labels: Labels | None) -> SourcePair | Reject:
        if row["Projection"] in NO_CHEST:
            return Reject(path, "not a chest", f"projection {row['Projection']}")
        if row["Projection"] not in VIEWS:
            return Reject(path, "projection not known", repr(row["Projection"]))
        if labels is None:
            return Reject(path, "labels not readable", "not a list of texts")
        if _EXCLUDE in labels:
            return Reject(path, "excluded by the dataset")
        return SourcePair(
            dataset=self.name,
            source_id=row["ImageID"],
            image=path,
            patient=row["PatientID"],
            # Three study ids are of two patients each.
            study=f"{row['PatientID']}_{row['StudyID']}",
            view=VIEWS[row["Projection"]],
            sex=read_sex(row["PatientSex_DICOM"]),
            age_years=_age_years(row["StudyDate_DICOM"], row["PatientBirth"]),
            report=None if row["Report"] in ("", "nan", "None") else row["Report"],
            language="es",
            labels=labels,
        )


def _read_labels(cells: set[str]) -> dict[str, Labels | None]:
    """The labels of each cell that occurs; None where it is no list. Pairs of one cell share them."""
    listed = {cell: _listed(cell) for cell in cells}
    findings = sorted({name for names in listed.values() for name in names or ()} - _NO_FINDINGS)
    return {cell: None if names is None else _labels(names, findings) for cell, names in listed.items()}


def _listed(cell: str) -> frozenset[str] | None:
    """The texts of a Python list; none of an empty cell; None where it is something else."""
    if cell in ("", "nan"):
        return frozenset()
    try:
        names = ast.literal_eval(cell)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return frozenset(name.strip() for name in names)


def _labels(names: frozenset[str], findings: list[str]) -> Labels:
    if _EXCLUDE in names:
        return {_EXCLUDE: True}
    if not names - {""}:
        return {}
    present = names - _NO_FINDINGS
    normal = _NORMAL in names and not present
    absent = False if normal or not names.intersection(_UNSURE) else None
    labels: Labels = {name: True if name in present else absent for name in findings}
    labels[NO_FINDING] = True if normal else False if present else None
    return labels


def _age_years(study_date: str, birth_year: str) -> float | None:
    """Years between the study's date (YYYYMMDD) and the year of birth ('1930.0'); None where one is missing."""
    if not study_date[:4].isdecimal() or not birth_year.removesuffix(".0").isdecimal():
        return None
    years = int(study_date[:4]) - int(birth_year.removesuffix(".0"))
    return read_age(str(years)) if years >= 0 else None
