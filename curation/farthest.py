"""Farthest points of many clusters at once, by products, which may leave a pick open, or exactly.

Shapes: B pairs of a super-batch, G clusters that are sampled together, n rows of the largest of them (shorter ones
are padded with any rows), E feature width, M picks, C candidates, A picks made last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from chexray.curation.distance import exact_squares, product_error, random_product_error

BLOCK_ROWS = 2**12
"""Rows whose differences are taken at a time: two gathers of 16 MiB at E = 1,024."""

LEAST_CANDIDATES, MOST_CANDIDATES = 8, 64


@dataclass(frozen=True, eq=False)
class Group:
    """Clusters to sample, largest first: the features' rows (int64 [G, n]) and first picks (int64 [G])."""

    row_GN: torch.Tensor
    start_G: torch.Tensor
    sizes: list[int]
    """Members of each."""
    quotas: list[int]
    """Picks wanted of each."""

    @property
    def steps(self) -> int:
        return max(self.quotas)

    def padding(self) -> torch.Tensor:
        """bool [G, n]."""
        size_G = torch.tensor(self.sizes, device=self.row_GN.device)
        return torch.arange(self.row_GN.shape[1], device=self.row_GN.device) >= size_G[:, None]


Picks = tuple[torch.Tensor, torch.Tensor]
"""Positions in their clusters (int64 [G, M]; a cluster's beyond its quota mean nothing), and whether a cluster had a
pick that rounding leaves open (bool [G])."""


def by_products(feature_BE: torch.Tensor, group: Group, dtype: torch.dtype) -> Picks:
    """Picks from a product of all rows with each cluster's last pick; fastest where the rows fit into a cache."""
    if group.steps == 1:
        return group.start_G[:, None], torch.zeros_like(group.start_G, dtype=torch.bool)
    rows = _Rows(feature_BE, group, dtype)
    gap_GN = rows.norm_GN.new_full(rows.norm_GN.shape, torch.inf).masked_fill_(group.padding(), -torch.inf)
    gap_GN.scatter_(1, group.start_G[:, None], -torch.inf)
    pick_MG = group.start_G.expand(group.steps, -1).contiguous()
    # The first pick is given, so nothing is near to it.
    best_MG = gap_GN.new_full(pick_MG.shape, torch.inf)
    next_MG, self_MG = torch.zeros_like(best_MG), torch.zeros_like(best_MG)
    for step in range(1, group.steps):
        last_G1 = pick_MG[step - 1][:, None]
        square_GN = rows.squares(last_G1, rows.all_GNE, rows.norm_GN)[:, 0]
        torch.gather(square_GN, 1, last_G1, out=self_MG[step, :, None])
        torch.minimum(gap_GN, square_GN, out=gap_GN)
        torch.max(gap_GN, dim=1, out=(best_MG[step], pick_MG[step]))
        gap_GN.scatter_(1, pick_MG[step][:, None], -torch.inf)
        torch.amax(gap_GN, dim=1, out=next_MG[step])
    quota_G = torch.tensor(group.quotas, device=gap_GN.device)
    wanted_MG = torch.arange(group.steps, device=gap_GN.device)[:, None] < quota_G
    margin_G = torch.where(wanted_MG, best_MG - next_MG, torch.inf).amin(dim=0)
    # The last pick met no product.
    return pick_MG.T, rows.too_close(margin_G, pick_MG[:-1].T, self_MG[1:].T)


