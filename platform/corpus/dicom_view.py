"""From which side a radiograph was taken, by the words and codes of its DICOM header."""

from __future__ import annotations

import re
from typing import Literal

from pydicom.dataset import Dataset

from chexray.platform.corpus.dicom_dataset import first_text, items

View = Literal["PA", "AP", "LATERAL"]

VIEW_TAGS = (
    "ViewPosition",
    "ViewCodeSequence",
    "SeriesDescription",
    "ProtocolName",
    "AcquisitionDeviceProcessingDescription",
)

_CODES: dict[str, View] = {
    "272479007": "PA",
    "R-10214": "PA",
    "R-40888": "PA",
    "399348003": "AP",
    "R-10206": "AP",
    "399067008": "LATERAL",
    "R-102CD": "LATERAL",
    "399173006": "LATERAL",
    "R-10236": "LATERAL",
    "399198007": "LATERAL",
    "R-10232": "LATERAL",
}
"""PS3.16 CID 4010, in SNOMED CT and in the older SNOMED RT."""

_WORDS: dict[str, View] = {
    "PA": "PA",
    "POSTEROANTERIOR": "PA",
    "AP": "AP",
    "ANTEROPOSTERIOR": "AP",
    "LATERAL": "LATERAL",
    "LATERALE": "LATERAL",
    "LAT": "LATERAL",
    "LLAT": "LATERAL",
    "RLAT": "LATERAL",
    "PROFIL": "LATERAL",
    "SEITLICH": "LATERAL",
}
_POSITIONS: dict[str, View] = _WORDS | {"LL": "LATERAL", "RL": "LATERAL"}
"""LL and RL are terms of View Position (0018,5101) (PS3.3 C.8.1.2); in free text they may mean anything."""

_DECUBITUS = re.compile(r"DECUB|\b(?:LLD|RLD)\b")
_OBLIQUE = re.compile(r"OBLI|\b(?:RLO|LLO|RAO|LAO|RPO|LPO)\b")
_INITIALS = re.compile(r"\b([AP])\.\s?([AP])\b\.?")
_HYPHENATED = re.compile(r"\b(POSTERO|ANTERO)[- ](ANTERIOR|POSTERIOR)\b")


def view_of(dataset: Dataset) -> View | None:
    """PA, AP or LATERAL by View Position, else View Code Sequence (PS3.3 C.8.11.5), else the descriptions."""
    if found := _view_in(first_text(dataset, "ViewPosition"), _POSITIONS):
        return found
    if codes := items(dataset, "ViewCodeSequence"):
        code = _CODES.get(first_text(codes[0], "CodeValue"))
        if found := code or _view_in(first_text(codes[0], "CodeMeaning"), _WORDS):
            return found
    described = (_view_in(first_text(dataset, name), _WORDS) for name in VIEW_TAGS[2:])
    return next((view for view in described if view), None)


def _view_in(text: str, words: dict[str, View]) -> View | None:
    """The one view that a text names. None for two ('PA and lateral') and for obliques.

    A lateral decubitus is the patient's position; its beam is PA or AP, if anything is said of it.
    """
    plain = _HYPHENATED.sub(r"\1\2", _INITIALS.sub(r"\1\2", text.upper().replace("_", " ")))
    if _OBLIQUE.search(plain):
        return None
    found = {words[word] for word in re.findall(r"[^\W\d_]+", plain) if word in words}
    if _DECUBITUS.search(plain):
        found.discard("LATERAL")
    return found.pop() if len(found) == 1 else None
