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

PROMPT_FAMILIES: Mapping[str, PromptFamily] = MappingProxyType({family.name: family for family in (PRESENCE, SENTENCE)})


def prompt_family(name: str) -> PromptFamily:
    """The family called `name`; UsageError listing the known ones if there is none."""
    family = PROMPT_FAMILIES.get(name)
    if family is None:
        raise UsageError(f"prompt family is {name!r}; allowed: {', '.join(sorted(PROMPT_FAMILIES))}")
    return family
