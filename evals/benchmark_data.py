"""The pairs that a benchmark is about: rows of one or more corpora, their labels, encodings, images and masks.

n: rows of a split; F: findings; E: feature width; D: embedding width; S: image size in pixels.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from safetensors import safe_open

from chexray.evals.specs import OWN, BenchmarkSpec
from chexray.evals.statistics import FloatArray
from chexray.evals.subgroups import age_bands
from chexray.platform import storage
from chexray.platform.corpus.schema import NO_FINDING, Split
from chexray.platform.corpus.shards import list_shards, read_columns, read_table, require_shards
from chexray.platform.errors import UsageError

Encoding = Literal["image", "text", "feature"]
_LIGHT = ("sample_id", "patient_id", "dataset", "report", "labels", "sex", "age_years", "view")


def encoding_file(folder: str, dataset: str, shard: str) -> str:
    """Where a checkpoint's encodings of a corpus's shard are, below the checkpoint's folder of encodings."""
    return storage.join(folder, dataset, f"{shard.removeprefix('shards/').removesuffix('.parquet')}.safetensors")


@dataclass(frozen=True)
class BenchmarkData:
    """The corpora of a benchmark by its datasets' names, and the folder of a checkpoint's encodings of them."""

    spec: BenchmarkSpec
    corpora: Mapping[str, str]
    encodings: str

    @cached_property
    def findings(self) -> list[str]:
        """The benchmark's, or all that the corpora have, "No Finding" last. UsageError for one that none has."""
        known = {name for counts in self._label_counts.values() for name in counts}
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
        known_F, positive_F = np.zeros(len(self.findings)), np.zeros(len(self.findings))
        for counts in self._label_counts.values():
            for f, finding in enumerate(self.findings):
                known_F[f] += counts[finding][0] + counts[finding][1]
                positive_F[f] += counts[finding][1]
        return np.where(known_F > 0, positive_F / np.maximum(known_F, 1), np.nan)

    def rows(self, split: Split) -> pa.Table:
        """What is known of a split's pairs, without images, and `corpus` (name) and `position` (in the corpus's split).

        UsageError where there are none: what is learned or chosen must not come from another split.
        """
        table = pa.concat_tables([self._light_rows(name, split) for name in self.corpora])
        if self.spec.exclusive:
            target_nF = targets(_labels(table), self.spec.findings)
            known_n = ~np.isnan(target_nF).any(axis=1)
            table = table.filter(pa.array(known_n & (np.nansum(target_nF, axis=1) == 1)))
        if not table.num_rows:
            if not self.spec.needs:
                require_shards(next(iter(self.corpora.values())), split)
            lacks = f"no pair of {', '.join(self.corpora.values())} in the {split} split is one of its"
            raise UsageError(f"{self.spec.name}: {lacks}; {self.spec.needs or 'look at its findings'}")
        return table

    def rows_by_split(self) -> dict[Split, pa.Table]:
        """Of all splits that the benchmark reads. UsageError where two of them share a patient."""
        rows = {split: self.rows(split) for split in dict.fromkeys(self.spec.splits)}
        patients = {split: set(table["patient_id"].to_pylist()) for split, table in rows.items()}
        for one, other in combinations(rows, 2):
            if shared := len(patients[one] & patients[other]):
                raise UsageError(f"{self.spec.name}: {shared} patients are in the {one} and in the {other} split")
        return rows

    def targets(self, rows: pa.Table) -> FloatArray:
        """[n, F] float64 of the findings: 1, 0 or NaN = unknown."""
        return targets(_labels(rows), self.findings)

    def encoded(self, rows: pa.Table, split: Split, name: Encoding) -> npt.NDArray[np.float32]:
        """[n, D] or [n, E] of the rows. Their ids were kept with them, and are compared."""
        parts = []
        for dataset, position in _by_corpus(rows):
            found = [
                _read_encoding(encoding_file(self.encodings, dataset, shard.path), name)
                for shard in list_shards(self.corpora[dataset], split)
            ]
            if any(values is None for _, values in found):
                raise UsageError(
                    f"{self.spec.name}: the image tower gives no {name} before its projection, which it needs; "
                    "allowed: a timm model that pools before it projects"
                )
            ids = np.concatenate([ids for ids, _ in found])[position]
            own = rows.filter(pc.equal(rows["corpus"], dataset))["sample_id"].to_pylist()
            if not np.array_equal(ids, id_bytes(own)):
                raise RuntimeError(f"{self.encodings}/{dataset}: the encodings of {split} are not those of its pairs")
            parts.append(np.concatenate([values for _, values in found if values is not None])[position])
        return np.concatenate(parts)

    def heavy(self, rows: pa.Table, split: Split, names: Sequence[str]) -> Iterator[pa.Table]:
        """Heavy columns (`image`, `masks`) of the rows, in their order, a shard at a time: all may not fit."""
        for dataset, position in _by_corpus(rows):
            yield from _taken(self.corpora[dataset], split, position, names)

    @cached_property
    def _label_counts(self) -> dict[str, defaultdict[str, Counter[int | None]]]:
        """Of each dataset and finding, how many pairs of all splits are absent (0), present (1), unknown (None)."""
        found: dict[str, defaultdict[str, Counter[int | None]]] = {}
        for name, uri in self.corpora.items():
            counts = found[name] = defaultdict(Counter)
            for shard in list_shards(uri):
                table = read_table(storage.join(uri, shard.path), ["dataset", "labels"])
                for labels in _labels(_of_dataset(table, name)):
                    for finding, value in labels.items():
                        counts[finding][value] += 1
        return found

    def _light_rows(self, name: str, split: Split) -> pa.Table:
        table = read_columns(self.corpora[name], _LIGHT, split)
        count = table.num_rows
        table = table.append_column("corpus", pa.array([name] * count, pa.string()))
        found = _of_dataset(table.append_column("position", pa.array(np.arange(count))), name)
        if count and not found.num_rows:
            others = ", ".join(sorted(set(table["dataset"].to_pylist())))
            raise UsageError(
                f"{self.spec.name}: {self.corpora[name]} is given as the corpus of {name}, and its {split} pairs are "
                f"of {others}"
            )
        return found


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


