"""What a page of the leaderboard is made of. All text is other people's and is escaped when the page is rendered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Listing:
    """A small table. The first column names a row."""

    kind: ClassVar[str] = "listing"
    title: str
    lead: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class PlotRow:
    """Plots beside each other, each with its caption. `note`: a line below the title."""

    title: str
    note: str
    plots: Sequence[tuple[str, Any]]


@dataclass(frozen=True)
class Plots:
    kind: ClassVar[str] = "plots"
    title: str
    lead: str
    rows: Sequence[PlotRow]


@dataclass(frozen=True)
class Passage:
    """A report under a heading, with a smaller note."""

    heading: str
    text: str
    note: str = ""


@dataclass(frozen=True)
class TextCard:
    """An image, or none, beside passages. `image`: JPEG or PNG. `name`: what the image is."""

    name: str
    image: bytes | None
    passages: Sequence[Passage]


@dataclass(frozen=True)
class TextCards:
    kind: ClassVar[str] = "texts"
    title: str
    lead: str
    cards: Sequence[TextCard]


@dataclass(frozen=True)
class PictureCard:
    """Images of one sample beside each other, each with a caption: None where there is no image to show."""

    name: str
    pictures: Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True)
class PictureCards:
    kind: ClassVar[str] = "pictures"
    title: str
    lead: str
    legend: Sequence[tuple[str, str]]
    """Colours and what they are."""
    cards: Sequence[PictureCard]


@dataclass(frozen=True)
class BoardCell:
    """A number of the main table. `low` and `high`: where its interval lies between 0 and 100, None without one."""

    value: str
    interval: str
    mark: str
    note: str
    verdict: str
    low: float | None = None
    high: float | None = None
    at: float | None = None


@dataclass(frozen=True)
class BoardLine:
    name: str
    note: str
    link: str | None
    cells: Sequence[BoardCell]


Block = Listing | Plots | TextCards | PictureCards
