"""Cells of the tasks that look at feature maps: segmentation and report generation.

b: images of a batch; S: image size in pixels.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from chexray.evals.cell_subgroups import mean_subgroups
from chexray.evals.cells import CellContext, CellOutput
from chexray.evals.images import StoredPixels
from chexray.evals.masked_images import MaskedImages, Recall, masked_images
from chexray.evals.report_generation import ReportPairs, evaluate_report_generation
from chexray.evals.scratch_model import save_scratch_model
from chexray.evals.segmentation_results import segment
from chexray.platform.corpus.schema import Split
from chexray.platform.errors import UsageError
from chexray.platform.model.features import feature_map
from chexray.platform.model.layers import ImageLayers

SCRATCH = "scratch"
MAP_BYTES = 2 * 2**30
"""Of feature maps that report generation keeps; what does not fit is computed in each epoch anew."""


def segmentation(context: CellContext) -> CellOutput:
    """A decoder trained on the train split's masks, Dice and IoU on the test split's, by subgroup."""
    config = context.config.segmentation.model_copy(update={"seed": context.cell.seed})
    rows = context.data.rows_by_split()
    masked = {str(split): _masked(context, table, split) for split, table in rows.items()}
    maps = ImageLayers(context.checkpoint.model.visual, context.checkpoint.image_size, config.layers)
    results, table, _ = segment(
        maps,
        masked,
        context.spec.masks,
        context.checkpoint.image_size,
        config,
        context.config.bootstrap,
        context.device,
    )
    output = CellOutput(results, {"masks.parquet": table})
    dice = table.filter(pc.equal(table["class"], context.spec.masks[0]))["dice"].to_numpy()
    every = rows[context.spec.split]
    tested = every.filter(pc.is_in(every["sample_id"], value_set=pa.array(masked["test"].sample_id)))
    output.subgroups = mean_subgroups(context, tested, f"dice of {context.spec.masks[0]}", dice)
    return output


def report_generation(context: CellContext) -> CellOutput:
    """A projector and a language model trained on the train split, every decoding scored on the test split."""
    config = context.config.reports.model_copy(update={"seed": context.cell.seed})
    if config.language_model is None:
        raise UsageError(
            f"{context.spec.name}: which language model? Give --set evaluate.reports.language_model=NAME (a hub name, "
            f"a folder or a URI), or {SCRATCH} for a small one that starts from nothing"
        )
    rows = context.data.rows_by_split()
    train, validation, test = (_report_pairs(context, rows[split], split) for split in context.spec.splits)
    with ExitStack() as stack:
        if config.language_model == SCRATCH:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chexray-")))
            save_scratch_model(folder, train.report, config.seed)
            config = config.model_copy(update={"language_model": str(folder), "tune": "full"})
        found = evaluate_report_generation(train, validation, test, config, context.config.bootstrap, context.device)
    output = CellOutput(found.results, not_run=found.not_run)
    for name, table in found.texts.items():
        output.tables[f"reports-{re.sub('[^a-z0-9]+', '-', name)}.parquet"] = table
    return output


def stored_pixels(context: CellContext, rows: pa.Table, split: Split) -> StoredPixels:
    """The rows' images, at the checkpoint's size."""
    parts = context.data.heavy(rows, split, ["image"])
    images = (image.as_py() for part in parts for image in part["image"])
    return StoredPixels(images, rows.num_rows, context.checkpoint.image_size)


def _masked(context: CellContext, rows: pa.Table, split: Split) -> MaskedImages:
    """Those of the split's images that have a mask of each class. UsageError where there are none."""
    found = MaskedImages([], [], [], [])
    for part in context.data.heavy(rows, split, ["sample_id", "patient_id", "image", "masks"]):
        found = found.joined(masked_images(part, context.spec.masks))
    if not len(found):
        raise UsageError(
            f"{context.spec.name}: no image of the {split} split has masks of {', '.join(context.spec.masks)}"
        )
    return found


def _report_pairs(context: CellContext, rows: pa.Table, split: Split) -> ReportPairs:
    """The split's pairs with a report; feature maps are kept while memory is allowed."""
    rows = rows.filter(pa.array([bool(report.strip()) for report in rows["report"].to_pylist()], pa.bool_()))
    if not rows.num_rows:
        raise UsageError(f"{context.spec.name}: no pair of the {split} split has a report")
    pixels = stored_pixels(context, rows, split)

    def load(chosen: Sequence[int]) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            image_bSS = torch.from_numpy(pixels[np.array(chosen)]).to(context.device)
            return (feature_map(context.checkpoint.model, image_bSS).float(),)

    recall = Recall(load, MAP_BYTES // 3)
    return ReportPairs(
        rows["sample_id"].to_pylist(),
        rows["patient_id"].to_pylist(),
        rows["report"].to_pylist(),
        lambda chosen: recall(chosen)[0],
    )
