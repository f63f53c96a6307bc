"""VinDr-CXR and VinDr-PCXR of VinBigData: Vietnamese radiographs of adults and of children, labelled with boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from chexray.platform import storage
from chexray.platform.corpus.adapters.annotations import box_masks, read_boxes
from chexray.platform.corpus.adapters.cells import read_labels
from chexray.platform.corpus.adapters.images import IMAGE_SUFFIXES, images_by_stem
from chexray.platform.corpus.adapters.options import Share
from chexray.platform.corpus.adapters.table import Table, check_root, find_optional_table, find_table
from chexray.platform.corpus.masks import Box
from chexray.platform.corpus.schema import NO_FINDING, DatasetCard, Reject, SourcePair, Split
from chexray.platform.corpus.splits import assign_train_or_validation

LICENCE = "PhysioNet Credentialed Health Data License 1.5.0"
NAMES = {"No finding": NO_FINDING, "Other diseases": "Other disease"}
"""Columns that are spelt in two ways in training and test, or otherwise than elsewhere."""

_EDGES = ("x_min", "y_min", "x_max", "y_max")
_KAGGLE = ("train.csv", "train.csv.gz")

T = TypeVar("T")
Labels = dict[str, bool | None]
Boxes = dict[str, dict[str, tuple[Box, ...]]]


@dataclass(frozen=True)
class _Annotations:
    """What radiologists said: `readings` by image, one of each radiologist, and all their `boxes` by image."""

    split: Split | None
    readings: dict[str, list[Labels]]
    boxes: Boxes


@dataclass(frozen=True)
class VindrCxrAdapter:
    """VinDr-CXR below `root`, as PhysioNet or as Kaggle (VinBigData) publishes it.

    PhysioNet: `image_labels_{train,test}.csv` and `annotations_{train,test}.csv` at the root or in `annotations/`;
    images `train/<id>.dicom`, `test/<id>.dicom`, found by name. Test is the official one (consensus of five
    radiologists); of the rest the share `validation_share` is validation, by a hash of the image's id and `seed`.
    Kaggle: `train.csv` with a row a box, and the 15,000 training images; no split of its own. Its test images have
    no labels and are not listed.

    Training images have three radiologists: a finding is present where most of them say so, unknown where they tie.
    Masks are the union of all their boxes, of findings that are not absent. All images are PA. There are no patient
    ids: each image counts as a patient.
    Expected: 15,000 + 3,000 images, 28 labels (Kaggle: 15,000 and 15, of which 10,606 have no finding).
    Licence: PhysioNet Credentialed Health Data License 1.5.0.
    """

    name: ClassVar[str] = "vindr-cxr"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="VinDr-CXR",
        use="either",
        images=18_000,
        patients=None,
        reports=None,
        findings=28,
        masks=("22 findings, as boxes",),
        licence=LICENCE,
        citation="Nguyen et al., VinDr-CXR, Scientific Data 9, 2022",
        url="https://physionet.org/content/vindr-cxr/",
    )

    root: str
    validation_share: Share = 0.1
    seed: int = 0

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every image that the tables name."""
        check_root(self.root)
        kaggle = find_optional_table(self.root, _KAGGLE, ("image_id", "rad_id", "class_name", *_EDGES))
        annotations = _read_physionet(self.root) if kaggle is None else [_read_kaggle(kaggle)]
        yield from _list_pairs(self, "PA", annotations)


