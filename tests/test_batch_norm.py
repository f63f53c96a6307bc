"""Batch normalisation over several processes against torch's own on the joined batch."""

from __future__ import annotations

import copy
import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from timm.layers import BatchNormAct2d
from torch import nn

from chexray.platform.errors import UsageError
from chexray.platform.model.batch_norm import GlobalBatchNorm2d, share_batch_statistics

STEPS = 3


def build(seed: int = 0) -> nn.Sequential:
    """Both kinds of normalisation, with weights that are not one and zero."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 3), BatchNormAct2d(4), nn.Flatten()
    )
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
    return model


def run(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Gradients of a sum over the images that weighs each output differently, over a few steps."""
    for step in range(STEPS):
        output = model(images + step)
        (output * torch.linspace(-1, 1, output.shape[1])).square().sum().backward()
    return output.detach()


@pytest.mark.parametrize("shares", [(4, 4), (5, 3), (7, 1)])
def test_global_batch_norm_on_two_processes_equals_torch_on_the_joined_batch(
    shares: tuple[int, int], tmp_path: Path
) -> None:
    images = torch.randn(8, 2, 9, 9, generator=torch.Generator().manual_seed(1)) * 3 + 2
    expected = build()
    output = run(expected, images)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    mp.spawn(_rank, args=(shares, port, images, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    # Worst errors seen over the three splits: output 8e-7, gradients 7e-5 (the largest are 400, those of the first bias
    # are zero but for rounding), statistics 2e-7.
    torch.testing.assert_close(torch.cat([rank["output"] for rank in ranks]), output, rtol=0, atol=5e-6)
    for name, parameter in expected.named_parameters():
        assert parameter.grad is not None
        summed = ranks[0]["gradients"][name] + ranks[1]["gradients"][name]
        torch.testing.assert_close(
            summed, parameter.grad, rtol=1e-6, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    for name, buffer in expected.named_buffers():
        for rank in ranks:
            torch.testing.assert_close(rank["buffers"][name], buffer, rtol=0, atol=2e-6)


def test_share_batch_statistics_changes_nothing_for_one_worker_and_keeps_all_names() -> None:
    images = torch.randn(6, 2, 9, 9, generator=torch.Generator().manual_seed(1))
    plain = build()
    shared = copy.deepcopy(plain)
    share_batch_statistics(shared)
    assert isinstance(shared[1], GlobalBatchNorm2d)
    assert list(shared.state_dict()) == list(plain.state_dict())
    assert torch.equal(run(shared, images), run(plain, images))
    assert torch.equal(shared.eval()(images), plain.eval()(images))


def test_share_batch_statistics_of_a_kind_it_does_not_know_names_the_layer() -> None:
    with pytest.raises(UsageError, match="1 is a BatchNorm1d"):
        share_batch_statistics(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))


def _rank(rank: int, shares: tuple[int, int], port: int, images: torch.Tensor, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    model = build()
    share_batch_statistics(model)
    first = sum(shares[:rank])
    output = run(model, images[first : first + shares[rank]])
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    torch.save(
        {"output": output, "gradients": gradients, "buffers": dict(model.named_buffers())}, f"{folder}/rank{rank}.pt"
    )
    dist.destroy_process_group()
