"""A map of the corpus: its features in two dimensions, with what a reader needs to know about each point.

Shapes: N pairs of the corpus, M points of the map, E feature width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA

MOST_POINTS = 5_000
"""More are slow to draw in a browser, and lie on top of each other."""


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Points in the order of the corpus. It holds no report."""

    xy_M2: npt.NDArray[np.float32]
    """The first two principal components."""
    explained: tuple[float, float]
    """Each component's share of the variance of the points, 0 to 1."""
    pairs: int
    """Of how many pairs the points are a random sample."""
    sample_id: Sequence[str]
    band: Sequence[str | None]
    kept: Sequence[bool]
    findings: Sequence[Sequence[str]]
    """The findings that are known to be present."""


def feature_map(feature_NE: torch.Tensor, corpus: pa.Table, seed: int = 0, most: int = MOST_POINTS) -> FeatureMap:
    """The map of at most `most` pairs, drawn with `seed`.

    `feature_NE`: any float type, a row a row of `corpus`; the rows drawn are normalised. `corpus` has the columns
    `sample_id`, `band` (string or null), `kept` and `labels` (map of finding to 1, 0 or null). Raises ValueError
    where the rows do not match.
    """
    if feature_NE.dim() != 2 or len(feature_NE) != corpus.num_rows:
        raise ValueError(f"feature_NE {tuple(feature_NE.shape)} must be [{corpus.num_rows}, E], a row a row of corpus")
    if most < 1:
        raise ValueError(f"most={most} must be at least 1")
    drawn = np.random.default_rng(seed).choice(len(feature_NE), min(most, len(feature_NE)), replace=False)
    row_M = np.sort(drawn)
    unit_ME = F.normalize(feature_NE[torch.from_numpy(row_M).to(feature_NE.device)].float(), dim=1)
    xy_M2, explained = principal_plane(unit_ME.cpu().numpy())
    rows = corpus.select(["sample_id", "band", "kept", "labels"]).take(pa.array(row_M))
    return FeatureMap(
        xy_M2=xy_M2,
        explained=explained,
        pairs=corpus.num_rows,
        sample_id=rows["sample_id"].to_pylist(),
        band=rows["band"].to_pylist(),
        kept=rows["kept"].to_pylist(),
        findings=[[name for name, value in labels or () if value] for labels in rows["labels"].to_pylist()],
    )


def principal_plane(
    feature_ME: npt.NDArray[np.floating],
) -> tuple[npt.NDArray[np.float32], tuple[float, float]]:
    """float32 [M, 2], and the two components' shares of the variance; 0 where the points do not spread.

    Signs are fixed: in each component the loading of largest size is positive. Raises ValueError where E < 2.
    """
    points, width = feature_ME.shape
    if width < 2:
        raise ValueError(f"feature_ME {feature_ME.shape} must be at least 2 wide")
    centred_ME = feature_ME.astype(np.float64)
    centred_ME -= centred_ME.mean(axis=0) if points else 0.0
    if points < 2 or not centred_ME.any():
        return np.zeros((points, 2), np.float32), (0.0, 0.0)
    plane = PCA(2, svd_solver="covariance_eigh").fit(centred_ME)
    axis_2E = plane.components_
    sign_2 = np.sign(axis_2E[[0, 1], np.abs(axis_2E).argmax(axis=1)])
    first, second = plane.explained_variance_ratio_
    return (centred_ME @ (axis_2E * sign_2[:, None]).T).astype(np.float32), (float(first), float(second))