@dataclass(frozen=True)
class VindrPcxrAdapter:
    """VinDr-PCXR below `root`: radiographs of children under ten, labelled by one radiologist each.

    `image_labels_{train,test}.csv` and `annotations_{train,test}.csv` at the root or in `annotations/`; images
    `train/<id>.dicom`, `test/<id>.dicom`, found by name. Splits as in `VindrCxrAdapter`.

    The tables of labels name 15 diagnoses (spelt 'Brocho-pneumonia', 'Diagphramatic hernia'); the 36 findings are in
    the boxes alone, and are labels here too: present where boxed, else absent. There are no patient ids: each image
    counts as a patient. Views are in no table.
    Expected: 7,728 + 1,397 images, 5,143 + 907 of them without finding.
    Licence: PhysioNet Credentialed Health Data License 1.5.0.
    """

    name: ClassVar[str] = "vindr-pcxr"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="VinDr-PCXR",
        use="either",
        images=9_125,
        patients=None,
        reports=None,
        findings=51,
        masks=("36 findings, as boxes",),
        licence=LICENCE,
        citation="Pham et al., PediCXR, Scientific Data 10, 2023",
        url="https://physionet.org/content/vindr-pcxr/",
    )

    root: str
    validation_share: Share = 0.1
    seed: int = 0

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every image that the tables name."""
        check_root(self.root)
        annotations = _read_physionet(self.root)
        yield from _list_pairs(self, None, annotations)


def _list_pairs(
    adapter: VindrCxrAdapter | VindrPcxrAdapter, view: str | None, annotations: Sequence[_Annotations]
) -> Iterator[SourcePair | Reject]:
    images = images_by_stem(storage.list_files(adapter.root, IMAGE_SUFFIXES))
    boxed = sorted({finding for part in annotations for boxes in part.boxes.values() for finding in boxes})
    seen: set[str] = set()
    for part in annotations:
        for image, readings in part.readings.items():
            if image in seen:
                yield Reject(images.get(image, image), "image in two splits")
            elif image not in images:
                yield Reject(image, "image file missing")
            else:
                boxes = part.boxes.get(image, {})
                labels = {name: name in boxes for name in boxed} | _majority(readings)
                drawn = {name: shapes for name, shapes in boxes.items() if labels[name] is not False}
                split = part.split
                if split == "train":
                    split = assign_train_or_validation(image, adapter.seed, adapter.validation_share)
                yield SourcePair(
                    dataset=adapter.name,
                    source_id=image,
                    image=images[image],
                    patient=image,
                    study=image,
                    view=view,
                    split=split,
                    labels=labels,
                    masks=box_masks(drawn),
                )
            seen.add(image)


def _read_physionet(root: str) -> list[_Annotations]:
    parts: list[_Annotations] = []
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        labels = find_table(root, _places(f"image_labels_{split}.csv"), ("image_id",))
        boxes = find_table(root, _places(f"annotations_{split}.csv"), ("image_id", "class_name", *_EDGES))
        parts.append(_Annotations(split, _readings(labels), _boxes(boxes)))
    return parts


def _places(name: str) -> tuple[str, str]:
    return f"annotations/{name}", name


def _readings(table: Table) -> dict[str, list[Labels]]:
    """The rows of a table with a column a finding: training has one a radiologist ('rad_id' or 'rad_ID')."""
    columns = [name for name in table.columns if name.lower() not in ("image_id", "rad_id")]
    readings: dict[str, list[Labels]] = {}
    for number, row in enumerate(table.rows, start=1):
        labels = read_labels(f"{table.uri}, row {number}", row, columns)
        readings.setdefault(row["image_id"], []).append(_renamed(labels))
    return readings


def _read_kaggle(table: Table) -> _Annotations:
    """A row a box, or a row of 'No finding': who names a finding of the table says that it is present."""
    findings = sorted({row["class_name"] for row in table.rows})
    named: dict[str, dict[str, set[str]]] = {}
    for row in table.rows:
        named.setdefault(row["image_id"], {}).setdefault(row["rad_id"], set()).add(row["class_name"])
    readings: dict[str, list[Labels]] = {
        image: [_renamed({name: name in present for name in findings}) for present in by_radiologist.values()]
        for image, by_radiologist in named.items()
    }
    return _Annotations(None, readings, _boxes(table))


def _boxes(table: Table) -> Boxes:
    boxes = read_boxes(table, "image_id", "class_name", _EDGES, sized=False)
    return {image: _renamed(drawn) for image, drawn in boxes.items()}


def _renamed(by_finding: dict[str, T]) -> dict[str, T]:
    return {NAMES.get(name, name): value for name, value in by_finding.items()}


def _majority(readings: Sequence[Labels]) -> Labels:
    """What most radiologists say of each finding; None where as many say the opposite, or nobody says anything."""
    labels: Labels = {}
    for finding in readings[0]:
        votes = [reading[finding] for reading in readings]
        present, absent = votes.count(True), votes.count(False)
        labels[finding] = None if present == absent else present > absent
    return labels