def _labels(table: pa.Table) -> list[dict[str, int | None]]:
    return [dict(labels or []) for labels in table["labels"].to_pylist()]


def _of_dataset(table: pa.Table, name: str) -> pa.Table:
    """The rows of the dataset: a merged corpus holds others too."""
    return table if name == OWN else table.filter(pc.equal(table["dataset"], name))


def id_bytes(sample_id: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Ids of 32 hex digits as uint8 [n, 32], as encodings keep them."""
    return np.frombuffer("".join(sample_id).encode("ascii"), np.uint8).reshape(len(sample_id), -1)


def _read_encoding(file: str, name: Encoding) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32] | None]:
    """The ids of a shard and one of its encodings, None where there is no such; the others are not read."""
    with storage.local_copy(file) as path, safe_open(path, "np") as opened:
        ids: npt.NDArray[np.uint8] = opened.get_tensor("sample_id")
        return ids, opened.get_tensor(name) if name in opened.keys() else None  # noqa: SIM118 - no mapping


def _by_corpus(rows: pa.Table) -> list[tuple[str, npt.NDArray[np.int64]]]:
    """Runs of rows of one corpus: its name, and their positions in its split."""
    names = list(dict.fromkeys(rows["corpus"].to_pylist()))
    chosen = [(name, rows.filter(pc.equal(rows["corpus"], name))) for name in names]
    return [(name, part["position"].to_numpy()) for name, part in chosen]


def _taken(uri: str, split: Split, position: npt.NDArray[np.int64], names: Sequence[str]) -> Iterator[pa.Table]:
    """The rows at ascending positions of a corpus's split, shard by shard."""
    first = 0
    for shard in list_shards(uri, split):
        inside = position[(position >= first) & (position < first + shard.pairs)] - first
        if len(inside):
            yield read_table(storage.join(uri, shard.path), names).take(pa.array(inside))
        first += shard.pairs
