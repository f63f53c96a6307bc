"""A hospital's own archive: a folder of DICOM files as a PACS exports them, and a table of reports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from typing import IO, ClassVar, Literal

from chexray.platform import storage
from chexray.platform.corpus.adapters.cells import join_sections, read_labels
from chexray.platform.corpus.adapters.options import FileBelow, Language
from chexray.platform.corpus.adapters.table import Table, check_root, read_table
from chexray.platform.corpus.dicom_dataset import READ_ERRORS, first_text, parse_dataset
from chexray.platform.corpus.dicom_header import HEADER_TAGS, Header, header_of, keep_header
from chexray.platform.corpus.raster import UnreadableImage, ViewFilter
from chexray.platform.corpus.schema import DatasetCard, Reject, SourcePair
from chexray.platform.errors import UsageError

Match = Literal["accession", "study", "patient"]
_KEY_TAGS: dict[str, str] = {
    "accession": "AccessionNumber",
    "study": "StudyInstanceUID",
    "patient": "PatientID",
}
_TAGS = (*HEADER_TAGS, *_KEY_TAGS.values(), "SOPInstanceUID")
_SECTIONS = ("findings", "impression")

READERS = 16
"""Threads: most of a header's time is the wait for its storage."""

_RANGE_BYTES = 2**16
"""One request of an object store: headers without icons or private blocks are shorter."""

_BATCH = 1024


@dataclass(frozen=True)
class _Text:
    """What a row of the table says: its report and its labels."""

    report: str | None
    labels: tuple[tuple[str, bool | None], ...]


