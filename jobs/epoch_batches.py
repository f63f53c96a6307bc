"""Where a training worker's batches come from: a corpus, a curator ahead of it, or a curator inside its steps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import ray
import torch

from chexray.curation.curator import Curator
from chexray.curation.features import FEATURES_FOLDER, FeatureWriter
from chexray.curation.inline import InlineCurator
from chexray.curation.plan import CurationPlan
from chexray.jobs.feed import Feed
from chexray.platform import storage
from chexray.platform.corpus.order import EpochSteps
from chexray.platform.model.encoder import Tokenizer, encode
from chexray.platform.training.batch import Batch
from chexray.platform.training.engine import full_state
from chexray.platform.training.loop import Trainer
from chexray.platform.training.prefetch import prefetched

_PREFETCHED_STEPS = 2


def worker_batches(
    settings: dict[str, Any], trainer: Trainer, rank: int, world: int, from_step: int
) -> Iterator[Batch]:
    """This worker's shares of the steps from `from_step` on, in the order of the run, wherever they come from."""
    feed: Feed = settings["feed"]
    curation = settings["curation"]
    if curation and from_step > 0:  # the epoch that chooses is done
        return iter(())
    if curation and curation["mode"] == "paper":
        # Not from a thread: its exchange between workers must keep its place among those of the steps.
        outcome, subset = curation["curator"], curation["subset"]
        return batches_inline(feed, curation["plan"], trainer.engine, trainer.tokenize, outcome, subset, rank, world)
    if curation:
        batches = batches_ahead(curation["curator"], curation["plan"], rank, world)
    else:
        batches = feed.batches(rank, world, from_step)
    return prefetched(batches, trainer.tokenize, trainer.device, _PREFETCHED_STEPS, trainer.run.stall_seconds)


def batches_ahead(curator: Any, plan: CurationPlan, rank: int, world: int) -> Iterator[Batch]:
    """This worker's shares of the curation epoch's steps, from the curator that runs ahead; the next one is asked for
    while one is trained on."""
    steps = plan.steps
    coming = curator.batch.remote(0, rank, world)
    for step in range(steps.steps):
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


def batches_inline(
    feed: Feed, plan: CurationPlan, engine: Any, tokenize: Tokenizer, outcome: Any, subset: str, rank: int, world: int
) -> Iterator[Batch]:
    """This worker's shares of what is kept of every global batch; rank 0 hands in the choice before the last one."""
    device = next(engine.module.parameters()).device

    def embed(batch: Batch) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        engine.module.eval()
        half = torch.autocast(device.type, torch.bfloat16, enabled=plan.config.precision == "bfloat16")
        with torch.no_grad(), half:
            image = torch.from_numpy(np.ascontiguousarray(batch.image)).to(device)
            found = encode(engine.module, image, tokenize(list(batch.report)).to(device))
        engine.module.train()
        image_bD, text_bD = (embedding.float().cpu().numpy() for embedding in found)
        return image_bD, text_bD

    curator = InlineCurator(Curator(plan.config, plan.pairs), embed, rank, world)
    curator.start(islice(feed.batches(rank, world), sample_steps(plan)))
    writer = FeatureWriter(storage.join(subset, FEATURES_FOLDER), plan.pairs) if rank == 0 else None
    for batch in curator.choose_all(feed.batches(rank, world), writer.take if writer else lambda block: None):
        if batch.last_of_epoch and writer:
            assert curator.curator.prototype_KE is not None  # `start` came first
            writer.finish(float(engine.module.logit_scale.detach().exp()))
            ray.get(outcome.put.remote(curator.record.curated(curator.curator.prototype_KE)))
        yield batch


class _Choice:
    """Where the inline curator leaves what it chose."""

    def __init__(self) -> None:
        self.curated: Any = None

    def put(self, curated: Any) -> None:
        self.curated = curated

    def get(self) -> Any:
        return self.curated


InlineChoice = ray.remote(num_cpus=0)(_Choice)


def sample_steps(plan: CurationPlan) -> int:
    """How many global batches hold the pairs from which the prototypes of the inline curator start."""
    steps = EpochSteps(plan.pairs, plan.global_batch)
    return next(step + 1 for step in range(steps.steps) if steps.bounds(step)[1] >= plan.sample)
