"""The batches of a worker that chooses inside its steps, and where its choice is left."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import ray
import torch

from chexray.curation.curator import ID_BYTES, Curator
from chexray.curation.cursor import CurationCursor, CursorAt
from chexray.curation.features import FEATURES_FOLDER, FeatureWriter
from chexray.curation.inline import InlineCurator
from chexray.curation.plan import CurationPlan
from chexray.jobs.feed import Feed
from chexray.platform import storage
from chexray.platform.corpus.order import EpochSteps
from chexray.platform.model.encoder import encode
from chexray.platform.training.batch import Batch
from chexray.platform.training.loop import Trainer


def batches_inline(
    feed: Feed,
    curation: dict[str, Any],
    trainer: Trainer,
    rank: int,
    world: int,
    from_step: int,
    cursor: CurationCursor | None,
) -> tuple[Iterator[Batch], CursorAt]:
    """This worker's shares of what is kept of every global batch; rank 0 hands in the choice at the end."""
    plan: CurationPlan = curation["plan"]
    curator = InlineCurator(Curator(plan.config, plan.pairs), partial(_embed, trainer, plan), rank, world)
    writer = FeatureWriter(storage.join(curation["subset"], FEATURES_FOLDER), plan.pairs) if rank == 0 else None
    if cursor is not None:
        curator.restore(cursor)
        if writer:
            writer.take(cursor.rows)

    def cursor_at(done_steps: int) -> CurationCursor | None:
        if writer is None:
            return None
        position = EpochSteps(plan.pairs, plan.global_batch).bounds(done_steps - 1)[1]
        ids, selection = curator.record.first(position)
        prototypes = curator.curator.prototype_KE
        nothing = np.empty(0, ID_BYTES)
        return CurationCursor(
            ids, selection, writer.first(position), prototypes, version_k=np.empty(0, np.int64), beyond=nothing
        )

    def batches() -> Iterator[Batch]:
        try:
            if from_step == 0:
                curator.start(islice(feed.batches(rank, world), sample_steps(plan)))
            coming = feed.batches(rank, world, from_step)
            yield from curator.choose_all(coming, writer.take if writer else lambda block: None)
            if writer:
                assert curator.curator.prototype_KE is not None  # `start` or `restore` came first
                writer.finish(float(trainer.engine.module.logit_scale.detach().exp()))
                ray.get(curation["curator"].put.remote(curator.record.curated(curator.curator.prototype_KE)))
        finally:
            if writer:
                writer.close()

    return batches(), cursor_at


def sample_steps(plan: CurationPlan) -> int:
    """How many global batches hold the pairs from which the prototypes of the inline curator start."""
    steps = EpochSteps(plan.pairs, plan.global_batch)
    return next(step + 1 for step in range(steps.steps) if steps.bounds(step)[1] >= plan.sample)


def _embed(trainer: Trainer, plan: CurationPlan, batch: Batch) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Unit embeddings of a share by the weights that are being trained, which it leaves as they are."""
    module, device = trainer.engine.module, trainer.device
    module.eval()
    half = torch.autocast(device.type, torch.bfloat16, enabled=plan.config.precision == "bfloat16")
    with torch.no_grad(), half:
        image = torch.from_numpy(np.ascontiguousarray(batch.image)).to(device)
        found = encode(module, image, trainer.tokenize(batch.report).to(device))
    module.train()
    image_bD, text_bD = (embedding.float().cpu().numpy() for embedding in found)
    return image_bD, text_bD


class _Choice:
    """Where the inline curator leaves what it chose."""

    def __init__(self) -> None:
        self.curated: Any = None

    def put(self, curated: Any) -> None:
        self.curated = curated

    def get(self) -> Any:
        return self.curated

    def close(self) -> None: ...


InlineChoice = ray.remote(num_cpus=0)(_Choice)
