"""The curator that runs ahead, with threads for its scorers and its trainer: nobody waits for ever."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from chexray.curation.ahead import AheadCurator
from chexray.curation.curator import Block
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


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("super_batch", "step", "ahead", "refresh"), [(40, 16, 4, 1), (40, 24, 1, 1), (64, 50, 2, 3)])
def test_ahead_curator_with_slow_scorers_gives_every_kept_pair_once_at_its_planned_age(
    tmp_path: Path, super_batch: int, step: int, ahead: int, refresh: int
) -> None:
    config = CurateConfig(
        keep=0.5, super_batch=super_batch, prototypes=3, kmeans_sample=60, ahead=ahead, refresh_steps=refresh
    )
    plan = CurationPlan(config, PAIRS, step)
    curator = AheadCurator(plan, str(tmp_path / "features"))
    bounds = [plan.superbatches.bounds(number) for number in range(plan.superbatches.steps)]
    kept = [superbatch_budget(config.keep, 0, first) for first, _ in bounds]
    reachable = [max((v for v in plan.versions if plan.steps.bounds(v - 1)[1] <= count), default=0) for count in kept]
    scored = [queue.Queue[Block]() for _ in bounds]

    def score(scorer: int) -> None:
        """Every second block."""
        for number in range(scorer, len(bounds), 2):
            version = plan.version(bounds[number][0])
            if version:
                with curator.changed:  # as late as can be: training has come as far as it can without this block
                    curator.changed.wait_for(lambda reachable=reachable[number]: newest(curator) >= reachable)
                (weights,) = curator.weights(version)
                assert weights == f"after {version}"
            scored[number].put(block(*bounds[number], version))

    def stream() -> Iterator[Block]:
        for one in scored:
            yield one.get()

    def train() -> list[str]:
        seen: list[str] = []
        for number in range(plan.steps.steps):
            share = curator.batch(number, 0, 1)
            assert [f"report {row}" for row in share["pixels"][:, 0]] == share["report"].tolist()
            seen += share["sample_id"].tolist()
            if number + 1 in plan.versions:
                curator.publish(number + 1, [f"after {number + 1}"])
        return seen

    with ThreadPoolExecutor(4) as pool:
        scorers = [pool.submit(score, number) for number in range(2)]
        trainer = pool.submit(train)
        outcome = pool.submit(curator.consume, stream()).result()
        seen = trainer.result()
        for one in scorers:
            one.result()
    keep_B = outcome.curated.selection.keep_B.tolist()
    assert seen == [sample for sample, kept in zip(outcome.curated.sample_id, keep_B, strict=True) if kept]
    assert len(seen) == plan.kept == 300
    assert outcome.staleness.min() >= 0
    assert outcome.device_seconds == 0.5 * PAIRS
    assert len(curator.published) <= len(plan.versions)
    with open_features(str(tmp_path / "features")) as found:
        assert found.sample_id == outcome.curated.sample_id
        assert found.logit_scale is None
