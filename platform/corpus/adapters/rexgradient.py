"""ReXGradient-160K (Zhang et al. 2025): 273,004 images, 160,000 reports, 109,487 patients of 79 sites in the USA."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from chexray.platform import storage
from chexray.platform.corpus.adapters.cells import join_sections, read_age, read_sex, read_view
from chexray.platform.corpus.adapters.images import unlisted
from chexray.platform.corpus.adapters.table import check_root
from chexray.platform.corpus.paths import below_root
from chexray.platform.corpus.schema import DatasetCard, Reject, SourcePair, Split
from chexray.platform.errors import UsageError

SPLITS: dict[str, Split] = {"train": "train", "valid": "validation", "test": "test"}
METADATA = ("metadata/{}_metadata_view_position.json", "{}_metadata_view_position.json")
_ABDOMEN = frozenset({"KUB"})
_NOTHING = frozenset({"", "none", "nan", "n/a"})
_UP = re.compile(r"^(?:\.\./)+")


@dataclass(frozen=True)
class RexGradientAdapter:
    """ReXGradient-160K below `root`, as its Hugging Face repository has it, with the archive unpacked.

    `metadata/{train,valid,test}_metadata_view_position.json` (or the three at the root): per study an object with
    PatientID, StudyInstanceUid, PatientSex, PatientAge, Indication, Comparison, Findings, Impression, and the lists
    ImagePath (`../deid_png/<patient>/<accession>/studies/<study>/series/<series>/instances/<image>.png`, relative to
    `metadata/`) and ImageViewPosition. The CSV files beside them do not name images and are not read. The images are
    in `deid_png`: `cat deid_png.part* | tar --zstd -x`.

    Splits are the official ones; a split whose file is not there is left out (10,000 studies of a fourth are not
    published). Images are at a quarter of their size. About a tenth have no known view. Views of the abdomen (KUB) are
    rejected. No labels.
    Licence: the dataset's own agreement, accepted on its page.
    """

    name: ClassVar[str] = "rexgradient"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="ReXGradient-160K",
        use="pretraining",
        images=273_004,
        patients=109_487,
        reports="en",
        findings=0,
        masks=(),
        licence="the dataset's own agreement, accepted on its page",
        citation="Zhang et al., ReXGradient-160K, arXiv 2505.00228, 2025",
        url="https://huggingface.co/datasets/rajpurkarlab/ReXGradient-160K",
    )

    root: str

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every image of every study, then a reject for every image that no study lists."""
        check_root(self.root)
        tables = {split: uri for split in SPLITS if (uri := self._metadata(split))}
        if not tables:
            raise UsageError(f"{self.root}: no {METADATA[0].format('train')} there; give the folder that holds it")
        listed = storage.list_files(self.root, (".png",))
        files, seen = frozenset(listed), set[str]()
        for split, uri in tables.items():
            for key, study in _studies(uri).items():
                for path, view in _images(f"{uri}, {key}", study):
                    if path in seen:
                        yield Reject(path, "duplicate row")
                    elif path not in files:
                        yield Reject(path, "image file missing")
                    else:
                        yield self._pair(key, study, path, view, SPLITS[split])
                    seen.add(path)
        if len(tables) == len(SPLITS):
            yield from unlisted(listed, seen)

    def _metadata(self, split: str) -> str | None:
        uris = (storage.join(self.root, name.format(split)) for name in METADATA)
        return next((uri for uri in uris if storage.exists(uri)), None)

    def _pair(self, key: str, study: dict[str, Any], path: str, view: str, split: Split) -> SourcePair | Reject:
        if view.upper() in _ABDOMEN:
            return Reject(path, "not a chest", f"view {view}")
        report = join_sections(_text(study.get("Findings")), _text(study.get("Impression")))
        if report is None:
            return Reject(path, "no report and no labels")
        return SourcePair(
            dataset=self.name,
            source_id=path,
            image=path,
            # The key is patient, accession and study, joined by underscores.
            patient=_text(study.get("PatientID")) or key.split("_")[0],
            study=_text(study.get("StudyInstanceUid")) or key,
            view=read_view(view),
            split=split,
            sex=read_sex(_text(study.get("PatientSex")) or ""),
            age_years=read_age(_text(study.get("PatientAge")) or ""),
            report=report,
        )


def _studies(uri: str) -> dict[str, dict[str, Any]]:
    studies = storage.read_json(uri)
    if not isinstance(studies, dict) or not all(isinstance(study, dict) for study in studies.values()):
        raise UsageError(f"{uri}: not an object of studies; download it again")
    return studies


def _images(where: str, study: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The path below the root and the view of every image; '' for a view that is not given."""
    paths, views = study.get("ImagePath") or [], study.get("ImageViewPosition") or []
    if not isinstance(paths, list) or not isinstance(views, list):
        raise UsageError(f"{where}: ImagePath and ImageViewPosition must be lists")
    for number, path in enumerate(paths):
        below = below_root(_UP.sub("", str(path)))
        view = _text(views[number]) if number < len(views) else None
        yield below or "", view or ""


def _text(value: object) -> str | None:
    """The text of a JSON value; None for null, NaN and words for nothing."""
    text = "" if value is None else str(value).strip()
    return None if text.lower() in _NOTHING else text
