"""Zero-shot classification: which of two prompts an image is nearer to, and how well that ranks images.

Shapes: B images, F findings, 2 prompts (positive, negative), D embedding width.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from chexray.evals.statistics import FloatArray, weighted_auroc


def zero_shot_probability(image_BD: npt.NDArray[np.floating], text_F2D: npt.NDArray[np.floating]) -> FloatArray:
    """Probability that each finding is present in each image: probability_BF, float64 in [0.12, 0.88].

    Softmax over the cosine similarities with the positive (`text_F2D[:, 0]`) and the negative prompt, without
    the logit scale: CheXzero's form (Tiu et al. 2022, Methods), without its ensemble of checkpoints. Rows are
    normalised here, so that embeddings stored in half precision count as unit vectors too. Raises ValueError
    on shapes that do not agree and on embeddings that have no direction.
    """
    image_BD, text_F2D = unit_vectors("image_BD", image_BD), unit_vectors("text_F2D", text_F2D)
    if image_BD.ndim != 2 or text_F2D.ndim != 3 or text_F2D.shape[1:] != (2, image_BD.shape[1]):
        raise ValueError(
            f"image_BD, text_F2D have shapes {image_BD.shape}, {text_F2D.shape}; allowed: (B, D), (F, 2, D)"
        )
    positive_BF, negative_BF = image_BD @ text_F2D[:, 0].T, image_BD @ text_F2D[:, 1].T
    probability_BF: FloatArray = 1 / (1 + np.exp(negative_BF - positive_BF))
    return probability_BF


def auroc_per_finding(probability_BF: npt.NDArray[np.floating], target_BF: npt.NDArray[np.floating]) -> FloatArray:
    """AUROC of each finding over the images whose label is known: auroc_F in [0, 1].

    `target_BF` is 1, 0 or NaN = unknown. NaN where no positive or no negative is known. Raises ValueError on
    other targets and on shapes that do not agree.
    """
    if np.ndim(probability_BF) != 2 or np.shape(probability_BF) != np.shape(target_BF):
        raise ValueError(
            f"probability_BF, target_BF have shapes {np.shape(probability_BF)}, {np.shape(target_BF)}; "
            "allowed: the same (B, F)"
        )
    once_1B = np.ones((1, len(probability_BF)))
    columns = zip(probability_BF.T, target_BF.T, strict=True)
    return np.array([weighted_auroc(score_B, target_B, once_1B)[0] for score_B, target_B in columns])


def mean_over_findings(auroc_F: npt.NDArray[np.floating]) -> float:
    """The mean of the findings that have an AUROC; NaN if none has."""
    defined_F = auroc_F[~np.isnan(auroc_F)]
    return float(defined_F.mean()) if defined_F.size else float("nan")


def unit_vectors(name: str, vector: npt.NDArray[np.floating]) -> FloatArray:
    """`vector` in float64, its last axis scaled to length 1; ValueError naming `name` where it cannot be."""
    vector = np.asarray(vector, dtype=np.float64)
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    wrong = length[~(np.isfinite(length) & (length > 0))]
    if wrong.size:
        raise ValueError(f"{name} has a vector of length {wrong[0]}; allowed: finite and above 0")
    return np.asarray(vector / length)
