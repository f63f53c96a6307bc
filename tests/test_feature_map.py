"""The map of features against NumPy's singular values, and against the rows that it was drawn from."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F

from chexray.curation.feature_map import feature_map, principal_plane

LABELS = pa.map_(pa.string(), pa.int8())


def corpus(rows: int) -> tuple[torch.Tensor, pa.Table]:
    feature_NE = F.normalize(torch.randn(rows, 12, generator=torch.Generator().manual_seed(0)), dim=1)
    table = pa.table(
        {
            "sample_id": [f"{row:032x}" for row in range(rows)],
            "band": [None if row % 5 == 0 else "support" for row in range(rows)],
            "kept": [row % 3 == 0 for row in range(rows)],
            "labels": pa.array([[("Hernia", 1), ("Mass", row % 2), ("Edema", None)] for row in range(rows)], LABELS),
        }
    )
    return feature_NE, table


def test_principal_plane_equals_numpys_singular_vectors() -> None:
    feature_ME = np.random.default_rng(0).normal(size=(200, 12)) * np.arange(1, 13)
    xy_M2, explained = principal_plane(feature_ME)
    centred_ME = feature_ME - feature_ME.mean(axis=0)
    _, scale, axis = np.linalg.svd(centred_ME, full_matrices=False)
    for component in range(2):
        loading = axis[component]
        expected = centred_ME @ (loading * np.sign(loading[np.abs(loading).argmax()]))
        np.testing.assert_allclose(xy_M2[:, component], expected, atol=1e-5)  # worst 1.1e-6
        assert explained[component] == pytest.approx(scale[component] ** 2 / (scale**2).sum(), rel=1e-6)
    assert xy_M2.dtype == np.float32


@pytest.mark.parametrize("rows", [0, 1, 4])
def test_principal_plane_of_points_that_do_not_spread_is_zero(rows: int) -> None:
    xy_M2, explained = principal_plane(np.ones((rows, 3)))
    assert (xy_M2.tolist(), explained) == ([[0.0, 0.0]] * rows, (0.0, 0.0))


def test_principal_plane_of_one_wide_features_is_refused() -> None:
    with pytest.raises(ValueError, match="2 wide"):
        principal_plane(np.ones((3, 1)))


def test_feature_map_of_a_sample_names_the_rows_it_drew() -> None:
    feature_NE, table = corpus(300)
    points = feature_map(feature_NE.half(), table, seed=1, most=50)
    row_M = [int(sample, 16) for sample in points.sample_id]
    assert row_M == sorted(set(row_M))
    assert (len(row_M), points.pairs) == (50, 300)
    assert list(points.kept) == [row % 3 == 0 for row in row_M]
    assert list(points.band) == [None if row % 5 == 0 else "support" for row in row_M]
    assert [list(one) for one in points.findings] == [["Hernia", "Mass"] if row % 2 else ["Hernia"] for row in row_M]
    expected_M2, _ = principal_plane(feature_NE[row_M].numpy())
    np.testing.assert_allclose(points.xy_M2, expected_M2, atol=2e-3)  # worst 2.5e-4: float16
    again = feature_map(feature_NE.half(), table, seed=1, most=50)
    np.testing.assert_array_equal(points.xy_M2, again.xy_M2)
    assert feature_map(feature_NE, table, seed=2, most=50).sample_id != points.sample_id


def test_feature_map_of_few_pairs_holds_all() -> None:
    feature_NE, table = corpus(10)
    assert feature_map(feature_NE, table).sample_id == table["sample_id"].to_pylist()


def test_feature_map_rows_that_do_not_match_are_refused() -> None:
    feature_NE, table = corpus(10)
    with pytest.raises(ValueError, match=r"must be \[10, E\]"):
        feature_map(feature_NE[:9], table)
