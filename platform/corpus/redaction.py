"""Regions of images that are masked because equipment writes text into them, chosen by rules.

This is the tool for the Clean Pixel Data Option of PS3.15 E.3.1: text that names a patient is removed where a rule
says that a kind of image has it. It does not look for text, so rules are as good as the knowledge of the archive
that they are written for. Faces and other recognizable features (E.3.2) are no matter in chest radiographs. The
matching is that of the CTP's DicomPixelAnonymizer: by header elements, regions as left, top, width, height.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import yaml

if TYPE_CHECKING:
    from chexray.platform.corpus.dicom_header import Header
    from chexray.platform.corpus.raster import Image

_KEYS = ("name", "manufacturer", "model", "rows", "columns", "burned_in", "pixels", "shares")


@dataclass(frozen=True)
class Region:
    """A rectangle from the image's left upper corner, in pixels or in shares (0 to 1) of its width and height."""

    left: float
    top: float
    width: float
    height: float
    unit: Literal["pixels", "shares"] = "pixels"


@dataclass(frozen=True)
class Rule:
    """`regions` of the images for which all that is given holds; None holds for any.

    `manufacturer` and `model` are a part of the header's, in any case. `burned_in` is Burned In Annotation
    (0028,0301); an image whose header does not say it is matched by None alone.
    """

    name: str
    regions: tuple[Region, ...]
    manufacturer: str | None = None
    model: str | None = None
    rows: int | None = None
    columns: int | None = None
    burned_in: bool | None = None


def redact(image_HW: Image, header: Header, rules: Sequence[Rule]) -> tuple[Image, str | None]:
    """The image with the regions of all matching rules black, and a note of it; itself and None where none match.

    An image whose header says that it has burned-in annotation and that no rule matches is noted too.
    """
    matching = [rule for rule in rules if _matches(rule, header)]
    if not matching:
        return image_HW, "burned-in annotation not masked" if header.burned_in else None
    masked_HW = image_HW.copy()
    for rule in matching:
        for region in rule.regions:
            masked_HW[_span(region, *image_HW.shape)] = 0
    return masked_HW, f"masked by {', '.join(rule.name for rule in matching)}"


def redact_plain(image_HW: Image, rules: Sequence[Rule]) -> tuple[Image, str | None]:
    """As `redact`, for a file without a header: rules that ask for anything but rows and columns do not apply."""
    # Here and not above: pydicom is loaded only where it is needed.
    from chexray.platform.corpus.dicom_header import Header

    height, width = image_HW.shape
    return redact(image_HW, Header(rows=height, columns=width), rules)


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Rules of a YAML list, such as

    - {name: top left label, manufacturer: agfa, rows: 2048, pixels: [[0, 0, 400, 80]]}
    - {name: footer, burned_in: true, shares: [[0, 0.95, 1, 0.05]]}

    ValueError names the rule and the key that is wrong, and what is allowed.
    """
    try:
        entries = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"redaction rules are not YAML: {error}") from error
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise ValueError(f"redaction rules are a {type(entries).__name__}: they must be a list, one entry a rule")
    rules = tuple(_rule(f"rule {number}", entry) for number, entry in enumerate(entries, start=1))
    names = [rule.name for rule in rules]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"redaction rules have the name {repeated[0]!r} more than once")
    return rules


def _rule(where: str, entry: Any) -> Rule:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is {entry!r}: it must be a mapping with keys of {', '.join(_KEYS)}")
    if unknown := [key for key in entry if key not in _KEYS]:
        raise ValueError(f"{where} has the key {unknown[0]!r}: allowed are {', '.join(_KEYS)}")
    name = _value(where, entry, "name", str)
    if not name:
        raise ValueError(f"{where} has no name")
    where = f"{where} ({name})"
    regions = [
        _region(where, unit, values) for unit in ("pixels", "shares") for values in _rectangles(where, entry, unit)
    ]
    if not regions:
        raise ValueError(f"{where} has no region: give pixels or shares, a list of [left, top, width, height]")
    return Rule(
        name,
        tuple(regions),
        _value(where, entry, "manufacturer", str),
        _value(where, entry, "model", str),
        _value(where, entry, "rows", int),
        _value(where, entry, "columns", int),
        _value(where, entry, "burned_in", bool),
    )


def _value(where: str, entry: dict[str, Any], key: str, kind: type) -> Any:
    value = entry.get(key)
    if value is None or type(value) is kind:
        return value
    names = {str: "text", int: "a whole number", bool: "true or false"}
    raise ValueError(f"{where}: {key} is {value!r}: it must be {names[kind]}")


def _rectangles(where: str, entry: dict[str, Any], unit: str) -> list[Any]:
    values = entry.get(unit, [])
    if not isinstance(values, list):
        raise ValueError(f"{where}: {unit} is {values!r}: it must be a list of [left, top, width, height]")
    return values


def _region(where: str, unit: Any, values: Any) -> Region:
    if not isinstance(values, list) or len(values) != 4 or any(type(value) not in (int, float) for value in values):
        raise ValueError(f"{where}: {unit} has {values!r}: a region is [left, top, width, height], four numbers")
    left, top, width, height = values
    if not all(map(math.isfinite, values)) or min(left, top) < 0 or min(width, height) <= 0:
        raise ValueError(f"{where}: {unit} has {values!r}: left and top must be 0 or more, width and height above 0")
    if unit == "shares" and max(left + width, top + height) > 1 + 1e-9:
        raise ValueError(f"{where}: shares has {values!r}: left + width and top + height must be at most 1")
    return Region(left, top, width, height, unit)


def _matches(rule: Rule, header: Header) -> bool:
    texts = ((rule.manufacturer, header.manufacturer), (rule.model, header.model))
    exact = ((rule.rows, header.rows), (rule.columns, header.columns), (rule.burned_in, header.burned_in))
    return all(part is None or part.casefold() in (whole or "").casefold() for part, whole in texts) and all(
        wanted is None or wanted == found for wanted, found in exact
    )


def _span(region: Region, height: int, width: int) -> tuple[slice, slice]:
    """The pixels that a region touches, as far as they are in the image."""
    across, down = (width, height) if region.unit == "shares" else (1, 1)
    # Shares such as 0.1 of 10 rows are a rounding error beside whole pixels.
    edges = (
        (region.top * down, (region.top + region.height) * down),
        (region.left * across, (region.left + region.width) * across),
    )
    rows, columns = (slice(math.floor(low + 1e-6), math.ceil(high - 1e-6)) for low, high in edges)
    return rows, columns
