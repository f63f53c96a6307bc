"""What all settings have in common: unknown keys are refused, and so is what cannot be a number."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

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
