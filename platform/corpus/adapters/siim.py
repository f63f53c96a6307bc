"""SIIM-ACR Pneumothorax Segmentation (Kaggle 2019): images of ChestX-ray14, with the outlines of pneumothoraces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from chexray.platform import storage
from chexray.platform.corpus.adapters.annotations import NO_MASK, Row, rows_by, run_mask
from chexray.platform.corpus.adapters.images import IMAGE_SUFFIXES, images_by_stem
from chexray.platform.corpus.adapters.options import Share
from chexray.platform.corpus.adapters.table import check_root, find_table
from chexray.platform.corpus.schema import DatasetCard, Reject, SourcePair, Split
from chexray.platform.corpus.splits import assign_train_or_validation

CSV_NAMES = ("stage_2_train.csv", "stage_2_train.csv.gz", "train-rle.csv", "train-rle.csv.gz")
"""The first that is there: stage 2 has all of stage 1, and the labels of its test images."""
FINDING = "Pneumothorax"
SIZE = (1024, 1024)
"""Height and width of every image: the masks' runs cover so many pixels."""

_TEST_FOLDER = "dicom-images-test"


@dataclass(frozen=True)
class SiimAcrAdapter:
    """SIIM-ACR below `root`: `stage_2_train.csv` or `train-rle.csv` there, images anywhere below, by name.

    The CSV has `ImageId` and `EncodedPixels`, one row a mask (up to ten an image), or -1 for no pneumothorax, whose
    mask is empty. Images are `dicom-images-train/<study>/<series>/<id>.dcm`, or PNG of the same name.

    Stage 2 labels the test images of stage 1: where some lie in `dicom-images-test/`, they are test, and of the
    others the share `validation_share` is validation, by a hash of the id and `seed`. Else there is no split. Images
    without a row are Kaggle's hidden test, and are not listed. There are no patient ids: each image counts as a
    patient. The images are NIH's under other names, so check for leaks against ChestX-ray14.
    Expected: 12,047 images, 2,669 with pneumothorax; 10,675 of them in stage 1 and 1,372 in its test.
    Licence: the competition's rules, research and education only.
    """

    name: ClassVar[str] = "siim-acr"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="SIIM-ACR Pneumothorax",
        use="evaluation",
        images=12_047,
        patients=None,
        reports=None,
        findings=1,
        masks=(FINDING,),
        licence="competition rules: research and education only",
        citation="Society for Imaging Informatics in Medicine and American College of Radiology, Kaggle 2019",
        url="https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation",
    )

    root: str
    validation_share: Share = 0.1
    seed: int = 0

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every image that the table names."""
        check_root(self.root)
        table = find_table(self.root, CSV_NAMES, ("ImageId", "EncodedPixels"))
        images = images_by_stem(storage.list_files(self.root, IMAGE_SUFFIXES))
        groups = rows_by(table, "ImageId")
        official = any(_is_test(images[image]) for image in groups if image in images)
        for image, rows in groups.items():
            if image in images:
                yield self._pair(image, images[image], rows, official=official)
            else:
                yield Reject(image, "image file missing")

    def _pair(self, image: str, path: str, rows: Sequence[Row], *, official: bool) -> SourcePair | Reject:
        cells = dict.fromkeys(row["EncodedPixels"] for row in rows)
        runs = tuple(cell for cell in cells if cell not in (NO_MASK, ""))
        if runs and len(runs) < len(cells):
            return Reject(path, "labels contradict each other", "a mask and none")
        if "" in cells:
            return Reject(path, "labels not readable", "no mask and no -1")
        return SourcePair(
            dataset=self.name,
            source_id=image,
            image=path,
            patient=image,
            study=image,
            split=self._split(image, path) if official else None,
            labels={FINDING: bool(runs)},
            masks={FINDING: run_mask(runs, SIZE)},
        )

    def _split(self, image: str, path: str) -> Split:
        return "test" if _is_test(path) else assign_train_or_validation(image, self.seed, self.validation_share)


def _is_test(path: str) -> bool:
    return _TEST_FOLDER in path.split("/")
