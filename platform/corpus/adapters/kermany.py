"""Pneumonia in children (Kermany et al. 2018): 5,856 radiographs of a hospital in Guangzhou, China."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from chexray.platform import storage
from chexray.platform.corpus.adapters.table import check_root
from chexray.platform.corpus.schema import NO_FINDING, DatasetCard, Reject, SourcePair, Split
from chexray.platform.errors import UsageError

SPLITS: dict[str, Split] = {"train": "train", "val": "validation", "test": "test"}
_FILE = re.compile(
    r"(?:^|/)(?P<folder>train|val|test)/(?P<kind>NORMAL|PNEUMONIA)/(?P<name>[^/]+\.jpe?g)$", re.IGNORECASE
)
_PNEUMONIA = re.compile(r"(?P<patient>person\d+)_(?P<cause>bacteria|virus)_\d+", re.IGNORECASE)
_NORMAL = re.compile(r"(?P<patient>(?:NORMAL\d*-)?IM-\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class KermanyPneumoniaAdapter:
    """The chest radiographs of 'Labeled OCT and Chest X-Ray Images', below `root`: `chest_xray` or what holds it.

    `{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg`. Test is the official one, 624 images; Kaggle's copy has 16 images in
    `val`, Mendeley's none. The label is the folder's; `person123_bacteria_456.jpeg` also says the cause and whose it
    is, as do `IM-0115-0001.jpeg` and `NORMAL2-IM-0329-0001.jpeg`. Numbers start again in `test`, so that a patient's
    name has `test` or `train` (for `val` too, which was taken from it) before it.

    Kaggle's copy has everything twice, in `chest_xray/chest_xray`, and resource forks in `__MACOSX`: the images with
    the fewest folders above them are taken and the rest is passed over. Several images are the same pixels under two
    names. Views are AP; ages are 1 to 5 years, not given for each. No reports.
    Licence: CC BY 4.0.
    """

    name: ClassVar[str] = "kermany-pneumonia"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="Pneumonia in children (Kermany)",
        use="evaluation",
        images=5_856,
        patients=None,
        reports=None,
        findings=3,
        masks=(),
        licence="CC BY 4.0",
        citation="Kermany et al., Identifying Medical Diagnoses by Image-Based Deep Learning, Cell 172(5), 2018",
        url="https://data.mendeley.com/datasets/rscbjbr9sj",
    )

    root: str

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every image, in the order of the paths from their split's folder on."""
        check_root(self.root)
        images: dict[str, tuple[str, re.Match[str]]] = {}
        for path in sorted(storage.list_files(self.root), key=lambda path: (path.count("/"), path)):
            found = _FILE.search(path)
            if found and "__MACOSX" not in path.split("/") and not found["name"].startswith("._"):
                images.setdefault(found.group().removeprefix("/"), (path, found))
        if not images:
            raise UsageError(f"{self.root}: no train/NORMAL/*.jpeg or the like below it; give the folder chest_xray")
        for source_id, (path, found) in sorted(images.items()):
            yield self._pair(source_id, path, found)

    def _pair(self, source_id: str, path: str, found: re.Match[str]) -> SourcePair | Reject:
        ill, folder = found["kind"].upper() == "PNEUMONIA", found["folder"].lower()
        named = (_PNEUMONIA if ill else _NORMAL).match(found["name"])
        if named is None:
            return Reject(path, "file name not understood")
        cause = named["cause"].lower() if ill else None
        patient = f"{'test' if folder == 'test' else 'train'}/{named['patient']}"
        return SourcePair(
            dataset=self.name,
            source_id=source_id,
            image=path,
            patient=patient,
            study=source_id,
            view="AP",
            split=SPLITS[folder],
            labels={
                "Pneumonia": ill,
                "Bacterial Pneumonia": cause == "bacteria",
                "Viral Pneumonia": cause == "virus",
                NO_FINDING: not ill,
            },
        )
