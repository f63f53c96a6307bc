"""Choosing from a whole corpus at once, by one of the selectors that do not stream.

N: pairs of the train split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chexray.curation.baselines import pair_losses, rarest_finding
from chexray.curation.features import Features, open_features
from chexray.curation.selection import superbatch_budget
from chexray.curation.selectors import SELECTORS, Candidates, SelectorSettings, select_whole
from chexray.platform.config import CurateConfig
from chexray.platform.corpus.shards import read_columns
from chexray.platform.errors import UsageError

Keep = npt.NDArray[np.bool_]


def needs_features(config: CurateConfig) -> bool:
    """Whether a scorer has to embed the pairs before the selector can choose."""
    return config.selector == "prototype" or SELECTORS[config.selector].needs in ("features", "losses")


def choose_unscored(pairs: pa.Table, config: CurateConfig, corpus: str) -> Keep:
    """bool [N]: the choice of a selector that needs no features, for the train split of the corpus at a URI.

    `pairs`: its columns `sample_id`, `dataset`, `labels`; reports are read where the selector asks for them.
    """
    ids = pairs["sample_id"].to_pylist()
    stratum_N = report_N = None
    needs = SELECTORS[config.selector].needs
    if needs == "reports":
        report_N = read_columns(corpus, ["report"], "train")["report"].to_pylist()
    if needs == "stratum":
        if config.strata == "dataset":
            stratum_N = pairs["dataset"].to_pylist()
        else:
            stratum_N = rarest_finding([dict(labels or []) for labels in pairs["labels"].to_pylist()])
    candidates = Candidates(ids, stratum_N=stratum_N, report_N=report_N)
    return select_whole(config.selector, candidates, _count(config, len(ids)), _of(config))


def choose_by_features(features: str, reference: str | None, config: CurateConfig) -> Mapping[str, Any]:
    """`sample_id` and `kept` in the order of the features at a URI; `reference`: those of a reference model."""
    with open_features(features) as found:
        losses: dict[str, Any] = {}
        if SELECTORS[config.selector].needs == "losses":
            assert reference is not None  # the job sees to it
            with open_features(reference) as other:
                losses["reference_loss_N"] = _losses(other, config)[_rows(found, other)]
            losses["learner_loss_N"] = _losses(found, config)
        candidates = Candidates(found.sample_id, image_ND=found.image_ND, text_ND=found.text_ND, **losses)
        kept = select_whole(config.selector, candidates, _count(config, len(found.sample_id)), _of(config))
        return {"sample_id": found.sample_id, "kept": kept}


def _losses(features: Features, config: CurateConfig) -> Any:
    if features.logit_scale is None:
        raise UsageError("--features: of a model that changed meanwhile; learnability needs those of one checkpoint")
    batch = min(config.super_batch, len(features.sample_id))
    return pair_losses(features.image_ND, features.text_ND, features.logit_scale, batch, features.sample_id)


def _rows(wanted: Features, other: Features) -> list[int]:
    row = {sample: number for number, sample in enumerate(other.sample_id)}
    return [row[sample] for sample in wanted.sample_id]


def _count(config: CurateConfig, pairs: int) -> int:
    return pairs if config.selector == "full" else superbatch_budget(config.keep, 0, pairs)


def _of(config: CurateConfig) -> SelectorSettings:
    return SelectorSettings(
        seed=config.seed,
        neighbours=config.neighbours,
        clusters=config.clusters,
        kmeans_sample=max(config.kmeans_sample, config.clusters),
        term_reports=config.term_reports,
    )
