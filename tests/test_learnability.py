"""Learnability and the losses that it compares, against plain loops and values worked out by hand."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_candidates import (
    ids,
    kept,
    unit_rows,
)

from chexray.curation.baselines import pair_losses
from chexray.curation.selectors import Candidates
from chexray.platform.model.contrastive import info_nce


def test_learnability_by_hand_keeps_what_the_learner_lacks_and_the_reference_has() -> None:
    learner_N, reference_N = torch.tensor([5.0, 5.0, 1.0, 0.5, 2.0]), torch.tensor([1.0, 4.5, 1.0, 0.0, 2.5])
    # Learnability 4, 1/2, 0, 1/2, -1/2: of the two halves the lower id.
    given = Candidates(["c", "b", "e", "a", "d"], learner_loss_N=learner_N, reference_loss_N=reference_N)
    assert kept("learnability", given, 1) == [0]
    assert kept("learnability", given, 2) == [0, 3]
    assert kept("learnability", given, 4) == [0, 1, 2, 3]


def plain_loss(image: list[list[float]], text: list[list[float]], scale: float, place: int) -> float:
    """InfoNCE of one pair in both directions, from exponentials."""

    def direction(one: list[float], others: list[list[float]]) -> float:
        weight = [math.exp(scale * sum(x * y for x, y in zip(one, other, strict=True))) for other in others]
        return -math.log(weight[place] / sum(weight))

    return (direction(image[place], text) + direction(text[place], image)) / 2


@pytest.mark.parametrize(("pairs", "batch"), [(2, 2), (7, 3), (9, 3), (10, 4), (5, 64)])
def test_pair_losses_equal_a_plain_loop_and_the_last_batch_reaches_back(pairs: int, batch: int) -> None:
    image_ND, text_ND, names = unit_rows(pairs, 4, pairs), unit_rows(pairs, 4, batch), ids(pairs)
    loss_N = pair_losses(image_ND, text_ND, 8.0, batch, names)
    rows = sorted(range(pairs), key=names.__getitem__)
    for place, row in enumerate(rows):
        first = min(place // batch * batch, max(pairs - batch, 0))
        members = rows[first : first + batch]
        image, text = image_ND[members].double().tolist(), text_ND[members].double().tolist()
        expected = plain_loss(image, text, 8.0, members.index(row))
        assert float(loss_N[row]) == pytest.approx(expected, rel=0, abs=1e-6)  # worst 4.6e-7, in a loss of 8 or more
    assert (loss_N.dtype, loss_N.shape) == (torch.float32, (pairs,))


def test_pair_losses_mean_of_one_batch_is_the_training_loss() -> None:
    image_ND, text_ND = unit_rows(50, 16, 0), unit_rows(50, 16, 1)
    mean = float(pair_losses(image_ND, text_ND, 20.0, 50, ids(50)).mean())
    assert mean == pytest.approx(float(info_nce(image_ND, text_ND, torch.tensor(20.0))), rel=1e-6)  # worst 8.0e-8


@given(seed=st.integers(0, 1000), pairs=st.integers(2, 30), batch=st.integers(2, 12))
@settings(max_examples=40, deadline=None)
def test_pair_losses_rows_in_another_order_have_the_same_losses(seed: int, pairs: int, batch: int) -> None:
    image_ND, text_ND, names = unit_rows(pairs, 6, seed), unit_rows(pairs, 6, seed + 1), ids(pairs, seed)
    order = random.Random(seed).sample(range(pairs), pairs)
    loss_N = pair_losses(image_ND, text_ND, 10.0, batch, names)
    moved_N = pair_losses(image_ND[order], text_ND[order], 10.0, batch, [names[row] for row in order])
    assert torch.equal(moved_N, loss_N[order])


@pytest.mark.parametrize(
    ("pairs", "batch", "names", "message"),
    [
        (4, 1, 4, "batch=1 and the number of pairs, 4, must be at least 2"),
        (1, 8, 1, "batch=8 and the number of pairs, 1, must be at least 2"),
        (4, 2, 3, "with a row for each of 3 sample ids"),
    ],
)
def test_pair_losses_arguments_that_do_not_fit_are_refused(pairs: int, batch: int, names: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pair_losses(unit_rows(pairs, 4, 0), unit_rows(pairs, 4, 1), 1.0, batch, ids(names))
