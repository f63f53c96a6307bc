"""What a curation epoch will do, against a simulation that only ever uses what is there."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.curation.plan import CurationPlan
from chexray.curation.selection import superbatch_budget
from chexray.platform.config import CurateConfig
from chexray.platform.corpus.order import Window
from chexray.platform.streaming import pieces_of


def plan_of(pairs: int, keep: float, batch: int, step: int, ahead: int = 2, refresh: int | None = 3) -> CurationPlan:
    config = CurateConfig(
        keep=keep, super_batch=batch, ahead=ahead, refresh_steps=refresh, kmeans_sample=64, prototypes=2
    )
    return CurationPlan(config, pairs, step)


plans = st.builds(
    plan_of,
    pairs=st.integers(64, 3000),
    keep=st.sampled_from([0.05, 0.227, 0.5, 0.95]),
    batch=st.integers(32, 500),
    step=st.integers(2, 200),
    ahead=st.integers(1, 5),
    refresh=st.integers(1, 20),
)


@settings(max_examples=60, deadline=None)
@given(plan=plans)
def test_version_of_every_superbatch_is_trained_from_pairs_chosen_before_it(plan: CurationPlan) -> None:
    """One after the other, with only what is there by then: it never waits for ever."""
    kept = 0
    for batch in range(plan.superbatches.steps):
        first, end = plan.superbatches.bounds(batch)
        version = plan.version(first)
        # Training can have come that far with what the super-batches before this one gave.
        assert version == 0 or plan.steps.bounds(version - 1)[1] <= kept
        assert version % (plan.config.refresh_steps or 1) == 0
        assert all(plan.version(position) == version for position in (first, (first + end) // 2, end - 1))
        kept += superbatch_budget(plan.config.keep, first, end - first)
    assert kept == plan.kept


@settings(max_examples=60, deadline=None)
@given(plan=plans)
def test_staleness_is_bounded_by_what_is_ahead_and_the_refresh(plan: CurationPlan) -> None:
    config = plan.config
    assert config.refresh_steps is not None
    rank = 0
    for batch in range(plan.superbatches.steps):
        first, end = plan.superbatches.bounds(batch)
        budget = superbatch_budget(config.keep, first, end - first)
        if first >= plan.sample and budget:
            last = plan.step_of(rank + budget - 1)
            early, _ = plan.superbatches.bounds(max(0, batch - config.ahead))
            waiting = rank + budget - superbatch_budget(config.keep, 0, early)
            smallest = plan.kept // plan.steps.steps
            assert last - plan.version(first) <= waiting // max(1, smallest) + config.refresh_steps + 1
        rank += budget


def test_version_by_hand() -> None:
    """400 pairs, half kept, super-batches of 40, steps of 20: each super-batch fills one step."""
    plan = plan_of(400, 0.5, 40, 20, ahead=1, refresh=1)
    # 64 pairs start the prototypes: the first two super-batches are scored by the first weights.
    assert [plan.version(40 * batch) for batch in range(10)] == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert plan.versions == [1, 2, 3, 4, 5, 6, 7, 8]
    slower = plan_of(400, 0.5, 40, 20, ahead=2, refresh=4)
    assert [slower.version(40 * batch) for batch in range(10)] == [0, 0, 0, 0, 0, 0, 4, 4, 4, 4]
    assert plan_of(400, 0.5, 40, 20, refresh=None).versions == []


@settings(max_examples=60, deadline=None)
@given(plan=plans)
def test_step_of_every_kept_pair_is_the_step_whose_bounds_hold_it(plan: CurationPlan) -> None:
    for step in range(plan.steps.steps):
        first, end = plan.steps.bounds(step)
        assert {plan.step_of(rank) for rank in range(first, end)} <= {step}


@given(
    first=st.integers(0, 500),
    pairs=st.integers(1, 300),
    cuts=st.lists(st.integers(0, 900), unique=True).map(sorted),
)
def test_pieces_of_a_window_cover_it_once_and_cross_no_cut(first: int, pairs: int, cuts: list[int]) -> None:
    """A block of two super-batches would wait for weights that need its own first half."""
    pieces = pieces_of(Window(0, 0, first, (), pairs, None), cuts)
    assert [row for begin, end in pieces for row in range(begin, end)] == list(range(pairs))
    for begin, end in pieces:
        assert not any(first + begin < cut < first + end for cut in cuts)
