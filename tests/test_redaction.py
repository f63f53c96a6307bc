"""Masking by rules; expected pixels are counted by hand."""

import numpy as np
import pytest

from chexray.platform.corpus.dicom_header import Header
from chexray.platform.corpus.redaction import Region, Rule, parse_rules, redact

WHITE = np.full((10, 20), 255, np.uint8)
LABEL = (Region(2, 1, 3, 2),)


def masked(rule: Rule, header: Header | None = None) -> list[tuple[int, int]]:
    """Row and column of every pixel that became black."""
    image, _ = redact(WHITE, header or Header(), (rule,))
    return [(int(row), int(column)) for row, column in zip(*np.nonzero(image == 0), strict=True)]


def test_redact_of_pixel_region_blackens_it_and_nothing_else() -> None:
    image, note = redact(WHITE, Header(), (Rule("label", LABEL),))
    assert note == "masked by label"
    assert not image[1:3, 2:5].any()
    assert (image == 0).sum() == 6
    assert (WHITE == 255).all()


@pytest.mark.parametrize(
    ("region", "rows", "columns"),
    [
        (Region(0, 0.9, 1, 0.1, "shares"), range(9, 10), range(20)),
        (Region(0, 0.85, 0.5, 0.15, "shares"), range(8, 10), range(10)),
        (Region(0.32, 0, 0.01, 1, "shares"), range(10), range(6, 7)),
        (Region(18, 8, 100, 100), range(8, 10), range(18, 20)),
        (Region(1.5, 0, 1, 1), range(1), range(1, 3)),
        (Region(30, 0, 5, 5), range(0), range(0)),
    ],
)
def test_redact_blackens_every_pixel_that_a_region_touches(region: Region, rows: range, columns: range) -> None:
    assert masked(Rule("r", (region,))) == [(row, column) for row in rows for column in columns]


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        (Rule("r", LABEL), True),
        (Rule("r", LABEL, manufacturer="agfa"), True),
        (Rule("r", LABEL, manufacturer="fuji"), False),
        (Rule("r", LABEL, model="adc"), True),
        (Rule("r", LABEL, manufacturer="agfa", model="dx-d"), False),
        (Rule("r", LABEL, rows=10, columns=20), True),
        (Rule("r", LABEL, rows=20), False),
        (Rule("r", LABEL, burned_in=True), True),
        (Rule("r", LABEL, burned_in=False), False),
    ],
)
def test_redact_takes_rules_of_which_all_holds(rule: Rule, matches: bool) -> None:
    header = Header(manufacturer="Agfa-Gevaert", model="ADC Compact", rows=10, columns=20, burned_in=True)
    assert bool(masked(rule, header)) is matches


def test_redact_with_several_matching_rules_takes_all() -> None:
    rules = (Rule("a", (Region(0, 0, 1, 1),)), Rule("b", (Region(5, 5, 1, 1),)), Rule("c", LABEL, model="x"))
    image, note = redact(WHITE, Header(), rules)
    assert note == "masked by a, b"
    assert (image == 0).sum() == 2


@pytest.mark.parametrize("flag", [None, False, True])
def test_redact_without_matching_rule_gives_the_image_and_notes_a_flag(flag: bool | None) -> None:
    image, note = redact(WHITE, Header(burned_in=flag), ())
    assert image is WHITE
    assert note == ("burned-in annotation not masked" if flag else None)


def test_parse_rules_reads_what_is_written() -> None:
    text = """
    - name: top left label
      manufacturer: agfa
      model: adc
      rows: 2048
      columns: 2500
      pixels: [[0, 0, 400, 80], [2000, 0, 48, 80]]
    - {name: footer, burned_in: true, shares: [[0, 0.95, 1, 0.05]]}
    """
    assert parse_rules(text) == (
        Rule("top left label", (Region(0, 0, 400, 80), Region(2000, 0, 48, 80)), "agfa", "adc", 2048, 2500),
        Rule("footer", (Region(0, 0.95, 1, 0.05, "shares"),), burned_in=True),
    )
    assert parse_rules("") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "redaction rules are not YAML"),
        ("name: x", "redaction rules are a dict: they must be a list"),
        ("- x", "rule 1 is 'x': it must be a mapping"),
        ("- {pixels: [[0, 0, 1, 1]]}", "rule 1 has no name"),
        ("- {name: a}", r"rule 1 \(a\) has no region"),
        ("- {name: a, colour: red, pixels: [[0, 0, 1, 1]]}", "rule 1 has the key 'colour': allowed are name,"),
        ("- {name: 3, pixels: [[0, 0, 1, 1]]}", "rule 1: name is 3: it must be text"),
        ("- {name: a, rows: 2.5, pixels: [[0, 0, 1, 1]]}", r"rule 1 \(a\): rows is 2.5: it must be a whole number"),
        ("- {name: a, rows: true, pixels: [[0, 0, 1, 1]]}", "rows is True: it must be a whole number"),
        ("- {name: a, burned_in: 1, pixels: [[0, 0, 1, 1]]}", "burned_in is 1: it must be true or false"),
        ("- {name: a, pixels: 3}", "pixels is 3: it must be a list"),
        ("- {name: a, pixels: [[0, 0, 1]]}", r"pixels has \[0, 0, 1\]: a region is"),
        ("- {name: a, pixels: [[0, 0, 0, 1]]}", "width and height above 0"),
        ("- {name: a, pixels: [[-1, 0, 1, 1]]}", "left and top must be 0 or more"),
        ("- {name: a, pixels: [[0, 0, .inf, 1]]}", "left and top must be 0 or more"),
        ("- {name: a, shares: [[0, 0.9, 1, 0.2]]}", "must be at most 1"),
        ("- {name: a, pixels: [[0, 0, 1, 1]]}\n- {name: a, pixels: [[0, 0, 1, 1]]}", "the name 'a' more than once"),
        ("- !!python/object/apply:os.system [ls]", "redaction rules are not YAML"),
    ],
)
def test_parse_rules_of_wrong_rules_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_rules(text)
