"""One HTML page, whole in itself: bars, facts and pictures. It can be mailed, and needs no network to be read."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import ClassVar

import jinja2


@dataclass(frozen=True)
class Bar:
    """One line of a block of bars. `share`: its length, 0 to 1; `text`: the number beside it."""

    name: str
    share: float
    text: str
    note: str = ""


@dataclass(frozen=True)
class Bars:
    kind: ClassVar[str] = "bars"
    title: str
    rows: Sequence[Bar]


@dataclass(frozen=True)
class Facts:
    kind: ClassVar[str] = "facts"
    title: str
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Picture:
    """A JPEG, what stands below it, and a smaller line. `data`: base64."""

    data: str
    alt: str
    caption: str
    note: str = ""


@dataclass(frozen=True)
class Pictures:
    kind: ClassVar[str] = "pictures"
    title: str
    pictures: Sequence[Picture]


Block = Bars | Facts | Pictures


def render_page(title: str, lead: str, blocks: Sequence[Block]) -> str:
    """The page's HTML. All text is escaped: reports and labels are other people's."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(files("chexray.platform.pages").joinpath("page.html").read_text())
    return template.render(title=title, lead=lead, blocks=blocks)


def counted(title: str, counts: Mapping[str, int]) -> Bars:
    """Bars of counts, the largest first."""
    return bars(title, dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))))


def bars(title: str, counts: Mapping[str, int]) -> Bars:
    """Bars of counts in their order, the largest as long as the block is wide, each with its share of the sum."""
    total, largest = max(1, sum(counts.values())), max([1, *counts.values()])
    return Bars(title, [Bar(name, n / largest, f"{n:,}", f"{n / total:.1%}") for name, n in counts.items()])


def picture(jpeg: bytes, alt: str, caption: str, note: str = "") -> Picture:
    return Picture(base64.b64encode(jpeg).decode(), alt, caption, note)
