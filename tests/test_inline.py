"""Curation inside the training step on several processes against one process with everything."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from chexray.curation.curator import Curator
from chexray.curation.inline import InlineCurator
from chexray.platform.config import CurateConfig
from chexray.platform.corpus.order import EpochSteps
from chexray.platform.errors import ChexrayError
from chexray.platform.training.batch import Batch

PAIRS = 210
STEPS = EpochSteps(PAIRS, 70)
CONFIG = CurateConfig(keep=0.3, prototypes=3, kmeans_sample=100)


def batches(rank: int, world: int) -> list[Batch]:
    """One epoch: a pair's image is its number."""
    made = []
    for step in range(STEPS.steps):
        first, end = STEPS.share(step, rank, world)
        number = np.arange(first, end)
        made.append(
            Batch(
                step=step,
                epoch=0,
                image=np.broadcast_to(number[:, None, None], (len(number), 2, 2)).astype(np.uint8),
                report=[f"report {n}" for n in number],
                sample_id=[f"{n * 7919 % 65536:032x}" for n in number],
                share_sizes=STEPS.share_sizes(step, world),
                last_of_epoch=step == STEPS.steps - 1,
                place=float(step),
            )
        )
    return made


def embed(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows that depend on the pair's number alone."""
    rows = [np.random.default_rng(int(image[0, 0])).standard_normal((2, 8)) for image in batch.image]
    unit = np.array([row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows]).reshape(len(rows), 2, 8)
    return unit[:, 0], unit[:, 1]


def chosen(rank: int, world: int, config: CurateConfig = CONFIG) -> dict[str, Any]:
    curator = InlineCurator(Curator(config, PAIRS), embed, rank, world)
    curator.start(batches(rank, world)[:2])
    scored: list[int] = []
    kept = list(curator.choose_all(batches(rank, world), lambda block: scored.append(len(block["sample_id"]))))
    shares = [(one.sample_id, one.report, one.image[:, 0, 0].tolist(), one.share_sizes) for one in kept]
    return {"shares": shares, "scored": scored, "ids": curator.record.sample_id}


def _rank(rank: int, world: int, port: int, folder: str) -> None:
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    Path(folder, f"rank{rank}").write_text(json.dumps(chosen(rank, world)))
    dist.destroy_process_group()


def test_inline_curator_on_three_processes_keeps_what_one_keeps_in_even_shares(tmp_path: Path) -> None:
    world = 3
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    mp.spawn(_rank, args=(world, port, str(tmp_path)), nprocs=world)
    ranks = [json.loads(Path(tmp_path, f"rank{rank}").read_text()) for rank in range(world)]
    alone = chosen(0, 1)
    assert ranks[0]["ids"] == alone["ids"] == [sample for batch in batches(0, 1) for sample in batch.sample_id]
    assert ranks[0]["scored"] == alone["scored"] == [70, 70, 70]
    for step, (ids, reports, images, sizes) in enumerate(alone["shares"]):
        parts = [rank["shares"][step] for rank in ranks]
        assert [sample for part in parts for sample in part[0]] == ids
        assert [report for part in parts for report in part[1]] == reports
        assert [image for part in parts for image in part[2]] == images
        assert [len(part[0]) for part in parts] == parts[0][3]
        assert max(parts[0][3]) - min(parts[0][3]) <= 1
        assert sum(sizes) == 21  # 30 % of 70
        # A pair stays with its report and its image.
        assert all(report == f"report {image}" for report, image in zip(reports, images, strict=True))


def test_inline_curator_that_keeps_too_few_for_the_workers_says_so() -> None:
    curator = InlineCurator(Curator(CONFIG, PAIRS), embed, 0, 1)
    curator.world = 40
    curator._gathered = lambda own: own  # type: ignore[method-assign]
    with pytest.raises(ChexrayError, match="step 0: 1 pairs are kept for 40 workers"):
        curator._share(batches(0, 1)[0], np.arange(70) == 3)
