"""TBX11K (Liu et al. 2020): 11,200 radiographs for tuberculosis, 8,400 of them with published labels and boxes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from chexray.platform import storage
from chexray.platform.corpus.adapters.images import RASTER_SUFFIXES, unlisted
from chexray.platform.corpus.adapters.table import check_root
from chexray.platform.corpus.masks import Box
from chexray.platform.corpus.paths import below_root
from chexray.platform.corpus.schema import NO_FINDING, DatasetCard, MaskSource, Reject, SourcePair, Split
from chexray.platform.errors import UsageError

LISTS: dict[str, Split] = {"train": "train", "val": "test"}
"""From a list to the split of its images: see `Tbx11kAdapter`."""

CATEGORIES = {
    "ActiveTuberculosis": "Active Tuberculosis",
    "ObsoletePulmonaryTuberculosis": "Latent Tuberculosis",
    "PulmonaryTuberculosis": "Tuberculosis",
}
"""From a category of the annotations to the label. The last, of uncertain kind, is not in the published part."""

CLASSES = ("health", "sick", "tb")

Drawn = list[tuple[str, Box]]
"""The boxes of an image, each with its label."""


@dataclass(frozen=True)
class Tbx11kAdapter:
    """TBX11K below `root`: `imgs/{health,sick,tb}/*.png`, `lists/TBX11K_{train,val}.txt`, `annotations/json/`.

    The lists name images below `imgs` (`tb/tb0003.png`): 6,600 to train on and 1,800 to validate. The labels of the
    official test set (`imgs/test`) are withheld, so that the validation list is what others test on: it is test here.
    Both are passed over: `imgs/test`, and `imgs/extra` (Montgomery, Shenzhen, DA, DB, which are datasets of their own;
    do not evaluate on them what was trained on that).

    Folders say healthy (No Finding), sick but without tuberculosis, or tuberculosis. `TBX11K_{train,val}.json` (COCO,
    in pixels of the images of 512 x 512; the XML files are in those of the originals) have boxes of active and of
    latent (obsolete) tuberculosis: the mask `Tuberculosis` is their union, empty outside `tb`. An image of `tb`
    without a box (there is one) has no mask, and its kind is unknown. One image a patient. No views, sexes or ages.
    Licence: CC BY-NC-SA 2.0.
    """

    name: ClassVar[str] = "tbx11k"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="TBX11K",
        use="evaluation",
        images=8_400,
        patients=None,
        reports=None,
        findings=3,
        masks=("Tuberculosis, as boxes",),
        licence="CC BY-NC-SA 2.0",
        citation="Liu et al., Rethinking Computer-Aided Tuberculosis Diagnosis, CVPR 2020",
        url="https://github.com/yun-liu/Tuberculosis",
    )

    root: str

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every line of the lists, then a reject for every labelled image in none."""
        check_root(self.root)
        lists = {part: self._list(part) for part in LISTS}
        boxes = {part: self._boxes(part) for part in LISTS}
        listed = [f"imgs/{path}" for path in storage.list_files(storage.join(self.root, "imgs"), RASTER_SUFFIXES)]
        files, seen = frozenset(listed), set[str]()
        for part, lines in lists.items():
            for line in lines:
                path = below_root(line) or ""
                image = f"imgs/{path}"
                if image in seen:
                    yield Reject(image, "duplicate row")
                elif path.split("/")[0] not in CLASSES:
                    yield Reject(image, "label not known")
                elif image not in files:
                    yield Reject(image, "image file missing")
                else:
                    yield self._pair(path, LISTS[part], boxes[part].get(path, []))
                seen.add(image)
        yield from unlisted((image for image in listed if image.split("/")[1] in CLASSES), seen)

    def _list(self, part: str) -> list[str]:
        uri = self._file(f"lists/TBX11K_{part}.txt")
        return [line.strip() for line in storage.read_bytes(uri).decode().splitlines() if line.strip()]

    def _boxes(self, part: str) -> dict[str, Drawn]:
        """The label and the box (left, top, right, bottom) of every annotation, by the image's path below `imgs`."""
        uri = self._file(f"annotations/json/TBX11K_{part}.json")
        try:
            return _read_boxes(storage.read_json(uri))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{uri}: not COCO annotations ({type(error).__name__}: {error})") from error

    def _file(self, path: str) -> str:
        uri = storage.join(self.root, path)
        if not storage.exists(uri):
            raise UsageError(f"{uri}: no such file; give the folder that holds imgs, lists and annotations")
        return uri

    def _pair(self, path: str, split: Split, boxes: Drawn) -> SourcePair:
        kind = path.split("/")[0]
        present = {label for label, _ in boxes}
        known = kind != "tb" or bool(present)
        kinds = ("Active Tuberculosis", "Latent Tuberculosis")
        return SourcePair(
            dataset=self.name,
            source_id=path,
            image=f"imgs/{path}",
            patient=path,
            study=path,
            split=split,
            labels={
                "Tuberculosis": kind == "tb",
                **{label: label in present if known else None for label in kinds},
                NO_FINDING: kind == "health",
            },
            masks={"Tuberculosis": MaskSource(boxes=tuple(box for _, box in boxes))} if known else {},
        )


def _read_boxes(coco: dict[str, Any]) -> dict[str, Drawn]:
    names = {category["id"]: CATEGORIES[category["name"]] for category in coco["categories"]}
    paths = {image["id"]: str(image["file_name"]) for image in coco["images"]}
    boxes: defaultdict[str, Drawn] = defaultdict(list)
    for annotation in coco["annotations"]:
        left, top, width, height = (float(value) for value in annotation["bbox"])
        box = (left, top, left + width, top + height)
        boxes[paths[annotation["image_id"]]].append((names[annotation["category_id"]], box))
    return dict(boxes)
