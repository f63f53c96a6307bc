"""One pair of a dataset, from its files to a row of the corpus, or the reason why there is none."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace
from typing import Any

from chexray.platform import storage
from chexray.platform.config import IngestConfig
from chexray.platform.corpus import masks, raster
from chexray.platform.corpus.classifier import keep_class
from chexray.platform.corpus.duplicates import perceptual_hash, pixel_hash
from chexray.platform.corpus.quality import fix_polarity, keep_image
from chexray.platform.corpus.redaction import Rule
from chexray.platform.corpus.reports import clean_report, keep_report, split_sections
from chexray.platform.corpus.salt import salted_hash
from chexray.platform.corpus.schema import MaskSource, Reject, SourcePair, Split
from chexray.platform.corpus.setting_files import classifier_at, translator_at
from chexray.platform.corpus.templates import write_report

MAX_IMAGE_BYTES = 512 * 2**20
"""A 43 x 43 cm detector at 0.1 mm gives 37 MB uncompressed."""
MAX_REPORT_BYTES = 2**20
MAX_REPORT_CHARACTERS = 20_000
"""MIMIC-CXR's longest has about 4,000. What is longer is something else, and could be made to take minutes to clean."""
_BAD_NAMES = (errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL)
"""What is wrong with the path, and not with the storage."""

Row = dict[str, Any]


class _PairRejected(Exception):  # noqa: N818 - says what happened to the pair, like `Reject`
    def __init__(self, reason: str, detail: str | None = None) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class PairReader:
    """Reads the pairs of a dataset below `root`. `public`: its paths may be stored as they are (see `DatasetCard`).

    `rules`: those of `ingest.redaction`, read once, by whoever hands the reader to workers.
    """

    root: str
    config: IngestConfig
    salt: str
    public: bool = True
    rules: tuple[Rule, ...] = ()

    def read(self, source: SourcePair, split: Split) -> Row | Reject:
        """A row of `CORPUS_SCHEMA`, or why the pair is left out. Opens the pair's own files only."""
        try:
            text = self._report(source)
            return self._row(source, split, text)
        except (_PairRejected, raster.UnreadableImage) as rejected:
            return Reject(source.image, rejected.reason, rejected.detail)

    def name_of(self, path: str) -> str:
        """The path as it is stored: itself, or a salted hash where it may name a patient."""
        return path if self.public else salted_hash(self.salt, "path", path)

    def _row(self, source: SourcePair, split: Split, text: Row) -> Row:
        decoded = self._image(source)
        stored = raster.shrink(decoded.image_HW, self.config.short_side)
        drawn = {
            name: raster.encode_image(self._mask(mask, decoded.size, stored.shape), "png")
            for name, mask in source.masks.items()
        }
        cohort = source.cohort or source.dataset
        return {
            "sample_id": source.sample_id,
            "dataset": source.dataset,
            "patient_id": salted_hash(self.salt, cohort, "patient", source.patient),
            "study_id": salted_hash(self.salt, cohort, "study", source.study),
            "view": source.view or decoded.view,
            "split": split,
            "sex": source.sex or decoded.sex,
            "age_years": decoded.age_years if source.age_years is None else source.age_years,
            "image": raster.encode_image(stored, self.config.codec),
            "height": stored.shape[0],
            "width": stored.shape[1],
            **text,
            "labels": [(name, None if value is None else int(value)) for name, value in sorted(source.labels.items())],
            "masks": sorted(drawn.items()),
            "pixel_hash": pixel_hash(decoded.image_HW),
            "perceptual_hash": perceptual_hash(stored),
            "notes": [*text["notes"], *decoded.notes],
            "source_uri": self.name_of(source.image),
        }

    def _image(self, source: SourcePair) -> raster.Decoded:
        """Upright display pixels, and in the notes what was mended."""
        config = self.config
        if unwanted := raster.other_view(source.view, config.view):
            raise _PairRejected(unwanted)
        data = self._file(source.image, MAX_IMAGE_BYTES, "image")
        decoded = raster.decode_source(
            data, source.raw, config.view, config.dicom_window, self.rules, config.short_side
        )
        if reason := keep_image(decoded.image_HW):
            raise _PairRejected(reason)
        # The template is of frontal chests.
        if config.polarity != "keep" and (source.view or decoded.view) != "LATERAL":
            upright, inverted = fix_polarity(decoded.image_HW)
            if inverted and config.polarity == "reject":
                raise _PairRejected("inverted polarity")
            if inverted:
                decoded = replace(decoded, image_HW=upright, notes=(*decoded.notes, "inverted polarity mended"))
        if config.classifier is not None:
            label = classifier_at(config.classifier).classify([decoded.image_HW])[0]
            if unwanted := keep_class(label, config.classes):
                raise _PairRejected(unwanted, f"the classifier says {label!r}")
        return decoded

    def _report(self, source: SourcePair) -> Row:
        """The report columns: the radiologist's text, or one written from the labels."""
        text = source.report
        if source.report_file is not None:
            data = self._file(source.report_file, MAX_REPORT_BYTES, "report")
            text = _decode_text(data)
        if text is None:
            if all(value is None for value in source.labels.values()):
                raise _PairRejected("no report and no labels")
            report = write_report(source.labels, source.sample_id, self.config.seed)
            written = {"report": report, "report_source": "template", "language": "en", "notes": []}
            return {"findings": None, "impression": None, **written}
        if len(text) > MAX_REPORT_CHARACTERS:
            raise _PairRejected("report too long", f"{len(text)} characters, at most {MAX_REPORT_CHARACTERS} are read")
        sections = split_sections(text)
        reason = keep_report(sections.report, self.config.min_report_words, self.config.max_report_words)
        if reason:
            raise _PairRejected(reason)
        columns = {
            "findings": sections.findings,
            "impression": sections.impression,
            "report": clean_report(sections.report),
        }
        return self._in_english(columns, source.language) | {"report_source": "radiologist"}

    def _in_english(self, columns: dict[str, str | None], language: str) -> Row:
        """The columns translated, where a translator for their language is configured."""
        path = self.config.translators.get(language)
        if path is None:
            return {**columns, "language": language, "notes": []}
        names = [name for name, text in columns.items() if text]
        translated = translator_at(path).translate([str(columns[name]) for name in names])
        note = f"translated from {language}"
        return {**columns, **dict(zip(names, translated, strict=True)), "language": "en", "notes": [note]}

    def _mask(self, source: MaskSource, original: tuple[int, int], stored: tuple[int, ...]) -> raster.Image:
        """The mask at the stored image's size: 0 or 255."""
        files = [raster.decode_mask(self._file(path, MAX_IMAGE_BYTES, "mask")) for path in source.files]
        try:
            return masks.build_mask(source, files, original, (stored[0], stored[1]))
        except ValueError as error:
            raise _PairRejected("mask not readable", str(error)) from error

    def _file(self, path: str, limit: int, what: str) -> bytes:
        if not self.config.follow_links and storage.leads_outside(self.root, path):
            raise _PairRejected("link out of the root", "ingest.follow_links=true allows it")
        uri = storage.join(self.root, path)
        try:
            size = storage.file_size(uri)
            if size > limit:
                raise _PairRejected(f"{what} file too large", f"{size} bytes, at most {limit} are read")
            return storage.read_bytes(uri)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise _PairRejected(f"{what} file missing") from error
        except OSError as error:
            if error.errno not in _BAD_NAMES:
                raise
            raise _PairRejected(f"{what} file name not usable", os.strerror(error.errno)) from error


def _decode_text(data: bytes) -> str:
    """A report file's text: UTF-8, else Latin-1, which older archives write."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")
