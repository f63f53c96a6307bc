"""The synthetic corpus: determinism, prevalence, masks, reports, patients, defects, files."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image, UnidentifiedImageError
from pydicom.pixels import apply_voi_lut
from scipy import ndimage

from chexray.platform.corpus.schema import NO_FINDING
from chexray.platform.corpus.synthetic.anatomy import Anatomy
from chexray.platform.corpus.synthetic.chest import draw_chest
from chexray.platform.corpus.synthetic.cohort import PairPlan, SyntheticConfig, plan_pair
from chexray.platform.corpus.synthetic.dataset import (
    COLUMNS,
    LUNGS,
    draw_pair,
    encode_image,
    image_path,
    write_dataset,
)
from chexray.platform.corpus.synthetic.findings import alter_anatomy, paint_findings
from chexray.platform.corpus.synthetic.labels import FINDINGS, Finding, sample_findings, sample_presence
from chexray.platform.corpus.synthetic.wording import write_report

CLEAN = SyntheticConfig(
    pairs=64, size=96, corrupt_rate=0, duplicate_rate=0, mismatched_rate=0, missing_image_rate=0, empty_report_rate=0
)
SPOILT = SyntheticConfig(
    pairs=80,
    size=96,
    seed=3,
    corrupt_rate=0.15,
    duplicate_rate=0.1,
    mismatched_rate=0.1,
    missing_image_rate=0.05,
    empty_report_rate=0.05,
)

# Written independently of the sentences: what a reader would search a report for.
MENTIONED = {
    "Lung Opacity": r"opaci",
    "Support Devices": r"tube|catheter|picc|pacemaker|wires|devices",
    "Pleural Effusion": r"effusion|pleural fluid",
    "Cardiomegaly": r"cardiomegaly|enlarge",
    "Atelectasis": r"atelecta",
    "Edema": r"edema",
    "Consolidation": r"consolidat",
    "Pneumothorax": r"pneumothorax",
    "Nodule": r"nodul",
    "Mass": r"\bmass",
    "Scoliosis": r"scolio",
    "Rib Fracture": r"fracture",
    "Hernia": r"hernia",
    "Subcutaneous Emphysema": r"subcutaneous",
    "Cavitary Lesion": r"cavit",
    "Pneumoperitoneum": r"pneumoperitoneum|free (intraperitoneal )?air",
    "Dextrocardia": r"dextrocardia",
}
NEGATED = re.compile(r"\b(no|not|without|negative)\b")


def one_finding(name: str, seed: int, severity: float = 0.6) -> Finding:
    rng = np.random.default_rng([7, seed])
    (study,) = sample_findings(rng, np.array([[other == name for other in FINDINGS]]))
    return replace(study[0], severity=severity)


def plans(config: SyntheticConfig, count: int) -> list[PairPlan]:
    return [plan_pair(config, index) for index in range(count)]


def read_rows(root: Path) -> list[dict[str, str]]:
    with (root / "pairs.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def spoilt_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("spoilt")
    write_dataset(root, SPOILT)
    return root


def test_write_dataset_one_and_two_workers_give_identical_bytes(spoilt_root: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    write_dataset(tmp_path, SPOILT, workers=2, progress=seen.append)
    assert read_tree(tmp_path) == read_tree(spoilt_root)
    assert seen == [32, 64, 80]


def test_draw_pair_in_any_order_and_of_a_longer_corpus_gives_the_same_pair() -> None:
    forward = {index: draw_pair(CLEAN, index) for index in (0, 5, 40)}
    for index in (40, 0, 5):
        again = draw_pair(replace(CLEAN, pairs=10_000), index)
        assert again.plan == forward[index].plan
        np.testing.assert_array_equal(again.stored_HW, forward[index].stored_HW)


def test_draw_pair_another_seed_gives_another_image() -> None:
    assert np.any(draw_pair(CLEAN, 0).stored_HW != draw_pair(replace(CLEAN, seed=1), 0).stored_HW)


def test_presence_of_many_patients_matches_target_prevalence() -> None:
    patients = 8_000
    present_PF = np.concatenate([sample_presence(np.random.default_rng([1, p]), 1) for p in range(patients)])
    for name, observed in zip(FINDINGS, present_PF.mean(axis=0), strict=True):
        spread = np.sqrt(FINDINGS[name] * (1 - FINDINGS[name]) / patients)
        # patients are independent, so binomial; 17 comparisons. Measured worst: 1.5 spreads
        assert abs(observed - FINDINGS[name]) < 4 * spread, name
    assert 0.45 < 1 - present_PF.any(axis=1).mean() < 0.55  # measured 0.479


def test_presence_correlates_as_in_hospitals() -> None:
    present_PF = np.concatenate([sample_presence(np.random.default_rng([2, p]), 1) for p in range(8_000)])
    column = dict(zip(FINDINGS, present_PF.T, strict=True))
    effusion, edema, heart = column["Pleural Effusion"], column["Edema"], column["Cardiomegaly"]
    assert effusion[heart].mean() > 2 * effusion.mean()
    assert edema[heart].mean() > 2 * edema.mean()
    assert np.all(column["Lung Opacity"][column["Consolidation"]])


def test_plans_of_a_cohort_have_several_studies_a_patient_and_persisting_findings() -> None:
    cohort = plans(CLEAN, 3_200)
    studies = Counter(plan.patient_id for plan in cohort)
    sizes = Counter(studies.values())
    assert set(sizes) == {1, 2, 3, 4, 5, 6}
    assert sizes[1] > sizes[2] > sizes[3] > sizes[6]
    assert len({plan.study_id for plan in cohort}) == len(cohort)
    assert all(len({p.sex for p in cohort if p.patient_id == who}) == 1 for who in list(studies)[:50])
    couples = [(a, b) for a, b in pairwise(cohort) if a.patient_id == b.patient_id]
    enlarged = [b.labels["Cardiomegaly"] for a, b in couples if a.labels["Cardiomegaly"]]
    assert np.mean(enlarged) > 0.5  # measured 0.58, against a prevalence of 0.15


def test_reports_of_a_cohort_mention_present_findings_and_claim_no_absent_ones() -> None:
    for plan in plans(CLEAN, 2_000):
        report = plan.report.lower()
        assert re.fullmatch(r"findings: .+ impression: .+", report)
        assert "{" not in report
        assert ".." not in report
        for name, present in plan.labels.items():
            if name == NO_FINDING:
                continue
            sentences = [s for s in re.split(r"\. |: ", report) if re.search(MENTIONED[name], s)]
            claims = [s for s in sentences if not NEGATED.search(s)]
            assert bool(claims) == present, (name, report)


def test_reports_of_normals_vary_in_wording() -> None:
    rng = np.random.default_rng(0)
    assert len({write_report(rng, (), "PA") for _ in range(500)}) > 450


@pytest.mark.parametrize("size", [96, 160])
def test_lung_mask_of_drawn_pairs_is_two_plausible_lungs(size: int) -> None:
    for index in range(16):
        pair = draw_pair(replace(CLEAN, size=size), index)
        mask_HW = pair.masks[LUNGS]
        assert pair.image_HW.shape == mask_HW.shape == (size, size)
        assert set(np.unique(mask_HW)) == {0, 255}
        # real lung masks fill 0.28 to 0.62 of tightly cropped films; measured here 0.19 to 0.28
        assert 0.15 < np.mean(mask_HW == 255) < 0.45
        labelled, count = ndimage.label(mask_HW)
        areas = np.sort(np.bincount(labelled.ravel())[1:])[::-1]
        assert count >= 2
        assert areas[1] > 0.3 * areas[0]
        inside, outside = (
            pair.image_HW[mask_HW == 255].mean(),
            pair.image_HW[size // 3 :][mask_HW[size // 3 :] == 0].mean(),
        )
        assert inside < outside


@pytest.mark.parametrize("name", list(FINDINGS))
def test_finding_painted_on_a_chest_changes_pixels_inside_its_mask(name: str) -> None:
    for seed in range(4):
        finding = one_finding(name, seed)
        plain = draw_chest(Anatomy(), 128, np.random.default_rng(seed))
        chest = draw_chest(alter_anatomy(Anatomy(), [finding]), 128, np.random.default_rng(seed))
        attenuation, masks = paint_findings(chest, [finding])
        inside = masks[name] > 0.5
        change = np.abs(attenuation - plain.attenuation)
        assert 0.001 < inside.mean() < 0.3  # measured 0.0025 to 0.157
        assert change[inside].mean() > 0.02  # of a range of about 1; measured least 0.045 (fractures)
        if name not in {"Cardiomegaly", "Dextrocardia", "Scoliosis", "Atelectasis"}:  # these move the chest
            assert change[inside].mean() > 4 * change[~inside].mean()  # measured least 13.8 (edema)


def test_masks_of_drawn_pairs_are_those_of_present_findings() -> None:
    for index in range(32):
        pair = draw_pair(CLEAN, index)
        assert set(pair.masks) == {LUNGS, *(finding.name for finding in pair.plan.findings)}


def test_dicom_of_either_polarity_reads_back_to_the_png() -> None:
    interpretations = Counter[str]()
    for index in range(16):
        pair = draw_pair(CLEAN, index)
        encoded = encode_image(replace(CLEAN, image_format="dicom", monochrome1_rate=0.5), pair)
        image = pydicom.dcmread(io.BytesIO(encoded))
        interpretations[image.PhotometricInterpretation] += 1
        assert image.SOPClassUID.name == "Computed Radiography Image Storage"
        assert image.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
        assert (image.BitsStored, image.PatientID, image.ViewPosition) == (12, pair.plan.patient_id, pair.plan.view)
        assert image.StudyInstanceUID.is_valid
        shown_HW = apply_voi_lut(image.pixel_array, image) / 4095 * 255
        if image.PhotometricInterpretation == "MONOCHROME1":
            shown_HW = 255 - shown_HW
        png_HW = np.asarray(Image.open(io.BytesIO(encode_image(CLEAN, pair))))
        assert np.max(np.abs(np.rint(shown_HW) - png_HW)) == 0
    assert set(interpretations) == {"MONOCHROME1", "MONOCHROME2"}


def test_pairs_csv_of_a_spoilt_corpus_lists_every_pair_with_its_defect(spoilt_root: Path) -> None:
    rows = read_rows(spoilt_root)
    assert tuple(rows[0]) == COLUMNS
    assert [row["path"] for row in rows] == [image_path(SPOILT, index) for index in range(SPOILT.pairs)]
    assert set(Counter(row["defect"] for row in rows)) == {
        "", "corrupt", "duplicate", "mismatched", "missing_image", "empty_report",
    }  # fmt: skip
    for row in rows:
        path = spoilt_root / row["path"]
        assert path.exists() == (row["defect"] != "missing_image")
        assert (row["report"] == "") == (row["defect"] == "empty_report")
        masks = list((spoilt_root / "masks").glob(f"{path.stem}__*.png"))
        assert bool(masks) == (row["defect"] not in {"missing_image", "corrupt"})


def test_corrupt_images_of_a_spoilt_corpus_do_not_decode(spoilt_root: Path) -> None:
    corrupt = [row["path"] for row in read_rows(spoilt_root) if row["defect"] == "corrupt"]
    assert corrupt
    for path in corrupt:
        with pytest.raises((UnidentifiedImageError, OSError, SyntaxError)):
            np.asarray(Image.open(spoilt_root / path))


def test_duplicates_and_mismatches_of_a_spoilt_corpus_name_their_source(spoilt_root: Path) -> None:
    rows = {row["path"]: row for row in read_rows(spoilt_root)}
    with (spoilt_root / "defects.csv").open(newline="", encoding="utf-8") as file:
        defects = list(csv.DictReader(file))
    assert [d["path"] for d in defects] == [path for path, row in rows.items() if row["defect"]]
    for defect in defects:
        row, source = rows[defect["path"]], rows.get(defect["source"])
        if defect["defect"] == "duplicate":
            assert source is not None
            assert (spoilt_root / row["path"]).read_bytes() == (spoilt_root / source["path"]).read_bytes()
            assert row["patient_id"] != source["patient_id"]
        if defect["defect"] == "mismatched" and source is not None:
            assert row["report"] == source["report"]


def test_defects_of_a_cohort_come_at_their_rates() -> None:
    count = 4_800
    found = Counter(plan.defect for plan in plans(SyntheticConfig(), count))
    config = SyntheticConfig()
    for defect, rate in {
        "corrupt": config.corrupt_rate,
        "duplicate": config.duplicate_rate,
        "mismatched": config.mismatched_rate,
        "missing_image": config.missing_image_rate,
        "empty_report": config.empty_report_rate,
    }.items():
        assert abs(found[defect] - rate * count) < 4 * np.sqrt(rate * count), defect  # measured worst 1.4


def test_recorded_labels_of_a_cohort_leave_one_in_twenty_unknown_and_agree_elsewhere() -> None:
    cohort = plans(SyntheticConfig(), 3_200)
    cells = [(plan.recorded[name], truth) for plan in cohort for name, truth in plan.labels.items()]
    assert abs(np.mean([recorded is None for recorded, _ in cells]) - 0.05) < 0.006  # measured 0.0486
    assert all(recorded in (None, truth) for recorded, truth in cells)


def test_config_out_of_range_names_field_and_value() -> None:
    with pytest.raises(ValueError, match="size is 20; it must be 96 to 1024"):
        SyntheticConfig(size=20)
    with pytest.raises(ValueError, match=r"corrupt_rate is 1\.5"):
        SyntheticConfig(corrupt_rate=1.5)
    with pytest.raises(ValueError, match="defect rates sum"):
        SyntheticConfig(corrupt_rate=0.6, duplicate_rate=0.6)
