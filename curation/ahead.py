"""Curation ahead of the trainer, in one job: scorers follow the model that is being trained, at a bounded distance.

Ray Data reads, decodes and scores; a curator actor chooses and hands whole steps to the training workers. Every block
is scored by the weights that its place in the epoch prescribes (see `chexray.curation.plan`): the scorer waits for
them where training is not that far. So what is kept follows from the settings and the data alone, and how old the
weights are is bounded, known beforehand and recorded.

B: pairs of a super-batch; k: kept pairs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.data

from chexray.curation.curator import Block, Curated, Curator, Record
from chexray.curation.features import FeatureWriter
from chexray.curation.handout import Handout
from chexray.curation.plan import CurationPlan
from chexray.platform.config import Runtime
from chexray.platform.corpus.order import Window
from chexray.platform.streaming import Share, decoded_pairs, embed_block, start_scorer

_CALLERS = 1024
"""Threads of the actor: each worker, scorer and the stream may wait in it at once."""
_PASSED_ON = ("sample_id", "report", "pixels")


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a curation epoch chose, how old the scoring weights were (steps, one a kept pair), and scorers' seconds."""

    curated: Curated
    staleness: np.ndarray[Any, np.dtype[np.int64]]
    device_seconds: float


class AheadCurator:
    """The actor's body: `run` in one thread, callers in others."""

    def __init__(self, plan: CurationPlan, features: str) -> None:
        """`features`: where the embeddings go, as they were when they were looked at."""
        self.plan, self.features = plan, features
        limit = plan.config.super_batch + plan.global_batch
        self.handout = Handout(plan.steps, limit)
        self.published: dict[int, Any] = {}
        self.changed = threading.Condition()
        self.seconds = 0.0
        self.arrived = 0

    def run(self, stream: Any) -> Outcome:
        """Choose from a Ray Data iterator over scored blocks, to its end."""
        try:
            # Prefetching waits for the next block before it hands out one that may be needed for it.
            return self.consume(stream.iter_batches(batch_size=None, prefetch_batches=0))
        except BaseException as error:
            self.handout.fail(error)
            raise

    def consume(self, blocks: Iterator[Block]) -> Outcome:
        writer = FeatureWriter(self.features, self.plan.pairs)
        curator, record = Curator(self.plan.config, self.plan.pairs), Record(self.plan.pairs)
        version_k, kept = np.empty(self.plan.kept, np.int64), 0
        for chosen in curator.choose_all(writer.take(block) for block in self._timed(blocks)):
            keep_B = chosen.selection.keep_B.numpy()
            record.add(chosen)
            used = chosen.block["version"][keep_B]
            version_k[kept : kept + len(used)] = used
            kept += len(used)
            self.handout.put({name: chosen.block[name][keep_B] for name in _PASSED_ON})
        writer.finish(None)  # the temperature of a scorer that changes
        step_k = np.array([self.plan.step_of(rank) for rank in range(kept)], np.int64)
        assert curator.prototype_KE is not None  # the last super-batch ends at or after the sample
        return Outcome(record.curated(curator.prototype_KE), step_k - version_k, self.seconds)

    def batch(self, step: int, rank: int, world: int) -> Block:
        """A worker's share of a step, when it is there."""
        return self.handout.take(step, rank, world)

    def publish(self, version: int, state: list[Any]) -> None:
        """The weights after `version` steps; `state` wraps a reference, which Ray would resolve otherwise."""
        with self.changed:
            self.published[version] = state
            # Blocks come in order: nobody asks any more for what is older than the next one's.
            oldest = self.plan.version(min(self.arrived, self.plan.pairs - 1))
            self.published = {known: kept for known, kept in self.published.items() if known >= oldest}
            self.changed.notify_all()

    def weights(self, version: int) -> list[Any]:
        with self.changed:
            self.changed.wait_for(lambda: version in self.published)
            return list(self.published[version])

    def _timed(self, blocks: Iterator[Block]) -> Iterator[Block]:
        for block in blocks:
            self.seconds += float(np.sum(block["seconds"]))
            self.arrived += len(block["sample_id"])
            yield block


def start_ahead_curator(plan: CurationPlan, features: str) -> Any:
    return ray.remote(num_cpus=0, max_concurrency=_CALLERS)(AheadCurator).remote(plan, features)


def scored_ahead(
    curator: Any, plan: CurationPlan, scorer: str, corpus: str, windows: list[Window], image_size: int, runtime: Runtime
) -> ray.data.Dataset:
    """Blocks of `sample_id`, `report`, `pixels` (at the training size), embeddings, `version` and `seconds`."""
    # On CPUs the scorers share the trainers' cores, or a small machine could not start both.
    resources: dict[str, Any] = {"num_gpus": 1} if runtime.gpu else {"num_cpus": 0}
    # No block may hold pairs of two super-batches: one would wait for weights that need the other.
    cuts = [plan.superbatches.bounds(batch)[0] for batch in range(plan.superbatches.steps)]
    return decoded_pairs(corpus, windows, Share(plan.superbatches), image_size, cuts).map_batches(
        _FollowingScorer,
        fn_constructor_args=(curator, plan, scorer, runtime.gpu, runtime.workers + runtime.scorers),
        compute=ray.data.ActorPoolStrategy(size=runtime.scorers),
        batch_size=None,
        zero_copy_batch=True,
        **resources,
    )


class _FollowingScorer:
    """The scoring actor: takes the weights that its block's place prescribes."""

    def __init__(self, curator: Any, plan: CurationPlan, scorer: str, gpu: bool, sharing: int) -> None:
        self.curator, self.plan = curator, plan
        self.scorer = start_scorer(scorer, plan.config.image_size, plan.config.precision, gpu, sharing)
        self.version = 0

    def __call__(self, block: Block) -> Block:
        version = self.plan.version(int(block["position"][0]))
        if version != self.version:
            (reference,) = ray.get(self.curator.weights.remote(version))
            self.scorer.load(ray.get(reference))
            self.version = version
        scored = embed_block(self.scorer, block, np.float16)
        return {
            "sample_id": block["sample_id"],
            "report": block["report"],
            "pixels": block["image"],
            "version": np.full(len(block["sample_id"]), version, np.int64),
            **scored,
        }
