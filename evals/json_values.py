"""What JSON can hold of numbers."""

from __future__ import annotations

import math
from typing import Any


def finite(value: Any) -> Any:
    """The same, at any depth, with None for numbers that JSON has no word for: NaN and infinity."""
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
