"""What all settings have in common: unknown keys are refused, and so is what cannot be a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What numpy, torch and scikit-learn all take."""


class Settings(BaseModel):
    """A section of a recipe. Frozen; `model_copy(update=...)` changes a copy."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_not_truths(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic reads true as 1; here it is a mistake, as in train.epochs=true."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError(f"{str(value).lower()} is allowed for yes-or-no settings only")
        return value


def first_problem(error: ValidationError, unknown: Callable[[str], str]) -> str:
    """The first thing that is wrong, in a line: key, value, what is allowed. `unknown`: of a key that is none."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return unknown(key)
    if problem["type"] == "value_error":
        return f"{key}: {problem['ctx']['error']}" if key else str(problem["ctx"]["error"])
    if problem["type"] == "tuple_type":
        return f"{key}={problem['input']!r}: expected a list, as [{problem['input']}]"
    return f"{key}={problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
