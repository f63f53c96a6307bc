"""Augmentation: whose draws they are, and what may not happen to a chest."""

from __future__ import annotations

import torch

from chexray.platform.training.augment import augment


def pictures(count: int) -> torch.Tensor:
    """A bright left half on black, so that a mirrored picture would be seen."""
    image = torch.zeros(count, 32, 32, dtype=torch.uint8)
    image[:, 4:28, 4:14] = 200
    return image


def test_augment_of_strength_zero_returns_the_images() -> None:
    assert torch.equal(augment(pictures(3), ["a", "b", "c"], 0.0, 0, 0), pictures(3))


def test_augment_draws_depend_on_sample_epoch_and_seed_and_not_on_the_batch() -> None:
    ids = ["a", "b", "c", "d"]
    whole = augment(pictures(4), ids, 0.1, seed=1, epoch=2)
    parts = torch.cat([augment(pictures(1), ids[:1], 0.1, 1, 2), augment(pictures(3), ids[1:], 0.1, 1, 2)])
    assert torch.equal(whole, parts)
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole, augment(pictures(4), ids, 0.1, 1, 3))
    assert not torch.equal(whole, augment(pictures(4), ids, 0.1, 2, 2))


def test_augment_never_mirrors_and_moves_little() -> None:
    ids = [str(i) for i in range(200)]
    moved = augment(pictures(200), ids, 0.1, 0, 0).float()
    assert (moved[:, :, :16].sum((1, 2)) > moved[:, :, 16:].sum((1, 2))).all()
    columns = torch.arange(32.0)
    centre = (moved.sum(1) * columns).sum(1) / moved.sum((1, 2))
    # By up to 1.6 pixels of shift, and 10 % of scale and 0.1 radian about a centre 7 pixels away.
    assert (centre - 8.5).abs().max() < 3.5
