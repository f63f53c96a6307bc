"""Distances twice: float32 products, which decide fast, and float64 differences, which decide what those leave open.

A product's rounding depends on the device, the number of threads and the place of a row. So nothing that leaves this
room is taken from one: it may only say which of two distances is larger where they differ by more than its error.

Shapes: N rows, R rows of a block, B pairs of a super-batch, K clusters (one a prototype), E feature width.
"""

from __future__ import annotations

import math

import torch

REDUCED = {"tf32": 2.0**-9, "bf16": 2.0**-6}
"""Error of a product over |x||y| where its operands are first rounded to 11 or 8 bits: both, and with room to spare."""

CPU_BYTES, GPU_BYTES = 2**22, 2**30
"""A block of float32 differences: what stays in a processor's cache, and what fills a GPU."""

NARROW = 64
"""Up to this width, all sums are in float64; of wider rows, so many parts of a sum are."""

ORDINARY = 2.0**-60, 2.0**60
"""Squared distances whose float32 parts neither vanish nor overflow."""


def exact_squares(left_NE: torch.Tensor, right_NE: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances of float32 rows, float64 [N], in float64 all through.

    Differences, squares and sums of halves are single operations that IEEE 754 defines to the last bit, in an order
    that only E decides. So two rows have the same distance on every device and in every batch.
    """
    parts = [
        _sum_halves(left_RE.double().sub_(right_RE.double()).square_())
        for left_RE, right_RE in zip(_blocks(left_NE), _blocks(right_NE), strict=True)
    ]
    return torch.cat(parts) if parts else left_NE.new_zeros(0, dtype=torch.float64)


def squares_to(feature_BE: torch.Tensor, prototype_KE: torch.Tensor, cluster_B: torch.Tensor) -> torch.Tensor:
    """Squared distance of each feature to its cluster's prototype, float64 [B], of float32 rows.

    The same on every device and in every batch, like `exact_squares`, at a third of its cost: where E > 64, the
    differences, their squares and the first sums are in float32. Their rounding errors are many and independent, so
    a distance is off by far less than float32's last bit (1.5e-8 of it at worst in 10^5 rows of width 1,024).
    """
    square_B = torch.empty(len(feature_BE), dtype=torch.float64, device=feature_BE.device)
    blocks = _blocks(feature_BE)
    buffer_RE = torch.empty_like(blocks[0]) if blocks else feature_BE
    start = 0
    for feature_RE in blocks:
        rows = slice(start, start + len(feature_RE))
        difference_RE = buffer_RE[: len(feature_RE)]
        torch.index_select(prototype_KE, 0, cluster_B[rows], out=difference_RE)
        torch.sub(feature_RE, difference_RE, out=difference_RE)
        square_B[rows] = _sum_halves(difference_RE.square_())
        start = rows.stop
    least, most = ORDINARY if feature_BE.shape[1] > NARROW else (math.inf, -math.inf)
    row_N = (~((square_B > least) & (square_B < most))).nonzero()[:, 0]
    square_B[row_N] = exact_squares(feature_BE[row_N], prototype_KE[cluster_B[row_N]])
    return square_B


def _blocks(row_NE: torch.Tensor) -> tuple[torch.Tensor, ...]:
    size = CPU_BYTES if row_NE.device.type == "cpu" else GPU_BYTES
    return torch.split(row_NE, max(1, size // (4 * max(row_NE.shape[1], 1)))) if len(row_NE) else ()


def _sum_halves(value_NE: torch.Tensor) -> torch.Tensor:
    """Sums of rows, float64 [N]: the right half is added to the left, again and again. Overwrites `value_NE`."""
    width = value_NE.shape[1]
    while width > NARROW // 2:
        half = width // 2
        value_NE[:, :half] += value_NE[:, width - half : width]
        width -= half
    # Columns as rows, for the last and shortest sums.
    value_EN = value_NE[:, :width].double().T.contiguous()
    while width > 1:
        half = width // 2
        value_EN[:half] += value_EN[width - half : width]
        width -= half
    return value_EN[:1].sum(dim=0)


def product_error(width: int, dtype: torch.dtype, device: torch.device) -> float:
    """How far a matrix product's x . y may be from the true one, over |x||y|, whatever the rows and the order of sums.

    E + 8 units in the last place (Higham 2002, section 3.1), and all of the operands' rounding where PyTorch is set to
    TF32 or bfloat16 for float32.
    """
    backend = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    reduced = REDUCED.get(backend.matmul.fp32_precision, 0.0) if dtype == torch.float32 else 0.0
    return (width + 8) * _unit(dtype) + reduced


def random_product_error(width: int, dtype: torch.dtype, device: torch.device) -> float:
    """The same for rows whose rounding errors are as good as independent: sqrt(E) + 8 units (Higham and Mary 2019).

    Of 40 units at E = 1,024, at worst 10 were measured in 10^7 products. Rows of equal numbers have more (64), and
    show it in the products with themselves.
    """
    return product_error(width, dtype, device) - (width - math.sqrt(width)) * _unit(dtype)


def _unit(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2
