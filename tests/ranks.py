"""Real processes that train together: gloo ranks around a small model, with DeepSpeed, without Ray."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from chexray.platform.config import ModelConfig, RunConfig, TextTower, TrainConfig, VisionTower
from chexray.platform.corpus.order import EpochSteps
from chexray.platform.model.encoder import build_model, build_tokenizer
from chexray.platform.training.batch import Batch
from chexray.platform.training.engine import start_engine
from chexray.platform.training.loop import Trainer

SIZE, PAIRS = 32, 12
MODEL = ModelConfig(
    embed_dim=16,
    vision=VisionTower(timm_model="test_vit", image_size=SIZE),
    text=TextTower(context_length=16, width=32, heads=2, layers=1),
)


def batch(step: int, rank: int = 0, world: int = 1, pairs: int = PAIRS) -> Batch:
    """Worker `rank`'s share of step `step`, drawn by the step's number alone."""
    draw = np.random.default_rng(step)
    image = draw.integers(0, 256, (pairs, SIZE, SIZE)).astype(np.uint8)
    report = [f"Opacity {number}" + " of the left lung." * (number % 3) for number in draw.integers(0, 1000, pairs)]
    steps = EpochSteps(pairs, pairs)
    first, end = steps.share(0, rank, world)
    ids = [f"{step:016x}{i:016x}" for i in range(first, end)]
    return Batch(step, 0, image[first:end], report[first:end], ids, steps.share_sizes(0, world), False, float(step))


def trainer(config: TrainConfig, world: int, run: RunConfig | None = None, model: ModelConfig = MODEL) -> Trainer:
    run, device = run or RunConfig(), torch.device("cpu")
    engine = start_engine(build_model(model, 0), config, run, world, device)
    return Trainer(engine, build_tokenizer(model), 100, config, run, device)


def run_ranks(work: Callable[..., Any], world: int, folder: Path, *arguments: Any) -> list[Any]:
    """What `work(rank, world, *arguments)` returns on each of `world` processes with a process group."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    folder.mkdir(parents=True, exist_ok=True)
    # From a server that has imported everything: each process would take ten seconds to.
    multiprocessing.set_forkserver_preload(["ranks", "deepspeed"])
    arguments = (world, port, work, str(folder), arguments)
    mp.start_processes(_rank, args=arguments, nprocs=world, start_method="forkserver")
    return [torch.load(folder / f"result-{rank}.pt", weights_only=False) for rank in range(world)]


def _rank(rank: int, world: int, port: int, work: Callable[..., Any], folder: str, arguments: Sequence[Any]) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world)
    )
    os.environ["DS_ACCELERATOR"] = "cpu"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    torch.save(work(rank, world, *arguments), f"{folder}/result-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
