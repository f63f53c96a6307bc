"""The audit of a subset against counts by hand, SciPy's distributions, and simulated draws."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import nchypergeom_fisher
from scipy.stats.contingency import odds_ratio

from chexray.curation.audit import age_groups, audit_subset
from chexray.curation.enrichment import enrichment, enrichment_interval
from chexray.curation.selection import Band


def small_corpus() -> dict[str, Any]:
    """Eight pairs, three kept. Nodule: 2 of 7 known positive, 1 of 2 kept-and-known. Hernia: never known."""
    return {
        "sample_id": list("abcdefgh"),
        "dataset": ["nih"] * 5 + ["mimic"] * 3,
        "view": ["PA", "PA", "AP", None, "AP", "PA", "AP", "PA"],
        "sex": ["F", "M", "F", "M", None, "F", "M", "F"],
        "split": ["train"] * 7 + ["validation"],
        "labels": [
            {"Nodule": 1, "Edema": 0},
            {"Nodule": 0, "Edema": 1},
            {"Nodule": False, "Edema": None},
            {"Nodule": None, "Edema": True},
            {"Nodule": 0, "Hernia": None},
            {"Nodule": 1},
            {"Nodule": 0, "Edema": 1},
            {"Nodule": 0},
        ],
        "band": np.array([1, 1, 0, 2, 2, 2, 2, 0], dtype=np.int8),
        "cluster": np.array([0, 0, 0, 10, 10, 2, 2, 2]),
        "kept": np.array([True, True, False, True, False, False, False, False]),
    }


def by_finding(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["finding"]: one for one in report["findings"]}


def test_audit_small_corpus_equals_the_counts_by_hand() -> None:
    report = audit_subset(small_corpus())
    assert (report["pairs"], report["kept"], report["kept_fraction"]) == (8, 3, 3 / 8)
    nodule = by_finding(report)["Nodule"]
    assert (nodule["known"], nodule["known_kept"]) == (7, 2)
    assert (nodule["positives"], nodule["positives_kept"]) == (2, 1)
    assert nodule["prevalence_corpus"] == pytest.approx(2 / 7)
    assert nodule["prevalence_subset"] == pytest.approx(1 / 2)
    assert nodule["factor"] == pytest.approx(7 / 4)
    edema = by_finding(report)["Edema"]
    assert [edema[key] for key in ("known", "known_kept", "positives", "positives_kept")] == [4, 3, 3, 2]
    assert report["kept_by"]["dataset"]["nih"] == {"pairs": 5, "kept": 3, "fraction": 3 / 5}
    assert report["kept_by"]["view"] == {
        "AP": {"pairs": 3, "kept": 0, "fraction": 0.0},
        "PA": {"pairs": 4, "kept": 2, "fraction": 0.5},
        "unknown": {"pairs": 1, "kept": 1, "fraction": 1.0},
    }
    assert report["kept_by"]["sex"]["unknown"]["pairs"] == 1
    assert report["kept_by"]["split"]["validation"] == {"pairs": 1, "kept": 0, "fraction": 0.0}
    assert report["bands"]["support"] == {
        "pairs": 2,
        "kept": 2,
        "fraction": 1.0,
        "findings": {
            "Edema": {"known": 2, "positives": 1, "prevalence": 0.5},
            "Nodule": {"known": 2, "positives": 1, "prevalence": 0.5},
        },
    }
    assert report["bands"]["central"]["findings"]["Hernia"] == {"known": 0, "positives": 0, "prevalence": None}
    assert report["bands"]["outlier"]["pairs"] == 2
    assert {key: value["pairs"] for key, value in report["clusters"].items()} == {"0": 3, "2": 3, "10": 2}
    assert list(report["clusters"]) == ["0", "2", "10"]


def test_audit_finding_never_known_has_no_factor() -> None:
    hernia = by_finding(audit_subset(small_corpus()))["Hernia"]
    assert (hernia["known"], hernia["positives"]) == (0, 0)
    assert [hernia[key] for key in ("prevalence_corpus", "prevalence_subset", "factor", "low", "high")] == [None] * 5


def test_audit_findings_come_rarest_first() -> None:
    assert [one["finding"] for one in audit_subset(small_corpus())["findings"]] == [
        "Hernia",
        "Nodule",
        "Edema",
    ]


def test_audit_report_survives_json() -> None:
    report = audit_subset(small_corpus())
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_audit_chunked_arrow_table_equals_a_dict_of_arrays() -> None:
    """Chunks, a slice that does not start at 0, a map column, and bands by name."""
    columns = small_corpus()
    columns["labels"] = pa.array(
        [[(key, None if v is None else int(v)) for key, v in one.items()] for one in columns["labels"]],
        pa.map_(pa.string(), pa.int8()),
    )
    columns["band"] = [Band(number).name.lower() for number in columns["band"]]
    table = pa.table(columns)
    chunked = pa.concat_tables([table.slice(5), table.slice(0, 5), table.slice(0, 0)])
    assert audit_subset(chunked) == audit_subset(small_corpus())


def test_audit_selector_without_bands_counts_them_as_unknown() -> None:
    columns = small_corpus() | {"band": [None] * 8, "cluster": [None] * 8}
    report = audit_subset(columns)
    assert report["clusters"] == {"unknown": {"pairs": 8, "kept": 3, "fraction": 3 / 8}}
    assert list(report["bands"]) == ["unknown"]
    nodule = report["bands"]["unknown"]["findings"]["Nodule"]
    assert nodule == {"known": 7, "positives": 2, "prevalence": pytest.approx(2 / 7)}


def test_audit_findings_by_group_equal_the_audit_of_that_group_alone() -> None:
    """Groups of unknown value, and findings without a positive pair in a group, are left out."""
    columns = small_corpus()
    report = audit_subset(columns)
    assert list(report["findings_by"]) == ["dataset", "view", "sex"]
    assert list(report["findings_by"]["view"]) == ["AP", "PA"]
    for group, value in (("dataset", "nih"), ("dataset", "mimic"), ("view", "PA"), ("sex", "M")):
        rows = [row for row in range(8) if columns[group][row] == value]
        alone = audit_subset({name: [values[row] for row in rows] for name, values in columns.items()})
        expected = [one for one in alone["findings"] if one["positives"]]
        assert report["findings_by"][group][value] == expected


def test_audit_ages_are_counted_by_decade_where_known() -> None:
    age = [0.4, 9.9, 10.0, 89.9, 90.0, 104.0, None, float("nan")]
    report = audit_subset(small_corpus() | {"age_years": age})
    pairs = {group: one["pairs"] for group, one in report["kept_by"]["age"].items()}
    assert pairs == {"0-9": 2, "10-19": 1, "80-89": 1, "90+": 2, "unknown": 2}
    assert [one["finding"] for one in report["findings_by"]["age"]["0-9"]] == ["Edema", "Nodule"]
    assert "unknown" not in report["findings_by"]["age"]
    assert "age" not in audit_subset(small_corpus())["kept_by"]


def test_age_groups_negative_age_is_refused() -> None:
    with pytest.raises(ValueError, match=r"age_years .* -1.0"):
        age_groups(np.array([30.0, -1.0, np.nan]))


def test_audit_parts_come_only_with_what_they_need() -> None:
    columns = small_corpus()
    assert not {"coverage", "duplicates", "stability"} & set(audit_subset(columns))
    feature_NE = torch.eye(8)
    other = np.array([True, False, True, True, False, False, False, False])
    hashes = {
        "pixel_hash": list("aabcdaef"),
        "perceptual_hash": pa.array([bytes(32)] * 2 + [bytes([255 - row] * 32) for row in range(6)], pa.binary(32)),
    }
    report = audit_subset(columns | hashes, feature_NE=feature_NE, other_keeps=[other])
    # Of orthogonal features each pair left out, five of eight, is at the square root of 2 from all others.
    assert report["coverage"]["subset"]["mean"] == pytest.approx(5 / 8 * 2**0.5)
    assert report["coverage"]["random"]["mean"] == pytest.approx(5 / 8 * 2**0.5)
    same_pixels = report["duplicates"]["same_pixels"]
    assert (same_pixels["corpus"], same_pixels["kept"]) == (3, 2)
    assert report["duplicates"]["near_images"]["kept"] == 2
    assert report["duplicates"]["near_features"]["subset"]["near"] == 0
    assert report["stability"]["jaccard"] == [[1, 2 / 4], [2 / 4, 1]]
    assert (report["stability"]["subsets"], report["stability"]["mean"]) == (2, 2 / 4)
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_audit_nothing_kept_has_no_coverage() -> None:
    report = audit_subset(small_corpus() | {"kept": [False] * 8}, feature_NE=torch.eye(8))
    assert "coverage" not in report
    assert report["duplicates"]["near_features"]["subset"]["near"] == 0


def test_audit_features_of_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="keep_N"):
        audit_subset(small_corpus(), feature_NE=torch.eye(7))


def test_audit_value_that_is_called_unknown_is_counted_with_the_nulls() -> None:
    report = audit_subset(small_corpus() | {"sex": ["unknown", None, "F", "F", "F", "F", "F", "M"]})
    assert report["kept_by"]["sex"]["unknown"] == {"pairs": 2, "kept": 2, "fraction": 1.0}


def test_audit_empty_corpus_has_no_fractions() -> None:
    report = audit_subset({name: [] for name in small_corpus()})
    assert (report["pairs"], report["kept_fraction"], report["findings"]) == (0, None, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_id": list("abcdefga")}, "sample_id repeats for 1 of 8"),
        ({"kept": [None] + [True] * 7}, "kept is null for 1"),
        ({"labels": [{"Nodule": -1}] * 8}, "must be 1, 0 or null"),
        ({"band": [7] * 8}, "7 is not a valid Band"),
        ({"cluster": [0] * 7}, "length"),
    ],
)
def test_audit_column_with_bad_values_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audit_subset(small_corpus() | change)


def test_audit_column_missing_is_refused_by_name() -> None:
    columns = small_corpus()
    del columns["band"]
    with pytest.raises(ValueError, match=r"lacks the columns \['band'\]"):
        audit_subset(columns)


TABLES = [
    (440, 100, 5, 3),
    (440, 100, 5, 0),
    (440, 100, 5, 5),
    (4400, 1000, 60, 30),
    (100, 20, 90, 12),
    (50, 49, 20, 19),
]


@pytest.mark.parametrize(("known", "known_kept", "positives", "positives_kept"), TABLES)
def test_enrichment_interval_small_tables_equal_scipy(
    known: int, known_kept: int, positives: int, positives_kept: int
) -> None:
    """SciPy's exact conditional interval for the odds ratio, turned into mean counts by its distribution."""
    rest = known_kept - positives_kept
    cells = [[positives_kept, rest], [positives - positives_kept, known - positives - rest]]
    limits = odds_ratio(cells, kind="conditional").confidence_interval(0.95)
    interval = enrichment_interval(known, known_kept, positives, positives_kept)
    for ours, odds in zip(interval, limits, strict=True):
        if np.isfinite(odds) and odds > 0:
            mean = nchypergeom_fisher(known, positives, known_kept, odds).mean()
        else:
            mean = min(known_kept, positives) if odds > 0 else max(0, known_kept + positives - known)
        assert ours == pytest.approx(mean * known / (known_kept * positives), rel=1e-5)  # worst 7.4e-12


