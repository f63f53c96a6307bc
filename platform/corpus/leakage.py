"""Training pairs that an evaluation set holds too: the same image, nearly the same, or the same patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pyarrow as pa

from chexray.platform.corpus.duplicates import NEAR_DUPLICATE_BITS, hash_matrix, near_matches

LeakReason = Literal[
    "image of an evaluation set", "near-duplicate of an evaluation image", "patient of an evaluation set"
]

COLUMNS = ("sample_id", "patient_id", "dataset", "pixel_hash", "perceptual_hash")

Leaks = dict[str, tuple[LeakReason, str]]
"""From the id of a training pair to why it is a leak, and the evaluation pair ('dataset sample_id')."""


def find_leaks(training: pa.Table, evaluation: Sequence[pa.Table], max_distance: int = NEAR_DUPLICATE_BITS) -> Leaks:
    """The pairs of `training` that one of the `evaluation` tables holds too. All have `COLUMNS`.

    The first reason that applies: the same pixels, at most `max_distance` differing bits of the perceptual hashes,
    the same patient, or another image of one whose image is in there (RSNA's and SIIM's are NIH's, under ids of
    their own). Patients are compared by their salted ids, which says something only where both corpora were
    made with one salt. Of several evaluation pairs the nearest is named, then the first by dataset and sample id.
    """
    for table in (training, *evaluation):
        missing = [name for name in COLUMNS if name not in table.column_names]
        if missing:
            raise ValueError(f"table has no column {', '.join(missing)}: it must have {', '.join(COLUMNS)}")
    if not evaluation:
        return {}
    held_out = pa.concat_tables([table.select(COLUMNS) for table in evaluation], promote_options="permissive")
    held_out = held_out.sort_by([("dataset", "ascending"), ("sample_id", "ascending")])
    names = [f"{row['dataset']} {row['sample_id']}" for row in held_out.select(["dataset", "sample_id"]).to_pylist()]
    samples = training["sample_id"].to_pylist()
    images = {
        **_near_images(samples, training, held_out, names, max_distance),
        **_same_value(samples, training, held_out, names, "pixel_hash", "image of an evaluation set"),
    }
    # The strongest reason last, for it overwrites the others.
    return {
        **_other_images(samples, training["patient_id"].to_pylist(), images),
        **_same_value(samples, training, held_out, names, "patient_id", "patient of an evaluation set"),
        **images,
    }


def _other_images(samples: Sequence[str], patients: Sequence[str], images: Leaks) -> Leaks:
    """The other pairs of patients of whom the evaluation set has an image, under whatever id it knows them."""
    known: dict[str, str] = {}
    for sample, patient in zip(samples, patients, strict=True):
        if sample in images:
            known.setdefault(patient, images[sample][1])
    pairs = zip(samples, patients, strict=True)
    return {sample: ("patient of an evaluation set", known[patient]) for sample, patient in pairs if patient in known}


def _same_value(
    samples: Sequence[str],
    training: pa.Table,
    held_out: pa.Table,
    names: Sequence[str],
    column: str,
    reason: LeakReason,
) -> Leaks:
    name_of = dict(zip(reversed(held_out[column].to_pylist()), reversed(names), strict=True))
    values = training[column].to_pylist()
    return {sample: (reason, name_of[value]) for sample, value in zip(samples, values, strict=True) if value in name_of}


def _near_images(
    samples: Sequence[str], training: pa.Table, held_out: pa.Table, names: Sequence[str], max_distance: int
) -> Leaks:
    hashes = [hash_matrix(table["perceptual_hash"]) for table in (training, held_out)]
    nearest: dict[int, tuple[int, int]] = {}
    for row, other, distance in near_matches(hashes[0], hashes[1], max_distance):
        nearest[row] = min(nearest.get(row, (distance, other)), (distance, other))
    return {
        samples[row]: ("near-duplicate of an evaluation image", names[other]) for row, (_, other) in nearest.items()
    }
