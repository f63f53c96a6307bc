"""Which findings selection rules enrich, on features that are there: the paper's rule and others at its kept count.

    chexray ingest nih --root FOLDER --split train --out C
    chexray pretrain --corpus C --out M --set train.epochs=12
    chexray curate --corpus C --scorer M --out S
    python benchmarks/curation_audit.py C S

A draw takes 480 random pairs and prototypes from k-means with its own seed. Enrichment is prevalence among the kept
over prevalence in the draw; means over 20 draws, with their standard deviation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch

from chexray.curation.features import FEATURES_FOLDER, open_features
from chexray.curation.prototypes import kmeans, pair_features
from chexray.curation.selection import SelectionRule, select
from chexray.curation.selectors import Candidates, SelectorSettings, select_whole
from chexray.platform.corpus.shards import read_columns

DRAWS, BATCH, CLUSTERS = 20, 480, 6
FEW_POSITIVES = 10
Rule = Callable[[Candidates, torch.Tensor, int, int], np.ndarray]


def paper(given: Candidates, prototype_KE: torch.Tensor, _: int, __: int) -> np.ndarray:
    return _prototypes(given, prototype_KE, SelectionRule(mode="paper"), None)


def budget(quota: str, support: float) -> Rule:
    def rule(given: Candidates, prototype_KE: torch.Tensor, count: int, _: int) -> np.ndarray:
        chosen = SelectionRule(support=support, central_quota=quota)  # type: ignore[arg-type]
        return _prototypes(given, prototype_KE, chosen, count)

    return rule


def whole(name: str) -> Rule:
    def rule(given: Candidates, _: torch.Tensor, count: int, seed: int) -> np.ndarray:
        return select_whole(name, given, count, SelectorSettings(seed=seed, clusters=CLUSTERS))

    return rule


RULES: dict[str, Rule] = {
    "paper": paper,
    "budget": budget("equal", 0.10),
    "proportional": budget("proportional", 0.10),
    "wide support": budget("equal", 0.20),
    **{name: whole(name) for name in ("random", "similarity", "density", "semdedup", "k_center", "term_coverage")},
}


def main() -> None:
    corpus, subset = sys.argv[1:]
    rows = read_columns(corpus, ["sample_id", "labels", "report"], "train").to_pylist()
    labels = {row["sample_id"]: {name for name, value in row["labels"] if value == 1} for row in rows}
    report = {row["sample_id"]: row["report"] for row in rows}
    findings = sorted({name for positive in labels.values() for name in positive})
    with open_features(f"{subset}/{FEATURES_FOLDER}") as found:
        ids, image_ND, text_ND = found.sample_id, found.image_ND.float(), found.text_ND.float()
    counts = {finding: sum(finding in labels[sample] for sample in ids) for finding in findings}
    shown = sorted((f for f in findings if counts[f] >= FEW_POSITIVES), key=lambda f: counts[f])
    target_NF = np.array([[finding in labels[sample] for finding in shown] for sample in ids], float)
    feature_NE = pair_features(image_ND, text_ND)
    kept: dict[str, list[float]] = {name: [] for name in RULES}
    factors: dict[str, list[np.ndarray]] = {name: [] for name in RULES}
    for draw in range(DRAWS):
        row_B = np.random.default_rng(draw).permutation(len(ids))[:BATCH]
        prototype_KE = kmeans(feature_NE, CLUSTERS, seed=draw)
        drawn = [ids[row] for row in row_B]
        given = Candidates(drawn, image_ND[row_B], text_ND[row_B], report_N=[report[sample] for sample in drawn])
        count = int(paper(given, prototype_KE, 0, draw).sum())
        for name, rule in RULES.items():
            keep_B = rule(given, prototype_KE, count, draw)
            kept[name].append(float(keep_B.mean()))
            with np.errstate(invalid="ignore", divide="ignore"):
                factors[name].append(target_NF[row_B][keep_B].mean(0) / target_NF[row_B].mean(0))
    print(f"{'finding':22s}{'pairs':>6s}" + "".join(f"{name:>16s}" for name in RULES))
    print(f"{'kept':28s}" + "".join(f"{np.mean(kept[name]):>15.1%} " for name in RULES))
    for column, finding in enumerate(shown):
        cells = [np.array(factors[name])[:, column] for name in RULES]
        text = "".join(f"{np.nanmean(cell):>9.2f} ± {np.nanstd(cell):4.2f}" for cell in cells)
        print(f"{finding:22s}{counts[finding]:>6d}{text}")


def _prototypes(given: Candidates, prototype_KE: torch.Tensor, rule: SelectionRule, count: int | None) -> np.ndarray:
    assert given.image_ND is not None
    assert given.text_ND is not None
    feature_BE = pair_features(given.image_ND, given.text_ND)
    return select(feature_BE, prototype_KE, rule, count, given.sample_id).keep_B.numpy()


if __name__ == "__main__":
    main()
