"""The pairs that a benchmark is about: rows of one or more corpora, their labels, encodings, images and masks.

n: rows of a split; F: findings; E: feature width; D: embedding width; S: image size in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from safetensors.numpy import load_file

from chexray.evals.specs import BenchmarkSpec
from chexray.evals.statistics import FloatArray
from chexray.evals.subgroups import age_bands
from chexray.platform import storage
from chexray.platform.corpus.schema import NO_FINDING, Split
from chexray.platform.corpus.shards import list_shards, read_columns, read_table, require_shards
from chexray.platform.errors import UsageError

Encoding = Literal["image", "text", "feature"]
ATTRIBUTES = ("sex", "age", "view", "dataset")
_LIGHT = ("sample_id", "patient_id", "dataset", "report", "labels", "sex", "age_years", "view")


def encoding_file(folder: str, dataset: str, split: Split) -> str:
    """Where a checkpoint's encodings of a corpus's split are, below the checkpoint's folder of encodings."""
    return storage.join(folder, dataset, f"{split}.safetensors")


@dataclass(frozen=True)
class BenchmarkData:
    """The corpora of a benchmark by its datasets' names, and the folder of a checkpoint's encodings of them."""

    spec: BenchmarkSpec
    corpora: Mapping[str, str]
    encodings: str

    @cached_property
    def findings(self) -> list[str]:
        """The benchmark's, or all that the corpora have, "No Finding" last. UsageError for one that none has."""
        known = {name for labels in self._all_labels for name in labels}
        if unknown := [name for name in self.spec.findings if name not in known]:
            raise UsageError(
                f"{self.spec.name}: no pair of {', '.join(self.corpora.values())} has a label of "
                f"{', '.join(unknown)}; it has {', '.join(sorted(known)) or 'none'}"
            )
        if not known:
            raise UsageError(
                f"{self.spec.name}: the pairs of {', '.join(self.corpora.values())} have no labels, which it needs; "
                "--benchmarks retrieval does without"
            )
        return list(self.spec.findings) or sorted(known, key=lambda name: (name == NO_FINDING, name))

    @cached_property
    def prevalence_F(self) -> FloatArray:
        """Of the findings, in all splits of the corpora, over known labels; NaN where none is."""
        return prevalence(targets(self._all_labels, self.findings))

    def rows(self, split: Split) -> pa.Table:
        """What is known of a split's pairs, without images, and `corpus` (name) and `position` (in the corpus's split).

        UsageError where there are none: what is learned or chosen must not come from another split.
        """
        tables = [_light_rows(name, uri, split) for name, uri in self.corpora.items()]
        table = pa.concat_tables(tables)
        if self.spec.exclusive:
            target_nF = targets(_labels(table), self.spec.findings)
            table = table.filter(pa.array(np.nansum(target_nF, axis=1) == 1))
        if not table.num_rows:
            if not self.spec.needs:
                require_shards(next(iter(self.corpora.values())), split)
            lacks = f"no pair of {', '.join(self.corpora.values())} in the {split} split is one of its"
            raise UsageError(f"{self.spec.name}: {lacks}; {self.spec.needs or 'look at its findings'}")
        return table

    def targets(self, rows: pa.Table) -> FloatArray:
        """[n, F] float64 of the findings: 1, 0 or NaN = unknown."""
        return targets(_labels(rows), self.findings)

    def encoded(self, rows: pa.Table, split: Split, name: Encoding) -> npt.NDArray[np.float32]:
        """[n, D] or [n, E] of the rows."""
        parts = []
        for dataset, position in _by_corpus(rows):
            with storage.local_copy(encoding_file(self.encodings, dataset, split)) as file:
                arrays = load_file(file)
            if name not in arrays:
                raise UsageError(
                    f"{self.spec.name}: the image tower gives no {name} before its projection, which it needs; "
                    "allowed: a timm model that pools before it projects"
                )
            parts.append(arrays[name][position])
        return np.concatenate(parts)

    def columns(self, rows: pa.Table, split: Split, names: Sequence[str]) -> pa.Table:
        """Heavy columns (`image`, `masks`) of the rows, in their order."""
        parts = []
        for dataset, position in _by_corpus(rows):
            parts += _taken(self.corpora[dataset], split, position, names)
        return pa.concat_tables(parts)

    @cached_property
    def _all_labels(self) -> list[dict[str, int | None]]:
        tables = [read_columns(uri, ["labels"]) for uri in self.corpora.values()]
        return [labels for table in tables for labels in _labels(table)]


def attributes(rows: pa.Table) -> dict[str, list[str | None]]:
    """Groups of the rows by attribute (sex, age band, view, dataset): None where it is not known."""
    age_n = [np.nan if age is None else age for age in rows["age_years"].to_pylist()]
    return {
        "sex": rows["sex"].to_pylist(),
        "age": age_bands(np.asarray(age_n, dtype=np.float64)),
        "view": rows["view"].to_pylist(),
        "dataset": rows["dataset"].to_pylist(),
    }


def targets(labels: Sequence[Mapping[str, int | None]], findings: Sequence[str]) -> FloatArray:
    """[n, F] float64: 1, 0, or NaN where the label is unknown or not one of the pair's dataset."""
    rows = [[np.nan if row.get(finding) is None else row[finding] for finding in findings] for row in labels]
    return np.array(rows, dtype=np.float64).reshape(len(labels), len(findings))


def prevalence(target_nF: FloatArray) -> FloatArray:
    known_F = (~np.isnan(target_nF)).sum(axis=0)
    share_F: FloatArray = np.where(known_F > 0, np.nansum(target_nF, axis=0) / np.maximum(known_F, 1), np.nan)
    return share_F


def _labels(table: pa.Table) -> list[dict[str, int | None]]:
    return [dict(labels or []) for labels in table["labels"].to_pylist()]


def _light_rows(name: str, uri: str, split: Split) -> pa.Table:
    table = read_columns(uri, _LIGHT, split)
    positions = pa.array(np.arange(table.num_rows))
    return table.append_column("corpus", pa.array([name] * table.num_rows, pa.string())).append_column(
        "position", positions
    )


def _by_corpus(rows: pa.Table) -> list[tuple[str, npt.NDArray[np.int64]]]:
    """Runs of rows of one corpus: its name, and their positions in its split."""
    names = list(dict.fromkeys(rows["corpus"].to_pylist()))
    chosen = [(name, rows.filter(pc.equal(rows["corpus"], name))) for name in names]
    return [(name, part["position"].to_numpy()) for name, part in chosen]


def _taken(uri: str, split: Split, position: npt.NDArray[np.int64], names: Sequence[str]) -> list[pa.Table]:
    """The rows at ascending positions of a corpus's split, shard by shard: no more than these stay in memory."""
    first, parts = 0, []
    for shard in list_shards(uri, split):
        inside = position[(position >= first) & (position < first + shard.pairs)] - first
        if len(inside):
            parts.append(read_table(storage.join(uri, shard.path), names).take(pa.array(inside)))
        first += shard.pairs
    return parts
