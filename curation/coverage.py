"""Coverage: how far the corpus lies from the pairs that were kept, and how alike the kept pairs are among themselves.

Shapes: N pairs of the corpus, E feature width, Q pairs asked about, T pairs to be near to, B and C blocks of these.

A distance between unit rows is taken in two steps: the nearest row by one matrix product in float32, and then the
length of the difference to that row alone. So a copy is at distance 0, where the product's rounding would say 4e-4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import torch.nn.functional as F
from scipy.stats import hypergeom

from chexray.platform.corpus.duplicates import NEAR_DUPLICATE_BITS, hash_matrix
from chexray.platform.corpus.hamming import pairs_within

MAX_PRODUCTS = 2_000_000_000
"""Products of two features for one measure; beyond, pairs are drawn at random: of the paper's corpus (1,235,004 pairs,
280,346 kept) 7,134. 1,024 wide they take a minute and a half on one core; an audit takes four measures."""

NEAR_COSINE = 0.99
"""Two pairs whose features are at least this alike are taken to say the same: 0.14 apart, where strangers are 1.4."""

_BLOCK = 4096


@dataclass(frozen=True)
class Coverage:
    """Euclidean distances from features of the corpus to the nearest kept feature, from 0 to 2."""

    pairs: int
    kept: int
    largest: float
    """The covering radius; of a sample it is a lower bound."""
    mean: float
    p95: float
    sampled: int | None
    """How many features of the corpus were drawn to measure it; None: it is exact."""


@dataclass(frozen=True)
class NearFeatures:
    """How many of `measured` kept pairs have another kept pair with cosine `cosine` or more."""

    cosine: float
    kept: int
    near: int
    measured: int
    sampled: int | None
    """How many kept pairs were drawn to measure it; None: all were."""


def coverage(
    feature_NE: torch.Tensor,
    keep_N: torch.Tensor,
    seed: int = 0,
    block: int = _BLOCK,
    max_products: int = MAX_PRODUCTS,
) -> Coverage:
    """Largest, mean and 95th percentile (linear) of the distance from the corpus' features to the kept ones.

    `feature_NE`: pair features of any float type; rows are taken to float32 and normalised block by block, so memory
    is two blocks and their product (`block` squared), and two unit embeddings side by side will do. `keep_N`: bool.
    Where the products are more than `max_products`, the features asked are a sample drawn with `seed`. Raises
    ValueError where nothing is kept, or where a feature has no direction (zero, infinite or NaN).
    """
    _check(feature_NE, keep_N, block, max_products)
    kept_T = keep_N.nonzero()[:, 0]
    if len(kept_T) == 0:
        raise ValueError("keep_N keeps no pair; there must be one or more")
    asked_Q, sampled = _draw(torch.arange(len(feature_NE)), len(kept_T), seed, max_products)
    # A kept pair is at 0 from itself: only the others are asked.
    other_Q = asked_Q[~keep_N[asked_Q]]
    nearest_Q = _nearest(feature_NE, other_Q, kept_T, block)
    distance_Q = np.zeros(len(asked_Q))
    distance_Q[: len(other_Q)] = _distances(feature_NE, other_Q, nearest_Q, block)
    return Coverage(
        pairs=len(feature_NE),
        kept=len(kept_T),
        largest=float(distance_Q.max()),
        mean=float(distance_Q.mean()),
        p95=float(np.quantile(distance_Q, 0.95)),
        sampled=sampled,
    )


def coverage_of_random(
    feature_NE: torch.Tensor,
    keep_N: torch.Tensor,
    seed: int = 0,
    block: int = _BLOCK,
    max_products: int = MAX_PRODUCTS,
) -> Coverage:
    """`coverage` of as many pairs as `keep_N` keeps, drawn at random: the yardstick. The same pairs are asked."""
    return coverage(feature_NE, random_keep_like(keep_N, seed), seed, block, max_products)


def near_features(
    feature_NE: torch.Tensor,
    keep_N: torch.Tensor,
    cosine: float = NEAR_COSINE,
    seed: int = 0,
    block: int = _BLOCK,
    max_products: int = MAX_PRODUCTS,
) -> NearFeatures:
    """How many kept pairs have a semantic near-duplicate among the kept: the idea of SemDeDup (Abbas et al. 2023).

    Arguments and errors as of `coverage`; `cosine` is in [-1, 1].
    """
    _check(feature_NE, keep_N, block, max_products)
    if not -1 <= cosine <= 1:
        raise ValueError(f"cosine={cosine} must be from -1 to 1")
    kept_T = keep_N.nonzero()[:, 0]
    asked_Q, sampled = _draw(kept_T, len(kept_T), seed, max_products)
    near = 0
    if len(kept_T) > 1:
        nearest_Q = _nearest(feature_NE, asked_Q, kept_T, block)
        # Of unit rows the squared distance is 2 - 2 * cosine.
        apart_Q = _distances(feature_NE, asked_Q, nearest_Q, block)
        near = int((apart_Q**2 <= 2 - 2 * cosine + 1e-9).sum())
    return NearFeatures(cosine, len(kept_T), near, len(asked_Q), sampled)


@dataclass(frozen=True)
class Copies:
    """How many pairs have at least one copy: in the corpus, among the kept, and among as many at random (the mean)."""

    corpus: int
    kept: int
    kept_if_random: float


def same_pixels(pixel_hash: pa.ChunkedArray, keep_N: npt.NDArray[np.bool_]) -> Copies:
    """Copies with equal pixels. ValueError where a hash is null."""
    if pixel_hash.null_count:
        raise ValueError(f"pixel_hash is null for {pixel_hash.null_count} pairs; it must be a string")
    _, image_N, copies_N = np.unique(pixel_hash.to_numpy(), return_inverse=True, return_counts=True)
    kept_copies_N = np.bincount(image_N[keep_N], minlength=len(copies_N))
    return _copies(copies_N[image_N] - 1, kept_copies_N[image_N[keep_N]] - 1)


def near_images(
    perceptual_hash: pa.ChunkedArray, keep_N: npt.NDArray[np.bool_], max_distance: int = NEAR_DUPLICATE_BITS
) -> Copies:
    """Copies whose hashes differ in at most `max_distance` bits (see `chexray.platform.corpus.duplicates`)."""
    near_P2 = pairs_within(hash_matrix(perceptual_hash), max_distance)[:, :2]
    kept_P2 = near_P2[keep_N[near_P2].all(axis=1)]
    copies_N, kept_copies_N = (np.bincount(pairs_P2.ravel(), minlength=len(keep_N)) for pairs_P2 in (near_P2, kept_P2))
    return _copies(copies_N, kept_copies_N[keep_N])


def _copies(copies_N: npt.NDArray[np.integer], kept_copies_K: npt.NDArray[np.integer]) -> Copies:
    """From the number of copies of each pair of the corpus, and of each kept pair among the kept.

    A pair with d copies is kept by a random draw of K with chance K / N, and then all d are left out with the
    hypergeometric chance of none among the other K - 1.
    """
    pairs, kept = len(copies_N), len(kept_copies_K)
    expected = 0.0
    if kept:
        number, times = np.unique(copies_N[copies_N > 0], return_counts=True)
        expected = float((1 - hypergeom.pmf(0, pairs - 1, number, kept - 1)) @ times) * kept / pairs
    return Copies(int((copies_N > 0).sum()), int((kept_copies_K > 0).sum()), expected)


def random_keep_like(keep_N: torch.Tensor, seed: int) -> torch.Tensor:
    """bool [N]: as many as `keep_N` keeps, drawn at random."""
    drawn = np.random.default_rng([seed, 1]).choice(len(keep_N), int(keep_N.sum()), replace=False)
    random_N = torch.zeros(len(keep_N), dtype=torch.bool)
    random_N[torch.from_numpy(drawn)] = True
    return random_N


def _draw(row_N: torch.Tensor, targets: int, seed: int, max_products: int) -> tuple[torch.Tensor, int | None]:
    """All rows; or, where these are too many for `targets` products each, a sorted sample and its size."""
    most = max(1, max_products // max(targets, 1))
    if len(row_N) <= most:
        return row_N, None
    drawn = np.sort(np.random.default_rng([seed, 0]).choice(len(row_N), most, replace=False))
    return row_N[torch.from_numpy(drawn)], most


@torch.no_grad()
def _nearest(feature_NE: torch.Tensor, asked_Q: torch.Tensor, target_T: torch.Tensor, block: int) -> torch.Tensor:
    """int64 [Q]: for each asked row, the row of `target_T` of largest cosine that is not itself."""
    found = []
    for asked_B in torch.split(asked_Q, block):
        query_BE = _unit(feature_NE, asked_B)
        best_B = torch.full((len(asked_B),), -torch.inf, device=feature_NE.device)
        nearest_B = torch.full_like(asked_B, -1)
        for target_C in torch.split(target_T, block):
            cosine_BC = query_BE @ _unit(feature_NE, target_C).T
            cosine_BC.masked_fill_((asked_B[:, None] == target_C).to(cosine_BC.device), -torch.inf)
            top_B, place_B = cosine_BC.max(dim=1)
            nearest_B = torch.where((top_B > best_B).cpu(), target_C[place_B.cpu()], nearest_B)
            best_B = torch.maximum(best_B, top_B)
        found.append(nearest_B)
    return torch.cat(found) if found else asked_Q


@torch.no_grad()
def _distances(
    feature_NE: torch.Tensor, one_Q: torch.Tensor, other_Q: torch.Tensor, block: int
) -> npt.NDArray[np.float64]:
    """float64 [Q]: Euclidean distance between the unit rows of each two."""
    apart = [
        torch.linalg.vector_norm(_unit(feature_NE, one_B).double() - _unit(feature_NE, other_B).double(), dim=1).cpu()
        for one_B, other_B in zip(torch.split(one_Q, block), torch.split(other_Q, block), strict=True)
    ]
    return np.asarray(torch.cat(apart).numpy()) if apart else np.zeros(0)


def _unit(feature_NE: torch.Tensor, row_B: torch.Tensor) -> torch.Tensor:
    """float32 [B, E], normalised: norms of float16 features are 1 to three digits only."""
    row_BE = feature_NE[row_B.to(feature_NE.device)].float()
    norm_B = torch.linalg.vector_norm(row_BE, dim=1)
    wrong = len(row_B) - int((torch.isfinite(norm_B) & (norm_B > 1e-6)).sum())
    if wrong:
        raise ValueError(f"feature_NE must be finite and not zero; {wrong} rows of a block of {len(row_B)} are not")
    return F.normalize(row_BE, dim=1)


def _check(feature_NE: torch.Tensor, keep_N: torch.Tensor, block: int, max_products: int) -> None:
    if feature_NE.dim() != 2 or not feature_NE.is_floating_point():
        raise ValueError(
            f"feature_NE is {feature_NE.dtype} {tuple(feature_NE.shape)}; it must be floating point [N, E]"
        )
    if keep_N.shape != feature_NE.shape[:1] or keep_N.dtype != torch.bool:
        raise ValueError(
            f"keep_N is {keep_N.dtype} {tuple(keep_N.shape)}; it must be bool [{len(feature_NE)}], one a feature"
        )
    if block < 1 or max_products < 1:
        raise ValueError(f"block={block} and max_products={max_products} must be at least 1")
