"""Pages as a browser reads them: parsed with the standard library's HTML parser."""

from __future__ import annotations

from html.parser import HTMLParser

from chexray.platform.pages.page import Bar, Bars, Facts, Pictures, counted, picture, render_page


class Reader(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.text.append(" ".join(data.split()))


def test_page_shows_other_peoples_text_as_text() -> None:
    hostile = "<script>alert(1)</script>\" onload='x'"
    page = Reader(
        render_page(
            hostile,
            hostile,
            [
                Bars(hostile, [Bar(hostile, 0.5, "1", hostile)]),
                Facts(hostile, [(hostile, hostile)]),
                Pictures(hostile, [picture(b"jpeg", hostile, hostile, hostile)]),
            ],
        )
    )
    assert "script" not in {tag for tag, _ in page.tags}
    assert all("onload" not in attributes for _, attributes in page.tags)
    assert page.text.count(hostile) >= 10


def test_page_loads_nothing_from_elsewhere() -> None:
    page = render_page("t", "l", [counted("c", {"a": 2, "b": 1}), Pictures("p", [picture(b"x", "a", "c")])])
    assert "http" not in page
    assert all(str(a.get("src", "data:")).startswith("data:") for _, a in Reader(page).tags)


def test_counted_bars_are_sorted_with_shares_of_the_sum_and_lengths_of_the_largest() -> None:
    bars = counted("views", {"AP": 1, "PA": 3, "unknown": 1})
    assert [(bar.name, bar.share, bar.text, bar.note) for bar in bars.rows] == [
        ("PA", 1.0, "3", "60.0%"),
        ("AP", 1 / 3, "1", "20.0%"),
        ("unknown", 1 / 3, "1", "20.0%"),
    ]
    assert counted("none", {}).rows == []
