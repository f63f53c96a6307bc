"""Where CheXpert's releases say which patient, study and view an image is: in its path; and CheXbert's label files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from chexray.platform import storage
from chexray.platform.corpus.adapters.cells import CHEXPERT_FINDINGS
from chexray.platform.corpus.schema import Reject
from chexray.platform.errors import ChexrayError

VIEW_PATH = re.compile(r"(?P<study>(?P<patient>patient\d+)/study\d+)/view\d+_(?:frontal|lateral)(?=\.\w+$)")
"""Of 'train/patient00001/study1/view1_frontal.jpg' the part from the patient on, without suffix: the view."""
STUDY_PATH = re.compile(r"(?P<patient>patient\d+)/study\d+")

Labels = dict[str, bool | None]
_KNOWN: dict[float | None, bool | None] = {1.0: True, 0.0: False, -1.0: None, None: None}


def images_by_view(paths: Iterable[str]) -> dict[str, str]:
    """From `patient/study/view` to the first path of each."""
    found: dict[str, str] = {}
    for path in paths:
        if view := VIEW_PATH.search(path):
            found.setdefault(view.group(), path)
    return found


def first_frontals(paths: Iterable[str]) -> dict[str, str]:
    """From `patient/study` to the path of its frontal view with the lowest number."""
    views = ((view, path) for view, path in images_by_view(paths).items() if view.endswith("_frontal"))
    ordered = sorted(views, key=lambda item: int(item[0].rsplit("view", 1)[1].removesuffix("_frontal")))
    return {view.rsplit("/", 1)[0]: path for view, path in reversed(ordered)}


def find_view(path: str, images: dict[str, str], seen: set[str]) -> re.Match[str] | Reject:
    """The parts of a path that is listed for the first time and has an image, or why there is no pair."""
    found = VIEW_PATH.search(path)
    if found is None:
        return Reject(path, "path not known", "no patient, study and view in it")
    view = found.group()
    if view in seen:
        return Reject(images.get(view, path), "duplicate row")
    seen.add(view)
    return found if view in images else Reject(path, "image file missing")


def read_projection(side: str, projection: str) -> str | None:
    if side.lower() == "lateral":
        return "LATERAL"
    return projection if projection in ("AP", "PA") else None


def read_chexbert(uri: str) -> dict[str, Labels]:
    """The labels by view, of a file with one JSON object a line. ChexrayError for a line that is something else."""
    labels: dict[str, Labels] = {}
    with storage.open_read(uri) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                view, values = _label_line(f"{uri}, line {number}", line)
                labels[view] = values
    return labels


def _label_line(where: str, line: bytes) -> tuple[str, Labels]:
    """The view and the labels of one line of CheXbert's output."""
    try:
        values: dict[str, Any] = json.loads(line)
        view = VIEW_PATH.search(values["path_to_image"])
        labels = {name: _KNOWN[values[name]] for name in CHEXPERT_FINDINGS}
    except (ValueError, KeyError, TypeError) as error:
        raise ChexrayError(f"{where}: not the labels of an image: 14 findings that are 1, 0, -1 or null") from error
    return view.group() if view else "", labels
