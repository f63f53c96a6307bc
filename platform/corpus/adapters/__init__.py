"""Adapters read a dataset's own files into pairs: which image, which patient, which report or labels."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, ClassVar, Protocol

from chexray.platform.corpus.adapters.options import check_options
from chexray.platform.corpus.schema import DatasetCard, Reject, SourcePair
from chexray.platform.errors import UsageError


class Adapter(Protocol):
    """A dataset below a root URI. `name` is the `dataset` of its pairs: a constant, or what an option says."""

    card: ClassVar[DatasetCard]

    @property
    def name(self) -> str: ...

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """Every pair that the dataset lists, in its own order, or why it is none. Reads no pixels."""
        ...


ADAPTERS = {
    "mimic-cxr-jpg": "mimic:MimicCxrJpgAdapter",
    "mimic-cxr-dicom": "mimic:MimicCxrDicomAdapter",
    "rexgradient": "rexgradient:RexGradientAdapter",
    "chexpert-plus": "chexpert:ChexpertPlusAdapter",
    "padchest": "padchest:PadChestAdapter",
    "bimcv-covid19": "bimcv:BimcvCovid19Adapter",
    "candid-ptx": "candid:CandidPtxAdapter",
    "casia-cxr": "casia:CasiaCxrAdapter",
    "openi": "openi:OpenIAdapter",
    "nih": "nih:NihAdapter",
    "brax": "brax:BraxAdapter",
    "vindr-cxr": "vindr:VindrCxrAdapter",
    "vindr-pcxr": "vindr:VindrPcxrAdapter",
    "chestdr": "chestdr:ChestDrAdapter",
    "chexpert": "chexpert:ChexpertAdapter",
    "chexpert-test": "chexpert:ChexpertTestAdapter",
    "chexpert-5x200": "chexpert:Chexpert5x200Adapter",
    "rsna-pneumonia": "rsna:RsnaPneumoniaAdapter",
    "siim-acr": "siim:SiimAcrAdapter",
    "tbx11k": "tbx11k:Tbx11kAdapter",
    "kermany-pneumonia": "kermany:KermanyPneumoniaAdapter",
    "montgomery": "nlm:MontgomeryAdapter",
    "shenzhen": "nlm:ShenzhenAdapter",
    "jsrt": "jsrt:JsrtAdapter",
    "archive": "archive:ArchiveAdapter",
    "folder": "folder:FolderAdapter",
    "synthetic": "synthetic:SyntheticAdapter",
}
"""From a dataset's name to its module and class: pretraining corpora, evaluation sets, one's own, drawn ones."""


def adapter_class(name: str) -> Any:
    """The class of the adapter `name`. UsageError for an unknown name."""
    if name not in ADAPTERS:
        raise UsageError(f"dataset {name!r} is not known; known: {', '.join(ADAPTERS)}")
    module, kind = ADAPTERS[name].split(":")
    return getattr(import_module(f"{__name__}.{module}"), kind)


def open_adapter(name: str, root: str, **options: Any) -> Adapter:
    """The adapter `name` for the dataset at `root`. UsageError for an unknown name or option, or a wrong value."""
    adapter = adapter_class(name)
    opened: Adapter = adapter(root, **check_options(name, adapter, root, options))
    return opened


def dataset_cards() -> dict[str, DatasetCard]:
    """The card of every dataset that can be ingested, by its name."""
    return {name: adapter_class(name).card for name in ADAPTERS}
