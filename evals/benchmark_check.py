"""Whether a benchmark's data is there and has all that it needs: splits, findings, masks, reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from chexray.evals.benchmark_data import BenchmarkData
from chexray.evals.specs import BenchmarkSpec
from chexray.platform.artifacts import read_manifest
from chexray.platform.errors import UsageError


def benchmarks_with_data(
    specs: Mapping[str, BenchmarkSpec], places: Mapping[str, str]
) -> tuple[dict[str, BenchmarkSpec], dict[str, str]]:
    """Those whose datasets are all there, and of the others what is lacking. UsageError where nothing can be run."""
    for spec in specs.values():
        if spec.learns and spec.split == "validation":
            raise UsageError(
                f"evaluate.split=validation: {spec.name} chooses by that split what it learned, so its numbers there "
                "would flatter; score it on the test split, or leave it out"
            )
    lacking = {name: sorted(set(spec.datasets) - places.keys()) for name, spec in specs.items()}
    here = {name: specs[name] for name, names in lacking.items() if not names}
    if not here:
        wanted = sorted({name for names in lacking.values() for name in names})
        raise UsageError(f"none of the benchmarks has its data; --data has no line for {', '.join(wanted)}")
    return here, {name: ", ".join(names) for name, names in lacking.items() if names}


def check_benchmark(spec: BenchmarkSpec, places: Mapping[str, str]) -> Iterator[str]:
    """A line for each split that it reads. UsageError names what is lacking, where, and what to do."""
    if lacking := [name for name in spec.datasets if name not in places]:
        raise UsageError(f"{spec.name}: the data file has no line for {', '.join(lacking)}")
    corpora = {name: places[name] for name in spec.datasets}
    for uri in corpora.values():
        read_manifest(uri, "corpus")
    data = BenchmarkData(spec, corpora, "")
    for split, rows in data.rows_by_split().items():
        line = f"{split}: {rows.num_rows:,} pairs of {len(set(rows['patient_id'].to_pylist())):,} patients"
        if spec.task in ("zero_shot", "disease_prediction"):
            target_nF = data.targets(rows)
            lacks = [name for name, n in zip(data.findings, (target_nF == 1).sum(axis=0), strict=True) if not n]
            line += f", {len(data.findings)} findings" + (f", none positive of {', '.join(lacks)}" if lacks else "")
            if np.isnan(target_nF).all():
                raise UsageError(
                    f"{spec.name}: no label is known in the {split} split of {', '.join(corpora.values())}"
                )
        if spec.task == "segmentation":
            masks = [one for part in data.heavy(rows, split, ["masks"]) for one in part["masks"].to_pylist()]
            known = sum(set(spec.masks) <= {name for name, _ in one or ()} for one in masks)
            if not known:
                raise UsageError(f"{spec.name}: no image of the {split} split has masks of {', '.join(spec.masks)}")
            line += f", {known:,} with masks"
        if spec.task == "report_generation":
            line += f", {sum(bool(report.strip()) for report in rows['report'].to_pylist()):,} with a report"
        yield line
