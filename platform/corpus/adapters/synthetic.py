"""The synthetic dataset: drawn below the root at first use, then read like any other folder.

Licence: ours (Apache-2.0). It stands in where no data is at hand, and for tests; nothing learned from it is about
patients.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Literal

import joblib

from chexray.platform import storage
from chexray.platform.corpus.adapters.folder import FolderAdapter
from chexray.platform.corpus.schema import NO_FINDING, DatasetCard, Reject, SourcePair
from chexray.platform.corpus.synthetic.cohort import SyntheticConfig
from chexray.platform.corpus.synthetic.dataset import write_dataset
from chexray.platform.corpus.synthetic.labels import FINDINGS
from chexray.platform.errors import UsageError

SETTINGS_FILE = "synthetic.json"


@dataclass(frozen=True)
class SyntheticAdapter:
    """`count` pairs of `size` (pixels), `seed` and `image_format` (png or dicom) of what is drawn below `root`."""

    name: ClassVar[str] = "synthetic"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="Drawn radiographs",
        use="either",
        images=None,
        patients=None,
        reports="en",
        findings=len(FINDINGS),
        masks=("lungs", "findings"),
        licence="Apache-2.0",
        citation="",
        url="",
    )

    root: str
    size: int = 256
    seed: int = 0
    image_format: Literal["png", "dicom"] = "png"
    count: int = 2000

    def pairs(self) -> Iterator[SourcePair | Reject]:
        self._draw()
        labels = (*FINDINGS, NO_FINDING)
        yield from FolderAdapter(self.root, csv="pairs.csv", dataset=self.name, labels=labels).pairs()

    def _draw(self) -> None:
        """Write the dataset unless the very same one is there. The settings file marks the folder as ours."""
        if storage.is_remote(self.root):
            raise UsageError(f"--root {self.root}: the synthetic dataset is drawn into a local folder")
        config = SyntheticConfig(pairs=self.count, size=self.size, seed=self.seed, image_format=self.image_format)
        root, file = Path(self.root), Path(self.root) / SETTINGS_FILE
        settings = json.dumps(asdict(config), sort_keys=True)
        if file.exists() and file.read_text() == settings:
            return
        if not file.exists() and root.exists() and any(root.iterdir()):
            raise UsageError(f"--root {self.root}: the folder is not empty and not a synthetic dataset; choose another")
        storage.remove_tree(self.root)
        root.mkdir(parents=True)
        file.write_text("{}")
        write_dataset(root, config, workers=joblib.cpu_count())
        file.write_text(settings)
