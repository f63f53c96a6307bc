"""The loss against the reference values, and across real processes against one process."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from chexray.platform.model.contrastive import global_info_nce, info_nce

GOLDEN = Path(__file__).parents[1] / ".." / "shared" / "data" / "golden" / "curation_reference.npz"


def unit_rows(rows: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, width, generator=generator), dim=1)


@pytest.mark.skipif(not GOLDEN.exists(), reason="the reference values are not at hand")
def test_info_nce_on_kept_pairs_equals_the_reference() -> None:
    golden = np.load(GOLDEN)
    keep = torch.from_numpy(golden["loss_keep"])
    image, text = (torch.from_numpy(golden[name])[keep] for name in ("loss_image", "loss_text"))
    scale = torch.tensor(float(golden["loss_logit_scale"])).exp()
    loss = info_nce(image, text, scale)
    assert float(loss) == pytest.approx(float(golden["loss_value"]), abs=1e-6)  # worst seen: 0


def test_info_nce_equals_the_formula_pair_by_pair() -> None:
    image, text, scale = unit_rows(5, 7, 0).double(), unit_rows(5, 7, 1).double(), torch.tensor(3.0).double()
    total = 0.0
    for i in range(5):
        rows = [float(scale * image[i] @ text[j]) for j in range(5)]
        columns = [float(scale * image[j] @ text[i]) for j in range(5)]
        total += np.log(np.exp(rows).sum()) - rows[i] + np.log(np.exp(columns).sum()) - columns[i]
    assert float(info_nce(image, text, scale)) == pytest.approx(total / 10, abs=1e-12)


def test_info_nce_of_one_pair_is_zero() -> None:
    assert float(info_nce(unit_rows(1, 4, 0), unit_rows(1, 4, 1), torch.tensor(10.0))) == 0.0


@pytest.mark.parametrize("shares", [(4, 4), (5, 3), (7, 1)])
def test_global_info_nce_on_two_processes_equals_one_in_loss_and_gradients(
    shares: tuple[int, int], tmp_path: Path
) -> None:
    """Each rank holds a share of one batch and a copy of a linear layer; gradients are averaged over ranks."""
    weight, scale = torch.randn(6, 9, generator=torch.Generator().manual_seed(2)), torch.tensor([1.3])
    image, text = unit_rows(8, 9, 3), unit_rows(8, 6, 4)
    weight.requires_grad_()
    scale.requires_grad_()
    info_nce(_encode(image, weight), text, scale.exp()).backward()
    expected_loss = info_nce(_encode(image, weight), text, scale.exp()).detach()

    mp.spawn(_rank, args=(shares, _free_port(), weight.detach(), scale.detach(), image, text, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert weight.grad is not None
    assert scale.grad is not None
    # Worst errors seen over the three splits: loss 2.4e-7, weight gradient 6.0e-8, scale gradient 1.2e-7.
    loss = sum(float(rank["loss"]) for rank in ranks) / 2
    assert loss == pytest.approx(float(expected_loss), abs=1e-6)
    for name, expected in (("weight", weight.grad), ("scale", scale.grad)):
        average = (ranks[0][name] + ranks[1][name]) / 2
        torch.testing.assert_close(average, expected, rtol=0, atol=1e-6)


def _encode(image: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(image @ weight.T, dim=1)


def _rank(
    rank: int,
    shares: tuple[int, int],
    port: int,
    weight: torch.Tensor,
    scale: torch.Tensor,
    image: torch.Tensor,
    text: torch.Tensor,
    folder: str,
) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    first, end = sum(shares[:rank]), sum(shares[: rank + 1])
    weight, scale = weight.clone().requires_grad_(), scale.clone().requires_grad_()
    part = global_info_nce(_encode(image[first:end], weight), text[first:end], scale.exp(), shares)
    part.backward()
    torch.save({"loss": part.detach(), "weight": weight.grad, "scale": scale.grad}, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
