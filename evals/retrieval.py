"""Image-text retrieval in both directions: recall@k and mean rank by cosine similarity.

The convention, which reproduces the reference's published numbers:
- image to text: every image asks; the candidates are the *distinct* reports, each once, with the embedding
  of its first occurrence; the target is the image's own report. So identical reports are one target.
- text to image: every pair's report asks (a repeated report asks as often as it occurs); the candidates are
  all images; the target is the image of that very pair. Images that share its report count as wrong.
- ranks start at 1.
The reference's numbers contain no ties. Here a tie is broken at random, in expectation: with `a` candidates
ahead of the target and `t` level with it, the rank is 1 + a + t / 2 and the hit at k is the probability
that the target is among the first k. So an encoder that maps everything to one point scores at chance, not
perfectly. Similarities within `TIE` of each other are level, so that the rounding of a matrix product,
which depends on the shape of its blocks, decides nothing.

Embeddings are read block by block, in whatever precision they are stored, and compared in float64: a float32
product of width 512 may err by 3e-5 (Higham 2002, section 3.1), which orders neighbours at random. Where embeddings
do not fit in memory, `StoredRows` reads them from a file.

Shapes: B pairs, Q queries, C candidates, K values of k, D embedding width.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from chexray.evals.statistics import FloatArray
from chexray.evals.zero_shot import unit_vectors

IntArray = npt.NDArray[np.int64]
CHUNK = 2048  # 32 MB of similarities

TIE = 1e-9  # float64 products of unit vectors err by about 1e-15; neighbouring float32 values by 6e-8
RETRIEVAL_VARIANT = "image-to-text over distinct reports, text-to-image to the own image, expected ties"


class Rows(Protocol):
    """What embeddings come as: an array [N, D], or anything that gives some of its rows as one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: Any, /) -> Any:
        """The rows of a slice, or of an array of row numbers, as an array."""


@dataclass(frozen=True)
class StoredRows:
    """The rows of a local `.npy` file [N, D] in C order, of which no more is in memory than is asked for.

    They are read, not mapped: pages of an `np.memmap` stay with the process that has looked at them, and one row
    brings up to a megabyte of its neighbours with it. Raises ValueError where the file holds something else.
    """

    file: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self._layout[0]

    def __getitem__(self, rows: slice | IntArray, /) -> npt.NDArray[np.floating]:
        (count, width), dtype, offset = self._layout
        row_n = np.arange(count)[rows]
        part_nD = np.empty((len(row_n), width), dtype)
        ends = np.flatnonzero(np.diff(row_n) != 1) + 1  # where a run of neighbours ends
        with Path(self.file).open("rb") as stream:
            for run, place in zip(np.split(row_n, ends), np.split(part_nD, ends), strict=True):
                stream.seek(offset + int(run[0] if len(run) else 0) * width * dtype.itemsize)
                place[...] = np.fromfile(stream, dtype, place.size).reshape(place.shape)
        return part_nD

    @cached_property
    def _layout(self) -> tuple[tuple[int, int], np.dtype[Any], int]:
        """Shape, type, and at which byte the rows start."""
        found = np.load(self.file, mmap_mode="r")
        if found.ndim != 2 or not found.flags.c_contiguous or not np.issubdtype(found.dtype, np.floating):
            raise ValueError(f"{self.file}: holds {found.dtype} {found.shape}; allowed: floats (N, D) in C order")
        return (found.shape[0], found.shape[1]), found.dtype, found.offset


@dataclass(frozen=True)
class DirectedRetrieval:
    """Per query [Q], in the order of the pairs: candidates `ahead` of the target and `tied` with it."""

    ahead: IntArray
    tied: IntArray
    candidates: int
    ks: tuple[int, ...]

    @property
    def rank(self) -> FloatArray:
        """The target's expected rank [Q], float64 from 1 to `candidates`."""
        return np.asarray(1 + self.ahead + self.tied / 2)

    def hit(self, k: int) -> FloatArray:
        """Probability [Q] that the target is among the first `k`: 0 or 1 where nothing is tied."""
        return np.asarray(np.clip((k - self.ahead) / (1 + self.tied), 0.0, 1.0))

    @property
    def hits(self) -> FloatArray:
        """`hit` for each of `ks` [Q, K]: the per-query values whose means are the recalls."""
        return np.column_stack([self.hit(k) for k in self.ks])

    @property
    def recall(self) -> dict[int, float]:
        """Recall@k in [0, 1] for each of `ks`."""
        return {k: float(self.hit(k).mean()) for k in self.ks}

    @property
    def mean_rank(self) -> float:
        return float(self.rank.mean())


@dataclass(frozen=True)
class Retrieval:
    """Both directions over the same pairs."""

    image_to_text: DirectedRetrieval
    text_to_image: DirectedRetrieval


