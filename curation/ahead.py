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
from functools import partial
from typing import Any

import numpy as np
import ray
import ray.data
import torch

from chexray.curation.curator import ID_BYTES, Block, Curated, Curator, Record
from chexray.curation.cursor import CurationCursor
from chexray.curation.features import FeatureWriter
from chexray.curation.handout import Handout
from chexray.curation.plan import CurationPlan
from chexray.curation.selection import superbatch_budget
from chexray.platform.config import Runtime
from chexray.platform.corpus.order import Window
from chexray.platform.errors import ChexrayError
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


@dataclass(frozen=True)
class AheadStream:
    """What is scored, by what, for which machines. `image_size`: pixels of the images that are passed on."""

    corpus: str
    windows: list[Window]
    scorer: str
    image_size: int
    runtime: Runtime


class AheadCurator:
    """The actor's body: `run` in one thread, callers in others. All else waits for `begin`."""

    def __init__(self, plan: CurationPlan, features: str) -> None:
        """`features`: where the embeddings go, as they were when they were looked at."""
        self.plan, self.features = plan, features
        self.curator, self.record = Curator(plan.config, plan.pairs), Record(plan.pairs)
        self.writer = FeatureWriter(features, plan.pairs)
        self.handout: Handout | None = None
        self.published: dict[int, Any] = {}
        self.prototypes: dict[int, torch.Tensor | None] = {}
        self.version_k = np.empty(plan.kept, np.int64)
        self.changed = threading.Condition()
        self.seconds = 0.0
        self.arrived = 0
        self.handed = 0
        self.beyond = np.empty(0, ID_BYTES)

    def begin(self, cursor: CurationCursor | None, done_steps: int) -> None:
        """Go on from a cursor that was saved after so many steps; from the start without one.

        Its `weights`, and those of `cursor`, wrap a reference, as those that are published.
        """
        with self.changed:
            if self.handout is not None:
                raise RuntimeError("the curator has begun already: after a failure all starts anew, with another one")
            if cursor is not None and cursor.position:
                self.curator.restore(cursor)
                self.record.add(cursor.rows["sample_id"], cursor.selection)
                self.writer.take(cursor.rows)
                self.version_k[: len(cursor.version_k)] = cursor.version_k
            if cursor is not None:
                self.published, self.seconds = dict(cursor.weights), cursor.seconds
                self.arrived, self.beyond = cursor.position, cursor.beyond
            self.prototypes[self.arrived] = self.curator.prototype_KE
            self.handed = self._trained(done_steps)
            limit = self.plan.config.super_batch + self.plan.global_batch
            self.handout = Handout(self.plan.steps, limit, done_steps)
            self.changed.notify_all()

    def run(self, stream: AheadStream) -> Outcome:
        """Choose from what scorers make of the stream, to its end."""
        with self.changed:
            self.changed.wait_for(lambda: self.handout is not None)
        assert self.handout is not None
        try:
            if self.arrived == self.plan.pairs:
                return self.consume(iter(()))
            scored = scored_ahead(ray.get_runtime_context().current_actor, self.plan, stream, self.arrived)
            # Prefetching waits for the next block before it hands out one that may be needed for it.
            return self.consume(scored.iter_batches(batch_size=None, prefetch_batches=0))
        except BaseException as error:
            self.handout.fail(error)
            raise

    def consume(self, blocks: Iterator[Block]) -> Outcome:
        assert self.handout is not None  # `begin` came first
        position = self.arrived
        kept = self._kept(position)
        for chosen in self.curator.choose_all(self.writer.take(block) for block in self._timed(blocks)):
            keep_B = chosen.selection.keep_B.numpy()
            used = chosen.block["version"][keep_B]
            self.version_k[kept : kept + len(used)] = used
            position = self.record.add(chosen.block["sample_id"], chosen.selection)
            with self.changed:
                self.prototypes[position] = self.curator.prototype_KE
            # Of the first super-batches after a restart some were trained on before.
            again = max(0, self.handed - kept)
            self._require_same(chosen.block["sample_id"][keep_B][:again])
            self.handout.put({name: chosen.block[name][keep_B][again:] for name in _PASSED_ON})
            kept += len(used)
        self.writer.finish(None)  # the temperature of a scorer that changes
        step_k = np.array([self.plan.step_of(rank) for rank in range(kept)], np.int64)
        assert self.curator.prototype_KE is not None  # the last super-batch ends at or after the sample
        return Outcome(self.record.curated(self.curator.prototype_KE), step_k - self.version_k[:kept], self.seconds)

    def cursor(self, done_steps: int) -> CurationCursor:
        """Where the epoch stands when so many steps are done: after the last super-batch of which all was trained on.

        What was scored beyond it is scored again, by the same weights.
        """
        with self.changed:
            position = self._boundary(done_steps)
            self.prototypes = {place: found for place, found in self.prototypes.items() if place >= position}
            oldest = self.plan.version(min(position, self.plan.pairs - 1))
            weights = {version: state for version, state in self.published.items() if version >= oldest}
            ids, selection = self.record.first(position)
            versions = self.version_k[: self._kept(position)].copy()
            beyond = self.record.kept(position)[: self._trained(done_steps) - len(versions)]
            return CurationCursor(
                sample_id=ids,
                selection=selection,
                embedding_P2D=self.writer.first(position),
                prototype_KE=self.prototypes[position],
                version_k=versions,
                beyond=beyond,
                seconds=self.seconds,
                weights=weights,
            )

    def batch(self, step: int, rank: int, world: int) -> Block:
        """A worker's share of a step, when it is there."""
        with self.changed:
            self.changed.wait_for(lambda: self.handout is not None)
        assert self.handout is not None
        return self.handout.take(step, rank, world)

    def publish(self, version: int, state: list[Any]) -> None:
        """The weights after `version` steps; `state` wraps a reference, which Ray would resolve otherwise."""
        with self.changed:
            self.published[version] = state
            # What is older nobody asks for any more, not even after a restart.
            oldest = self.plan.version(min(self._boundary(version), self.plan.pairs - 1))
            self.published = {known: kept for known, kept in self.published.items() if known >= oldest}
            self.changed.notify_all()

    def weights(self, version: int) -> list[Any]:
        with self.changed:
            self.changed.wait_for(lambda: version in self.published)
            return list(self.published[version])

    def close(self) -> None:
        """Remove what lies on this machine."""
        self.writer.close()

    def _require_same(self, sample_id: np.ndarray[Any, Any]) -> None:
        """Raise `ChexrayError` unless these are the next of the pairs that were trained on before a restart."""
        before, self.beyond = self.beyond[: len(sample_id)], self.beyond[len(sample_id) :]
        if not np.array_equal(before, sample_id.astype(ID_BYTES)):
            raise ChexrayError(
                "other pairs are chosen now than before the restart, as scores differ a little on another kind of "
                "device; start the run anew with --overwrite, or go on with scorers like those before"
            )

    def _trained(self, done_steps: int) -> int:
        return self.plan.steps.bounds(done_steps - 1)[1] if done_steps else 0

    def _kept(self, position: int) -> int:
        return superbatch_budget(self.plan.config.keep, 0, position)

    def _boundary(self, done_steps: int) -> int:
        """The position after the last super-batch whose kept pairs were all trained on in so many steps."""
        trained = self._trained(done_steps)
        return max(place for place in self.prototypes if self._kept(place) <= trained)

    def _timed(self, blocks: Iterator[Block]) -> Iterator[Block]:
        for block in blocks:
            self.seconds += float(np.sum(block["seconds"]))
            self.arrived += len(block["sample_id"])
            yield block


