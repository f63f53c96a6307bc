"""The curator that runs ahead, with threads for its scorers and its trainer: nobody waits for ever."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from chexray.curation.ahead import AheadCurator, Outcome
from chexray.curation.curator import Block
from chexray.curation.cursor import load_cursor
from chexray.curation.features import open_features
from chexray.curation.plan import CurationPlan
from chexray.curation.selection import superbatch_budget
from chexray.platform.config import CurateConfig

PAIRS = 600


def block(first: int, end: int, version: int) -> Block:
    rows = range(first, end)
    draw = [torch.randn(2, 8, generator=torch.Generator().manual_seed(row)) for row in rows]
    unit = F.normalize(torch.stack(draw), dim=2).half().numpy()
    return {
        "sample_id": np.array([f"{row * 7919 % 65536:032x}" for row in rows], dtype=object),
        "report": np.array([f"report {row}" for row in rows], dtype=object),
        "pixels": np.array(rows)[:, None],
        "image": unit[:, 0],
        "text": unit[:, 1],
        "version": np.full(len(rows), version),
        "seconds": np.full(len(rows), 0.5, np.float32),
    }


def newest(curator: AheadCurator) -> int:
    return max(curator.published, default=0)


class Epoch:
    """An epoch with scorers that are as late as can be: they wait until training has come as far as it can."""

    def __init__(self, curator: AheadCurator) -> None:
        self.curator, self.plan = curator, curator.plan
        plan = self.plan
        self.bounds = [plan.superbatches.bounds(number) for number in range(plan.superbatches.steps)]
        kept = [superbatch_budget(plan.config.keep, 0, first) for first, _ in self.bounds]
        self.reachable = [
            max((v for v in plan.versions if plan.steps.bounds(v - 1)[1] <= count), default=0) for count in kept
        ]
        self.scored = [queue.Queue[Block]() for _ in self.bounds]

    def score(self, scorer: int, start: int = 0) -> None:
        """Every second block from `start` on."""
        for number in range(scorer, len(self.bounds), 2):
            first, end = self.bounds[number]
            if first < start:
                continue
            version = self.plan.version(first)
            if version:
                with self.curator.changed:
                    self.curator.changed.wait_for(
                        lambda reachable=self.reachable[number]: newest(self.curator) >= reachable, timeout=20
                    )
                (weights,) = self.curator.weights(version)
                assert weights == f"after {version}"
            self.scored[number].put(block(first, end, version))

    def stream(self, start: int = 0) -> Iterator[Block]:
        for (first, _), one in zip(self.bounds, self.scored, strict=True):
            if first >= start:
                yield one.get(timeout=30)

    def train(self, first_step: int = 0, end_step: int | None = None) -> list[str]:
        seen: list[str] = []
        for number in range(first_step, self.plan.steps.steps if end_step is None else end_step):
            share = self.curator.batch(number, 0, 1)
            assert [f"report {row}" for row in share["pixels"][:, 0]] == share["report"].tolist()
            seen += share["sample_id"].tolist()
            if number + 1 in self.plan.versions:
                self.curator.publish(number + 1, [f"after {number + 1}"])
        return seen

    def run(self, start: int = 0, first_step: int = 0) -> tuple[Outcome, list[str]]:
        """To its end: what was chosen, and what was trained on."""
        with ThreadPoolExecutor(4) as pool:
            scorers = [pool.submit(self.score, number, start) for number in range(2)]
            trainer = pool.submit(self.train, first_step)
            outcome = pool.submit(self.curator.consume, self.stream(start)).result()
            seen = trainer.result()
            for one in scorers:
                one.result()
        return outcome, seen


def curator_of(super_batch: int, step: int, ahead: int, refresh: int, folder: Path) -> AheadCurator:
    config = CurateConfig(
        keep=0.5, super_batch=super_batch, prototypes=3, kmeans_sample=60, ahead=ahead, refresh_steps=refresh
    )
    return AheadCurator(CurationPlan(config, PAIRS, step), str(folder / "features"))


SETTINGS = [(40, 16, 4, 1), (40, 24, 1, 1), (64, 50, 2, 3)]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("settings", SETTINGS)
def test_ahead_curator_with_slow_scorers_gives_every_kept_pair_once_at_its_planned_age(
    tmp_path: Path, settings: tuple[int, int, int, int]
) -> None:
    curator = curator_of(*settings, tmp_path)
    curator.begin(None, 0)
    outcome, seen = Epoch(curator).run()
    keep_B = outcome.curated.selection.keep_B.tolist()
    assert seen == [sample for sample, kept in zip(outcome.curated.sample_id, keep_B, strict=True) if kept]
    assert len(seen) == curator.plan.kept == 300
    assert outcome.staleness.min() >= 0
    assert outcome.device_seconds == 0.5 * PAIRS
    assert len(curator.published) <= len(curator.plan.versions)
    with open_features(str(tmp_path / "features")) as found:
        assert found.sample_id == outcome.curated.sample_id
        assert found.logit_scale is None


@pytest.mark.timeout(120)
@pytest.mark.parametrize("settings", SETTINGS)
def test_ahead_curator_goes_on_from_a_saved_cursor_to_the_same_choice(
    tmp_path: Path, settings: tuple[int, int, int, int]
) -> None:
    whole = curator_of(*settings, tmp_path / "whole")
    whole.begin(None, 0)
    expected, trained = Epoch(whole).run()
    for stopped in sorted({1, 2, whole.plan.steps.steps // 2, whole.plan.steps.steps}):
        folder = tmp_path / str(stopped)
        broken = curator_of(*settings, folder / "broken")
        broken.begin(None, 0)
        epoch = Epoch(broken)
        with ThreadPoolExecutor(3) as pool:  # nobody trains beyond the step: the curator waits, and is given up
            scorers = [pool.submit(epoch.score, number) for number in range(2)]
            consumer = pool.submit(broken.consume, epoch.stream())
            seen = epoch.train(0, stopped)
            before = broken.cursor(stopped)
            assert broken.handout is not None
            broken.handout.fail(InterruptedError())
            with broken.changed:  # nor are there weights to wait for
                broken.published |= {version: [f"after {version}"] for version in broken.plan.versions}
                broken.changed.notify_all()
            assert isinstance(consumer.exception(), InterruptedError | None)
            for one in scorers:
                one.result()
        (folder / "checkpoint").mkdir(parents=True)
        weights = {version: {"name": torch.tensor(version)} for version in before.weights}
        replace(before, weights=weights).save(folder / "checkpoint")
        loaded = load_cursor(folder / "checkpoint")
        assert loaded is not None
        assert {version: int(state["name"]) for version, state in loaded.weights.items()} == {v: v for v in weights}
        again = curator_of(*settings, folder / "again")
        again.begin(replace(loaded, weights={version: [f"after {version}"] for version in weights}), stopped)
        outcome, rest = Epoch(again).run(loaded.position, stopped)
        assert seen + rest == trained
        assert outcome.curated.sample_id == expected.curated.sample_id
        for name, values in vars(expected.curated.selection).items():
            assert torch.equal(getattr(outcome.curated.selection, name), values), name
        assert torch.equal(outcome.curated.prototype_KE, expected.curated.prototype_KE)
        assert outcome.staleness.tolist() == expected.staleness.tolist()
        with open_features(str(folder / "again" / "features")) as found:
            assert found.sample_id == expected.curated.sample_id
            assert len(found.embedding_N2D) == PAIRS
