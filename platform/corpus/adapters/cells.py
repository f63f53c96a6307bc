"""What the cells of datasets' tables mean: sexes, ages, views, labels, reports."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from chexray.platform.errors import UsageError

CHEXPERT_FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
"""The 14 columns of CheXpert's labeller (Irvin et al. 2019), which MIMIC-CXR-JPG and BRAX have too."""

LABELS: dict[str, bool | None] = {
    "": None,
    "nan": None,
    "u": None,
    "-1": None,
    "-1.0": None,
    "0": False,
    "0.0": False,
    "1": True,
    "1.0": True,
}
"""What a label's cell may hold, in small letters. -1 is CheXpert's 'uncertain', as is u."""

_FRONTAL = {"PA": "PA", "POSTERO ANTERIOR": "PA", "AP": "AP", "ANTERO POSTERIOR": "AP"}
_LATERAL = frozenset({"L", "LL", "RL", "LAT", "LATERAL", "LLAT", "RLAT", "XTABLE LATERAL", "PROFIL"})
_DIRECTIONS = frozenset({"AP", "PA"}) | _LATERAL
_AGE = re.compile(r"-?\d+(?:\.\d+)?")
_AGE_UNITS = {"M": 12.0, "W": 365.25 / 7, "D": 365.25}
"""How many make a year, by the letter that follows: DICOM's AS (PS3.5 6.2), and words such as 'months'."""
_MAX_AGE = 120
_MAX_QUOTED = 12


def read_sex(text: str) -> Literal["F", "M"] | None:
    """F or M by the first letter, of a word in any case; None for anything else ('O', 'None', '')."""
    word = text.strip().upper()
    if word[:1] == "F":
        return "F"
    return "M" if word in ("M", "MALE", "MAN") else None


def read_age(text: str) -> float | None:
    """Years of '57', '057Y', '57 ans', '16month', "['57']", '85 or more'; None without one, below 0, above 120."""
    number = _AGE.search(text)
    if number is None:
        return None
    unit = text[number.end() :].strip().upper()[:1]
    years = float(number.group()) / _AGE_UNITS.get(unit, 1.0)
    return years if 0 <= years <= _MAX_AGE else None


def read_view(text: str) -> str | None:
    """PA, AP or LATERAL of a DICOM View Position or a word for it; None where it is oblique, other or unknown.

    A suffix is the patient's position ('AP LLD', 'PA RLD') or the beam's ('AP AXIAL'), and does not count.
    """
    words = " ".join(text.upper().replace("_", " ").split())
    if words in _FRONTAL:
        return _FRONTAL[words]
    if words in _LATERAL:
        return "LATERAL"
    first, *position = words.split(" ")
    return None if _DIRECTIONS & {*position} else _FRONTAL.get(first)


def read_labels(where: str, row: dict[str, str], columns: Iterable[str]) -> dict[str, bool | None]:
    """Labels of 1 (present), 0 (absent), -1 or u (uncertain) and nothing, the last as None. UsageError for others."""
    labels: dict[str, bool | None] = {}
    for column in columns:
        text = row[column].lower()
        if text not in LABELS:
            raise UsageError(f"{where}: {column} is {quote(row[column])}: a label must be 1, 0, -1, u or empty")
        labels[column] = LABELS[text]
    return labels


def quote(cell: str) -> str:
    """A cell for an error's text: quoted where it is too short to be a name with a date, else its length."""
    return repr(cell) if len(cell) <= _MAX_QUOTED else f"a text of {len(cell)} characters"


def join_sections(findings: str | None, impression: str | None) -> str | None:
    """A report of its sections, under the headers that `split_sections` reads; None where there is none."""
    sections = (("FINDINGS", findings), ("IMPRESSION", impression))
    return "\n".join(f"{name}: {text}" for name, text in sections if text) or None
