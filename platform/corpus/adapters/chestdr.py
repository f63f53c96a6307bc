"""ChestDR, the radiographs of MedFMC (Wang et al. 2023): 4,848 labelled images of a hospital in China."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from chexray.platform import storage
from chexray.platform.corpus.adapters.cells import read_labels
from chexray.platform.corpus.adapters.images import RASTER_SUFFIXES, file_name, files_by_name, unlisted
from chexray.platform.corpus.adapters.options import FileBelow
from chexray.platform.corpus.adapters.table import Table, check_root, find_table
from chexray.platform.corpus.schema import DatasetCard, Reject, SourcePair

FINDINGS = {
    "pleural_effusion": "Pleural Effusion",
    "nodule": "Nodule",
    "pneumonia": "Pneumonia",
    "cardiomegaly": "Cardiomegaly",
    "hilar_enlargement": "Hilar Enlargement",
    "fracture_old": "Old Fracture",
    "fibrosis": "Fibrosis",
    "aortic_calcification": "Aortic Calcification",
    "tortuous_aorta": "Tortuous Aorta",
    "thickened_pleura": "Thickened Pleura",
    "TB": "Tuberculosis",
    "pneumothorax": "Pneumothorax",
    "emphysema": "Emphysema",
    "atelectasis": "Atelectasis",
    "calcification": "Calcification",
    "pulmonary_edema": "Pulmonary Edema",
    "increased_lung_markings": "Increased Lung Markings",
    "elevated_diaphragm": "Elevated Diaphragm",
    "consolidation": "Consolidation",
}
"""The columns of the 19 labels, in the file's order, and what they say."""

CSV_NAMES = (
    "chestdr_published_19d.csv",
    "MedFMC_trainval_annotation/chestdr_published_19d.csv",
    "MedFMC_train/chest/chest_train.csv",
    "chest_train.csv",
)
_OTHER_TASKS = frozenset({"colon", "endo"})


@dataclass(frozen=True)
class ChestDrAdapter:
    """ChestDR below `root`: a table there, its images anywhere below, found by name.

    `chestdr_published_19d.csv` (also in `MedFMC_trainval_annotation/`, or the challenge's `chest_train.csv` with 2,140
    images; `csv` names another): `image_column` holds a file's name, 19 columns the labels 1 and 0. Images are in
    `images/`, or in the challenge's `MedFMC_train/chest/images` and `MedFMC_val/chest/images`; those of its other
    tasks (colon, endo) are passed over.

    Whose image it is comes from `patient_column` where the table has it; what that column holds could not be checked,
    and without it each image is its own patient. All views are frontal, PA or AP not said. No official split of the
    published labels: the challenge's test images come from another hospital and have none. No reports.
    Licence: see the dataset's page.
    """

    name: ClassVar[str] = "chestdr"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="ChestDR (MedFMC)",
        use="pretraining",
        images=4_848,
        patients=None,
        reports=None,
        findings=19,
        masks=(),
        licence="see the dataset's page",
        citation="Wang et al., MedFMC, Scientific Data 10, 574, 2023",
        url="https://doi.org/10.6084/m9.figshare.c.6476047",
    )

    root: str
    csv: FileBelow | None = None
    image_column: str = "img_id"
    patient_column: str = "study_id"

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every row, then a reject for every image that no row names."""
        check_root(self.root)
        names = (self.csv,) if self.csv is not None else CSV_NAMES
        table = find_table(self.root, names, (self.image_column, *FINDINGS))
        listed = storage.list_files(self.root, RASTER_SUFFIXES)
        files = [path for path in listed if not _OTHER_TASKS & {*path.split("/")}]
        images = files_by_name(files)
        seen: set[str] = set()
        for row in table.rows:
            name = row[self.image_column]
            path = images.get(name)
            if name in seen:
                yield Reject(path or name, "duplicate row")
            elif path is None:
                yield Reject(name, "image file missing", None if name else "the path is empty")
            else:
                yield self._pair(table, row, path)
            seen.add(name)
        yield from unlisted(files, {path for path in files if file_name(path) in seen})

    def _pair(self, table: Table, row: dict[str, str], path: str) -> SourcePair:
        name = row[self.image_column]
        labels = read_labels(table.uri, row, FINDINGS)
        return SourcePair(
            dataset=self.name,
            source_id=name,
            image=path,
            patient=row.get(self.patient_column) or name,
            study=row.get(self.patient_column) or name,
            labels={FINDINGS[column]: value for column, value in labels.items()},
        )
