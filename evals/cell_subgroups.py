"""What a cell says of groups of patients (sex, age band, view, dataset), as its record keeps it.

n: rows of the scored split; F: findings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from chexray.evals.benchmark_data import attributes
from chexray.evals.cells import CellContext
from chexray.evals.json_values import finite
from chexray.evals.results import BoolArray, label_sets
from chexray.evals.statistics import FloatArray, mean_statistic
from chexray.evals.subgroups import Subgroups, auroc_subgroups, compare_groups


def mean_subgroups(context: CellContext, rows: pa.Table, metric: str, value_n: FloatArray) -> list[dict[str, Any]]:
    """The mean of the rows' values in each group, of each attribute that has two or more. NaN values are left out."""
    patient_n = rows["patient_id"].to_pylist()
    draws, seed = context.config.bootstrap, context.config.seed
    return [
        _record(
            attribute,
            metric,
            compare_groups(mean_statistic(value_n[:, None]), ~np.isnan(value_n), group_n, patient_n, draws, seed),
        )
        for attribute, group_n in _grouped(rows)
    ]


def mean_auroc_subgroups(
    context: CellContext, rows: pa.Table, probability_nF: FloatArray, target_nF: FloatArray
) -> list[dict[str, Any]]:
    """The same for the mean AUROC of the findings that enter the headline's."""
    config, data = context.config, context.data
    learned_F: BoolArray = np.asarray(~np.isnan(probability_nF).any(axis=0))
    chosen_F = label_sets(data.findings, target_nF, data.prevalence_F, config, learned_F)["mean_auroc"]
    if not chosen_F.any():
        return []
    patient_n, records = rows["patient_id"].to_pylist(), []
    for attribute, group_n in _grouped(rows):
        found = auroc_subgroups(
            probability_nF[:, chosen_F],
            target_nF[:, chosen_F],
            group_n,
            patient_n,
            config.bootstrap,
            config.seed,
            min_positives=config.min_positives,
            mean_only=True,
        )
        records.append(_record(attribute, f"mean_auroc of {len(found.mean_over)} findings", found.mean))
    return records


def _grouped(rows: pa.Table) -> Iterator[tuple[str, list[str | None]]]:
    """Attributes by which the rows are of two groups or more."""
    for attribute, group_n in attributes(rows).items():
        if len(set(group_n) - {None}) > 1:
            yield attribute, group_n


def _record(attribute: str, metric: str, found: Subgroups) -> dict[str, Any]:
    """Subgroups as JSON: each group's number or why it has none, and the gap."""
    groups = [
        {
            "name": group.name,
            "n": group.n,
            "patients": group.patients,
            **{key: getattr(group.estimate, key, None) for key in ("value", "low", "high")},
            "left_out": group.left_out,
        }
        for group in found.groups
    ]
    gap = None if found.gap is None else asdict(found.gap)
    record: dict[str, Any] = finite({"attribute": attribute, "metric": metric, "gap": gap, "groups": groups})
    return record
