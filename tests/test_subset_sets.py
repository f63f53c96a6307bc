"""Subsets as sets, against Python's own and scikit-learn."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.curation.subset import (
    SUBSET_SCHEMA,
    chosen_table,
    combine_kept,
    compare_kept,
)

BANDS = ("outlier", "support", "central")
small_sets = st.lists(st.frozensets(st.sampled_from("abcdefgh")), min_size=2, max_size=5)


@given(small_sets)
def test_combine_kept_any_sets_holds_exactly_what_its_definition_says(kept: list[frozenset[str]]) -> None:
    for name in "abcdefgh":
        holds = [name in one for one in kept]
        assert (name in combine_kept("intersect", kept)) == all(holds)
        assert (name in combine_kept("union", kept)) == any(holds)
        assert (name in combine_kept("diff", kept)) == (holds[0] and not any(holds[1:]))


@given(small_sets)
def test_combine_kept_any_sets_obeys_the_laws_of_sets(kept: list[frozenset[str]]) -> None:
    first, *others = kept
    rest = combine_kept("union", others)
    difference, common = combine_kept("diff", kept), combine_kept("intersect", [first, rest])
    assert combine_kept("diff", [first, rest]) == difference
    assert combine_kept("union", [difference, common]) == first
    assert not combine_kept("intersect", [difference, common])
    for operation in ("intersect", "union"):
        assert combine_kept(operation, kept) == combine_kept(operation, kept[::-1])  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)  # scikit-learn takes 10 ms for each two
@given(small_sets)
def test_compare_kept_any_sets_equals_scikit_learn(kept: list[frozenset[str]]) -> None:
    compared = compare_kept(kept)
    member = np.array([[name in one for name in "abcdefgh"] for one in kept])
    assert (compared["any"], compared["all"]) == (member.any(axis=0).sum(), member.all(axis=0).sum())
    assert len(compared["overlaps"]) == len(kept) * (len(kept) - 1) // 2
    for found in compared["overlaps"]:
        one, other = member[found["first"]], member[found["second"]]
        cells = sklearn.metrics.confusion_matrix(one, other, labels=[False, True])
        assert [found["only_second"], found["only_first"], found["both"]] == [cells[0, 1], cells[1, 0], cells[1, 1]]
        expected = sklearn.metrics.jaccard_score(one, other, zero_division=1.0)
        assert found["jaccard"] == pytest.approx(expected, abs=1e-15)  # worst 0


def test_chosen_table_takes_scores_by_id_whatever_their_order_and_leaves_the_rest_unknown() -> None:
    pairs = pa.table({"sample_id": list("abcd"), "dataset": ["x", "x", "y", "y"], "view": [None] * 4})
    rows = {"sample_id": ["d", "b"], "dataset": ["y", "x"], "cluster": [3, 1], "distance": [0.5, 0.25]}
    scored = pa.table({**rows, "band": ["support", None], "kept": [True, True]}, schema=SUBSET_SCHEMA)
    table = chosen_table(pairs, {"a", "d"}, scored)
    assert table.schema == SUBSET_SCHEMA
    assert table.to_pydict() == {
        "sample_id": list("abcd"),
        "dataset": ["x", "x", "y", "y"],
        "cluster": [None, 1, None, 3],
        "distance": [None, 0.25, None, 0.5],
        "band": [None, None, None, "support"],
        "kept": [True, False, False, True],
    }
    unscored = chosen_table(pairs, {"b"})
    assert unscored["kept"].to_pylist() == [False, True, False, False]
    assert unscored["band"].null_count == unscored["cluster"].null_count == unscored["distance"].null_count == 4
