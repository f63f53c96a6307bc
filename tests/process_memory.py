"""How much memory this process has had at most."""

from __future__ import annotations

from pathlib import Path


def peak_mebibytes() -> float:
    """The peak resident size since this program began.

    Not `ru_maxrss`: Linux hands that on to a child, so a small one of a large parent looks large.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
