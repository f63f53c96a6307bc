"""The JSRT database (Shiraishi et al. 2000): 247 radiographs with and without a nodule, and the SCR masks of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar, Literal

from chexray.platform import storage
from chexray.platform.corpus.adapters.cells import read_age, read_sex
from chexray.platform.corpus.adapters.table import check_root
from chexray.platform.corpus.schema import NO_FINDING, DatasetCard, MaskSource, RawFormat, Reject, SourcePair, Split
from chexray.platform.errors import UsageError

RAW = RawFormat(height=2048, width=2048, bits=12, inverted=True)
"""`.IMG`: no header, 16 bits big-endian. Values are film densities: high is dark."""

PIXEL_MM = 0.175
CLINICAL_FILES = ("clndat_en.txt", "cnndat_en.txt")
MASKS = {
    "lungs": ("left lung", "right lung"),
    "heart": ("heart",),
    "clavicles": ("left clavicle", "right clavicle"),
}
"""From a mask to the folders of SCR that it is the union of."""

_STEM = re.compile(r"JPC(?:LN|NN)\d{3}")
_IMAGES = (".img", ".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".dcm")
"""In the order of preference, where an image is there in several formats."""
_MASK_SUFFIXES = (".gif", ".png", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class _Case:
    """What the clinical files say: `nodule` is centre (x, y) and diameter, in pixels of the original."""

    sex: Literal["F", "M"] | None = None
    age_years: float | None = None
    nodule: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class JsrtAdapter:
    """The JSRT database below `root`, with the SCR masks where they are there.

    `JPCLN001.IMG` ... `JPCLN154.IMG` with one nodule each and `JPCNN001.IMG` ... `JPCNN093.IMG` without, in any
    folders: 2048 x 2048 raw pixels of 12 bits in 16, big-endian and inverted; or conversions of the same names to PNG,
    TIFF, JPEG or DICOM, taken as they are (the raw file goes first). `CLNDAT_EN.txt` (name, subtlety, size in mm, age,
    sex, x, y, malignancy, place, diagnosis) and `CNNDAT_EN.TXT` (name, age, sex, 'non-nodule') anywhere below, without
    header, separated by tabs or spaces, lines ended in any way; '?' is unknown.

    The mask `Nodule` is the square around the nodule, for raw images alone, because it is in their pixels; empty where
    there is none. SCR (van Ginneken et al. 2006): `fold1/masks/left lung/JPCLN001.gif` and the like, 1024 x 1024; a
    mask is used where all of its parts are there. One image a patient, all PA. `split` is of all images.
    Licence: free for research after registration; not to be passed on.
    """

    name: ClassVar[str] = "jsrt"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="JSRT",
        use="evaluation",
        images=247,
        patients=247,
        reports=None,
        findings=1,
        masks=("lungs", "heart", "clavicles", "Nodule, as a box"),
        licence="free for research after registration",
        citation="Shiraishi et al., AJR 174(1), 2000; van Ginneken et al., Medical Image Analysis 10(1), 2006 (masks)",
        url="http://db.jsrt.or.jp/eng.php",
    )

    root: str
    split: Split | None = "test"

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair for every image, by name; a reject for an image that the clinical files do not name."""
        check_root(self.root)
        files = storage.list_files(self.root)
        images, parts = _images(files), _mask_parts(files)
        clinical = [path for path in files if PurePosixPath(path).name.lower() in CLINICAL_FILES]
        if not images or not clinical:
            missing = "CLNDAT_EN.txt or CNNDAT_EN.TXT" if images else "JPCLN001.IMG or the like"
            raise UsageError(f"{self.root}: no {missing} below it; give the folder that holds the database")
        cases: dict[str, _Case] = {}
        for path in clinical:
            cases |= _read_cases(storage.read_bytes(storage.join(self.root, path)))
        for stem, path in sorted(images.items()):
            if stem in cases:
                yield self._pair(stem, path, cases[stem], parts[stem])
            else:
                yield Reject(path, "image without a row")
        for stem in sorted(cases.keys() - images.keys()):
            yield Reject(f"{stem}.IMG", "image file missing")

    def _pair(self, stem: str, path: str, case: _Case, parts: dict[str, str]) -> SourcePair:
        raw = RAW if path.lower().endswith(".img") else None
        has_nodule = stem.startswith("JPCLN")
        masks = {
            name: MaskSource(files=tuple(parts[part] for part in names))
            for name, names in MASKS.items()
            if parts.keys() >= set(names)
        }
        if raw and (case.nodule or not has_nodule):
            masks["Nodule"] = MaskSource(boxes=(_square(*case.nodule),) if case.nodule else ())
        return SourcePair(
            dataset=self.name,
            source_id=stem,
            image=path,
            patient=stem,
            study=stem,
            view="PA",
            split=self.split,
            sex=case.sex,
            age_years=case.age_years,
            labels={"Nodule": has_nodule, NO_FINDING: not has_nodule},
            masks=masks,
            raw=raw,
        )


def _images(files: list[str]) -> dict[str, str]:
    """The path of every image by its name; masks are no images."""
    found: dict[str, str] = {}
    for suffix in _IMAGES:
        for path in files:
            stem = PurePosixPath(path).stem.upper()
            if path.lower().endswith(suffix) and _STEM.fullmatch(stem) and _mask_part(path) is None:
                found.setdefault(stem, path)
    return found


def _mask_parts(files: list[str]) -> defaultdict[str, dict[str, str]]:
    """From an image's name to the file of each part that SCR drew."""
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for path in files:
        part = _mask_part(path)
        if part and path.lower().endswith(_MASK_SUFFIXES):
            found[PurePosixPath(path).stem.upper()][part] = path
    return found


def _mask_part(path: str) -> str | None:
    """The part whose folder the file is in: 'left lung' of 'fold1/masks/left_lung/JPCLN001.gif'."""
    folder = PurePosixPath(path).parent.name.lower().replace("_", " ")
    return folder if any(folder in names for names in MASKS.values()) else None


def _read_cases(data: bytes) -> dict[str, _Case]:
    """The cases of a clinical file by their images' names. Split at names, not lines: some copies lost line ends."""
    text = data.decode("latin-1")
    names = list(re.finditer(rf"({_STEM.pattern})\.IMG", text, re.IGNORECASE))
    ends = [*(name.start() for name in names[1:]), len(text)]
    cases: dict[str, _Case] = {}
    for name, end in zip(names, ends, strict=True):
        words = text[name.end() : end].split()
        stem = name[1].upper()
        cases[stem] = _nodule_case(words) if stem.startswith("JPCLN") else _normal_case(words)
    return cases


def _nodule_case(words: list[str]) -> _Case:
    """Subtlety, size in mm, age, sex, x and y, and more that is not used."""
    padded = [*words, *[""] * 6]
    size, x, y = (_number(padded[number]) for number in (1, 4, 5))
    nodule = None if size is None or x is None or y is None else (x, y, size / PIXEL_MM)
    return _Case(read_sex(padded[3]), read_age(padded[2]), nodule)


def _normal_case(words: list[str]) -> _Case:
    age, sex = [*words, "", ""][:2]
    return _Case(read_sex(sex), read_age(age))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _square(x: float, y: float, diameter: float) -> tuple[float, float, float, float]:
    return (x - diameter / 2, y - diameter / 2, x + diameter / 2, y + diameter / 2)