def by_candidates(feature_BE: torch.Tensor, group: Group, dtype: torch.dtype) -> Picks:
    """Picks from products, several for each look at all rows: fastest where those come from main memory.

    Candidates are the rows of largest gap (distance to the nearest pick). Gaps only fall, so a candidate whose gap,
    after picks among the candidates, is still above those of all other rows is the next pick, and those need no look
    until all such picks are made: of C candidates, after m picks, sqrt(m^2 + 2mC) - m if distances were random.
    """
    if group.steps == 1:
        return group.start_G[:, None], torch.zeros_like(group.start_G, dtype=torch.bool)
    rows = _Rows(feature_BE, group, dtype)
    gap_GN = rows.norm_GN.new_full(rows.norm_GN.shape, torch.inf).masked_fill_(group.padding(), -torch.inf)
    quota_G = torch.tensor(group.quotas, device=gap_GN.device)
    pick_GM = group.start_G[:, None].expand(-1, group.steps + MOST_CANDIDATES).contiguous()
    made_G, last_GA = torch.ones_like(quota_G), pick_GM[:, :1]
    margin_G, self_GM = gap_GN.new_full(quota_G.shape, torch.inf), gap_GN.new_zeros(pick_GM.shape)
    made, missing = 1, group.steps - 1
    while missing > 0:
        gap_GN = torch.minimum(gap_GN, rows.squares(last_GA, rows.all_GNE, rows.norm_GN).amin(dim=1))
        gap_GN.scatter_(1, last_GA, -torch.inf)
        count = min(max(LEAST_CANDIDATES, made), MOST_CANDIDATES, 2 * missing, gap_GN.shape[1] - 1)
        top_GC, candidate_GC = gap_GN.topk(count + 1)
        candidate_GC = candidate_GC[:, :count]
        square_GCC = rows.among(candidate_GC)
        place_GC, taken_G, closest_G = _among(top_GC, square_GCC, quota_G - made_G)
        margin_G = torch.minimum(margin_G, closest_G)
        chosen_GC = candidate_GC.gather(1, place_GC)
        slot_GC = made_G[:, None] + torch.arange(count, device=made_G.device)
        pick_GM.scatter_(1, slot_GC, chosen_GC)
        self_GM.scatter_(1, slot_GC, square_GCC.diagonal(dim1=1, dim2=2).gather(1, place_GC))
        made_G += taken_G
        most, made, missing = torch.stack([taken_G.max(), made_G.min(), (quota_G - made_G).max()]).tolist()
        # Where a cluster has fewer, its first again.
        none_GA = torch.arange(most, device=made_G.device) >= taken_G[:, None]
        last_GA = torch.where(none_GA, chosen_GC[:, :1], chosen_GC[:, :most])
    pick_GM, self_GM = pick_GM[:, 1 : group.steps], self_GM[:, 1 : group.steps]
    return torch.cat([group.start_G[:, None], pick_GM], dim=1), rows.too_close(margin_G, pick_GM, self_GM)


class _Rows:
    """The rows of a group, side by side, and squared distances by products."""

    def __init__(self, feature_BE: torch.Tensor, group: Group, dtype: torch.dtype) -> None:
        clusters, longest = group.row_GN.shape
        self.all_GNE = feature_BE.index_select(0, group.row_GN.flatten()).to(dtype).view(clusters, longest, -1)
        self.norm_GN = torch.linalg.vector_norm(self.all_GNE, dim=2).square_()
        self.group_G1 = torch.arange(clusters, device=feature_BE.device)[:, None]

    def squares(self, place_GA: torch.Tensor, other_GCE: torch.Tensor, norm_GC: torch.Tensor) -> torch.Tensor:
        """[G, A, C], of the rows at `place_GA` to others."""
        # The few rows come first: the other way around PyTorch on a CPU takes twice as long.
        square_GAC = torch.baddbmm(norm_GC[:, None], self.all_GNE[self.group_G1, place_GA], other_GCE.mT, alpha=-2)
        return square_GAC.add_(self.norm_GN.gather(1, place_GA)[:, :, None])

    def among(self, place_GC: torch.Tensor) -> torch.Tensor:
        """[G, C, C]."""
        return self.squares(place_GC, self.all_GNE[self.group_G1, place_GC], self.norm_GN.gather(1, place_GC))

    def too_close(self, margin_G: torch.Tensor, pick_GM: torch.Tensor, self_GM: torch.Tensor) -> torch.Tensor:
        """bool [G]: rounding may have decided. `self_GM`: squared distances of picks to themselves, by products."""
        width, dtype = self.all_GNE.shape[2], self.all_GNE.dtype
        bound = random_product_error if dtype == torch.float32 else product_error
        # 0 = 2 |x|^2 - 2 x . x, so both errors show where a more exact norm is at hand.
        pick_GME = self.all_GNE[self.group_G1, pick_GM]
        norm_GM = torch.linalg.vector_norm(pick_GME, dim=2, dtype=torch.float64).square_()
        off_GM = self.norm_GN.gather(1, pick_GM) - norm_GM
        seen_G = torch.maximum(off_GM.abs(), (self_GM / 2 - off_GM).abs()).amax(dim=1)
        error_G = torch.maximum(2 * bound(width, dtype, margin_G.device) * self.norm_GN.amax(dim=1), 8 * seen_G)
        # Not `<=`, which is false where products overflowed.
        return ~(margin_G > 2 * error_G)


