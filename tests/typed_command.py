"""`chexray` as one types it."""

from __future__ import annotations

import sys

import pytest

from chexray.platform import cli


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """`chexray ARGUMENTS` in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["chexray", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    code = stopped.value.code
    return code if isinstance(code, int) else 0
