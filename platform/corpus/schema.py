"""What a pair is: the columns of a corpus, the records that adapters yield, and the ids that never change."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
ReportSource = Literal["radiologist", "template"]

NO_FINDING = "No Finding"
"""The label that says that none of the dataset's findings is present."""

CORPUS_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("patient_id", pa.string(), nullable=False),
        pa.field("study_id", pa.string(), nullable=False),
        pa.field("view", pa.string()),
        pa.field("split", pa.string(), nullable=False),
        pa.field("sex", pa.string()),
        pa.field("age_years", pa.float32()),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("findings", pa.string()),
        pa.field("impression", pa.string()),
        pa.field("report", pa.string(), nullable=False),
        pa.field("report_source", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("labels", pa.map_(pa.string(), pa.int8())),
        pa.field("masks", pa.map_(pa.string(), pa.binary())),
        pa.field("pixel_hash", pa.string(), nullable=False),
        pa.field("perceptual_hash", pa.binary(32), nullable=False),
        pa.field("notes", pa.list_(pa.string()), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
    ]
)
"""One row a pair. `image`: 8-bit grey JPEG or PNG of `height` x `width` pixels. `language`: of the report, ISO 639-1.
`labels`: 1 present, 0 absent, null unknown (never -1). `masks`: 8-bit grey PNG per name, 0 or 255, of the image's
size. `pixel_hash`, `perceptual_hash`: see `chexray.platform.corpus.duplicates`. `notes`: what was mended at
ingestion. `source_uri`: the image's path below the dataset's root, or a salted hash of it where paths may name
patients. Unknown scalars are null."""

REJECT_SCHEMA = pa.schema(
    [
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
    ]
)
"""One row a pair left out: where it came from, a reason from a small fixed set, and what was seen."""


@dataclass(frozen=True)
class MaskSource:
    """Where one mask of an image comes from: the union of its files, run-length strings and boxes.

    `files`: paths below the root, bright is inside. `runs`: run-length strings over the columns, top to bottom and left
    to right, of an image of `runs_size` height and width: SIIM-ACR's relative ones ('gap length gap length ...'), or
    with `run_form` "absolute" Kaggle's usual ones ('start length ...', the first pixel is 1). `boxes`: left, top,
    right, bottom in pixels of the original image. With none of the three the mask is empty: the finding is known to be
    absent.
    """

    files: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    runs_size: tuple[int, int] | None = None
    run_form: Literal["relative", "absolute"] = "relative"
    boxes: tuple[tuple[float, float, float, float], ...] = ()


@dataclass(frozen=True)
class RawFormat:
    """Pixels without a header, row by row: JSRT's `.IMG`. `bits`: how many of 16, big-endian, are used."""

    height: int
    width: int
    bits: int
    inverted: bool


@dataclass(frozen=True)
class SourcePair:
    """One image and its report as a dataset describes them, before any pixel is read.

    `image`, `report_file` and the masks' files are paths below the dataset's root. A report is `report`, or the text
    of `report_file`, in `language` (ISO 639-1); where both are None it is written from `labels` (see
    `chexray.platform.corpus.templates`). `split` is None where the dataset has none of its own. `labels` maps a
    finding to True, False or None (unknown). `cohort` names whose patients these are where several datasets share
    them (CheXpert and CheXpert Plus), so that a patient has one id in all of them; None: the dataset's own.
    """

    dataset: str
    source_id: str
    image: str
    patient: str
    study: str
    view: str | None = None
    split: Split | None = None
    sex: Literal["F", "M"] | None = None
    age_years: float | None = None
    report: str | None = None
    report_file: str | None = None
    language: str = "en"
    labels: dict[str, bool | None] = field(default_factory=dict)
    masks: dict[str, MaskSource] = field(default_factory=dict)
    cohort: str | None = None
    raw: RawFormat | None = None

    @property
    def sample_id(self) -> str:
        return sample_id(self.dataset, self.source_id)

    @property
    def files(self) -> tuple[str, ...]:
        """Every path of the pair, the image's first."""
        report = (self.report_file,) if self.report_file else ()
        return (self.image, *report, *(path for mask in self.masks.values() for path in mask.files))


@dataclass(frozen=True)
class DatasetCard:
    """What `chexray ingest --list` says of a dataset. Counts are what its publication or its files promise.

    `reports`: the language of the radiologists' reports, None where there are labels only. `findings`: how many are
    labelled. `public` says that paths and ids in it are pseudonyms that its publisher chose; where they are not,
    ingestion stores salted hashes of them alone.
    """

    title: str
    use: Literal["pretraining", "evaluation", "either"]
    images: int | None
    patients: int | None
    reports: str | None
    findings: int
    masks: tuple[str, ...]
    licence: str
    citation: str
    url: str
    public: bool = True


@dataclass(frozen=True)
class Reject:
    """A pair left out: `reason` is one of a small fixed set of phrases, `detail` says what was seen."""

    source_uri: str
    reason: str
    detail: str | None = None


def sample_id(dataset: str, source_id: str) -> str:
    """The pair's name for ever: 32 hex digits, the first 128 bits of SHA-256 over dataset and source id.

    It does not depend on order, split, salt or position, so subsets survive re-ingestion. 128-bit hex ids
    are also DataComp's convention (Gadre et al. 2023, appendix on subset files).
    """
    return hashlib.sha256(f"{dataset}\x00{source_id}".encode()).hexdigest()[:32]


def seeded_fraction(seed: int, *parts: str) -> float:
    """A uniform draw in [0, 1) that depends on `seed` and `parts` alone: the same on every machine."""
    digest = hashlib.sha256("\x00".join((str(seed), *parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