def _among(
    top_GC: torch.Tensor, square_GCC: torch.Tensor, missing_G: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The order in which candidates are next (int64 [G, C]), how many of them are, and by how much at least.

    `top_GC`: their gaps, and last the largest of a row that is no candidate. At least one is next.
    """
    gap_GC, bound_G = top_GC[:, :-1].clone(), top_GC[:, -1]
    clusters, count = gap_GC.shape
    group_G = torch.arange(clusters, device=gap_GC.device)
    place_CG = missing_G.new_empty((count, clusters))
    best_CG, next_CG = gap_GC.new_empty((2, count, clusters))
    for step in range(count):
        if step > 0:
            torch.minimum(gap_GC, square_GCC[group_G, place_CG[step - 1]], out=gap_GC)
        torch.max(gap_GC, dim=1, out=(best_CG[step], place_CG[step]))
        gap_GC.scatter_(1, place_CG[step][:, None], -torch.inf)
        torch.amax(gap_GC, dim=1, out=next_CG[step])
    step_C1 = torch.arange(count, device=gap_GC.device)[:, None]
    next_is_CG = ((best_CG >= bound_G) | (step_C1 == 0)) & (step_C1 < missing_G)
    next_is_CG = next_is_CG.int().cumprod(dim=0).bool()
    margin_CG = torch.where(next_is_CG, best_CG - torch.maximum(next_CG, bound_G), torch.inf)
    return place_CG.T, next_is_CG.sum(dim=0), margin_CG.amin(dim=0)


def by_differences(feature_BE: torch.Tensor, group: Group) -> Picks:
    """Exact picks, of equals the first: one pass over all rows a pick. None is left open."""
    gap_GN = torch.full(group.row_GN.shape, torch.inf, dtype=torch.float64, device=group.row_GN.device)
    gap_GN.masked_fill_(group.padding(), -torch.inf)
    pick_GM = group.start_G[:, None].expand(-1, group.steps).contiguous()
    for step in range(1, group.steps):
        last_G1 = pick_GM[:, step - 1 : step]
        gap_GN = torch.minimum(gap_GN, _exact_gaps(feature_BE, group.row_GN, last_G1)).scatter_(1, last_G1, -torch.inf)
        pick_GM[:, step] = gap_GN.max(dim=1).indices
    return pick_GM, torch.zeros_like(group.start_G, dtype=torch.bool)


def _exact_gaps(feature_BE: torch.Tensor, row_GN: torch.Tensor, place_G1: torch.Tensor) -> torch.Tensor:
    """Squared distances [G, n], float64, to the row at each cluster's place."""
    other_GN = row_GN.gather(1, place_G1).expand_as(row_GN)
    blocks = zip(torch.split(row_GN.flatten(), BLOCK_ROWS), torch.split(other_GN.flatten(), BLOCK_ROWS), strict=True)
    return torch.cat([exact_squares(feature_BE[rows], feature_BE[others]) for rows, others in blocks]).view_as(row_GN)
