"""Where an epoch that chooses its pairs stands: saved with a checkpoint, so that a restart goes on with just the rest.

P: pairs that were looked at, the first of the epoch's order; k: kept ones of them; D: embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from chexray.curation.selection import Selection

CURSOR_FOLDER = "curation"
_ARRAYS = "cursor.npz"
_WEIGHTS = "weights-{}.safetensors"


@dataclass(frozen=True, eq=False)
class CurationCursor:
    """Which pairs were looked at, what became of each, and what the next ones are judged by.

    `sample_id`: bytes [P]. `embedding_P2D`: float16, of image and report. `prototype_KE`: float32, None before they
    have started. `version_k` and `weights` (state dicts, by version): of scorers apart from the model. `seconds`:
    theirs, so far. `beyond`: ids of pairs after these that were trained on too.
    """

    sample_id: npt.NDArray[np.bytes_]
    selection: Selection
    embedding_P2D: npt.NDArray[np.float16]
    prototype_KE: torch.Tensor | None
    version_k: npt.NDArray[np.int64]
    beyond: npt.NDArray[np.bytes_]
    seconds: float = 0.0
    weights: Mapping[int, Any] = field(default_factory=dict)

    @property
    def position(self) -> int:
        return len(self.sample_id)

    @property
    def rows(self) -> dict[str, Any]:
        """What was looked at, as a block of embedded pairs."""
        image, text = self.embedding_P2D[:, 0], self.embedding_P2D[:, 1]
        return {"sample_id": self.sample_id.astype(str).astype(object), "image": image, "text": text}

    def save(self, checkpoint: Path) -> None:
        folder = checkpoint / CURSOR_FOLDER
        folder.mkdir()
        arrays = {name: value.numpy() for name, value in vars(self.selection).items()}
        if self.prototype_KE is not None:
            arrays["prototypes"] = self.prototype_KE.numpy()
        np.savez(
            folder / _ARRAYS,
            sample_id=self.sample_id,
            embedding=self.embedding_P2D,
            version=self.version_k,
            beyond=self.beyond,
            seconds=np.float64(self.seconds),
            versions=np.array(sorted(self.weights), np.int64),
            **arrays,
        )
        for version, state in self.weights.items():
            save_file({name: value.contiguous() for name, value in state.items()}, folder / _WEIGHTS.format(version))


def load_cursor(checkpoint: Path) -> CurationCursor | None:
    """The cursor that lies in a checkpoint; None in one of an epoch that does not choose."""
    folder = checkpoint / CURSOR_FOLDER
    if not folder.is_dir():
        return None
    with np.load(folder / _ARRAYS, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    selection = Selection(
        **{name: torch.from_numpy(found[name]) for name in Selection.__dataclass_fields__ if name in found}
    )
    prototypes = found.get("prototypes")
    return CurationCursor(
        sample_id=found["sample_id"],
        selection=selection,
        embedding_P2D=found["embedding"],
        prototype_KE=None if prototypes is None else torch.from_numpy(prototypes),
        version_k=found["version"],
        beyond=found["beyond"],
        seconds=float(found["seconds"]),
        weights={int(version): load_file(folder / _WEIGHTS.format(version)) for version in found["versions"]},
    )


CursorAt = Callable[[int], CurationCursor | None]
"""Where an epoch that chooses its pairs stands after so many steps, on rank 0; None for other epochs, and elsewhere."""
