"""ReXGradient, BIMCV-COVID19+ and BRAX: folders in the published layout and the pairs that they hold, by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from dataset_files import list_folder, write_files

from chexray.platform.corpus.adapters.bimcv import BimcvCovid19Adapter
from chexray.platform.corpus.adapters.brax import BraxAdapter
from chexray.platform.corpus.adapters.cells import CHEXPERT_FINDINGS
from chexray.platform.corpus.adapters.rexgradient import RexGradientAdapter
from chexray.platform.corpus.schema import Reject, SourcePair
from chexray.platform.errors import UsageError

# --- ReXGradient

REX = "deid_png/GRDN1/A1/studies/1.2/series/3/instances"


def rex_study(images: dict[str, str], **fields: Any) -> dict[str, Any]:
    study = {
        "PatientID": "GRDN1",
        "StudyInstanceUid": "1.2",
        "PatientSex": "F",
        "PatientAge": "064Y",
        "Indication": "Cough.",
        "Findings": "Clear.",
        "Impression": "Normal.",
        "ImagePath": [f"../{path}" for path in images],
        "ImageViewPosition": list(images.values()),
    }
    return study | fields


def rex_files(folder: str, **studies: dict[str, Any]) -> dict[str, str]:
    return {f"{folder}{name}_metadata_view_position.json": json.dumps(study) for name, study in studies.items()}


def rex_pair(image: str, **fields: Any) -> SourcePair:
    known: dict[str, Any] = {
        "patient": "GRDN1",
        "study": "1.2",
        "sex": "F",
        "age_years": 64.0,
        "report": "FINDINGS: Clear.\nIMPRESSION: Normal.",
    }
    return SourcePair(dataset="rexgradient", source_id=image, image=image, **(known | fields))


@pytest.mark.parametrize("folder", ["metadata/", ""])
def test_rexgradient_studies_become_pairs_of_every_image(tmp_path: Path, folder: str) -> None:
    train = {
        "pGRDN1_aA1_s1.2": rex_study({f"{REX}/a.png": "PA", f"{REX}/b.png": "LATERAL", f"{REX}/c.png": "KUB"}),
        "pGRDN2_aA2_s1.3": rex_study(
            {f"{REX}/d.png": "UNKNOWN"},
            PatientID=None,
            StudyInstanceUid=None,
            PatientSex="O",
            PatientAge=None,
            Findings="None",
            Impression=float("nan"),
        ),
    }
    valid = {"pGRDN2_aA2_s1.4": rex_study({f"{REX}/e.png": "ANTERO_POSTERIOR"}, PatientID=None, Findings=None)}
    test = {"x": rex_study({f"{REX}/f.png": "AP", f"{REX}/gone.png": "AP"}, ImageViewPosition=["AP"])}
    images = {f"{REX}/{name}.png": "" for name in ("a", "b", "c", "d", "e", "f", "stray")}
    files = rex_files(folder, train=train, valid=valid, test=test) | images
    assert list(RexGradientAdapter(write_files(tmp_path, files)).pairs()) == [
        rex_pair(f"{REX}/a.png", view="PA", split="train"),
        rex_pair(f"{REX}/b.png", view="LATERAL", split="train"),
        Reject(f"{REX}/c.png", "not a chest", "view KUB"),
        Reject(f"{REX}/d.png", "no report and no labels"),
        rex_pair(f"{REX}/e.png", patient="pGRDN2", view="AP", split="validation", report="IMPRESSION: Normal."),
        rex_pair(f"{REX}/f.png", view="AP", split="test"),
        Reject(f"{REX}/gone.png", "image file missing"),
        Reject(f"{REX}/stray.png", "image without a row"),
    ]


def test_rexgradient_with_one_split_alone_passes_over_the_images_of_others(tmp_path: Path) -> None:
    test = {"x": rex_study({f"{REX}/f.png": "AP", "outside/../../f.png": "AP"})}
    files = rex_files("metadata/", test=test) | {f"{REX}/f.png": "", f"{REX}/other.png": ""}
    assert list(RexGradientAdapter(write_files(tmp_path, files)).pairs()) == [
        rex_pair(f"{REX}/f.png", view="AP", split="test"),
        Reject("", "image file missing"),
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no metadata/train_metadata_view_position.json there"),
        ({"metadata/test_metadata_view_position.json": "{"}, "not a JSON file"),
        ({"metadata/test_metadata_view_position.json": "[1]"}, "not an object of studies"),
        ({"metadata/test_metadata_view_position.json": '{"x": {"ImagePath": "a"}}'}, "ImagePath and Image"),
    ],
)
def test_rexgradient_that_cannot_be_read_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        list(RexGradientAdapter(write_files(tmp_path, files)).pairs())


# --- BIMCV-COVID19+

BIMCV_LABELS = (
    "\tPatientID\tReportID\tReport\tLabels\tlabelCUIS\n"
    "0\tsub-S03047\tses-E07985\t['Infiltrado basal .', 'Sin derrame.']\t['pneumonia', 'COVID 19', '']\t[]\n"
    "1\tsub-S03048\tses-E06000\tSin hallazgos.\t['normal']\t[]\n"
    "2\tsub-S03049\tses-E06001\t\t['exclude']\t[]\n"
    "3\tsub-S03050\tses-E06002\t[\"a 'b'\\nc\"]\t['infiltrates'\\t 'nodule']\t[]\n"
    "4\tsub-S03051\tses-E06003\tTC.\t['normal']\t[]\n"
)
BIMCV_PEOPLE = (
    "participant\tmodality_dicom\tbody_parts\tage\tgender\n"
    "sub-S03047\t['CR', 'CT']\t[['chest']]\t[64, 65]\tF\n"
    "sub-S03048\t['DX']\t[['chest']]\t[]\tNone\n"
)


def bimcv_image(patient: str, session: str, rest: str) -> str:
    return f"sub-{patient}/ses-{session}/mod-rx/sub-{patient}_ses-{session}_{rest}"


BIMCV_IMAGES = (
    bimcv_image("S03047", "E07985", "acq-2_run-1_bp-chest_vp-pa_dx.png"),
    bimcv_image("S03047", "E07985", "run-1_bp-chest_vp-ll_cr.png"),
    bimcv_image("S03048", "E06000", "run-1_bp-chest_cr.png"),
    bimcv_image("S03049", "E06001", "run-1_bp-chest_vp-ap_dx.png"),
    bimcv_image("S03050", "E06002", "run-1_bp-abdomen_vp-ap_dx.png"),
    bimcv_image("S03050", "E06002", "run-1_bp-chest_vp-ap_dx.png"),
    bimcv_image("S03052", "E06009", "run-1_bp-chest_vp-ap_dx.png"),
)


@pytest.mark.parametrize("folder", ["covid19_posi/", ""])
@pytest.mark.parametrize("table", ["labels_covid19_posi.tsv", "labels_covid_posi.tsv"])
def test_bimcv_radiographs_become_pairs_with_spanish_reports(tmp_path: Path, folder: str, table: str) -> None:
    files = {
        f"{folder}derivatives/labels/{table}": BIMCV_LABELS,
        f"{folder}participants.tsv": BIMCV_PEOPLE,
        f"{folder}sub-S03051/ses-E06003/mod-ct/sub-S03051_ses-E06003_bp-chest_ct.nii.gz": "",
        f"{folder}sub-S03047/ses-E07985/mod-rx/notes.json": "",
        f"{folder}sub-S03047/ses-E07985/mod-rx/other.png": "",
        **{f"{folder}{path}": "" for path in BIMCV_IMAGES},
    }
    pa, ll, plain, empty, abdomen, ap, unknown = (f"{folder}{path}" for path in BIMCV_IMAGES)

    def pair(path: str, patient: str, session: str, **fields: Any) -> SourcePair:
        name = path.rsplit("/", 1)[1]
        return SourcePair("bimcv-covid19", name, path, f"sub-{patient}", f"ses-{session}", language="es", **fields)

    first: dict[str, Any] = {
        "sex": "F",
        "age_years": 64.0,
        "report": "Infiltrado basal .\nSin derrame.",
        "labels": {"pneumonia": True, "covid 19": True, "No Finding": False},
    }
    third: dict[str, Any] = {"report": "a 'b'\nc", "labels": {"infiltrates": True, "nodule": True, "No Finding": False}}
    assert list(BimcvCovid19Adapter(write_files(tmp_path, files)).pairs()) == [
        Reject(f"{folder}sub-S03047/ses-E07985/mod-rx/other.png", "file name not understood"),
        pair(pa, "S03047", "E07985", view="PA", **first),
        pair(ll, "S03047", "E07985", view="LATERAL", **first),
        pair(plain, "S03048", "E06000", report="Sin hallazgos.", labels={"No Finding": True}),
        Reject(empty, "no report and no labels"),
        Reject(abdomen, "not a chest", "body part abdomen"),
        pair(ap, "S03050", "E06002", view="AP", **third),
        Reject(unknown, "image without a row"),
    ]


def test_bimcv_without_participants_has_no_sex_and_age(tmp_path: Path) -> None:
    files = {"derivatives/labels/labels_covid19_posi.tsv": BIMCV_LABELS, BIMCV_IMAGES[0]: ""}
    pair = next(BimcvCovid19Adapter(write_files(tmp_path, files)).pairs())
    assert isinstance(pair, SourcePair)
    assert (pair.sex, pair.age_years) == (None, None)


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({}, {}, "no derivatives/labels/labels_covid19_posi.tsv or labels_covid_posi.tsv below it"),
        ({"labels_covid_posi.tsv": BIMCV_LABELS}, {"report_column": "Texto"}, "missing column 'Texto'"),
    ],
)
def test_bimcv_that_cannot_be_read_is_refused(
    tmp_path: Path, files: dict[str, str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        list(BimcvCovid19Adapter(write_files(tmp_path, files), **options).pairs())


# --- BRAX

BRAX_HEADER = (
    "DicomPath,PngPath,PatientID,PatientSex,PatientAge,AccessionNumber,StudyDate,"
    f"{','.join(CHEXPERT_FINDINGS)},ViewPosition,Rows,Columns,Manufacturer\n"
)


def brax_row(name: str, patient: str, age: str, labels: str, view: str, size: str = "2000,2000") -> str:
    paths = f"Anonymized_DICOMs/{patient}/{name}.dcm,images/{patient}/{name}.png"
    return f"{paths},{patient},M,{age},acc1,20000101,{labels},{view},{size},1\n"


BRAX_ROWS = (
    brax_row("a", "id_1", "65", "0,1,-1,,,,,,,,,,,1", "PA"),
    brax_row("b", "id_1", "85 or more", ",,,,,,,,1,,,,,", "L"),
    brax_row("c", "id_2", "", ",,,,,,,,1,,,,,", "LT-DECUB"),
    brax_row("strip", "id_2", "", ",,,,,,,,1,,,,,", "AP", "2000,100"),
    brax_row("gone", "id_2", "", ",,,,,,,,1,,,,,", "AP"),
    brax_row("a", "id_1", "65", "0,1,-1,,,,,,,,,,,1", "PA"),
)


@pytest.mark.parametrize(
    ("image_format", "folder", "suffix"), [("png", "images", "png"), ("dicom", "Anonymized_DICOMs", "dcm")]
)
def test_brax_rows_become_pairs_in_either_format(tmp_path: Path, image_format: Any, folder: str, suffix: str) -> None:
    names = ("id_1/a", "id_1/b", "id_2/c", "id_2/strip", "id_3/stray")
    images = {f"images/{name}.png": "" for name in names} | {f"Anonymized_DICOMs/{name}.dcm": "" for name in names}
    files = {"master_spreadsheet_update.csv": BRAX_HEADER + "".join(BRAX_ROWS), **images}

    def pair(name: str, **fields: Any) -> SourcePair:
        path = f"{folder}/{name}.{suffix}"
        return SourcePair("brax", path, path, name.split("/")[0], "acc1", sex="M", **fields)

    unknown = dict.fromkeys(CHEXPERT_FINDINGS)
    labels = unknown | {"Atelectasis": False, "Cardiomegaly": True, "Support Devices": True}
    assert list(BraxAdapter(write_files(tmp_path, files), image_format).pairs()) == [
        pair("id_1/a", view="PA", age_years=65.0, labels=labels),
        pair("id_1/b", view="LATERAL", age_years=85.0, labels=unknown | {"No Finding": True}),
        pair("id_2/c", labels=unknown | {"No Finding": True}),
        Reject(f"{folder}/id_2/strip.{suffix}", "not a chest", "2000 x 100 pixels"),
        Reject(f"{folder}/id_2/gone.{suffix}", "image file missing"),
        Reject(f"{folder}/id_1/a.{suffix}", "duplicate row"),
        Reject(f"{folder}/id_3/stray.{suffix}", "image without a row"),
    ]


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({}, {}, "no master_spreadsheet_update.csv or master_spreadsheet.csv there"),
        ({"master_spreadsheet.csv": "PngPath\na\n"}, {}, "missing columns 'PatientID'"),
        ({}, {"image_format": "jpeg"}, "image_format='jpeg': allowed: png, dicom"),
    ],
)
def test_brax_that_cannot_be_read_is_refused(
    tmp_path: Path, files: dict[str, str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        list_folder("brax", write_files(tmp_path, files), **options)
