"""The NLM's tuberculosis sets (Jaeger et al. 2014): Montgomery County, 138 images, and Shenzhen, 662."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar, Literal

from chexray.platform import storage
from chexray.platform.corpus.adapters.cells import read_age, read_sex
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

    card: ClassVar[DatasetCard] = DatasetCard(
        title="Montgomery County",
        use="evaluation",
        images=138,
        patients=138,
        reports=None,
        findings=1,
        masks=("lungs",),
        licence="public domain; the NLM asks to be cited",
        citation="Jaeger et al., Two public chest X-ray datasets, Quant Imaging Med Surg 4(6), 2014",
        url="https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/",
    )

    root: str
    split: Split | None = "test"

    @property
    def name(self) -> str:
        return "montgomery"

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every image, in the order of their paths."""
        files = _list_files(self.root, "MCUCXR")
        known = frozenset(files)
        for path in files:
            if _is_image(path):
                name = PurePosixPath(path).name
                parent = path.removesuffix(f"{IMAGES}/{name}")
                sides = tuple(f"{parent}ManualMask/{side}/{name}" for side in ("leftMask", "rightMask"))
                masks = {"lungs": MaskSource(files=sides)} if known.issuperset(sides) else {}
                person = _read_person(self.root, path, known, _montgomery_person)
                yield _pair(self.name, path, masks, person, self.split)


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

    card: ClassVar[DatasetCard] = DatasetCard(
        title="Shenzhen",
        use="evaluation",
        images=662,
        patients=662,
        reports=None,
        findings=1,
        masks=("lungs",),
        licence="public domain; the NLM asks to be cited",
        citation="Jaeger et al., Two public chest X-ray datasets, Quant Imaging Med Surg 4(6), 2014",
        url="https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/",
    )

    root: str
    split: Split | None = "test"

    @property
    def name(self) -> str:
        return "shenzhen"

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every image, in the order of their paths."""
        files = _list_files(self.root, "CHNCXR")
        known = frozenset(files)
        drawn = {PurePosixPath(path).name: path for path in reversed(files) if path.endswith("_mask.png")}
        for path in files:
            if _is_image(path):
                mask = drawn.get(f"{PurePosixPath(path).stem}_mask.png")
                masks = {"lungs": MaskSource(files=(mask,))} if mask else {}
                person = _read_person(self.root, path, known, _shenzhen_person)
                yield _pair(self.name, path, masks, person, self.split)


def _list_files(root: str, prefix: str) -> list[str]:
    """The files below the root. UsageError where there is no image."""
    check_root(root)
    files = storage.list_files(root)
    if not any(_is_image(path) and PurePosixPath(path).name.startswith(prefix) for path in files):
        raise UsageError(f"{root}: no {IMAGES}/{prefix}_*.png below it; give the folder that holds {IMAGES}")
    return files


def _is_image(path: str) -> bool:
    return PurePosixPath(path).parent.name == IMAGES and path.lower().endswith(".png")


def _pair(
    dataset: str, path: str, masks: dict[str, MaskSource], person: _Person, split: Split | None
) -> SourcePair | Reject:
    name = _NAME.fullmatch(PurePosixPath(path).name)
    if name is None:
        return Reject(path, "file name not understood")
    ill = name["ill"] == "1"
    return SourcePair(
        dataset=dataset,
        source_id=PurePosixPath(path).name,
        image=path,
        patient=name["patient"],
        study=name["patient"],
        view="PA",
        split=split,
        sex=person.sex,
        age_years=person.age_years,
        labels={"Tuberculosis": ill, NO_FINDING: not ill},
        masks=masks,
    )


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
