"""What our own processes need not import."""

from __future__ import annotations

import sys


def leave_wandb_out() -> None:
    """Before timm, which imports wandb wherever it is installed: seconds in every process of Ray's.

    It is the command's own process that reports to trackers, not the workers.
    """
    sys.modules.setdefault("wandb", None)  # type: ignore[arg-type]
