"""Independent pieces of work on Ray: one task each, in parallel, under one bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ray.data

from chexray.jobs.progress import bar


def spread(what: str, total: int, items: Sequence[str], work: Callable[[str], int]) -> None:
    """Run `work` on every item. Each returns how much of `total` it has done, for the bar `what`."""
    done = 0
    with bar(what, total) as reporter:
        tasks = ray.data.from_items([{"item": item} for item in items], override_num_blocks=len(items))
        for row in tasks.map(lambda row: {"done": work(row["item"])}, num_cpus=1).iter_rows():
            done += row["done"]
            reporter.update(done)
