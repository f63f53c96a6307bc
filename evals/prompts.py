"""Prompt families: how a finding's name becomes the two texts that a zero-shot benchmark compares.

A result names its family, because the family alone can move an AUROC by tenths.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from chexray.platform.corpus.schema import NO_FINDING
from chexray.platform.errors import UsageError


class PromptPair(NamedTuple):
    """The text that says that a finding is present, and the one that says that it is absent."""

    positive: str
    negative: str


@dataclass(frozen=True)
class PromptFamily:
    """A named way to write prompts.

    `positive` and `negative` are templates with the field `{finding}`; `no_finding` is the pair for the
    "No Finding" label, whose negation the templates cannot write.
    """

    name: str
    positive: str
    negative: str
    no_finding: PromptPair

    def pair(self, finding: str) -> PromptPair:
        """The two prompts of `finding`, in the label's own spelling and case, underscores read as spaces.

        "No Finding" is recognised in any case (VinDr-CXR writes "No finding"). Raises ValueError if
        `finding` is blank.
        """
        words = " ".join(finding.replace("_", " ").split())
        if not words:
            raise ValueError(f"finding is {finding!r}; allowed: a name with at least one visible character")
        if words.casefold() == NO_FINDING.casefold():
            return self.no_finding
        return PromptPair(self.positive.format(finding=words), self.negative.format(finding=words))

    def pairs(self, findings: Iterable[str]) -> tuple[PromptPair, ...]:
        """The prompts of several findings, in their order: the rows of a `text_F2D`."""
        return tuple(self.pair(finding) for finding in findings)


PRESENCE = PromptFamily(
    name="presence",
    positive="{finding}",
    negative="no {finding}",
    no_finding=PromptPair(NO_FINDING, "there is Finding"),
)
"""CheXzero's pairs (Tiu et al. 2022, Methods: "{label}" against "no {label}"): the reference protocol."""

SENTENCE = PromptFamily(
    name="sentence",
    positive="There is {finding}.",
    negative="There is no {finding}.",
    no_finding=PromptPair("There is no finding.", "There is a finding."),
)
"""The same contrast as whole sentences, nearer to how reports are written."""

EVIDENCE = PromptFamily(
    name="evidence",
    positive="Findings consistent with {finding}.",
    negative="No evidence of {finding}.",
    no_finding=PromptPair("No evidence of disease.", "Findings consistent with disease."),
)
"""The turns of phrase with which impressions state and exclude."""

RADIOGRAPH = PromptFamily(
    name="radiograph",
    positive="A chest radiograph with {finding}.",
    negative="A chest radiograph without {finding}.",
    no_finding=PromptPair("A chest radiograph without findings.", "A chest radiograph with findings."),
)
"""The form of captions, as CLIP's "a photo of a {label}"."""

PROMPT_FAMILIES: Mapping[str, PromptFamily] = MappingProxyType(
    {family.name: family for family in (PRESENCE, SENTENCE, EVIDENCE, RADIOGRAPH)}
)
_JOINED = "+"


def prompt_families(name: str) -> tuple[PromptFamily, ...]:
    """The family called `name`, or the families of an ensemble: 'presence+sentence'.

    An ensemble's texts are embedded one by one, and their unit embeddings averaged (Radford et al. 2021, section
    3.1.4). UsageError for an unknown family, and for one named twice.
    """
    names = name.split(_JOINED)
    for one in names:
        if one not in PROMPT_FAMILIES:
            raise UsageError(
                f"prompt family is {one!r}; allowed: {', '.join(sorted(PROMPT_FAMILIES))}, or several joined by "
                f"{_JOINED}"
            )
    if len(set(names)) < len(names):
        raise UsageError(f"prompts {name}: a family is named twice")
    return tuple(PROMPT_FAMILIES[one] for one in names)
