"""Reports for datasets that have labels only: short texts that say what the labels say, and nothing else.

Absent findings are named where nothing is present, and wordings are few. A small text tower that learns from nothing
otherwise takes "no mass" in the report of a pneumonia for a sign of pneumonia, and learns phrasings by heart: see
docs/results.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from chexray.platform.corpus.schema import NO_FINDING, seeded_fraction

POSITIVE = (
    "{Name}.",
    "There {is} {a_name}.",
    "{Name} {is} present.",
    "{Name} {is} seen.",
    "There is evidence of {name}.",
)
NEGATIVE = (
    "No {name}.",
    "There {is} no {name}.",
    "No evidence of {name}.",
    "No {name} {is} seen.",
)
NO_FINDINGS = (
    "No finding.",
    "There is no finding.",
    "No finding is seen.",
    "Normal chest radiograph.",
)
ABNORMAL = ("There is a finding.", "Abnormal chest radiograph.", "The radiograph is not normal.")

MAX_NEGATIVES = 3
"""At most this many absent findings are named: a radiologist does not list them all either."""

_COUNTABLE = frozenset({"mass", "nodule", "hernia", "fracture", "lesion", "tumor", "tumour", "cyst"})
_NOT_PLURAL = ("ss", "is", "us", "ax")


class _Draws:
    """Draws that depend on seed, sample and purpose alone: independent of other reports and of libraries."""

    def __init__(self, seed: int, sample_id: str) -> None:
        self._seed, self._sample_id = seed, sample_id

    def fraction(self, *purpose: str) -> float:
        return seeded_fraction(self._seed, "template", self._sample_id, *purpose)

    def choose(self, options: Sequence[str], *purpose: str) -> str:
        return options[int(self.fraction(*purpose) * len(options))]

    def shuffled(self, items: Sequence[str], purpose: str) -> list[str]:
        return sorted(items, key=lambda item: (self.fraction(purpose, item), item))


def write_report(labels: dict[str, bool | None], sample_id: str, seed: int = 0) -> str:
    """A report of one to a few sentences: every present finding or, where none is, some of the absent ones.

    `labels` maps a finding (underscores are read as spaces) to present, absent or None (unknown: never
    mentioned). `No Finding` present gives a sentence that says so, unless another finding is present too;
    absent, with nothing else present, one that says that there is something. The wording is drawn from
    `seed` and `sample_id`: the same on every machine. Raises ValueError where nothing is known.
    """
    if all(value is None for value in labels.values()):
        raise ValueError(f"labels are {labels}: at least one must be known (True or False)")
    draws = _Draws(seed, sample_id)
    present = [name for name, value in sorted(labels.items()) if value is True and name != NO_FINDING]
    absent = [name for name, value in sorted(labels.items()) if value is False and name != NO_FINDING]
    sentences = _present_sentences(present, draws)
    if not present and labels.get(NO_FINDING) is not None:
        options = NO_FINDINGS if labels[NO_FINDING] else ABNORMAL
        sentences.append(draws.choose(options, "no finding"))
    if not present:
        sentences += _absent_sentences(absent, draws, at_least=1)
    return " ".join(draws.shuffled(sentences, "order"))


def _present_sentences(names: list[str], draws: _Draws) -> list[str]:
    if len(names) > 1 and draws.fraction("join present") < 0.3:
        listed = _join([_spoken(name) for name in draws.shuffled(names, "list present")], "and")
        return [draws.choose(("There is evidence of {0}.", "{1}."), "form present").format(listed, _capital(listed))]
    return [_fill(draws.choose(POSITIVE, "form", name), name) for name in names]


def _absent_sentences(names: list[str], draws: _Draws, at_least: int) -> list[str]:
    most = min(MAX_NEGATIVES, len(names))
    least = min(at_least, most)
    count = least + int(draws.fraction("how many absent") * (most - least + 1))
    chosen = draws.shuffled(names, "which absent")[:count]
    if len(chosen) > 1 and draws.fraction("join absent") < 0.5:
        listed = _join([_spoken(name) for name in chosen], "or")
        return [draws.choose(("No {}.", "There is no {}.", "No evidence of {}."), "form absent").format(listed)]
    return [_fill(draws.choose(NEGATIVE, "form", name), name) for name in chosen]


def _spoken(finding: str) -> str:
    return " ".join(finding.replace("_", " ").split()).lower()


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _fill(template: str, finding: str) -> str:
    name = _spoken(finding)
    last = name.rsplit(" ", 1)[-1]
    plural = last.endswith("s") and not last.endswith(_NOT_PLURAL)
    return template.format(
        name=name,
        Name=_capital(name),
        a_name=f"a {name}" if last in _COUNTABLE else name,
        **{"is": "are" if plural else "is"},
    )


def _join(names: list[str], conjunction: str) -> str:
    return f"{', '.join(names[:-1])} {conjunction} {names[-1]}"