@dataclass(frozen=True)
class ArchiveAdapter:
    """Every DICOM file below `root`, at any depth and of any name; other files are rejects, DICOMDIR is passed over.

    `reports`: a CSV file below the root, whose column `report_key` holds what `report_match` says: accession numbers,
    Study Instance UIDs or patient ids (left out, the column has the element's own name, such as AccessionNumber). Its
    report is in the column `report` (left out: `report`, or else `findings` and `impression`), in `language`; its
    `labels` are columns of 1, 0, -1 or nothing. Rows of one key with different texts leave their images out.
    `view`: other views are rejects already in the list. `dataset` becomes part of the sample ids. Links to files
    elsewhere are rejects, unless `follow_links`; then the recipe's `ingest.follow_links` must allow them too.
    """

    card: ClassVar[DatasetCard] = DatasetCard(
        title="A hospital's folder of DICOM files and a CSV file of reports",
        use="either",
        images=None,
        patients=None,
        reports=None,
        findings=0,
        masks=(),
        licence="your own",
        citation="",
        url="",
        public=False,
    )

    root: str
    reports: FileBelow | None = None
    report_match: Match = "accession"
    report_key: str | None = None
    report: str | None = None
    labels: Sequence[str] = ()
    language: Language = "en"
    view: ViewFilter = "any"
    dataset: str = "archive"
    follow_links: bool = False

    @property
    def name(self) -> str:
        return self.dataset

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every file, in the order of their paths. Reads the headers, and no pixels."""
        self._check_options()
        check_root(self.root)
        texts = self._texts()
        skipped = {self.reports}
        files = (path for path in storage.list_files(self.root) if path not in skipped and not _is_directory_file(path))
        with ThreadPoolExecutor(READERS) as pool:
            while batch := list(islice(files, _BATCH)):
                yield from pool.map(partial(self._read, texts), batch)

    def _check_options(self) -> None:
        if self.reports is None and (self.report or self.report_key or self.labels):
            raise UsageError("--option report, report_key and labels name columns of the CSV file reports=NAME.csv")

    def _texts(self) -> dict[str, set[_Text]]:
        """What the table says of each key."""
        if self.reports is None:
            return {}
        uri = storage.join(self.root, self.reports)
        if not storage.exists(uri):
            raise UsageError(f"{uri}: no such file; reports names a CSV file below {self.root}")
        table = read_table(uri)
        key = self.report_key or _KEY_TAGS[self.report_match]
        table.require([key, *([self.report] if self.report else []), *self.labels])
        columns = self._report_columns(table)
        texts: defaultdict[str, set[_Text]] = defaultdict(set)
        for number, row in enumerate(table.rows, start=1):
            labels = read_labels(f"{uri}, row {number}", row, self.labels)
            if row[key]:
                texts[row[key]].add(_Text(_report(row, columns), tuple(labels.items())))
        return texts

    def _report_columns(self, table: Table) -> tuple[str, ...]:
        """One column, or those of two sections; none where there are labels to write a report from."""
        column = self.report or "report"
        found = (column,) if column in table.columns else tuple(name for name in _SECTIONS if name in table.columns)
        if not found and not self.labels:
            raise UsageError(
                f"{table.uri}: no column 'report', 'findings' or 'impression'; name one with report=COLUMN"
            )
        return found

    def _read(self, texts: dict[str, set[_Text]], path: str) -> SourcePair | Reject:
        """The pair of one file. Nothing that identifies a patient gets into a reject's reason or detail."""
        if not self.follow_links and storage.leads_outside(self.root, path):
            return Reject(path, "link out of the root", "--option follow_links=true allows it")
        try:
            with _open_ranges(storage.join(self.root, path)) as stream:
                if stream.read(132)[128:] != b"DICM":
                    return Reject(path, "not a DICOM file")
                stream.seek(0)
                dataset = parse_dataset(stream, _TAGS)
                header = header_of(dataset)
                keys = {name: first_text(dataset, name) for name in (*_KEY_TAGS.values(), "SOPInstanceUID")}
        except UnreadableImage as error:
            return Reject(path, error.reason, error.detail)
        except FileNotFoundError:
            return Reject(path, "image file missing")
        except OSError:
            # The storage's trouble is not the file's.
            raise
        except READ_ERRORS as error:
            return Reject(path, "image not readable", f"DICOM: {type(error).__name__}")
        if reason := keep_header(header, self.view):
            return Reject(path, reason)
        if header.rows is None:
            return Reject(path, "image without pixels")
        found = texts.get(keys[_KEY_TAGS[self.report_match]], set())
        return self._pair(path, header, keys, found)

    def _pair(self, path: str, header: Header, keys: dict[str, str], found: set[_Text]) -> SourcePair | Reject:
        if len(found) > 1:
            return Reject(path, "several reports match", f"{len(found)} of one {self.report_match}")
        report, labels = next(((text.report, dict(text.labels)) for text in found), (None, {}))
        if report is None and all(value is None for value in labels.values()):
            return Reject(path, "no report and no labels")
        study = keys["StudyInstanceUID"]
        return SourcePair(
            dataset=self.name,
            source_id=keys["SOPInstanceUID"] or path,
            image=path,
            patient=keys["PatientID"] or study or path,
            study=study or path,
            view=header.view,
            sex=header.sex,
            age_years=header.age_years,
            report=report,
            language=self.language,
            labels=labels,
        )


def _open_ranges(uri: str) -> IO[bytes]:
    """A file whose bytes are fetched as they are read, in small ranges."""
    fs, path = storage.filesystem(uri)
    stream: IO[bytes] = fs.open(path, "rb", block_size=_RANGE_BYTES)
    return stream


def _is_directory_file(path: str) -> bool:
    """PS3.10 8.6: the DICOMDIR of a file set; exports to disks have one. And what systems hide."""
    name = PurePosixPath(path).name
    return name.upper() == "DICOMDIR" or name.startswith(".")


def _report(row: dict[str, str], columns: tuple[str, ...]) -> str | None:
    sections = {name: row[name] for name in columns if name in _SECTIONS}
    if sections:
        return join_sections(sections.get("findings"), sections.get("impression"))
    return row[columns[0]] or None if columns else None
