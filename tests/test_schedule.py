"""The learning rate of every step, against values computed by hand."""

from __future__ import annotations

import itertools
import math

import pytest

from chexray.platform.config import TrainConfig
from chexray.platform.training.schedule import learning_rate

# cos(pi * 1/4), cos(pi / 2), ... by hand: 0.5 * (1 + sqrt(2)/2) = 0.853553, 0.5, 0.146447
COSINE = [1.0, 0.8535533905932737, 0.5, 0.14644660940672627, 0.0]


def curve(total: int, **settings: float) -> list[float]:
    config = TrainConfig(**settings)  # type: ignore[arg-type]
    return [learning_rate(step, total, config) for step in range(total)]


def test_schedule_without_warmup_is_a_cosine_from_lr_to_min_lr() -> None:
    expected = [0.2 + 0.8 * share for share in COSINE]
    assert curve(5, lr=1.0, min_lr=0.2, warmup_share=0) == pytest.approx(expected, abs=1e-12)  # measured 0


def test_schedule_with_warmup_rises_linearly_first() -> None:
    # 3 of 8 steps warm up: 1/4, 2/4, 3/4 of lr, then the cosine's five values.
    expected = [0.25, 0.5, 0.75, *COSINE]
    assert curve(8, lr=1.0, min_lr=0.0, warmup_share=0.375) == pytest.approx(expected, abs=1e-12)  # measured 0


def test_schedule_of_the_paper_starts_at_5e_5_and_ends_at_5e_6() -> None:
    rates = curve(1001, lr=5e-5, min_lr=5e-6, warmup_share=0)
    assert (rates[0], rates[500]) == pytest.approx((5e-5, 2.75e-5), rel=1e-12)
    assert rates[-1] == pytest.approx(5e-6, rel=1e-12)


def test_schedule_after_warmup_never_rises_and_never_jumps() -> None:
    rates = curve(200, lr=1e-3, min_lr=1e-5, warmup_share=0.05)
    peak = rates.index(max(rates))
    assert peak == 10
    assert rates[peak] == 1e-3
    assert all(a < b for a, b in itertools.pairwise(rates[: peak + 1]))
    assert all(a > b for a, b in itertools.pairwise(rates[peak:]))
    # The steepest fall of a cosine over n steps is pi / (2 n) of its height.
    steepest = max(a - b for a, b in itertools.pairwise(rates[peak:]))
    assert steepest <= math.pi / 2 / 189 * (1e-3 - 1e-5)


def test_schedule_of_one_step_has_the_full_rate() -> None:
    assert curve(1, lr=1e-3, min_lr=1e-5, warmup_share=0) == [1e-3]