def test_enrichment_interval_random_subsets_covers_one_at_least_as_often_as_stated() -> None:
    """A subset drawn at random has true enrichment 1."""
    draw = np.random.default_rng(0).hypergeometric(40, 960, 220, size=2000)
    limits = {k: enrichment_interval(1000, 220, 40, int(k)) for k in np.unique(draw)}
    covered = np.mean([limits[k][0] <= 1 <= limits[k][1] for k in draw])
    assert 0.95 <= covered <= 0.985  # measured 0.9605


def test_enrichment_interval_corpus_of_a_million_pairs_is_near_the_normal_approximation() -> None:
    """With 20,000 positives kept the normal interval for log enrichment, positives binomial, agrees."""
    known, known_kept, positives, positives_kept = 1_235_004, 280_346, 50_000, 20_000
    low, high = enrichment_interval(known, known_kept, positives, positives_kept)
    factor = positives_kept * known / (positives * known_kept)
    negatives, negatives_kept = known - positives, known_kept - positives_kept
    share, other = positives_kept / positives, negatives_kept / negatives
    variance = (1 / positives_kept - 1 / known_kept) ** 2 * positives * share * (1 - share)
    variance += negatives * other * (1 - other) / known_kept**2
    half = 1.959964 * variance**0.5
    assert low == pytest.approx(factor * np.exp(-half), rel=5e-4)  # worst 4.3e-5
    assert high == pytest.approx(factor * np.exp(half), rel=5e-4)


def test_enrichment_interval_everything_kept_is_one_point() -> None:
    assert enrichment_interval(100, 100, 7, 7) == (1.0, 1.0)


@pytest.mark.parametrize("counts", [(10, 0, 5, 0), (10, 5, 0, 0), (10, 5, 3, 4), (10, 11, 3, 3), (10, 8, 5, 2)])
def test_enrichment_interval_counts_that_make_no_table_are_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="2 x 2 table"):
        enrichment_interval(*counts)


def test_enrichment_no_positive_kept_has_factor_zero_and_a_finite_upper_limit() -> None:
    found = enrichment("Hernia", known=440, known_kept=100, positives=5, positives_kept=0)
    assert (found.factor, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(2.281108, rel=1e-5)  # SciPy: 2.2811082
