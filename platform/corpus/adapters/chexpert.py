"""CheXpert of Stanford (Irvin et al. 2019), in four releases that share patients: the cohort `chexpert`.

Patients, studies and views are in the paths alone: `patient00001/study1/view1_frontal.jpg`. Images are found by these
three parts, so that every release is read: as one folder, as the numbered parts of the download, resized, or as PNG.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal, NamedTuple

from chexray.platform import storage
from chexray.platform.corpus.adapters.annotations import Row
from chexray.platform.corpus.adapters.cells import CHEXPERT_FINDINGS, join_sections, read_age, read_labels, read_sex
from chexray.platform.corpus.adapters.chexpert_files import (
    STUDY_PATH,
    Labels,
    find_view,
    first_frontals,
    images_by_view,
    read_chexbert,
    read_projection,
)
from chexray.platform.corpus.adapters.images import DICOM_SUFFIXES, RASTER_SUFFIXES
from chexray.platform.corpus.adapters.table import Table, check_root, find_optional_table, find_table
from chexray.platform.corpus.schema import DatasetCard, Reject, SourcePair, Split

COHORT = "chexpert"
FIVE_FINDINGS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The findings of CheXpert's competition."""

LICENCE = "Stanford University Dataset Research Use Agreement"
CITATION = "Irvin et al., CheXpert, AAAI 2019"

_SPLITS: dict[str, Split] = {"train": "train", "valid": "validation", "test": "test"}

Complete = Callable[[str, Row, SourcePair], SourcePair | Reject]
"""Adds to a pair what a release says beyond view, sex and age. Its arguments: file and row for errors, row, pair."""


class _Columns(NamedTuple):
    path: str
    sex: str
    age: str
    side: str
    projection: str


