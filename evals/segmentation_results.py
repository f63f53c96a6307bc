"""What a segmenter scores on a split: Dice and IoU with intervals, and a row for each image and class.

B: images; C: classes; H, W: an image's stored size; M: quantities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from chexray.evals.masked_images import MaskedImages
from chexray.evals.overlap import overlap
from chexray.evals.results import Result, result_of
from chexray.evals.segmentation import Maps, Mask, Segmenter, train_segmenter
from chexray.evals.statistics import DRAWS, FloatArray, mean_estimates
from chexray.platform.corpus.raster import encode_image
from chexray.platform.evaluate_config import Empty, SegmentationConfig

METRICS = ("dice", "iou")


def segment(
    maps: Maps,
    splits: dict[str, MaskedImages],
    classes: Sequence[str],
    size: int,
    config: SegmentationConfig,
    draws: int = DRAWS,
    device: str = "cpu",
) -> tuple[list[Result], pa.Table, Segmenter]:
    """Train on `splits["train"]`, choose the epoch on `["validation"]`, measure on `["test"]`; and the segmenter.

    Raises ValueError where a split is lacking or two share a patient, and as `train_segmenter` does.
    """
    for name in ("train", "validation", "test"):
        if name not in splits or not len(splits[name]):
            raise ValueError(f"split {name!r} has no images; needed: train, validation (to choose the epoch), test")
    _check_patients(splits)
    segmenter = train_segmenter(maps, splits["train"], splits["validation"], size, config, device)
    results, table = score_segmenter(segmenter, splits["test"], classes, config.empty, config.batch, draws, config.seed)
    return results, table, segmenter


def score_segmenter(
    segmenter: Segmenter,
    data: MaskedImages,
    classes: Sequence[str],
    empty: Empty,
    batch: int = 8,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[list[Result], pa.Table]:
    """Dice and IoU of each class and, of several, of an image's mean over them; and a row for each image and class.

    Means over images, with intervals over patients. In the table: `sample_id`, `patient_id`, `class`, `dice` and `iou`
    (null where left out), `pixels` and `predicted_pixels` inside, and `mask`, the prediction as PNG of 0 and 255, in
    the stored size.
    """
    if len(classes) != len(data.mask[0]):
        raise ValueError(f"classes are {list(classes)}; allowed: a name for each of {len(data.mask[0])} masks")
    rows: list[dict[str, Any]] = []
    for row, predicted_CHW in enumerate(segmenter.predict(data.image, batch)):
        whose = (data.sample_id[row], data.patient_id[row])
        rows += _rows(*whose, classes, predicted_CHW, data.truth(row).astype(bool), empty)
    value_BCM = np.array([[row[name] for name in METRICS] for row in rows]).reshape(len(data), len(classes), -1)
    present_C = np.array([row["pixels"] > 0 for row in rows]).reshape(len(data), -1).sum(axis=0)
    results: list[Result] = []
    for place, name in enumerate(classes):
        estimates = mean_estimates(value_BCM[:, place], data.patient_id, draws, seed)
        results += [
            result_of("segmentation", metric, segmenter.variant, estimate, name, int(present_C[place]))
            for metric, estimate in zip(METRICS, estimates, strict=True)
        ]
    if len(classes) > 1:
        estimates = mean_estimates(_mean_over_classes(value_BCM), data.patient_id, draws, seed)
        variant = f"{segmenter.variant}; mean over an image's {len(classes)} classes first"
        results += [result_of("segmentation", f"mean_{m}", variant, e) for m, e in zip(METRICS, estimates, strict=True)]
    return results, _table(rows)


def _rows(
    sample_id: str, patient_id: str, classes: Sequence[str], predicted_CHW: Mask, truth_CHW: Mask, empty: Empty
) -> list[dict[str, Any]]:
    dice_C, iou_C = overlap(predicted_CHW, truth_CHW, empty)
    return [
        {
            "sample_id": sample_id,
            "patient_id": patient_id,
            "class": name,
            "dice": float(dice_C[place]),
            "iou": float(iou_C[place]),
            "pixels": int(truth_CHW[place].sum()),
            "predicted_pixels": int(predicted_CHW[place].sum()),
            "mask": encode_image(predicted_CHW[place].astype(np.uint8) * 255, "png"),
        }
        for place, name in enumerate(classes)
    ]


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    scores = {name: pa.array(columns[name], pa.float64(), from_pandas=True) for name in METRICS}
    return pa.table(columns | scores | {"mask": pa.array(columns["mask"], pa.binary())})


def _mean_over_classes(value_BCM: FloatArray) -> FloatArray:
    """[B, M], over the classes that have a value; NaN where none has."""
    known_BCM = ~np.isnan(value_BCM)
    total_BM, count_BM = np.where(known_BCM, value_BCM, 0).sum(axis=1), known_BCM.sum(axis=1)
    return np.asarray(np.where(count_BM > 0, total_BM / np.maximum(count_BM, 1), np.nan))


def _check_patients(splits: dict[str, MaskedImages]) -> None:
    first_seen: dict[str, str] = {}
    for name, data in splits.items():
        for patient in set(data.patient_id):
            if first_seen.setdefault(patient, name) != name:
                raise ValueError(
                    f"splits {first_seen[patient]!r} and {name!r} share a patient; give splits that are by patient"
                )