def start_ahead_curator(plan: CurationPlan, features: str) -> Any:
    return ray.remote(num_cpus=0, max_concurrency=_CALLERS)(AheadCurator).remote(plan, features)


def scored_ahead(curator: Any, plan: CurationPlan, stream: AheadStream, start: int = 0) -> ray.data.Dataset:
    """Blocks of `sample_id`, `report`, `pixels` (at the training size), embeddings, `version` and `seconds`.

    `start`: the position from which on they are read.
    """
    runtime = stream.runtime
    # On CPUs the scorers share the trainers' cores, or a small machine could not start both.
    resources: dict[str, Any] = {"num_gpus": 1} if runtime.gpu else {"num_cpus": 0}
    # No block may hold pairs of two super-batches: one would wait for weights that need the other.
    cuts = [plan.superbatches.bounds(batch)[0] for batch in range(plan.superbatches.steps)]
    windows = [window for window in stream.windows if window.first + window.pairs > start]
    decoded = decoded_pairs(stream.corpus, windows, Share(plan.superbatches), stream.image_size, cuts, start)
    return decoded.map_batches(
        _FollowingScorer,
        fn_constructor_args=(curator, plan, stream.scorer, runtime.gpu, runtime.workers + runtime.scorers),
        compute=ray.data.ActorPoolStrategy(size=runtime.scorers),
        batch_size=None,
        zero_copy_batch=True,
        **resources,
    )


class _FollowingScorer:
    """The scoring actor: takes the weights that its block's place prescribes."""

    def __init__(self, curator: Any, plan: CurationPlan, scorer: str, gpu: bool, sharing: int) -> None:
        self.curator, self.plan = curator, plan
        self.start = partial(start_scorer, scorer, plan.config.image_size, plan.config.precision, gpu, sharing)
        self.scorer = self.start()
        self.version = 0

    def __call__(self, block: Block) -> Block:
        version = self.plan.version(int(block["position"][0]))
        if version == 0 and self.version:  # a block that another scorer lost
            self.scorer = self.start()
        elif version != self.version:
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
