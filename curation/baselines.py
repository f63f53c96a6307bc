"""Baselines that score a pair by itself: chance, strata, image-text similarity, learnability.

Each is a pure function of ids, features and settings that keeps exactly `count` pairs. Ties go by sample id, and no
result depends on the order of rows. Shapes: N pairs, D embedding width, B pairs of a contrastive batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from chexray.curation.sampling import water_fill
from chexray.platform.corpus.schema import NO_FINDING, seeded_fraction

KeepMask = npt.NDArray[np.bool_]
"""[N], True for the pairs kept, in the order in which the pairs were given."""

NO_STRATUM = "none"
"""The stratum of pairs without a positive finding."""


def keep_lowest(score_N: npt.NDArray[np.floating], sample_id: Sequence[str], count: int) -> KeepMask:
    """The `count` pairs of lowest score; of equals, those of lowest id."""
    keep_N = np.zeros(len(sample_id), dtype=np.bool_)
    keep_N[np.lexsort((id_array(sample_id), score_N))[:count]] = True
    return keep_N


def keep_random(sample_id: Sequence[str], count: int, seed: int) -> KeepMask:
    """The `count` pairs whose seeded hash is lowest: a larger count keeps the same pairs and more."""
    return keep_lowest(seeded_draws(sample_id, seed), sample_id, count)


def keep_stratified(sample_id: Sequence[str], stratum_N: Sequence[str], count: int, seed: int) -> KeepMask:
    """Equal shares of the strata by water filling, and in each stratum the pairs whose seeded hash is lowest.

    Stratified random sampling (Cochran 1977, Sampling Techniques) with equal, not proportional, allocation: strata
    below the water level are kept whole. What does not divide goes one each to the first strata by name.
    """
    _, stratum_index_N, size_S = np.unique(np.array(stratum_N, dtype=np.str_), return_inverse=True, return_counts=True)
    quota_S = np.array(water_fill(count, size_S.tolist()), dtype=np.int64)
    order_N = np.lexsort((id_array(sample_id), seeded_draws(sample_id, seed), stratum_index_N))
    sorted_N = stratum_index_N[order_N]
    place_N = np.arange(len(order_N)) - (size_S.cumsum() - size_S)[sorted_N]
    keep_N = np.zeros(len(sample_id), dtype=np.bool_)
    keep_N[order_N] = place_N < quota_S[sorted_N]
    return keep_N


def rarest_finding(labels: Sequence[Mapping[str, int | None]]) -> list[str]:
    """The stratum of each pair by its labels: its positive finding that is positive in the fewest of these pairs.

    Of equals, the first by name; `NO_STRATUM` where no finding is positive. "No Finding" is not a finding here.
    Rarity is the count of positives, not their share of the known labels: a stratum's size is a count, and a finding
    that only one small dataset labels is rare in the corpus however frequent it is there. Labels are 1, 0 or None
    (unknown); anything else raises ValueError.
    """
    bad = sorted({repr(value) for label in labels for value in label.values() if value not in (0, 1, None)})
    if bad:
        raise ValueError(f"labels={', '.join(bad[:5])} must be 1, 0 or None")
    positives = [[name for name, value in label.items() if value == 1 and name != NO_FINDING] for label in labels]
    count = Counter(name for names in positives for name in names)
    return [min(names, key=lambda name: (count[name], name), default=NO_STRATUM) for names in positives]


def keep_similar(
    image_ND: torch.Tensor, text_ND: torch.Tensor, sample_id: Sequence[str], count: int, block: int
) -> KeepMask:
    """The `count` pairs whose image and text have the highest cosine similarity.

    CLIP score filtering, a baseline of DataComp (Gadre et al. 2023, arXiv 2304.14108). CLIPScore itself (Hessel et al.
    2021, arXiv 2104.08718) is 2.5 * max(cosine, 0): the same order, but for the cut at 0, which would tie pairs.
    """
    cosine_N = [
        (to_grid(F.normalize(image.float(), dim=1)).double() * to_grid(F.normalize(text.float(), dim=1))).sum(dim=1)
        for image, text in zip(torch.split(image_ND, block), torch.split(text_ND, block), strict=True)
    ]
    return keep_lowest(-torch.cat(cosine_N).cpu().numpy(), sample_id, count)


def keep_learnable(
    learner_loss_N: torch.Tensor, reference_loss_N: torch.Tensor, sample_id: Sequence[str], count: int
) -> KeepMask:
    """The `count` pairs of highest learnability, learner loss - reference loss: hard for one, easy for the other.

    The score is that of JEST (Evans et al. 2024, arXiv 2406.17711), but the pairs are scored one by one, as RHO-LOSS
    does (Mindermann et al. 2022, arXiv 2206.07137, equation 3). JEST draws sub-batches jointly: chunk by chunk, with
    logits that condition on the pairs drawn so far through the B x B matrices of both models' sigmoid losses. That
    chooses a batch for the current learner at each step; a subset is chosen once, from losses that InfoNCE does not
    split into pairs of pairs. Evans et al. find joint selection better than this one.
    """
    learnability_N = learner_loss_N.double() - reference_loss_N.double()
    return keep_lowest(-learnability_N.cpu().numpy(), sample_id, count)


@torch.no_grad()
def pair_losses(
    image_ND: torch.Tensor, text_ND: torch.Tensor, logit_scale: float, batch: int, sample_id: Sequence[str]
) -> torch.Tensor:
    """float32 [N]: each pair's symmetric InfoNCE loss (Radford et al. 2021, figure 3) among the pairs of its batch.

    The embeddings are unit rows, `logit_scale` is exponentiated already. Batches are `batch` pairs each in the order of
    ids, which are hashes and so shuffle the corpus. The last batch reaches back until it is full, and only the pairs
    that are not in an earlier batch take their loss from it: all losses have the same number of negatives. With less
    than `batch` pairs there is one batch of all. Raises ValueError where batch < 2, N < 2 or shapes differ.
    """
    pairs = len(sample_id)
    if image_ND.dim() != 2 or image_ND.shape != text_ND.shape or len(image_ND) != pairs:
        shapes = f"image_ND {tuple(image_ND.shape)} and text_ND {tuple(text_ND.shape)}"
        raise ValueError(f"{shapes} must be equal, [N, D], with a row for each of {pairs} sample ids")
    if batch < 2 or pairs < 2:
        raise ValueError(f"batch={batch} and the number of pairs, {pairs}, must be at least 2: a loss needs negatives")
    row_N = torch.from_numpy(np.argsort(id_array(sample_id))).to(image_ND.device)
    loss_N = torch.empty(pairs, dtype=torch.float32, device=image_ND.device)
    size = min(batch, pairs)
    for first in range(0, pairs, size):
        start = min(first, pairs - size)
        row_B = row_N[start : start + size]
        loss_B = _batch_losses(image_ND[row_B].double(), text_ND[row_B].double(), logit_scale)
        loss_N[row_B[first - start :]] = loss_B[first - start :].float()
    return loss_N


def _batch_losses(image_BD: torch.Tensor, text_BD: torch.Tensor, logit_scale: float) -> torch.Tensor:
    logits_BB = logit_scale * image_BD @ text_BD.T
    target_B = torch.arange(len(logits_BB), device=logits_BB.device)
    from_image_B = F.cross_entropy(logits_BB, target_B, reduction="none")
    return (from_image_B + F.cross_entropy(logits_BB.T, target_B, reduction="none")) / 2


def to_grid(unit_NE: torch.Tensor) -> torch.Tensor:
    """float32 [N, E], rounded to multiples of 2**-24, at most 3e-8 away.

    Products of two such numbers are multiples of 2**-48, and sums of them below 32 fit float64 without rounding. So
    the inner products of unit rows are exact: whatever the block, order, threads or library, ties included.
    """
    return torch.round(unit_NE.double() * 2**24).div(2**24).float()


def seeded_draws(sample_id: Sequence[str], seed: int) -> npt.NDArray[np.float64]:
    """[N] uniform in [0, 1), from `seed` and each pair's id alone."""
    return np.array([seeded_fraction(seed, "random-subset", sample) for sample in sample_id], dtype=np.float64)


def id_array(sample_id: Sequence[str]) -> npt.NDArray[np.str_]:
    """[N] of fixed width, which sorts as the ids do."""
    return np.array(sample_id, dtype=np.str_)
