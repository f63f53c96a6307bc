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

Shapes: B pairs, Q queries, C candidates, K values of k, D embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chexray.evals.statistics import FloatArray
from chexray.evals.zero_shot import unit_vectors

IntArray = npt.NDArray[np.int64]

TIE = 1e-9  # float64 products of unit vectors err by about 1e-15; neighbouring float32 values by 6e-8
RETRIEVAL_VARIANT = "image-to-text over distinct reports, text-to-image to the own image, expected ties"


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
    image_BD: npt.NDArray[np.floating],
    text_BD: npt.NDArray[np.floating],
    report_B: Sequence[str] | npt.NDArray[np.str_],
    ks: Sequence[int] = (1, 5, 10),
    chunk: int = 1024,
) -> Retrieval:
    """Rank every pair's report for its image and its image for its report (see the module's convention).

    `report_B` is the reports' text, or any key that is equal where the text is. Embeddings are normalised
    here. At most `chunk` x `chunk` similarities are held at once; the result does not depend on it. Raises
    ValueError on shapes that do not agree, no pairs, embeddings without direction, and k or chunk below 1.
    """
    image_BD, text_BD = unit_vectors("image_BD", image_BD), unit_vectors("text_BD", text_BD)
    _check(image_BD, text_BD, len(report_B), ks, chunk)
    _, first_C, report_index_B = np.unique(np.asarray(report_B), return_index=True, return_inverse=True)
    own_B = np.arange(len(image_BD))
    return Retrieval(
        _direction(image_BD, text_BD[first_C], report_index_B, tuple(ks), chunk),
        _direction(text_BD, image_BD, own_B, tuple(ks), chunk),
    )


def _direction(
    query_QD: FloatArray, candidate_CD: FloatArray, target_Q: IntArray, ks: tuple[int, ...], chunk: int
) -> DirectedRetrieval:
    own_Q = np.einsum("qd,qd->q", query_QD, candidate_CD[target_Q])
    ahead_Q, level_Q = np.zeros(len(query_QD), np.int64), np.zeros(len(query_QD), np.int64)
    for start in range(0, len(query_QD), chunk):
        rows = slice(start, start + chunk)
        for column in range(0, len(candidate_CD), chunk):
            lead_QC = query_QD[rows] @ candidate_CD[column : column + chunk].T - own_Q[rows, None]
            ahead = lead_QC > TIE
            ahead_Q[rows] += ahead.sum(axis=1)
            level_Q[rows] += ((lead_QC >= -TIE) & ~ahead).sum(axis=1)
    return DirectedRetrieval(ahead_Q, level_Q - 1, len(candidate_CD), ks)  # the target is level with itself


def _check(image_BD: FloatArray, text_BD: FloatArray, reports: int, ks: Sequence[int], chunk: int) -> None:
    if image_BD.ndim != 2 or image_BD.shape != text_BD.shape or reports != len(image_BD) or not reports:
        raise ValueError(
            f"image_BD, text_BD, report_B have shapes {image_BD.shape}, {text_BD.shape}, ({reports},); "
            "allowed: (B, D), (B, D), (B,) with B >= 1"
        )
    if not ks or min(ks) < 1:
        raise ValueError(f"ks is {tuple(ks)}; allowed: one or more numbers from 1")
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; allowed: 1 or more")
