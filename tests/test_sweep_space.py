"""What a sweep looks at: points, the runs that they ask for, how long those are, and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chexray.platform.config import load_recipe
from chexray.platform.errors import UsageError
from chexray.platform.ledger import PairFlops
from chexray.platform.sweep.points import Point, whole_epochs
from chexray.platform.sweep.space import SweepSpace, read_space

_FLOPS = PairFlops(score_image=10, score_text=5, train_image=30, train_text=15)


def test_space_grid_counts_every_point_and_runs_the_whole_corpus_once_a_seed_and_budget() -> None:
    space = SweepSpace(
        methods=("random", "prototype", "semdedup"), keep=(0.1, 0.227, 0.5, 1.0), budgets=(2, 4), seeds=(0, 1)
    )
    points = space.points()
    assert len(points) == 48
    # By hand: 3 methods x 3 fractions x 2 budgets x 2 seeds, and 1 x 2 x 2 of the whole corpus.
    assert len({point.name for point in points}) == 36 + 4
    assert {point.run().method for point in points if point.keep == 1} == {"full"}


def test_point_name_tells_settings_apart() -> None:
    names = {
        Point(method="random", keep=0.5, budget=2, settings=settings).name
        for settings in ({}, {"train.lr": 0.1}, {"train.lr": 0.01}, {"train.augment": 0.1})
    }
    assert len(names) == 4


def test_space_settings_multiply_the_grid_and_reach_the_recipe() -> None:
    space = SweepSpace(methods=("random",), keep=(0.5,), settings={"train.lr": (0.01, 0.001), "train.augment": (0.0,)})
    base = load_recipe("tiny", ["train.min_lr=0.0001"])
    recipes = [point.recipe(base) for point in space.points()]
    assert [recipe.train.lr for recipe in recipes] == [0.01, 0.001]
    assert {recipe.train.augment for recipe in recipes} == {0.0}
    assert {recipe.curate.keep for recipe in recipes} == {0.5}
    assert {recipe.train.min_lr for recipe in recipes} == {0.0001}


def test_point_of_a_seed_seeds_training_and_choice() -> None:
    recipe = Point(method="semdedup", keep=0.5, budget=1, seed=7).recipe(load_recipe("tiny"))
    assert (recipe.train.seed, recipe.curate.seed, recipe.curate.selector) == (7, 7, "semdedup")


def test_point_that_a_recipe_refuses_is_refused_by_key() -> None:
    with pytest.raises(UsageError, match="min_lr"):
        Point(method="random", keep=0.5, budget=1, settings={"train.min_lr": 1.0}).recipe(load_recipe("tiny"))


def test_space_random_draws_the_same_points_by_seed_within_their_ranges() -> None:
    def drawn(seed: int) -> list[Point]:
        space = SweepSpace(
            search="random",
            trials=50,
            search_seed=seed,
            settings={"train.lr": {"low": 1e-4, "high": 1e-2, "log": True}, "train.augment": (0.0, 0.1)},
        )
        return space.points()

    assert drawn(1) == drawn(1) != drawn(2)
    rates = [float(point.settings["train.lr"]) for point in drawn(1)]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    # Even in the logarithm: half of them lie below the middle, 1e-3 (18 to 32 of 50: 95 % of binomial draws).
    assert 18 <= sum(rate < 1e-3 for rate in rates) <= 32


@pytest.mark.parametrize(
    ("unit", "budget", "kept", "expected"),
    [
        ("passes", 2, 1000, 2),
        ("passes", 2, 227, 9),  # 2,000 / 227 = 8.8
        ("passes", 0.1, 1000, 1),  # one at least
        ("pairs", 500, 100, 5),
        ("flops", 45 * 300 + 4500, 100, 3),  # the curation is paid for first
        ("flops", 100, 100, 1),
    ],
)
def test_whole_epochs_come_nearest_to_the_budget(unit: str, budget: float, kept: int, expected: int) -> None:
    point = Point(method="random", keep=0.5, budget=budget, budget_unit=unit)  # type: ignore[arg-type]
    assert whole_epochs(point, 1000, kept, _FLOPS, curation_flops=4500) == expected


@given(budget=st.floats(0.01, 1e4), kept=st.integers(1, 10_000))
def test_whole_epochs_are_within_half_an_epoch_of_the_budget(budget: float, kept: int) -> None:
    point = Point(method="random", keep=0.5, budget=budget)
    epochs = whole_epochs(point, 10_000, kept, _FLOPS, 0)
    assert epochs == 1 or abs(epochs * kept - budget * 10_000) <= kept / 2 + 1e-6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metho: [random]", "metho: unknown key; allowed: methods"),
        ("methods: [best]", "methods.0='best'"),
        ("methods: [learnability]", "reference checkpoint"),
        ("keep: [1.5]", "keep.0=1.5"),
        ("keep: [0.5, 0.5]", "one is named twice"),
        ("settings: {train.epochs: [3]}", "what 'budgets' is for"),
        ("settings: {train.lrr: [3]}", "train.lrr: not a setting"),
        ("settings: {run.threads: [1]}", "not a setting of model, curate or train"),
        ("settings: {train.lr: {low: 1, high: 0.1}}", "low must be below high"),
        ("settings: {train.lr: {low: 0.1, high: 1}}", "a range is no grid"),
        ("settings: {train.lr: []}", "no values"),
        ("settings: {train.global_batch: [32, 64]}", "validation loss depends on it"),
        ("search: random", "trials=None"),
        ("trials: 3", "a grid has no number"),
        ("metric: auroc", "expected validation_loss, or benchmark.metric"),
        ("- a", "expected keys such as"),
        ("a: [", "not YAML"),
    ],
)
def test_read_space_refuses_what_cannot_be_with_key_and_value(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_space(str(file))
    assert said in str(refused.value)
    assert str(file) in str(refused.value)


def test_read_space_without_a_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_space(str(tmp_path / "none.yaml"))
