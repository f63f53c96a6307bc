"""MIMIC-CXR (Johnson et al. 2019), as JPEG or as DICOM: 377,110 images, 227,835 reports, 65,379 patients."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from chexray.platform import storage
from chexray.platform.corpus.adapters.cells import CHEXPERT_FINDINGS, read_labels, read_view
from chexray.platform.corpus.adapters.images import unlisted
from chexray.platform.corpus.adapters.table import Table, check_root, find_optional_table, find_table
from chexray.platform.corpus.paths import below_root
from chexray.platform.corpus.schema import DatasetCard, Reject, SourcePair, Split
from chexray.platform.errors import UsageError

_log = logging.getLogger(__name__)

SPLITS: dict[str, Split] = {"train": "train", "validate": "validation", "test": "test"}
REPORT_FOLDERS = ("", "mimic-cxr-reports/")
"""Where `mimic-cxr-reports.zip` may have been unpacked, below the root."""

Labels = dict[str, bool | None]


def _card(title: str, citation: str, url: str) -> DatasetCard:
    return DatasetCard(
        title=title,
        use="pretraining",
        images=377_110,
        patients=65_379,
        reports="en",
        findings=14,
        masks=(),
        licence="PhysioNet Credentialed Health Data License 1.5.0",
        citation=citation,
        url=url,
    )


@dataclass(frozen=True)
class MimicCxrJpgAdapter:
    """MIMIC-CXR-JPG 2.0.0 or 2.1.0 below `root`, with the reports of MIMIC-CXR beside it.

    At the root: `mimic-cxr-2.0.0-split.csv.gz`, `-metadata.csv.gz` (view positions), and `-chexpert.csv.gz` or
    `-negbio.csv.gz` by `labeller`, unpacked or not; `files/p10/p10000032/s50414267/<dicom_id>.jpg`. Reports are in
    MIMIC-CXR alone: unpack its `mimic-cxr-reports.zip` at the root (`files/p10/p10000032/s50414267.txt`) or into
    `mimic-cxr-reports/`. Without any, reports are written from the labels, and a warning says so.

    Splits are the official ones, by patient. Labels are mined from the reports, one set a study: 1, 0, and nothing
    for uncertain (-1) or not mentioned. A few studies have no labels. Sex and age are in MIMIC-IV alone. The
    radiologists' labels of the test set in version 2.1.0 are not read.
    Licence: PhysioNet Credentialed Health Data License 1.5.0.
    """

    name: ClassVar[str] = "mimic-cxr-jpg"
    card: ClassVar[DatasetCard] = _card(
        "MIMIC-CXR-JPG",
        "Johnson et al., MIMIC-CXR-JPG, arXiv 1901.07042, 2019",
        "https://physionet.org/content/mimic-cxr-jpg/",
    )

    root: str
    labeller: Literal["chexpert", "negbio"] = "chexpert"

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every row of the metadata, then a reject for every image without one."""
        check_root(self.root)
        images = find_table(self.root, _names("metadata"), ("dicom_id", "subject_id", "study_id", "ViewPosition"))
        splits = _splits(find_table(self.root, _names("split"), ("dicom_id", "split")))
        labels = _labels(find_table(self.root, _names(self.labeller), ("study_id", *CHEXPERT_FINDINGS)))
        records = (_jpeg_record(row) for row in images.rows)
        yield from _pairs(self.name, self.root, records, splits, labels, ".jpg")


@dataclass(frozen=True)
class MimicCxrDicomAdapter:
    """MIMIC-CXR 2.0.0 or 2.1.0, the DICOM files, below `root`.

    At the root: `cxr-record-list.csv.gz` and `cxr-study-list.csv.gz`, unpacked or not, with the paths of images
    (`files/p10/p10000032/s50414267/<dicom_id>.dcm`) and of reports (`files/p10/p10000032/s50414267.txt`, from
    `mimic-cxr-reports.zip` unpacked at the root or into `mimic-cxr-reports/`).

    Tables of MIMIC-CXR-JPG are used where they lie there too: `mimic-cxr-2.0.0-split`, `-metadata` (views) and
    `-chexpert` (labels). Without the first, pairs have no split of their own.
    Licence: PhysioNet Credentialed Health Data License 1.5.0.
    """

    name: ClassVar[str] = "mimic-cxr-dicom"
    card: ClassVar[DatasetCard] = _card(
        "MIMIC-CXR (DICOM)",
        "Johnson et al., MIMIC-CXR, Scientific Data 6, 317, 2019",
        "https://physionet.org/content/mimic-cxr/",
    )

    root: str

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every record, then a reject for every image that no record names."""
        check_root(self.root)
        records = find_table(self.root, _either("cxr-record-list"), ("subject_id", "study_id", "dicom_id", "path"))
        studies = find_table(self.root, _either("cxr-study-list"), ("study_id", "path"))
        reports = {row["study_id"]: row["path"] for row in studies.rows}
        splits = _splits(find_optional_table(self.root, _names("split"), ("dicom_id", "split")))
        labels = _labels(find_optional_table(self.root, _names("chexpert"), ("study_id", *CHEXPERT_FINDINGS)))
        metadata = find_optional_table(self.root, _names("metadata"), ("dicom_id", "ViewPosition"))
        views = {row["dicom_id"]: read_view(row["ViewPosition"]) for row in metadata.rows} if metadata else {}
        listed = (_dicom_record(row, views, reports) for row in records.rows)
        yield from _pairs(self.name, self.root, listed, splits, labels, ".dcm")


@dataclass(frozen=True)
class _Record:
    """A row of a dataset's list of images; `path` and `report` are as the list has them."""

    dicom: str
    subject: str
    study: str
    path: str
    report: str
    view: str | None


