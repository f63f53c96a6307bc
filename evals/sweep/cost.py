"""What a run costs on a corpus of another size: FLOPs, GPU-hours and money, from what a sweep has counted."""

from __future__ import annotations

import math
from dataclasses import dataclass

SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Device:
    """A GPU: what it can do at most (FLOP/s), the share of it that training reaches, and its price.

    `peak_flops`: see `chexray.platform.training.peak`. `utilisation`: model FLOPs over the peak's, in (0, 1].
    `price_per_hour`: in any currency; None where it is not known. Raises ValueError on other values.
    """

    peak_flops: float
    utilisation: float
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        _check_positive("peak_flops", self.peak_flops)
        if not 0 < self.utilisation <= 1:
            raise ValueError(f"utilisation is {self.utilisation}; allowed: above 0, 1 at most")
        if self.price_per_hour is not None:
            _check_not_negative("price_per_hour", self.price_per_hour)

    @property
    def flops_per_hour(self) -> float:
        return self.peak_flops * self.utilisation * SECONDS_PER_HOUR

    def hours(self, flops: float) -> float:
        """GPU-hours of so many FLOPs. Raises ValueError on negative and infinite ones."""
        _check_not_negative("flops", flops)
        return flops / self.flops_per_hour


@dataclass(frozen=True)
class Cost:
    """FLOPs, GPU-hours and money of one run. `money`: None without a price."""

    training_flops: float
    curation_flops: float
    gpu_hours: float
    money: float | None

    @property
    def flops(self) -> float:
        return self.training_flops + self.curation_flops


def run_cost(
    pairs: int,
    passes: float,
    train_flops_per_pair: float,
    curation_flops_per_pair: float,
    device: Device,
) -> Cost:
    """The cost of training for `passes` over a corpus of `pairs`, and of choosing from it once.

    `passes`: pairs seen over pairs of the corpus, whatever fraction is kept. `curation_flops_per_pair`: of every pair
    of the corpus, kept or not. Raises ValueError on what cannot be.
    """
    if pairs < 1:
        raise ValueError(f"pairs is {pairs}; allowed: 1 or more")
    _check_positive("passes", passes)
    _check_positive("train_flops_per_pair", train_flops_per_pair)
    _check_not_negative("curation_flops_per_pair", curation_flops_per_pair)
    training, curation = pairs * passes * train_flops_per_pair, pairs * curation_flops_per_pair
    hours = device.hours(training + curation)
    return Cost(training, curation, hours, None if device.price_per_hour is None else hours * device.price_per_hour)


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}; allowed: above 0, and finite")


def _check_not_negative(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} is {value}; allowed: 0 or more, and finite")
