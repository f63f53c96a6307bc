"""One rank of an all-reduce: `python -m chexray.platform.doctor.all_reduce BACKEND RANKS PORT RANK`. Exit code 0: it
got the sum."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

_SECONDS = 60


def main(backend: str, ranks: int, port: int, rank: int) -> int:
    if Path("/sys/class/net/lo").exists():
        os.environ.setdefault(f"{backend.upper()}_SOCKET_IFNAME", "lo")
    patience = timedelta(seconds=_SECONDS)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=ranks, timeout=patience)
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    total = torch.tensor([rank + 1.0], device=device)
    dist.all_reduce(total)
    dist.destroy_process_group()
    return 0 if total.item() == ranks * (ranks + 1) / 2 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *(int(word) for word in sys.argv[2:])))
