"""Ids as other projects write them to files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from chexray.platform import storage


def hex_id(number: int) -> str:
    return f"{number:032x}"


def write_ids(uri: str, ids: Sequence[str]) -> str:
    """A file of ids as somebody else would write it: not by the product's own code."""
    buffer = io.BytesIO()
    if uri.endswith(".npy"):
        np.save(buffer, np.array([(int(i[:16], 16), int(i[16:], 16)) for i in ids], "u8,u8"))
    elif uri.endswith(".txt"):
        buffer.write(("\r\n".join(f" {i.upper()}" for i in ids) + "\r\n\r\n").encode("utf-8-sig"))
    elif uri.endswith(".csv"):
        pd.DataFrame({"note": ["a, b"] * len(ids), "sample_id": ids}).to_csv(buffer, index=False)
    else:
        pd.DataFrame({"sample_id": ids, "note": 1.5}).to_parquet(buffer)
    storage.write_bytes(uri, buffer.getvalue())
    return uri


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, value, **options)
    return buffer.getvalue()
