"""Gradient caching: a share of pairs through the towers in parts, for the step of the whole. Needs nothing but torch.

b: pairs of the share; S: image size in pixels; L: tokens; D: embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

Towers = Callable[[torch.Tensor, torch.Tensor], Any]
"""Images [n, S, S] uint8 and tokens [n, L] to image embeddings [n, D], text embeddings [n, D] and one thing more."""


def length_buckets(length_b: Sequence[int], size: int | None) -> list[tuple[list[int], int]]:
    """Rows of the share in parts of at most `size`, and how many tokens the longest report of each part has.

    Reports of like length go together, so that little padding goes through the text tower. None: one part, as it is.
    """
    if size is None or len(length_b) <= size:
        return [(list(range(len(length_b))), max(length_b))]
    order = sorted(range(len(length_b)), key=lambda row: length_b[row])
    parts = [order[first : first + size] for first in range(0, len(order), size)]
    return [(part, length_b[part[-1]]) for part in parts]


def embed_in_chunks(
    towers: Towers, image_bSS: torch.Tensor, token_bL: torch.Tensor, length_b: Sequence[int], size: int | None
) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """What `towers` gives for the whole share, `size` pairs at a time where there are more. `length_b`: tokens.

    The graph then keeps no activations but the chunk's that backward is in, which are computed again: gradient
    caching (Gao et al. 2021, arXiv 2101.06983), by torch's own recomputation, which draws dropout as before.
    """
    buckets = length_buckets(length_b, size)
    if len(buckets) == 1:
        whole: tuple[torch.Tensor, torch.Tensor, Any] = towers(image_bSS, token_bL[:, : buckets[0][1]])
        return whole
    device = image_bSS.device
    parts = []
    for rows, longest in buckets:
        row_n = torch.tensor(rows).to(device, non_blocking=True)
        parts.append(checkpoint(towers, image_bSS[row_n], token_bL[row_n, :longest], use_reentrant=False))
    place_b = torch.tensor([row for rows, _ in buckets for row in rows]).argsort().to(device, non_blocking=True)
    image_bD, text_bD = (torch.cat([part[i] for part in parts])[place_b] for i in range(2))
    return image_bD, text_bD, parts[0][2]
