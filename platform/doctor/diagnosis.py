"""What a check found: how it stands, in words, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "failure"]


@dataclass(frozen=True)
class Diagnosis:
    """`advice`: what to do; None where all is well. Nothing in it is secret."""

    check: str
    state: State
    found: str
    advice: str | None = None


def worst(diagnoses: list[Diagnosis]) -> State:
    """The state of all of them together."""
    states: list[State] = [diagnosis.state for diagnosis in diagnoses]
    return "failure" if "failure" in states else "warning" if "warning" in states else "ok"
