"""Images with a mask per class, as a corpus stores them: encoded, and decoded for a batch at a time.

b: images of a batch; C: classes; S: the tower's size in pixels; H, W: an image's own, stored size.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import PIL.Image
import pyarrow as pa
import torch

from chexray.platform.corpus.raster import decode_mask
from chexray.platform.model.preprocess import fit_mask, model_pixels

Load = Callable[[Sequence[int]], tuple[torch.Tensor, ...]]
"""Rows to tensors, each with one entry a row in front."""


@dataclass(frozen=True)
class MaskedImages:
    """Images of one split. `image`: PNG or JPEG of each; `mask`: for each, one PNG a class, of the image's size.

    The sequences are read row by row when needed, so they may lie elsewhere than in memory. A mask of 0 alone means
    that the class is known to be absent.
    """

    sample_id: Sequence[str]
    patient_id: Sequence[str]
    image: Sequence[bytes]
    mask: Sequence[Sequence[bytes]]

    def __post_init__(self) -> None:
        counts = {name: len(getattr(self, name)) for name in ("sample_id", "patient_id", "image", "mask")}
        if len(set(counts.values())) > 1:
            raise ValueError(f"sample_id, patient_id, image, mask have {counts} entries; allowed: as many of each")

    def __len__(self) -> int:
        return len(self.sample_id)

    def joined(self, other: MaskedImages) -> MaskedImages:
        """These and then the others."""
        names = ("sample_id", "patient_id", "image", "mask")
        return MaskedImages(*([*getattr(self, name), *getattr(other, name)] for name in names))

    def pixels(self, rows: Sequence[int], size: int) -> torch.Tensor:
        """image_bSS uint8, as the tower takes them."""
        return torch.from_numpy(np.stack([model_pixels(self.image[row], size) for row in rows]))

    def targets(self, rows: Sequence[int], size: int) -> torch.Tensor:
        """target_bCSS uint8 of 0 and 1, put into the tower's square as the images are."""
        return torch.stack([fit_mask(torch.from_numpy(self.truth(row)), size) for row in rows])

    def truth(self, row: int) -> npt.NDArray[np.uint8]:
        """mask_CHW of 0 and 1 at the image's own size. ValueError where a mask has another size than its image."""
        masks = [(decode_mask(png) > 0).astype(np.uint8) for png in self.mask[row]]
        size = stored_size(self.image[row])
        wrong = [mask.shape for mask in masks if mask.shape != size]
        if wrong:
            raise ValueError(f"{self.sample_id[row]}: a mask has {wrong[0]} pixels, its image {size} (height, width)")
        return np.stack(masks)


def masked_images(rows: pa.Table, classes: Sequence[str]) -> MaskedImages:
    """The rows of a corpus that have a mask of each class; those where one is not known are left out.

    `rows`: the corpus's columns `sample_id`, `patient_id`, `image` and `masks`. Raises ValueError on classes named
    twice or not at all.
    """
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(f"classes are {list(classes)}; allowed: one or more different names")
    known = [dict(masks or []) for masks in rows["masks"].to_pylist()]
    kept = [row for row, masks in enumerate(known) if all(name in masks for name in classes)]
    chosen = rows.take(pa.array(kept, pa.int64()))
    return MaskedImages(
        chosen["sample_id"].to_pylist(),
        chosen["patient_id"].to_pylist(),
        chosen["image"].to_pylist(),
        [[known[row][name] for name in classes] for row in kept],
    )


def stored_size(image: bytes) -> tuple[int, int]:
    """Height and width, from the header."""
    with PIL.Image.open(io.BytesIO(image)) as opened:
        return opened.height, opened.width


class Recall:
    """Calls `load`, and keeps what it gave for each row, in the order of the calls, as long as `budget` bytes last.

    What does not fit is loaded again each time. Tensors are kept on the CPU.
    """

    def __init__(self, load: Load, budget: int) -> None:
        self._load = load
        self._left = budget
        self._kept: dict[int, tuple[torch.Tensor, ...]] = {}

    def __call__(self, rows: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """As `load`, on the CPU."""
        missing = [row for row in rows if row not in self._kept]
        found = {row: self._kept[row] for row in rows if row in self._kept}
        if missing:
            loaded = [part.cpu() for part in self._load(missing)]
            for place, row in enumerate(missing):
                found[row] = tuple(part[place] for part in loaded)
                self._keep(row, found[row])
        columns = zip(*(found[row] for row in rows), strict=True)
        return tuple(torch.stack(column) for column in columns)

    def _keep(self, row: int, parts: tuple[torch.Tensor, ...]) -> None:
        size = sum(part.nbytes for part in parts)
        if size <= self._left:
            self._left -= size
            # A copy: a slice would hold the whole batch.
            self._kept[row] = tuple(part.clone() for part in parts)
