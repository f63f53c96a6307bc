"""Where a training worker's batches come from: a corpus, a curator ahead of it, or a curator inside its steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import ray

from chexray.curation.cursor import CurationCursor, CursorAt
from chexray.curation.plan import CurationPlan
from chexray.jobs.feed import Feed
from chexray.jobs.inline_batches import batches_inline
from chexray.platform.training.batch import Batch
from chexray.platform.training.engine import full_state
from chexray.platform.training.loop import Trainer
from chexray.platform.training.prefetch import prefetched

_PREFETCHED_STEPS = 2


def worker_batches(
    settings: dict[str, Any], trainer: Trainer, rank: int, world: int, from_step: int, cursor: CurationCursor | None
) -> tuple[Iterator[Batch], CursorAt]:
    """This worker's shares of the steps from `from_step` on, in the order of the run, wherever they come from.

    `cursor`: of the checkpoint from which the run goes on, if it is of an epoch that chooses its pairs.
    """
    feed: Feed = settings["feed"]
    curation = settings["curation"]
    cursor_at: CursorAt = _no_cursor
    if curation and curation["mode"] == "paper":
        # Not from a thread: its exchange between workers must keep its place among those of the steps.
        return batches_inline(feed, curation, trainer, rank, world, from_step, cursor)
    if curation:
        curator = curation["curator"]
        if rank == 0:
            begin_ahead(curator, cursor, from_step)
            cursor_at = partial(cursor_ahead, curator)
        batches = batches_ahead(curator, curation["plan"], rank, world, from_step)
    else:
        batches = feed.batches(rank, world, from_step)
    patience = trainer.run.stall_seconds
    return prefetched(batches, trainer.tokenize, trainer.device, _PREFETCHED_STEPS, patience), cursor_at


def _no_cursor(_done_steps: int) -> None:
    return None


def begin_ahead(curator: Any, cursor: CurationCursor | None, from_step: int) -> None:
    """Start the curator that runs ahead, where the checkpoint's cursor stands."""
    if cursor is not None:
        weights = {version: [ray.put(dict(state))] for version, state in cursor.weights.items()}
        cursor = replace(cursor, weights=weights)
    ray.get(curator.begin.remote(cursor, from_step))


def cursor_ahead(curator: Any, done_steps: int) -> CurationCursor:
    found: CurationCursor = ray.get(curator.cursor.remote(done_steps))
    return replace(found, weights={version: ray.get(state) for version, (state,) in found.weights.items()})


def batches_ahead(curator: Any, plan: CurationPlan, rank: int, world: int, from_step: int) -> Iterator[Batch]:
    """This worker's shares of the curation epoch's steps, from the curator that runs ahead; the next one is asked for
    while one is trained on."""
    steps = plan.steps
    coming = curator.batch.remote(from_step, rank, world) if from_step < steps.steps else None
    for step in range(from_step, steps.steps):
        block = ray.get(coming)
        if step + 1 < steps.steps:
            coming = curator.batch.remote(step + 1, rank, world)
        yield Batch(
            step=step,
            epoch=0,
            image=block["pixels"],
            report=block["report"].tolist(),
            sample_id=block["sample_id"].tolist(),
            share_sizes=steps.share_sizes(step, world),
            last_of_epoch=step == steps.steps - 1,
            place=float(step),
        )


def publish_weights(curator: Any, engine: Any, zero_stage: int, done_steps: int, rank: int) -> None:
    """Hand the weights after `done_steps` steps to the scorers. Every worker calls it."""
    state = full_state(engine, zero_stage)  # every worker: parts of it may be theirs
    if rank == 0:
        # A copy: on a CPU the state is the training weights themselves.
        ray.get(curator.publish.remote(done_steps, [ray.put({name: value.clone() for name, value in state.items()})]))