_COLUMNS = _Columns("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
_PLUS_COLUMNS = _Columns("path_to_image", "sex", "age", "frontal_lateral", "ap_pa")


@dataclass(frozen=True)
class ChexpertAdapter:
    """CheXpert-v1.0 or -v1.0-small below `root`: `train.csv` and `valid.csv` there, images anywhere below.

    The official validation set is validation; without `valid.csv` all is train. Labels are mined from reports: 1, 0,
    and unknown for uncertain (-1) and for not mentioned (nothing). 'No Finding' is never 0.
    Expected: 223,414 + 234 images of 64,540 + 200 patients. 2,560 training images have no certain label. Ages are at
    most 90, and the 0 of three images is no age. 17 frontal images have LL or RL for AP or PA: their view is unknown.
    The reports are in CheXpert Plus. Licence: Stanford University Dataset Research Use Agreement.
    """

    name: ClassVar[str] = "chexpert"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="CheXpert",
        use="either",
        images=223_648,
        patients=64_740,
        reports=None,
        findings=14,
        masks=(),
        licence=LICENCE,
        citation=CITATION,
        url="https://stanfordmlgroup.github.io/competitions/chexpert/",
    )

    root: str

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every row."""
        check_root(self.root)
        columns = (*_COLUMNS, *CHEXPERT_FINDINGS)
        tables: dict[Split, Table | None] = {
            "train": find_table(self.root, ("train.csv", "train.csv.gz"), columns),
            "validation": find_optional_table(self.root, ("valid.csv", "valid.csv.gz"), columns),
        }
        images = images_by_view(storage.list_files(self.root, RASTER_SUFFIXES))
        seen: set[str] = set()
        for split, table in tables.items():
            if table is not None:
                yield from _list_views(self.name, table, _COLUMNS, images, seen, partial(_label, split))


@dataclass(frozen=True)
class ChexpertPlusAdapter:
    """CheXpert Plus (Chambon et al. 2024) below `root`: the reports of CheXpert, and its images as PNG or DICOM.

    `df_chexpert_plus_240401.csv` at the root, images anywhere below (CheXpert's own JPEG files too); with `images`
    the format that is taken where both are there. The report is the findings and the impression, else the whole
    text. Splits are the official ones: `valid` is validation. The columns on race, insurance and death are not read.

    CheXbert's labels, `<labels>_fixed.json` (one JSON object a line), are used where they lie anywhere below. Those
    of a report whose section is empty are not: CheXbert calls an empty text 'No Finding'.
    Expected: 223,462 images of 187,711 studies and 64,725 patients; DICOM files for 210,969.
    Licence: Stanford University Dataset Research Use Agreement.
    """

    name: ClassVar[str] = "chexpert-plus"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="CheXpert Plus",
        use="pretraining",
        images=223_462,
        patients=64_725,
        reports="en",
        findings=14,
        masks=(),
        licence=LICENCE,
        citation="Chambon et al., CheXpert Plus, arXiv 2405.19538, 2024",
        url="https://aimi.stanford.edu/datasets/chexpert-plus",
    )

    root: str
    images: Literal["raster", "dicom"] = "raster"
    labels: Literal["impression", "findings", "report"] = "impression"

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every row."""
        check_root(self.root)
        columns = ("path_to_image", "frontal_lateral", "ap_pa", "section_findings", "section_impression", "report")
        table = find_table(self.root, ("df_chexpert_plus_240401.csv",), (*columns, "age", "sex", "split"))
        files = storage.list_files(self.root)
        suffixes = (RASTER_SUFFIXES, DICOM_SUFFIXES) if self.images == "raster" else (DICOM_SUFFIXES, RASTER_SUFFIXES)
        first, second = (images_by_view(path for path in files if path.lower().endswith(end)) for end in suffixes)
        images = second | first
        complete = partial(self._complete, self._read_labels(files))
        yield from _list_views(self.name, table, _PLUS_COLUMNS, images, set(), complete)

    def _complete(self, labels: dict[str, Labels], _where: str, row: Row, pair: SourcePair) -> SourcePair | Reject:
        if row["split"] not in _SPLITS:
            return Reject(pair.image, "split not known", repr(row["split"]))
        section = "report" if self.labels == "report" else f"section_{self.labels}"
        return replace(
            pair,
            split=_SPLITS[row["split"]],
            report=join_sections(row["section_findings"], row["section_impression"]) or row["report"] or None,
            labels=labels.get(pair.source_id, {}) if row[section] else {},
        )

    def _read_labels(self, files: Iterable[str]) -> dict[str, Labels]:
        """The labels by view; {} where their file is not there."""
        name = f"{self.labels}_fixed.json"
        path = next((path for path in files if path.rsplit("/", 1)[-1] == name), None)
        return {} if path is None else read_chexbert(storage.join(self.root, path))


@dataclass(frozen=True)
class ChexpertTestAdapter:
    """CheXpert's test set (500 studies, one a patient) below `root`: the first frontal view of each, all test.

    `groundtruth.csv` (by study, of the label release) or `test_labels.csv` (by image, of CheXlocalize) at the root,
    images anywhere below. Eight board-certified radiologists labelled it: five of them, by majority, are the truth.
    Expected: 500 pairs of the 668 images. Licence: Stanford University Dataset Research Use Agreement.
    """

    name: ClassVar[str] = "chexpert-test"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="CheXpert test set",
        use="evaluation",
        images=500,
        patients=500,
        reports=None,
        findings=14,
        masks=(),
        licence=LICENCE,
        citation="Rajpurkar et al., CheXpedition, 2020; Saporta et al., CheXlocalize, Nature Machine Intelligence 2022",
        url="https://github.com/rajpurkarlab/cheXpert-test-set-labels",
    )

    root: str

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every study."""
        check_root(self.root)
        table = find_table(self.root, ("groundtruth.csv", "test_labels.csv"), CHEXPERT_FINDINGS)
        column = "Study" if "Study" in table.columns else "Path"
        table.require((column,))
        frontals = first_frontals(storage.list_files(self.root, RASTER_SUFFIXES))
        seen: set[str] = set()
        for number, row in enumerate(table.rows, start=1):
            found = STUDY_PATH.search(row[column])
            study = found.group() if found else row[column]
            if found is None:
                yield Reject(study, "path not known", "no patient and study in it")
            elif study not in seen and study not in frontals:
                yield Reject(study, "image file missing", "no frontal view")
            elif study not in seen:
                yield SourcePair(
                    dataset=self.name,
                    source_id=study,
                    image=frontals[study],
                    patient=found["patient"],
                    study=study,
                    split="test",
                    labels=read_labels(f"{table.uri}, row {number}", row, CHEXPERT_FINDINGS),
                    cohort=COHORT,
                )
            seen.add(study)


@dataclass(frozen=True)
class Chexpert5x200Adapter:
    """CheXpert 5x200 (Huang et al. 2021) below `root`: 200 images for each of five findings, all test.

    GLoRIA's `chexpert_5x200.csv` at the root, CheXpert's images anywhere below. Each image has exactly one of the
    five findings. The report is the column `Report Impression` where the file has it; without, it is written from
    the labels. The images are of CheXpert's *training* set: a model that trained on it has seen them.
    Expected: 1,000 images. Licence: Stanford University Dataset Research Use Agreement.
    """

    name: ClassVar[str] = "chexpert-5x200"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="CheXpert 5x200",
        use="evaluation",
        images=1000,
        patients=None,
        reports="en",
        findings=5,
        masks=(),
        licence=LICENCE,
        citation="Huang et al., GLoRIA, ICCV 2021",
        url="https://github.com/marshuang80/gloria",
    )

    root: str

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every row."""
        check_root(self.root)
        table = find_table(self.root, ("chexpert_5x200.csv",), ("Path", *FIVE_FINDINGS))
        images = images_by_view(storage.list_files(self.root, RASTER_SUFFIXES))
        yield from _list_views(self.name, table, _COLUMNS, images, set(), _label_one_of_five)


def _list_views(
    dataset: str, table: Table, columns: _Columns, images: dict[str, str], seen: set[str], complete: Complete
) -> Iterator[SourcePair | Reject]:
    """What `complete` makes of every row; a reject for one whose view is no view, in `seen` or not among `images`."""
    for number, row in enumerate(table.rows, start=1):
        found = find_view(row[columns.path], images, seen)
        if isinstance(found, Reject):
            yield found
            continue
        pair = SourcePair(
            dataset=dataset,
            source_id=found.group(),
            image=images[found.group()],
            patient=found["patient"],
            study=found["study"],
            # CheXpert 5x200 may lack these columns.
            view=read_projection(row.get(columns.side, ""), row.get(columns.projection, "")),
            sex=read_sex(row.get(columns.sex, "")),
            age_years=read_age(row.get(columns.age, "")) or None,
            cohort=COHORT,
        )
        yield complete(f"{table.uri}, row {number}", row, pair)


def _label(split: Split, where: str, row: Row, pair: SourcePair) -> SourcePair:
    return replace(pair, split=split, labels=read_labels(where, row, CHEXPERT_FINDINGS))


def _label_one_of_five(where: str, row: Row, pair: SourcePair) -> SourcePair | Reject:
    labels = read_labels(where, row, FIVE_FINDINGS)
    present = [name for name, value in labels.items() if value]
    if len(present) != 1:
        return Reject(pair.image, "not exactly one of the five findings", ", ".join(present) or None)
    report = join_sections(None, row.get("Report Impression"))
    return replace(pair, split="test", report=report, labels={name: name in present for name in FIVE_FINDINGS})