def _jpeg_record(row: dict[str, str]) -> _Record:
    subject, study, dicom = row["subject_id"], row["study_id"], row["dicom_id"]
    folder = f"files/p{subject[:2]}/p{subject}/s{study}"
    view = read_view(row["ViewPosition"])
    return _Record(dicom, subject, study, f"{folder}/{dicom}.jpg", f"{folder}.txt", view)


def _dicom_record(row: dict[str, str], views: dict[str, str | None], reports: dict[str, str]) -> _Record:
    dicom, study = row["dicom_id"], row["study_id"]
    return _Record(dicom, row["subject_id"], study, row["path"], reports.get(study, ""), views.get(dicom))


def _pairs(
    dataset: str,
    root: str,
    records: Iterable[_Record],
    splits: dict[str, Split],
    labels: dict[str, Labels],
    suffix: str,
) -> Iterator[SourcePair | Reject]:
    listed = storage.list_files(root)
    files, seen = frozenset(listed), set[str]()
    _warn_without_reports(root, listed)
    for record in records:
        path = below_root(record.path)
        if path is None:
            yield Reject(record.path, "path outside the root")
            continue
        yield _refuse(path, path in files, seen, record.dicom, splits) or SourcePair(
            dataset=dataset,
            source_id=record.dicom,
            image=path,
            patient=record.subject,
            study=record.study,
            view=record.view,
            split=splits[record.dicom] if splits else None,
            report_file=_report_file(record.report, files),
            labels=labels.get(record.study, {}),
            cohort="mimic",
        )
        seen.add(path)
    yield from unlisted((path for path in listed if path.lower().endswith(suffix)), seen)


def _names(part: str) -> tuple[str, str]:
    """The tables keep 2.0.0 in their names in version 2.1.0 too."""
    return _either(f"mimic-cxr-2.0.0-{part}")


def _either(stem: str) -> tuple[str, str]:
    return f"{stem}.csv.gz", f"{stem}.csv"


def _splits(table: Table | None) -> dict[str, Split]:
    """The official split of every image; {} without a table. UsageError for a split of another name."""
    if table is None:
        return {}
    splits: dict[str, Split] = {}
    for row in table.rows:
        if row["split"] not in SPLITS:
            raise UsageError(f"{table.uri}: split is {row['split']!r}: it must be {', '.join(SPLITS)}")
        splits[row["dicom_id"]] = SPLITS[row["split"]]
    return splits


def _labels(table: Table | None) -> dict[str, Labels]:
    """The labels of every study; {} without a table."""
    if table is None:
        return {}
    return {row["study_id"]: read_labels(table.uri, row, CHEXPERT_FINDINGS) for row in table.rows}


def _refuse(path: str, found: bool, seen: set[str], dicom: str, splits: dict[str, Split]) -> Reject | None:
    if path in seen:
        return Reject(path, "duplicate row")
    if not found:
        return Reject(path, "image file missing")
    if splits and dicom not in splits:
        # A split by hash could put the patient on both sides of the official one.
        return Reject(path, "image not in the official split")
    return None


def _report_file(path: str, files: Container[str]) -> str | None:
    """The first place of the report at `path` that is among `files`."""
    return next((folder + path for folder in REPORT_FOLDERS if path and folder + path in files), None)


def _warn_without_reports(root: str, files: list[str]) -> None:
    folders = tuple(f"{folder}files/" for folder in REPORT_FOLDERS)
    if not any(path.endswith(".txt") and path.startswith(folders) for path in files):
        _log.warning("%s: no reports, so they are written from labels; unpack mimic-cxr-reports.zip there", root)
