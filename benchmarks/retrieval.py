"""Retrieval among more candidates than memory should hold: its time, and its peak of resident memory.

    python benchmarks/retrieval.py [--candidates 1000000] [--queries 10000] [--width 512]

Random unit embeddings are written to two float32 files first, block by block, and ranked from there with
`StoredRows`. Every query's target is a random candidate, so that the mean rank should be near half the candidates.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from chexray.evals.retrieval import CHUNK, StoredRows, rank_targets

BLOCK = 8192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--chunk", type=int, default=CHUNK)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chexray-") as folder:
        query, candidate = (
            drawn(Path(folder, f"{name}.npy"), count, given.width, seed)
            for seed, (name, count) in enumerate((("query", given.queries), ("candidate", given.candidates)))
        )
        target_Q = np.random.default_rng(2).integers(given.candidates, size=given.queries)
        before = peak_megabytes()
        wall, cpu = time.perf_counter(), time.process_time()
        found = rank_targets(query, candidate, target_Q, chunk=given.chunk)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    size = given.candidates * given.width * 4 / 1e6
    print(f"{given.queries:,} queries, {given.candidates:,} candidates of width {given.width} ({size:,.0f} MB on disk)")
    print(f"{wall:.1f} s ({cpu:.1f} s of CPU on {os.cpu_count()} cores)")
    print(f"peak resident memory {peak_megabytes():.0f} MB, {before:.0f} MB of it before ranking")
    print(f"mean rank {found.mean_rank:,.0f}; recall@10 {found.recall[10]:.6f}")


def drawn(file: Path, rows: int, width: int, seed: int) -> StoredRows:
    generator = np.random.default_rng(seed)
    with file.open("wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, rows, BLOCK):
            block_ND = generator.standard_normal((min(BLOCK, rows - start), width), np.float32)
            stream.write((block_ND / np.linalg.norm(block_ND, axis=1, keepdims=True)).tobytes())
    return StoredRows(str(file))


def peak_megabytes() -> float:
    """Of this process so far (`VmHWM`; `ru_maxrss` may be a parent's)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


if __name__ == "__main__":
    main()
