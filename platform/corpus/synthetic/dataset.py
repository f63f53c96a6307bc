"""Drawing pairs and writing them to a folder, in any number of processes with the same bytes.

Shapes: H rows, W columns.
"""

from __future__ import annotations

import csv
import io
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from chexray.platform.corpus.schema import NO_FINDING
from chexray.platform.corpus.synthetic.anatomy import breathe, sample_anatomy
from chexray.platform.corpus.synthetic.chest import draw_chest
from chexray.platform.corpus.synthetic.cohort import BLOCK, PairPlan, SyntheticConfig, plan_pair
from chexray.platform.corpus.synthetic.computed_radiography import encode_dicom
from chexray.platform.corpus.synthetic.film import STORED_MAXIMUM, expose, position, position_mask, sample_exposure
from chexray.platform.corpus.synthetic.findings import alter_anatomy, paint_findings
from chexray.platform.corpus.synthetic.labels import FINDINGS

LUNGS = "lungs"
"""The name of the mask of both lungs, beside those named after findings."""

COLUMNS = ("path", "report", "patient_id", "study_id", "view", "sex", "age", *FINDINGS, NO_FINDING, "defect")
"""The header of pairs.csv."""

_ANATOMY, _IMAGE, _DAMAGE, _DICOM = 1, 2, 3, 4


@dataclass(frozen=True)
class SyntheticPair:
    """A drawn pair. `stored_HW`: uint16, 12-bit display values (0 black). Masks: uint8 HW, 0 or 255."""

    plan: PairPlan
    stored_HW: npt.NDArray[np.uint16]
    masks: dict[str, npt.NDArray[np.uint8]]

    @property
    def image_HW(self) -> npt.NDArray[np.uint8]:
        """The 8-bit image: the stored values through a full-range linear window, rounded."""
        return display_8bit(self.stored_HW)


def display_8bit(stored_HW: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    """12-bit values 0..4095 to 0..255, rounded: a linear VOI window of full range (PS3.3 C.11.2.1.2)."""
    return ((stored_HW.astype(np.uint32) * 510 + STORED_MAXIMUM) // (2 * STORED_MAXIMUM)).astype(np.uint8)


def draw_pair(config: SyntheticConfig, index: int) -> SyntheticPair:
    """Draw pair `index`; the result depends on the configuration (not its length) and the index alone."""
    plan = plan_pair(config, index)
    anatomy = sample_anatomy(np.random.default_rng([*plan.anatomy_key, _ANATOMY]), plan.sex, plan.age)
    rng = np.random.default_rng([config.seed, plan.image_index, _IMAGE])
    anatomy = alter_anatomy(breathe(rng, anatomy, plan.view), plan.findings)
    exposure = sample_exposure(rng, plan.view)
    chest = draw_chest(anatomy, config.size, rng)
    attenuation, soft = paint_findings(chest, plan.findings)
    soft[LUNGS] = np.maximum(chest.lungs["right"].member, chest.lungs["left"].member) * (1 - chest.heart)
    masks = {name: position_mask(mask, exposure) for name, mask in soft.items()}
    return SyntheticPair(plan, expose(position(attenuation, exposure), exposure, rng), masks)


def image_path(config: SyntheticConfig, index: int) -> str:
    """A pair's image below the dataset's root."""
    return f"images/cxr{index:07d}.{'png' if config.image_format == 'png' else 'dcm'}"


def write_dataset(
    root: Path,
    config: SyntheticConfig,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write `images/`, `masks/<image stem>__<name>.png`, `defects.csv` and, last, `pairs.csv` below `root`.

    The bytes are the same for any number of `workers` (processes). `progress` is told how many pairs are
    done. Pairs whose image is missing or corrupt have no masks.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}; it must be 1 or more")
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    starts = range(0, config.pairs, BLOCK)
    with _mapper(workers) as run:
        done = 0
        for written in run(_write_block, [(root, config, start) for start in starts]):
            done += written
            if progress is not None:
                progress(done)
    plans = [plan_pair(config, index) for index in range(config.pairs)]
    _write_csv(root / "defects.csv", ("path", "defect", "source"), _defect_rows(config, plans))
    _write_csv(root / "pairs.csv", COLUMNS, (_pair_row(config, plan) for plan in plans))


_Task = tuple[Path, SyntheticConfig, int]
_Mapper = Callable[[Callable[[_Task], int], list[_Task]], Iterable[int]]


@contextmanager
def _mapper(workers: int) -> Iterator[_Mapper]:
    if workers == 1:
        yield map
        return
    # spawn: the caller may hold threads (torch, Ray) that do not survive a fork
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool.map


def _write_block(task: _Task) -> int:
    root, config, start = task
    stop = min(start + BLOCK, config.pairs)
    for index in range(start, stop):
        write_pair(root, config, index)
    return stop - start


def write_pair(root: Path, config: SyntheticConfig, index: int) -> None:
    """Write one pair's image and masks, with its defect."""
    defect = plan_pair(config, index).defect
    if defect == "missing_image":
        return
    pair = draw_pair(config, index)
    path = root / image_path(config, index)
    encoded = encode_image(config, pair)
    if defect == "corrupt":
        path.write_bytes(_damage(np.random.default_rng([config.seed, index, _DAMAGE]), encoded))
        return
    path.write_bytes(encoded)
    for name, mask_HW in pair.masks.items():
        (root / "masks" / f"{path.stem}__{name}.png").write_bytes(_encode_png(mask_HW))


def encode_image(config: SyntheticConfig, pair: SyntheticPair) -> bytes:
    """The image's file: an 8-bit grey PNG, or a 12-bit CR DICOM."""
    if config.image_format == "png":
        return _encode_png(pair.image_HW)
    rng = np.random.default_rng([config.seed, pair.plan.index, _DICOM])
    return encode_dicom(pair.stored_HW, pair.plan, rng, inverted=bool(rng.random() < config.monochrome1_rate))


def _encode_png(array_HW: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array_HW).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def _damage(rng: np.random.Generator, encoded: bytes) -> bytes:
    kind = int(rng.integers(3))
    if kind == 0:
        return encoded[: int(len(encoded) * rng.uniform(0.1, 0.7))]
    if kind == 1:
        return b""
    return b"<!DOCTYPE html><html><body>503 Service Unavailable</body></html>\n"


def _pair_row(config: SyntheticConfig, plan: PairPlan) -> tuple[object, ...]:
    labels = ("" if value is None else int(value) for value in plan.recorded.values())
    who = (plan.patient_id, plan.study_id, plan.view, plan.sex, plan.age)
    return (image_path(config, plan.index), plan.report, *who, *labels, plan.defect)


def _defect_rows(config: SyntheticConfig, plans: list[PairPlan]) -> Iterator[tuple[object, ...]]:
    for plan in plans:
        if plan.defect:
            source = "" if plan.defect_source is None else image_path(config, plan.defect_source)
            yield (image_path(config, plan.index), plan.defect, source)


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
