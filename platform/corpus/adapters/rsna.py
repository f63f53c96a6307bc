"""RSNA Pneumonia Detection Challenge (Shih et al. 2019): 26,684 radiographs of ChestX-ray14, with boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from chexray.platform import storage
from chexray.platform.corpus.adapters.annotations import Row, read_boxes, rows_by
from chexray.platform.corpus.adapters.images import IMAGE_SUFFIXES, images_by_stem
from chexray.platform.corpus.adapters.table import check_root, find_optional_table, find_table
from chexray.platform.corpus.masks import Box
from chexray.platform.corpus.schema import NO_FINDING, DatasetCard, MaskSource, Reject, SourcePair

LABELS = ("stage_2_train_labels.csv", "stage_2_train_labels.csv.gz")
CLASSES = ("stage_2_detailed_class_info.csv", "stage_2_detailed_class_info.csv.gz")
FINDING = "Pneumonia"
NORMAL = {"Normal": True, "Lung Opacity": False, "No Lung Opacity / Not Normal": False}
"""What the three classes say of `No Finding`."""

_BOX = ("x", "y", "width", "height")


@dataclass(frozen=True)
class RsnaPneumoniaAdapter:
    """The challenge's training set below `root`: `stage_2_train_labels.csv` there, images anywhere below, by name.

    A row is a box of an opacity that suggests pneumonia (`Target` 1; up to four an image), or says that there is
    none (`Target` 0), whose mask is empty. `stage_2_detailed_class_info.csv`, where it is there, tells the normal
    from those with another finding; without it 'No Finding' is unknown where there is no pneumonia.

    Images are `stage_2_train_images/<patientId>.dcm`, or PNG or JPEG of the same name and size (boxes are in pixels
    of 1024 x 1024). Their DICOM headers have view, sex and age. Those of `stage_2_test_images/` have no labels and
    are not listed. `patientId` names an image, not a patient. There are no official splits. The images are NIH's
    under other names, so check for leaks against ChestX-ray14.
    Expected: 26,684 images, 6,012 with pneumonia (9,555 boxes), 8,851 normal.
    Licence: the competition's rules, research and education only.
    """

    name: ClassVar[str] = "rsna-pneumonia"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="RSNA Pneumonia Detection",
        use="evaluation",
        images=26_684,
        patients=None,
        reports=None,
        findings=1,
        masks=(f"{FINDING}, as boxes",),
        licence="competition rules: research and education only",
        citation="Shih et al., Radiology: Artificial Intelligence 1, 2019",
        url="https://www.kaggle.com/c/rsna-pneumonia-detection-challenge",
    )

    root: str

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every image that the table names."""
        check_root(self.root)
        table = find_table(self.root, LABELS, ("patientId", *_BOX, "Target"))
        classes = find_optional_table(self.root, CLASSES, ("patientId", "class"))
        class_of = {row["patientId"]: row["class"] for row in classes.rows} if classes else {}
        images = images_by_stem(storage.list_files(self.root, IMAGE_SUFFIXES))
        boxes = read_boxes(table, "patientId", "Target", _BOX, sized=True)
        for image, rows in rows_by(table, "patientId").items():
            if image in images:
                drawn = boxes.get(image, {}).get("1", ())
                yield self._pair(image, images[image], rows, drawn, class_of.get(image))
            else:
                yield Reject(image, "image file missing")

    def _pair(
        self, image: str, path: str, rows: Sequence[Row], boxes: tuple[Box, ...], named: str | None
    ) -> SourcePair | Reject:
        targets = sorted({row["Target"] for row in rows})
        if targets not in (["0"], ["1"]):
            return Reject(path, "labels contradict each other", f"Target is {', '.join(targets)}")
        if named is not None and named not in NORMAL:
            return Reject(path, "label not known", repr(named))
        present = targets == ["1"]
        if present and (not boxes or named not in (None, "Lung Opacity")):
            return Reject(path, "labels contradict each other", f"Target is 1, boxes {len(boxes)}, class {named}")
        normal = NORMAL[named] if named else False if present else None
        return SourcePair(
            dataset=self.name,
            source_id=image,
            image=path,
            patient=image,
            study=image,
            labels={FINDING: present, NO_FINDING: normal},
            masks={FINDING: MaskSource(boxes=boxes)},
        )