def retrieve(
    image_BD: Rows,
    text_BD: Rows,
    report_B: Sequence[Hashable] | npt.NDArray[np.str_],
    ks: Sequence[int] = (1, 5, 10),
    chunk: int = CHUNK,
) -> Retrieval:
    """Rank every pair's report for its image and its image for its report (see the module's convention).

    `report_B` is the reports' text, or any key that is equal where the text is. Embeddings are normalised
    here. At most `chunk` x `chunk` similarities are held at once; the result does not depend on it. Raises
    ValueError on shapes that do not agree, no pairs, embeddings without direction, and k or chunk below 1.
    """
    _check_pairs(image_BD.shape, text_BD.shape, len(report_B))
    _check_options(ks, chunk)
    for name, row_BD in (("image_BD", image_BD), ("text_BD", text_BD)):
        _check_directions(name, row_BD, chunk)
    first_C, report_index_B = _distinct(report_B)
    own_B = np.arange(len(report_index_B))
    return Retrieval(
        _ranked(image_BD, text_BD, first_C, report_index_B, tuple(ks), chunk),
        _ranked(text_BD, image_BD, own_B, own_B, tuple(ks), chunk),
    )


def rank_targets(
    query_QD: Rows,
    candidate_CD: Rows,
    target_Q: IntArray,
    ks: Sequence[int] = (1, 5, 10),
    chunk: int = CHUNK,
) -> DirectedRetrieval:
    """Rank candidate `target_Q[q]` among all candidates for each query: one direction, over any two sets.

    Memory: `chunk` x `chunk` similarities and two blocks of `chunk` rows in float64, beside the inputs. Raises
    ValueError as `retrieve` does, and on targets that are no candidate.
    """
    target_Q, shapes = np.asarray(target_Q), (query_QD.shape, candidate_CD.shape)
    if any(len(shape) != 2 for shape in shapes) or shapes[0][1] != shapes[1][1] or target_Q.shape != shapes[0][:1]:
        raise ValueError(
            f"query_QD, candidate_CD, target_Q have shapes {shapes[0]}, {shapes[1]}, {target_Q.shape}; "
            "allowed: (Q, D), (C, D), (Q,)"
        )
    count = shapes[1][0]
    if not target_Q.size or target_Q.min() < 0 or target_Q.max() >= count:
        raise ValueError(f"target_Q holds no or other candidates than the {count} that there are; allowed: 0 to C - 1")
    _check_options(ks, chunk)
    for name, row_ND in (("query_QD", query_QD), ("candidate_CD", candidate_CD)):
        _check_directions(name, row_ND, chunk)
    return _ranked(query_QD, candidate_CD, np.arange(count), target_Q, tuple(ks), chunk)


def _ranked(
    query_QD: Rows, row_ND: Rows, candidate_C: IntArray, target_Q: IntArray, ks: tuple[int, ...], chunk: int
) -> DirectedRetrieval:
    """`candidate_C`: which rows of `row_ND` are the candidates, ascending."""
    ahead_Q, level_Q = np.zeros(len(target_Q), np.int64), np.zeros(len(target_Q), np.int64)
    for start in range(0, len(target_Q), chunk):
        rows = slice(start, start + chunk)
        query_qD = unit_vectors("query", query_QD[rows])
        own_q1 = np.einsum("qd,qd->q", query_qD, unit_vectors("target", row_ND[candidate_C[target_Q[rows]]]))[:, None]
        for column in range(0, len(candidate_C), chunk):
            candidate_cD = unit_vectors("candidate", row_ND[candidate_C[column : column + chunk]])
            similarity_qc = query_qD @ candidate_cD.T
            ahead_q = np.count_nonzero(similarity_qc > own_q1 + TIE, axis=1)
            ahead_Q[rows] += ahead_q
            level_Q[rows] += np.count_nonzero(similarity_qc >= own_q1 - TIE, axis=1) - ahead_q
    return DirectedRetrieval(ahead_Q, level_Q - 1, len(candidate_C), ks)  # the target is level with itself


def _distinct(report_B: Sequence[Hashable] | npt.NDArray[np.str_]) -> tuple[IntArray, IntArray]:
    """Where each distinct report occurs first [C], ascending, and which of them each pair's is [B].

    By a dictionary: an array of a million texts would take four bytes for each character of the longest.
    """
    number: dict[Hashable, int] = {}
    index_B = np.fromiter((number.setdefault(report, len(number)) for report in report_B), np.int64, len(report_B))
    return np.unique(index_B, return_index=True)[1], index_B


def _check_directions(name: str, row_ND: Rows, chunk: int) -> None:
    for start in range(0, row_ND.shape[0], chunk):
        unit_vectors(name, row_ND[start : start + chunk])


def _check_pairs(image: tuple[int, ...], text: tuple[int, ...], reports: int) -> None:
    if len(image) != 2 or image != text or reports != image[0] or not reports:
        raise ValueError(
            f"image_BD, text_BD, report_B have shapes {image}, {text}, ({reports},); "
            "allowed: (B, D), (B, D), (B,) with B >= 1"
        )


def _check_options(ks: Sequence[int], chunk: int) -> None:
    if not ks or min(ks) < 1:
        raise ValueError(f"ks is {tuple(ks)}; allowed: one or more numbers from 1")
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; allowed: 1 or more")
