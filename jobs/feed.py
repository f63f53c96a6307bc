"""From a corpus on storage to the batches of one training worker, through Ray Data.

Each worker streams its own share of every step; which pairs a step holds follows from the order alone (see
`chexray.platform.corpus.order`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chexray.platform.config import Recipe
from chexray.platform.corpus.order import EpochSteps, epoch_windows
from chexray.platform.corpus.reading import RowTaker
from chexray.platform.corpus.shards import Shard, list_shards, require_shards
from chexray.platform.errors import UsageError
from chexray.platform.streaming import Share, decoded_pairs
from chexray.platform.training.batch import Batch

PREFETCH_BLOCKS = 2


@dataclass(frozen=True)
class Feed:
    """The batches of a run's epochs over a corpus: the same global steps at any number of workers.

    `first_epoch` and `first_step`: where this corpus takes over, if another one was read before. `planned_steps`: of an
    epoch, in the learning rate's schedule, if not those that there are. `readers`: see `decoded_pairs`.
    """

    corpus: str
    shards: Sequence[Shard]
    global_batch: int
    epochs: int
    seed: int | None
    shuffle_shards: int
    image_size: int
    readers: int | None = None
    first_epoch: int = 0
    first_step: int = 0
    planned_steps: int | None = None

    @property
    def epoch_steps(self) -> EpochSteps:
        return EpochSteps(sum(shard.pairs for shard in self.shards), self.global_batch)

    @property
    def total_steps(self) -> int:
        """Steps of the whole schedule."""
        return self.first_step + (self.planned_steps or self.epoch_steps.steps) * (self.epochs - self.first_epoch)

    def batches(self, rank: int, world: int, from_step: int = 0) -> Iterator[Batch]:
        """Worker `rank`'s share of every step from `from_step` of the run on: the cursor of a resumed run.

        Nothing before it is read again, but for the rest of the window of shards in which it lies.
        """
        steps = self.epoch_steps
        planned = self.planned_steps or steps.steps
        skipped = max(0, from_step - self.first_step)
        done_epochs, done_steps = divmod(skipped, steps.steps)
        if done_epochs >= self.epochs - self.first_epoch:
            return
        first = steps.bounds(done_steps)[0]
        rows = RowTaker(self._blocks(rank, world, self.first_epoch + done_epochs, first))
        for number in range(skipped, steps.steps * (self.epochs - self.first_epoch)):
            before, step = divmod(number, steps.steps)
            sizes = steps.share_sizes(step, world)
            block = rows.take(sizes[rank])
            yield Batch(
                step=self.first_step + number,
                epoch=self.first_epoch + before,
                image=block["image"],
                report=block["report"].tolist(),
                sample_id=block["sample_id"].tolist(),
                share_sizes=sizes,
                last_of_epoch=step == steps.steps - 1,
                place=self.first_step + before * planned + step * planned / steps.steps,
            )

    def _blocks(self, rank: int, world: int, from_epoch: int, from_position: int) -> Iterator[dict[str, Any]]:
        windows = [
            window
            for epoch in range(from_epoch, self.epochs)
            for window in epoch_windows(self.shards, epoch, self.seed, self.shuffle_shards)
            if epoch > from_epoch or window.first + window.pairs > from_position
        ]
        share = Share(self.epoch_steps, rank, world)
        dataset = decoded_pairs(self.corpus, windows, share, self.image_size, start=from_position, readers=self.readers)
        yield from dataset.iter_batches(batch_size=None, prefetch_batches=PREFETCH_BLOCKS)


def feed_of(recipe: Recipe, pairs: str, **place: Any) -> Feed:
    """The batches of a run over the train split of the corpus at `pairs`; `place`: where it takes over (see `Feed`)."""
    train = recipe.train
    return Feed(
        corpus=pairs,
        shards=require_shards(pairs, "train"),
        global_batch=train.global_batch,
        epochs=train.epochs,
        seed=train.seed,
        shuffle_shards=train.shuffle_shards,
        image_size=recipe.model.vision.image_size,
        **place,
    )


def validation_feed(recipe: Recipe, corpus: str) -> Feed | None:
    """The validation split in its own order, where the run looks at its loss there. `UsageError` without one."""
    if recipe.train.choose == "last" and not recipe.run.validation:
        return None
    shards = [shard for shard in list_shards(corpus) if shard.split == "validation" and shard.pairs]
    if not shards:
        setting = "train.choose=best" if recipe.train.choose == "best" else "run.validation"
        raise UsageError(f"{setting}: {corpus} has no validation split to look at (ingest.validation_share)")
    whole = feed_of(recipe, corpus)
    return replace(whole, shards=shards, epochs=1, seed=None, shuffle_shards=1)


def require_workers(steps: EpochSteps, workers: int) -> None:
    """Raise `UsageError` where a step has less than a pair for each worker."""
    smallest = steps.pairs // steps.steps if steps.steps else 0
    if smallest < workers:
        raise UsageError(
            f"--workers {workers}: a step has only {smallest} pairs; use fewer workers or a larger train.global_batch"
        )
