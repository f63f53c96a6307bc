"""What a DICOM header says of an image before any pixel is decoded, and why an image is left out for it.

Attributes and their terms: PS3.3, codes: PS3.16.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from pydicom.dataset import Dataset

from chexray.platform.corpus.dicom_dataset import first_text, items
from chexray.platform.corpus.dicom_view import VIEW_TAGS, View, view_of
from chexray.platform.corpus.raster import ImageReason, ViewFilter, other_view

_RADIOGRAPHS = frozenset({"CR", "DX", "RG", "DR", "XR"})
"""Modality (0008,0060): CR, DX and RG are PS3.3 C.7.3.1.1.1's terms; DR and XR are what some systems write."""

_UNKNOWN_MODALITIES = frozenset({"", "OT"})
"""OT (other, C.7.3.1.1.1) is what digitised films and secondary captures come as."""

MAX_AGE = 90.0
"""Older patients count as 90: above 89 an age identifies (45 CFR 164.514(b)(2)(i)(C))."""

HEADER_TAGS = (
    *VIEW_TAGS,
    "Modality",
    "Manufacturer",
    "ManufacturerModelName",
    "BodyPartExamined",
    "AnatomicRegionSequence",
    "ImageLaterality",
    "Laterality",
    "PatientSex",
    "PatientAge",
    "PatientBirthDate",
    "StudyDate",
    "BurnedInAnnotation",
    "Rows",
    "Columns",
)
"""What `header_of` looks at."""

_CHEST = re.compile(r"CHEST|THORA|TORAX|TÓRAX|LUNG|PULMO|MEDIASTIN")
_SPINE = re.compile(r"SPINE|COLUMN|LUMB|VERTEB")
_UNKNOWN_PARTS = frozenset(
    {"", "BODY", "DEFAULT", "NONE", "OTHER", "TORSO", "TRUNK", "UNDEFINED", "UNKNOWN", "UNSPECIFIED", "WHOLEBODY"}
)
_AGE = re.compile(r"(\d{1,3})\s*([DWMY]?)")
_AGE_UNITS = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}
_OLDEST = 120


@dataclass(frozen=True)
class Header:
    """What is known of an image from its header; None where it does not say. Nothing in it names a patient.

    `laterality`: L, R, U or B of a paired body part. `age_years`: at most `MAX_AGE`. `burned_in`: Burned In
    Annotation (0028,0301).
    """

    modality: str | None = None
    body_part: str | None = None
    view: View | None = None
    laterality: str | None = None
    rows: int | None = None
    columns: int | None = None
    sex: Literal["F", "M"] | None = None
    age_years: float | None = None
    burned_in: bool | None = None
    manufacturer: str | None = None
    model: str | None = None


def header_of(dataset: Dataset) -> Header:
    """The header of a parsed dataset with its `HEADER_TAGS`. Raises one of `dicom_dataset.READ_ERRORS`."""
    body_part = first_text(dataset, "BodyPartExamined") or _meaning(dataset, "AnatomicRegionSequence")
    return Header(
        modality=first_text(dataset, "Modality").upper() or None,
        body_part=body_part.upper() or None,
        view=view_of(dataset),
        laterality=_one_of(first_text(dataset, "ImageLaterality") or first_text(dataset, "Laterality"), "LRUB"),
        rows=_count(dataset, "Rows"),
        columns=_count(dataset, "Columns"),
        sex=cast(Literal["F", "M"] | None, _one_of(first_text(dataset, "PatientSex"), "FM")),
        age_years=_age_years(dataset),
        burned_in={"YES": True, "NO": False}.get(first_text(dataset, "BurnedInAnnotation").upper()),
        manufacturer=first_text(dataset, "Manufacturer") or None,
        model=first_text(dataset, "ManufacturerModelName") or None,
    )


def keep_header(header: Header, view: ViewFilter) -> ImageReason | None:
    """Why an image is left out for its header, or None to keep it. What the header does not say is no reason."""
    modality = header.modality or ""
    if modality not in _RADIOGRAPHS and modality not in _UNKNOWN_MODALITIES:
        return "not a radiograph"
    if not _may_be_chest(header.body_part or ""):
        return "not a chest"
    return other_view(header.view, view)


def _may_be_chest(body_part: str) -> bool:
    words = body_part.upper().replace("_", " ")
    if words.replace(" ", "") in _UNKNOWN_PARTS:
        return True
    return _CHEST.search(words) is not None and _SPINE.search(words) is None


def _meaning(dataset: Dataset, name: str) -> str:
    """The Code Meaning (0008,0104) of a code sequence's first item."""
    codes = items(dataset, name)
    return first_text(codes[0], "CodeMeaning") if codes else ""


def _count(dataset: Dataset, name: str) -> int | None:
    text = first_text(dataset, name)
    return int(text) if text.isdecimal() else None


def _one_of(text: str, letters: str) -> str | None:
    return text.upper() if len(text) == 1 and text.upper() in letters else None


def _age_years(dataset: Dataset) -> float | None:
    """Patient's Age (AS, PS3.5 6.2; also without its unit), else whole years from birth to study; None above 120."""
    match = _AGE.fullmatch(first_text(dataset, "PatientAge").upper())
    years = int(match[1]) / _AGE_UNITS[match[2]] if match else _years_at_study(dataset)
    return min(years, MAX_AGE) if years is not None and 0 <= years <= _OLDEST else None


def _years_at_study(dataset: Dataset) -> float | None:
    born, studied = (_date(first_text(dataset, name)) for name in ("PatientBirthDate", "StudyDate"))
    if born is None or studied is None:
        return None
    return float(studied[0] - born[0] - (studied[1:] < born[1:]))


def _date(text: str) -> tuple[int, int, int] | None:
    """Year, month and day of DA (PS3.5 6.2), also in its old form with dots."""
    match = re.fullmatch(r"(\d{4})\.?(\d\d)\.?(\d\d)", text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None
