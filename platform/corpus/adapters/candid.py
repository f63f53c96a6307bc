"""CANDID-PTX (Feng et al. 2021): 19,237 radiographs of a hospital in New Zealand, reports, and masks by run length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from chexray.platform import storage
from chexray.platform.corpus.adapters.annotations import NO_MASK, Row, rows_by, run_mask
from chexray.platform.corpus.adapters.images import IMAGE_SUFFIXES, file_name, stem_of
from chexray.platform.corpus.adapters.table import check_root, find_optional_table, find_table
from chexray.platform.corpus.schema import DatasetCard, Reject, SourcePair

CSV_NAMES = ("Pneumothorax_reports.csv",)
EXTRA_MASKS = {
    "Chest Tube": ("chest_tube.csv",),
    "Rib Fracture": ("acute_rib_fracture.csv", "Rib_fracture_mask_rle.csv"),
}
"""From a finding to the tables that may list its masks."""

FINDINGS = ("Pneumothorax", "Chest Tube", "Rib Fracture")
"""The labels, and the names of their masks."""

RUNS_SIZE = (1024, 1024)
"""Every image is of this height and width."""


Runs = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class CandidPtxAdapter:
    """CANDID-PTX below `root`: its tables there, its DICOM files anywhere below, named by SOP Instance UID.

    `Pneumothorax_reports.csv` has a row a mask: SOPInstanceUID, StudyInstanceUID, filename (the patient's index before
    the first underscore), EncodedPixels ('-1' without pneumothorax, else runs as in SIIM-ACR's set, of 1024 x 1024
    pixels) and Report. `chest_tube.csv` and `acute_rib_fracture.csv` (also `Rib_fracture_mask_rle.csv`) have
    anon_SOPUID and mask_rle; without one of them its finding is unknown, and with it an image that is not listed has
    none, because each was looked at by physicians. The options name the columns of the tables at hand.

    Files are in `dataset/`, most without a suffix. An image of several rows has the union of their masks. The few
    images that the table gives to two patients are rejected. All views are frontal, PA or AP in their headers. No
    official split.
    Licence: the dataset's own agreement; since 2024 not given to users outside Health New Zealand.
    """

    name: ClassVar[str] = "candid-ptx"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="CANDID-PTX",
        use="pretraining",
        images=19_237,
        patients=None,
        reports="en",
        findings=3,
        masks=FINDINGS,
        licence="the dataset's own agreement",
        citation="Feng et al., CANDID-PTX, Radiology: Artificial Intelligence 3(6), e210136, 2021",
        url="https://doi.org/10.17608/k6.auckland.14173982",
    )

    root: str
    image_column: str = "SOPInstanceUID"
    study_column: str = "StudyInstanceUID"
    filename_column: str = "filename"
    mask_column: str = "EncodedPixels"
    report_column: str = "Report"
    extra_image_column: str = "anon_SOPUID"
    extra_mask_column: str = "mask_rle"

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every image of the table, then a reject for every image that it does not name."""
        check_root(self.root)
        columns = (self.image_column, self.filename_column, self.mask_column, self.report_column)
        table = find_table(self.root, CSV_NAMES, columns)
        rows = rows_by(table, self.image_column)
        extra = {name: self._extra_runs(names) for name, names in EXTRA_MASKS.items()}
        images = {stem_of(path): path for path in storage.list_files(self.root) if _is_image(path)}
        for uid, of_image in rows.items():
            yield self._pair(uid, of_image, images.get(uid), extra)
        for uid, path in images.items():
            if uid not in rows:
                yield Reject(path, "image without a row")

    def _extra_runs(self, names: tuple[str, ...]) -> Runs | None:
        """The runs of every image of a table; None without the table."""
        table = find_optional_table(self.root, names, (self.extra_image_column, self.extra_mask_column))
        if table is None:
            return None
        groups = rows_by(table, self.extra_image_column)
        return {uid: _runs(rows, self.extra_mask_column) for uid, rows in groups.items()}

    def _pair(
        self, uid: str, rows: Sequence[Row], path: str | None, extra: dict[str, Runs | None]
    ) -> SourcePair | Reject:
        if path is None:
            return Reject(uid, "image file missing")
        patients = {row[self.filename_column].split("_")[0] for row in rows}
        if len(patients) > 1:
            return Reject(path, "image of two patients")
        masks = {name: runs.get(uid, ()) for name, runs in extra.items() if runs is not None}
        if any(row[self.mask_column] for row in rows):
            masks["Pneumothorax"] = _runs(rows, self.mask_column)
        return SourcePair(
            dataset=self.name,
            source_id=uid,
            image=path,
            patient=patients.pop() or uid,
            study=rows[0].get(self.study_column) or uid,
            report=next((row[self.report_column] for row in rows if row[self.report_column]), None),
            labels={name: bool(masks[name]) if name in masks else None for name in FINDINGS},
            masks={name: run_mask(masks[name], RUNS_SIZE) for name in FINDINGS if name in masks},
        )


def _runs(rows: Sequence[Row], column: str) -> tuple[str, ...]:
    return tuple(row[column] for row in rows if row[column] not in ("", NO_MASK))


def _is_image(path: str) -> bool:
    """By a known suffix, or by a name of digits and dots alone, as a UID is."""
    name = file_name(path).lower()
    return name.endswith(IMAGE_SUFFIXES) or name.replace(".", "").isdecimal()
