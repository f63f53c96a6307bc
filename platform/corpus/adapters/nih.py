"""NIH ChestX-ray14 (Wang et al. 2017) in its original files: 112,120 images of 30,805 patients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from chexray.platform import storage
from chexray.platform.corpus.adapters.annotations import box_masks, read_boxes
from chexray.platform.corpus.adapters.cells import read_age, read_sex, read_view
from chexray.platform.corpus.adapters.images import file_name, files_by_name
from chexray.platform.corpus.adapters.options import Share
from chexray.platform.corpus.adapters.table import check_root, find_optional_table, find_table
from chexray.platform.corpus.schema import NO_FINDING, DatasetCard, MaskSource, Reject, SourcePair, Split
from chexray.platform.corpus.splits import assign_train_or_validation
from chexray.platform.errors import UsageError

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
"""The 14 labels, mined from reports: a finding that is not listed counts as absent."""

CSV_NAMES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
BOX_NAMES = ("BBox_List_2017.csv", "BBox_List_2017.csv.gz")
"""984 boxes of eight findings on 880 images, by a radiologist, in pixels of the 1024 x 1024 PNG files."""

SPLIT_LISTS = ("train_val_list.txt", "test_list.txt")
_COLUMNS = (
    "Image Index",
    "Finding Labels",
    "Follow-up #",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
)
_BOX_COLUMNS = ("Bbox [x", "y", "w", "h]")
"""The header is 'Bbox [x,y,w,h],,,': a CSV reader takes it apart."""


@dataclass(frozen=True)
class NihAdapter:
    """ChestX-ray14 below `root`: its CSV there, its PNG files anywhere below, found by name.

    With the official lists (`train_val_list.txt` and `test_list.txt`) beside the CSV, test is the official
    one, and of the other patients the share `validation_share` is validation, by a hash of patient and
    `seed`. Without them pairs have no split of their own. With `BBox_List_2017.csv` there, the union of an
    image's boxes of a finding is its mask; other images have none.
    Expected: 112,120 images of 30,805 patients, 25,596 of them test; 880 with boxes.
    Licence: free use with attribution to the NIH Clinical Center.
    """

    name: ClassVar[str] = "nih"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="NIH ChestX-ray14",
        use="either",
        images=112_120,
        patients=30_805,
        reports=None,
        findings=14,
        masks=("8 findings, as boxes",),
        licence="free use with attribution to the NIH Clinical Center",
        citation="Wang et al., ChestX-ray8, CVPR 2017",
        url="https://nihcc.app.box.com/v/ChestXray-NIHCC",
    )

    root: str
    validation_share: Share = 0.1
    seed: int = 0

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every row, then a reject for every image that no row names."""
        check_root(self.root)
        table = find_table(self.root, CSV_NAMES, _COLUMNS)
        listed = _official_test_images(self.root)
        masks = _box_masks(self.root)
        files = storage.list_files(self.root, (".png",))
        images = files_by_name(files)
        seen: set[str] = set()
        for row in table.rows:
            image = row["Image Index"]
            if image in seen:
                yield Reject(images.get(image, image), "duplicate row")
            elif image not in images:
                yield Reject(image, "image file missing")
            else:
                yield self._pair(row, images[image], listed, masks.get(image, {}))
            seen.add(image)
        for path in files:
            name = file_name(path)
            if name not in seen:
                yield Reject(path, "image without a row")
            elif path != images[name]:
                yield Reject(path, "duplicate image", f"also at {images[name]}")

    def _pair(
        self, row: dict[str, str], path: str, listed: dict[str, bool] | None, masks: dict[str, MaskSource]
    ) -> SourcePair | Reject:
        image, patient = row["Image Index"], row["Patient ID"]
        if listed is not None and image not in listed:
            # A split by hash could put the patient on both sides of the official one.
            return Reject(path, "image in neither official split list")
        present = set(row["Finding Labels"].split("|"))
        unknown = present - {*FINDINGS, NO_FINDING}
        if unknown:
            return Reject(path, "label not known", ", ".join(sorted(unknown)) or "empty")
        return SourcePair(
            dataset=self.name,
            source_id=image,
            image=path,
            patient=patient,
            study=f"{patient}_{row['Follow-up #']}",
            view=read_view(row["View Position"]),
            split=None if listed is None else self._split(patient, in_test=listed[image]),
            sex=read_sex(row["Patient Gender"]),
            # Data_Entry_2017.csv has typing errors such as 411; v2020 none.
            age_years=read_age(row["Patient Age"]),
            labels={name: name in present for name in (*FINDINGS, NO_FINDING)},
            masks=masks,
        )

    def _split(self, patient: str, *, in_test: bool) -> Split:
        if in_test:
            return "test"
        return assign_train_or_validation(patient, self.seed, self.validation_share)


def _official_test_images(root: str) -> dict[str, bool] | None:
    """Whether each listed image is in the official test set; None where the dataset has no lists."""
    uris = [storage.join(root, name) for name in SPLIT_LISTS]
    found = [storage.exists(uri) for uri in uris]
    if not any(found):
        return None
    if not all(found):
        raise UsageError(
            f"{root}: has {SPLIT_LISTS[found.index(True)]} but not {SPLIT_LISTS[found.index(False)]}; "
            "add it for the official split, or remove the other for a split by patient"
        )
    train_val, test = (storage.read_bytes(uri).decode().split() for uri in uris)
    return {**dict.fromkeys(train_val, False), **dict.fromkeys(test, True)}


def _box_masks(root: str) -> dict[str, dict[str, MaskSource]]:
    """Masks by image and finding; {} where the file of boxes is not there."""
    table = find_optional_table(root, BOX_NAMES, ("Image Index", "Finding Label", *_BOX_COLUMNS))
    if table is None:
        return {}
    boxes = read_boxes(table, "Image Index", "Finding Label", _BOX_COLUMNS, sized=True)
    spelt = {"Infiltrate": "Infiltration"}
    return {
        image: box_masks({spelt.get(name, name): drawn for name, drawn in by_finding.items()})
        for image, by_finding in boxes.items()
    }
