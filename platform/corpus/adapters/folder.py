"""Any folder with a CSV file that lists its images, and reports or labels or both."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar

from chexray.platform import storage
from chexray.platform.corpus.adapters.cells import (
    LABELS,
    join_sections,
    quote,
    read_age,
    read_labels,
    read_sex,
    read_view,
)
from chexray.platform.corpus.adapters.images import IMAGE_SUFFIXES, unlisted
from chexray.platform.corpus.adapters.options import FileBelow, FolderBelow, Language
from chexray.platform.corpus.adapters.table import Table, check_root, read_table
from chexray.platform.corpus.dicom_header import MAX_AGE
from chexray.platform.corpus.paths import below_root
from chexray.platform.corpus.schema import DatasetCard, MaskSource, Reject, SourcePair, Split
from chexray.platform.errors import ChexrayError, UsageError

COLUMNS = (
    "path",
    "report",
    "findings",
    "impression",
    "patient_id",
    "study_id",
    "view",
    "split",
    "sex",
    "age",
    "language",
)
"""The columns that have a meaning, by their default names; all but `path` may be missing."""

_SPLITS: dict[str, Split | None] = {
    "": None,
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
_LANGUAGE = re.compile("[A-Za-z]{2,3}")
_IMAGES = (*IMAGE_SUFFIXES, ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class FolderAdapter:
    """Pairs of the images that a CSV file at `root` lists, by paths below `root`.

    `csv` may be left out where there is one `*.csv` at the root. A column option names the column that holds
    it; left out, the column of that name is used where there is one. `language` (ISO 639-1) is that of the reports
    for which no column 'language' says it. `labels`: the label columns; left out, every other column that holds only
    0, 1, -1, u (uncertain) or nothing, and not nothing alone. `masks`: a folder of `<image stem>__<name>.png`, used
    where it exists. Without a patient id each image is its own patient, so give one if patients have several images:
    splits are by patient. `dataset` becomes part of the sample ids: give different ones to folders that are ingested
    together. Views other than PA, AP and lateral become unknown, ages above 90 become 90.
    """

    card: ClassVar[DatasetCard] = DatasetCard(
        title="A folder of images and a CSV file",
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
    csv: FileBelow | None = None
    dataset: str = "folder"
    path: str | None = None
    report: str | None = None
    findings: str | None = None
    impression: str | None = None
    patient_id: str | None = None
    study_id: str | None = None
    view: str | None = None
    split: str | None = None
    sex: str | None = None
    age: str | None = None
    labels: Sequence[str] | None = None
    masks: FolderBelow | None = "masks"
    language: Language = "en"

    @property
    def name(self) -> str:
        return self.dataset

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every row, and a reject for every image that no row names."""
        check_root(self.root)
        table = read_table(self._csv_uri())
        columns = self._columns(table)
        labels = self._label_columns(table, columns)
        listed = storage.list_files(self.root)
        masks = self._masks(listed, [row[columns["path"]] for row in table.rows])
        files, seen = frozenset(listed), set[str]()
        for number, row in enumerate(table.rows, start=1):
            cells = {name: row[column] for name, column in columns.items()}
            path = below_root(cells["path"])
            if path is None:
                yield Reject(cells["path"], "path outside the root")
            elif path not in files:
                yield Reject(path, "image file missing", None if path else "the path is empty")
            elif path in seen:
                yield Reject(path, "duplicate row")
            else:
                where = f"{table.uri}, row {number}"
                known = read_labels(where, row, labels)
                yield self._pair(where, cells, path, known, masks.get(PurePosixPath(path).stem, {}))
            seen.add(path or "")
        yield from unlisted((path for path in listed if self._is_image(path)), seen)

    def _is_image(self, path: str) -> bool:
        is_mask = self.masks is not None and path.startswith(f"{self.masks}/")
        return path.lower().endswith(_IMAGES) and not is_mask

    def _pair(
        self,
        where: str,
        cells: dict[str, str],
        path: str,
        labels: dict[str, bool | None],
        masks: dict[str, str],
    ) -> SourcePair | Reject:
        report = _report(cells)
        if report is None and all(value is None for value in labels.values()):
            return Reject(path, "no report and no labels")
        split = cells.get("split", "").lower()
        if split not in _SPLITS:
            raise UsageError(f"{where}: split is {quote(split)}: it must be train, validation, test or empty")
        age = read_age(cells.get("age", ""))
        return SourcePair(
            dataset=self.name,
            source_id=path,
            image=path,
            patient=cells.get("patient_id") or path,
            study=cells.get("study_id") or path,
            view=read_view(cells.get("view", "")),
            split=_SPLITS[split],
            sex=read_sex(cells.get("sex", "")),
            age_years=None if age is None else min(age, MAX_AGE),
            report=report,
            language=self._language(where, cells.get("language", "")),
            labels=labels,
            masks={name: MaskSource(files=(path,)) for name, path in masks.items()},
        )

    def _language(self, where: str, text: str) -> str:
        if text and not _LANGUAGE.fullmatch(text):
            raise UsageError(f"{where}: language is {quote(text)}: it must be two or three letters, or empty")
        return text.lower() or self.language

    def _csv_uri(self) -> str:
        if self.csv is not None:
            uri = storage.join(self.root, self.csv)
            if not storage.exists(uri):
                raise UsageError(f"{uri}: no such file; csv names a file below {self.root}")
            return uri
        names = [name for name in storage.list_files(self.root, (".csv",)) if "/" not in name]
        if len(names) != 1:
            found = f"{len(names)} CSV files ({', '.join(names)})" if names else "no CSV file"
            raise UsageError(f"{self.root}: {found} there; name the one that lists the images with csv=NAME")
        return storage.join(self.root, names[0])

    def _columns(self, table: Table) -> dict[str, str]:
        """From meaning to column, for the columns that are there. UsageError where a needed one is not."""
        given = {name: None if name == "language" else getattr(self, name) for name in COLUMNS}
        table.require([given["path"] or "path", *(column for column in given.values() if column)])
        return {name: given[name] or name for name in COLUMNS if (given[name] or name) in table.columns}

    def _label_columns(self, table: Table, columns: dict[str, str]) -> tuple[str, ...]:
        if self.labels is not None:
            table.require(self.labels)
            return tuple(self.labels)
        others = [name for name in table.columns if name not in columns.values()]
        return tuple(name for name in others if _is_label({row[name].lower() for row in table.rows}))

    def _masks(self, files: Iterable[str], images: list[str]) -> dict[str, dict[str, str]]:
        """From image stem to its masks by name. ChexrayError where two images share a stem that has masks."""
        found: defaultdict[str, dict[str, str]] = defaultdict(dict)
        prefix = f"{self.masks}/"
        for path in files if self.masks else ():
            stem, separator, name = PurePosixPath(path).stem.rpartition("__")
            if path.startswith(prefix) and separator and stem and name:
                found[stem][name] = path
        for stem, count in Counter(PurePosixPath(path).stem for path in set(images)).items():
            if count > 1 and stem in found:
                raise ChexrayError(
                    f"{storage.join(self.root, prefix)}: masks of {stem!r}, but {count} images have that "
                    "name; give the images different names, or set masks to null"
                )
        return dict(found)


def _report(cells: dict[str, str]) -> str | None:
    """The report's text; where it comes in two columns, with the headers that `split_sections` reads."""
    if cells.get("report"):
        return cells["report"]
    return join_sections(cells.get("findings"), cells.get("impression"))


def _is_label(values: set[str]) -> bool:
    return values <= LABELS.keys() and not values <= {"", "nan"}
