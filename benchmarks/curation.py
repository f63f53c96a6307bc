"""How fast the curator selects: against the matrix product it cannot do without, and against a plain loop.

    .venv/bin/python benchmarks/curation.py [--rounds 7] [--threads 2]

Unit features, 1,024 wide, in as many clusters as there are prototypes. The plain loop is the method as it is written
down: `torch.cdist`, a mask a cluster, `torch.quantile`, farthest points pick by pick, with the same kept counts. In
every round the three take turns; ratios are of one round. Compare numbers of one run only: shared machines are noisy.
Where there is a GPU, the same again on it.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from chexray.curation import sampling
from chexray.curation.sampling import cluster_sizes
from chexray.curation.selection import Selection, SelectionRule, select, superbatch_budget

WIDTH, KEEP = 1024, 0.227
SIZES = ((2048, 64), (32768, 256))
MODES = ("budget", "paper")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.threads} threads, {arguments.rounds} rounds: median (range)")
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for pairs, clusters in SIZES:
            for mode in MODES:
                _compare(pairs, clusters, mode, arguments.rounds, device)


def _compare(pairs: int, clusters: int, mode: Any, rounds: int, device: str) -> None:
    feature_BE, prototype_KE = (rows.to(device) for rows in _features(pairs, clusters))
    ids = [f"{random.Random(row).getrandbits(128):032x}" for row in range(pairs)]
    rule = SelectionRule(mode=mode)
    budget = superbatch_budget(KEEP, 0, pairs) if mode == "budget" else None
    ours = partial(select, feature_BE, prototype_KE, rule, budget, ids)
    chosen, redone = _counting_redone(ours)
    quota_K = _central_quota(chosen, clusters)
    plain = partial(_plain_keep, feature_BE, prototype_KE, rule, quota_K, ids if mode == "budget" else None)
    same = float((plain() == chosen.keep_B).float().mean())
    ways: dict[str, Callable[[], object]] = {
        "product": lambda: feature_BE @ prototype_KE.T,
        "select": ours,
        "plain": plain,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            times[name].append(_milliseconds(work, device))
    print(f"{device}, B = {pairs:,}, K = {clusters}, {mode}, {int(chosen.keep_B.sum()):,} kept")
    for name, taken in times.items():
        print(f"    {name:8s} {_spread(taken)} ms")
    for name, part, whole in (("select / product", "select", "product"), ("plain / select", "plain", "select")):
        print(f"    {name:18s} {_spread([a / b for a, b in zip(times[part], times[whole], strict=True)])}")
    print(f"    clusters sampled again, in doubt: {redone:.1%}; pairs on which the plain loop agrees: {same:.3%}")


def _features(pairs: int, clusters: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    prototype_KE = F.normalize(torch.randn(clusters, WIDTH, generator=draw), dim=1)
    noise_BE = F.normalize(torch.randn(pairs, WIDTH, generator=draw), dim=1)
    cluster_B = torch.randint(0, clusters, (pairs,), generator=draw)
    return F.normalize(0.8 * prototype_KE[cluster_B] + 0.6 * noise_BE, dim=1), prototype_KE


def _counting_redone(work: Callable[[], Selection]) -> tuple[Selection, float]:
    """The result, and the share of sampled clusters that float32 products left open."""
    clusters = {torch.float32: 0, torch.float64: 0, None: 0}
    pick = sampling.pick_group

    def counted(features: Any, group: Any, dtype: Any, rows: int) -> Any:
        clusters[dtype] += len(group.sizes)
        return pick(features, group, dtype, rows)

    sampling.pick_group = counted
    try:
        return work(), clusters[torch.float64] / max(clusters[torch.float32], 1)
    finally:
        sampling.pick_group = pick


def _central_quota(chosen: Selection, clusters: int) -> list[int]:
    return cluster_sizes(chosen.cluster_B[chosen.keep_B & (chosen.band_B == 2)], clusters)


def _plain_keep(
    feature_BE: torch.Tensor, prototype_KE: torch.Tensor, rule: SelectionRule, quota_K: list[int], ids: list[str] | None
) -> torch.Tensor:
    """bool [B]. Both ways start at the middle member in the order of ids, or of rows where there are none."""
    distance_BK = torch.cdist(feature_BE, prototype_KE)
    cluster_B = distance_BK.argmin(dim=1)
    keep_B = torch.zeros(len(feature_BE), dtype=torch.bool, device=feature_BE.device)
    order = None if ids is None else torch.tensor(sorted(range(len(ids)), key=ids.__getitem__)).to(feature_BE.device)
    for k, quota in enumerate(quota_K):
        member_B = cluster_B == k
        if not member_B.any():
            continue
        row_N = member_B.nonzero()[:, 0] if order is None else order[member_B[order]]
        distance_N = distance_BK[row_N, k]
        upper = torch.quantile(distance_N, 1 - rule.outlier)
        lower = torch.quantile(distance_N, 1 - rule.outlier - rule.support)
        keep_B[row_N[(distance_N > lower) & (distance_N <= upper)]] = True
        central_N = row_N[distance_N <= lower]
        keep_B[central_N[_plain_farthest(feature_BE[central_N], quota)]] = True
    return keep_B


def _plain_farthest(feature_NE: torch.Tensor, count: int) -> list[int]:
    picks = [len(feature_NE) // 2][:count]
    gap_N = torch.full((len(feature_NE),), torch.inf, device=feature_NE.device)
    while len(picks) < count:
        gap_N = torch.minimum(gap_N, torch.norm(feature_NE - feature_NE[picks[-1]], dim=1))
        picks.append(int(gap_N.argmax()))
    return picks


def _milliseconds(work: Callable[[], object], device: str) -> float:
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return (time.perf_counter() - started) * 1000


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):9.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
