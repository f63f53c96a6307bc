"""The NLM's tuberculosis sets (Jaeger et al. 2014): Montgomery County, 138 images, and Shenzhen, 662."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar, Literal

from chexray.platform import storage
from chexray.platform.corpus.adapters.cells import read_age, read_sex
from chexray.platform.corpus.adapters.images import file_name, files_by_name
from chexray.platform.corpus.adapters.table import check_root
from chexray.platform.corpus.schema import NO_FINDING, DatasetCard, MaskSource, Reject, SourcePair, Split
from chexray.platform.errors import UsageError

IMAGES = "CXR_png"
_NAME = re.compile(r"(?P<patient>(?:MCUCXR|CHNCXR)_\d+)_(?P<ill>[01])\.png$")
_MONTGOMERY_SEX = re.compile(r"Sex:\s*(\w+)", re.IGNORECASE)
_MONTGOMERY_AGE = re.compile(r"Age:\s*(\w+)", re.IGNORECASE)
_SHENZHEN = re.compile(r"\s*(?P<sex>(?:fe)?male?|[MF])\b\W*(?P<age>\d+\s*\w*)?", re.IGNORECASE)


@dataclass(frozen=True)
class _Person:
    sex: Literal["F", "M"] | None = None
    age_years: float | None = None


def _card(title: str, images: int) -> DatasetCard:
    return DatasetCard(
        title=title,
        use="evaluation",
        images=images,
        patients=images,
        reports=None,
        findings=1,
        masks=("lungs",),
        licence="public domain; the NLM asks to be cited",
        citation="Jaeger et al., Two public chest X-ray datasets, Quant Imaging Med Surg 4(6), 2014",
        url="https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/",
    )


@dataclass(frozen=True)
class MontgomeryAdapter:
    """The Montgomery set below `root`: `MontgomerySet` or what holds it.

    `CXR_png/MCUCXR_0001_0.png`, whose last digit says tuberculosis (1: 58 images) or normal (0: 80), one a patient;
    `ManualMask/leftMask` and `rightMask` with files of the same names, together the mask `lungs`; and
    `ClinicalReadings/MCUCXR_0001_0.txt` with "Patient's Sex: F" and "Patient's Age: 027Y", of which the reading itself
    is not used. All views are PA. `split` is of all images. They are in TBX11K's extra part and in Shenzhen's sister
    sets too.
    Licence: public domain.
    """

    name: ClassVar[str] = "montgomery"
    card: ClassVar[DatasetCard] = _card("Montgomery County", 138)

    root: str
    split: Split | None = "test"

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every image, in the order of their paths."""
        files = _list_files(self.root, "MCUCXR")
        yield from _list_pairs(self, files, _montgomery_lungs(files), _montgomery_person)


@dataclass(frozen=True)
class ShenzhenAdapter:
    """The Shenzhen set below `root`: `ChinaSet_AllFiles` or what holds it.

    `CXR_png/CHNCXR_0001_0.png`, whose last digit says tuberculosis (1: 336 images) or normal (0: 326), one a patient;
    `ClinicalReadings/CHNCXR_0001_0.txt` with 'male 45yrs' in its first line (also 'femal 32yrs', 'Female, 28yrs',
    'male 16month'), of which the reading itself is not used. Masks of the lungs, which others drew for 566 of the
    images, are used where files `CHNCXR_0001_0_mask.png` lie anywhere below. All views are taken as PA. `split` is of
    all images.
    Licence: public domain.
    """

    name: ClassVar[str] = "shenzhen"
    card: ClassVar[DatasetCard] = _card("Shenzhen", 662)

    root: str
    split: Split | None = "test"

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every image, in the order of their paths."""
        files = _list_files(self.root, "CHNCXR")
        yield from _list_pairs(self, files, _shenzhen_lungs(files), _shenzhen_person)


def _list_files(root: str, prefix: str) -> list[str]:
    """The files below the root. UsageError where there is no image."""
    check_root(root)
    files = storage.list_files(root)
    if not any(_is_image(path) and PurePosixPath(path).name.startswith(prefix) for path in files):
        raise UsageError(f"{root}: no {IMAGES}/{prefix}_*.png below it; give the folder that holds {IMAGES}")
    return files


def _is_image(path: str) -> bool:
    return PurePosixPath(path).parent.name == IMAGES and path.lower().endswith(".png")


def _list_pairs(
    adapter: MontgomeryAdapter | ShenzhenAdapter,
    files: Sequence[str],
    lungs: dict[str, tuple[str, ...]],
    parse: Callable[[str], _Person],
) -> Iterator[SourcePair | Reject]:
    """A pair or a reject for every image among `files`; `lungs`: from image to masks, `parse`: reads a reading."""
    known = frozenset(files)
    for path in filter(_is_image, files):
        name = _NAME.fullmatch(file_name(path))
        if name is None:
            yield Reject(path, "file name not understood")
            continue
        ill = name["ill"] == "1"
        person = _read_person(adapter.root, path, known, parse)
        yield SourcePair(
            dataset=adapter.name,
            source_id=name.group(),
            image=path,
            patient=name["patient"],
            study=name["patient"],
            view="PA",
            split=adapter.split,
            sex=person.sex,
            age_years=person.age_years,
            labels={"Tuberculosis": ill, NO_FINDING: not ill},
            masks={"lungs": MaskSource(files=lungs[path])} if path in lungs else {},
        )


def _montgomery_lungs(files: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The masks of both sides of every image that has both."""
    known = frozenset(files)
    found: dict[str, tuple[str, ...]] = {}
    for path in filter(_is_image, files):
        name = file_name(path)
        parent = path.removesuffix(f"{IMAGES}/{name}")
        sides = tuple(f"{parent}ManualMask/{side}/{name}" for side in ("leftMask", "rightMask"))
        if known.issuperset(sides):
            found[path] = sides
    return found


def _shenzhen_lungs(files: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The mask of every image that others drew one for."""
    drawn = files_by_name(path for path in files if path.endswith("_mask.png"))
    masks = {path: drawn.get(f"{PurePosixPath(path).stem}_mask.png") for path in filter(_is_image, files)}
    return {path: (mask,) for path, mask in masks.items() if mask}


def _read_person(root: str, path: str, files: Container[str], parse: Callable[[str], _Person]) -> _Person:
    """Whose image it is, by the reading beside the images; nothing where there is none."""
    folder = PurePosixPath(path).parent.parent
    reading = str(folder / "ClinicalReadings" / f"{PurePosixPath(path).stem}.txt")
    if reading not in files:
        return _Person()
    return parse(storage.read_bytes(storage.join(root, reading)).decode("utf-8", errors="replace"))


def _montgomery_person(text: str) -> _Person:
    sex, age = _MONTGOMERY_SEX.search(text), _MONTGOMERY_AGE.search(text)
    return _Person(read_sex(sex[1]) if sex else None, read_age(age[1]) if age else None)


def _shenzhen_person(text: str) -> _Person:
    found = _SHENZHEN.match(text)
    return _Person(read_sex(found["sex"]), read_age(found["age"] or "")) if found else _Person()
