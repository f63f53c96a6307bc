"""CheXpert of Stanford (Irvin et al. 2019), in four releases that share patients: the cohort `chexpert`.

Patients, studies and views are in the paths alone: `patient00001/study1/view1_frontal.jpg`. Images are found by these
three parts, so that every release is read: as one folder, as the numbered parts of the download, resized, or as PNG.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from chexray.platform import storage
from chexray.platform.corpus.adapters.cells import (
    CHEXPERT_FINDINGS,
    find_optional_table,
    find_table,
    join_sections,
    read_age,
    read_labels,
    read_sex,
)
from chexray.platform.corpus.adapters.chexpert_files import (
    STUDY_PATH,
    Labels,
    find_view,
    first_frontals,
    images_by_view,
    read_chexbert,
    read_projection,
)
from chexray.platform.corpus.adapters.table import Table, check_root
from chexray.platform.corpus.schema import DatasetCard, Reject, SourcePair, Split

COHORT = "chexpert"
FIVE_FINDINGS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The findings of CheXpert's competition."""

LICENCE = "Stanford University Dataset Research Use Agreement"
CITATION = "Irvin et al., CheXpert, AAAI 2019"

_RASTER = (".jpg", ".jpeg", ".png")
_DICOM = (".dcm", ".dicom")
_COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_FINDINGS)
_SPLITS: dict[str, Split] = {"train": "train", "valid": "validation", "test": "test"}


@dataclass(frozen=True)
class ChexpertAdapter:
    """CheXpert-v1.0 or -v1.0-small below `root`: `train.csv` and `valid.csv` there, images anywhere below.

    The official validation set is validation; without `valid.csv` all is train. Labels are mined from reports: 1, 0,
    and unknown for uncertain (-1) and for not mentioned (nothing). 'No Finding' is never 0.
    Expected: 223,414 + 234 images of 64,540 + 200 patients. 2,560 training images have no certain label. Ages are at
    most 90, and the 0 of three images is no age. 17 frontal images have LL or RL for AP or PA: their view is unknown.
    The reports are in CheXpert Plus. Licence: Stanford University Dataset Research Use Agreement.
    """

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

    @property
    def name(self) -> str:
        return "chexpert"

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every row."""
        check_root(self.root)
        train = find_table(self.root, ("train.csv", "train.csv.gz"), _COLUMNS)
        valid = find_optional_table(self.root, ("valid.csv", "valid.csv.gz"), _COLUMNS)
        images = images_by_view(storage.list_files(self.root, _RASTER))
        seen: set[str] = set()
        yield from self._of_table(train, "train", images, seen)
        if valid is not None:
            yield from self._of_table(valid, "validation", images, seen)

    def _of_table(
        self, table: Table, split: Split, images: dict[str, str], seen: set[str]
    ) -> Iterator[SourcePair | Reject]:
        for number, row in enumerate(table.rows, start=1):
            found = find_view(row["Path"], images, seen)
            if isinstance(found, Reject):
                yield found
                continue
            yield SourcePair(
                dataset=self.name,
                source_id=found.group(),
                image=images[found.group()],
                patient=found["patient"],
                study=found["study"],
                view=read_projection(row["Frontal/Lateral"], row["AP/PA"]),
                split=split,
                sex=read_sex(row["Sex"]),
                age_years=read_age(row["Age"]) or None,
                labels=read_labels(f"{table.uri}, row {number}", row, CHEXPERT_FINDINGS),
                cohort=COHORT,
            )


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

    @property
    def name(self) -> str:
        return "chexpert-plus"

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every row."""
        check_root(self.root)
        section = "report" if self.labels == "report" else f"section_{self.labels}"
        columns = ("path_to_image", "frontal_lateral", "ap_pa", "section_findings", "section_impression", "report")
        table = find_table(self.root, ("df_chexpert_plus_240401.csv",), (*columns, "age", "sex", "split"))
        files = storage.list_files(self.root)
        suffixes = (_RASTER, _DICOM) if self.images == "raster" else (_DICOM, _RASTER)
        first, second = (images_by_view(path for path in files if path.lower().endswith(end)) for end in suffixes)
        images = second | first
        labels = self._read_labels(files)
        seen: set[str] = set()
        for row in table.rows:
            found = find_view(row["path_to_image"], images, seen)
            if isinstance(found, Reject):
                yield found
            elif row["split"] not in _SPLITS:
                yield Reject(images[found.group()], "split not known", repr(row["split"]))
            else:
                yield SourcePair(
                    dataset=self.name,
                    source_id=found.group(),
                    image=images[found.group()],
                    patient=found["patient"],
                    study=found["study"],
                    view=read_projection(row["frontal_lateral"], row["ap_pa"]),
                    split=_SPLITS[row["split"]],
                    sex=read_sex(row["sex"]),
                    age_years=read_age(row["age"]) or None,
                    report=join_sections(row["section_findings"], row["section_impression"]) or row["report"] or None,
                    labels=labels.get(found.group(), {}) if row[section] else {},
                    cohort=COHORT,
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

    @property
    def name(self) -> str:
        return "chexpert-test"

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every study."""
        check_root(self.root)
        table = find_table(self.root, ("groundtruth.csv", "test_labels.csv"), CHEXPERT_FINDINGS)
        column = "Study" if "Study" in table.columns else "Path"
        table.require((column,))
        frontals = first_frontals(storage.list_files(self.root, _RASTER))
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

    @property
    def name(self) -> str:
        return "chexpert-5x200"

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every row."""
        check_root(self.root)
        table = find_table(self.root, ("chexpert_5x200.csv",), ("Path", *FIVE_FINDINGS))
        images = images_by_view(storage.list_files(self.root, _RASTER))
        seen: set[str] = set()
        for number, row in enumerate(table.rows, start=1):
            found = find_view(row["Path"], images, seen)
            if isinstance(found, Reject):
                yield found
                continue
            labels = read_labels(f"{table.uri}, row {number}", row, FIVE_FINDINGS)
            present = [name for name, value in labels.items() if value]
            if len(present) != 1:
                yield Reject(images[found.group()], "not exactly one of the five findings", ", ".join(present) or None)
                continue
            yield SourcePair(
                dataset=self.name,
                source_id=found.group(),
                image=images[found.group()],
                patient=found["patient"],
                study=found["study"],
                view=read_projection(row.get("Frontal/Lateral", ""), row.get("AP/PA", "")),
                split="test",
                sex=read_sex(row.get("Sex", "")),
                age_years=read_age(row.get("Age", "")) or None,
                report=join_sections(None, row.get("Report Impression")),
                labels={name: name in present for name in FIVE_FINDINGS},
                cohort=COHORT,
            )
