"""Gradient caching: a share of pairs through the towers in parts, for the step of the whole. Needs nothing but torch.

b: pairs of the share; S: image size in pixels; L: tokens; D: embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

Towers = Callable[[torch.Tensor, torch.Tensor], Any]
"""Images [n, S, S] uint8 and tokens [n, L] to image embeddings [n, D], text embeddings [n, D] and one thing more."""


def parts_of(share_sizes: Sequence[int], size: int | None) -> int:
    """In how many parts every worker takes its share, of at most `size` pairs each: the same number on all of them.

    Under ZeRO-3 each part fetches weights from all workers. None: one part.
    """
    return 1 if size is None else max(1, min(-(-max(share_sizes) // size), *share_sizes))


def length_buckets(length_b: Sequence[int], parts: int) -> list[tuple[list[int], int]]:
    """Rows of the share in so many even parts, and how many tokens the longest report of each part has.

    Reports of like length go together, so that little padding goes through the text tower. One part is as it is.
    """
    if parts == 1:
        return [(list(range(len(length_b))), max(length_b, default=1))]
    order = sorted(range(len(length_b)), key=lambda row: length_b[row])
    cuts = [part * len(order) // parts for part in range(parts + 1)]
    return [(order[first:end], length_b[order[end - 1]]) for first, end in pairwise(cuts)]


def embed_in_chunks(
    towers: Towers, image_bSS: torch.Tensor, token_bL: torch.Tensor, length_b: Sequence[int], parts: int
) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """What `towers` gives for the whole share, in so many parts one after the other. `length_b`: tokens.

    The graph then keeps no activations but the chunk's that backward is in, which are computed again: gradient
    caching (Gao et al. 2021, arXiv 2101.06983), by torch's own recomputation, which draws dropout as before.
    """
    buckets = length_buckets(length_b, parts)
    if len(buckets) == 1:
        whole: tuple[torch.Tensor, torch.Tensor, Any] = towers(image_bSS, token_bL[:, : buckets[0][1]])
        return whole
    device = image_bSS.device
    found = []
    for rows, longest in buckets:
        row_n = torch.tensor(rows).to(device, non_blocking=True)
        found.append(checkpoint(towers, image_bSS[row_n], token_bL[row_n, :longest], use_reentrant=False))
    place_b = torch.tensor([row for rows, _ in buckets for row in rows]).argsort().to(device, non_blocking=True)
    image_bD, text_bD = (torch.cat([part[i] for part in found])[place_b] for i in range(2))
    return image_bD, text_bD, found[0][2]
