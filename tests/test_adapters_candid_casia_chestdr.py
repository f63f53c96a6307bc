"""CANDID-PTX, CASIA-CXR and ChestDR: folders in the described layout and the pairs that they hold, by hand."""

from pathlib import Path
from typing import Any

import pytest
from dataset_files import write_files

from chexray.platform.corpus.adapters.candid import CandidPtxAdapter
from chexray.platform.corpus.adapters.casia import CasiaCxrAdapter
from chexray.platform.corpus.adapters.chestdr import FINDINGS as CHESTDR_FINDINGS
from chexray.platform.corpus.adapters.chestdr import ChestDrAdapter
from chexray.platform.corpus.schema import MaskSource, Reject, SourcePair
from chexray.platform.errors import UsageError

# --- CANDID-PTX

CANDID_REPORTS = (
    "SOPInstanceUID,EncodedPixels,Report,filename,StudyInstanceUID\n"
    "1.2.3.60820,-1,No pneumothorax.,P0001_1_2010.dcm,9.1\n"
    "1.2.3.60821,100 5 1019 5,Left pneumothorax.,P0002_1_2011.dcm,9.2\n"
    "1.2.3.60821,5000 2,Left pneumothorax.,P0002_1_2011.dcm,9.2\n"
    "1.2.3.60822,,,P0003_1_2011.dcm,9.3\n"
    "1.2.3.60823,-1,Clear.,P0004_1_2011.dcm,9.4\n"
    "1.2.3.60823,-1,Clear.,P0005_1_2011.dcm,9.4\n"
    "1.2.3.60824,-1,Clear.,P0006_1_2011.dcm,9.5\n"
)
CANDID_TUBES = "anon_SOPUID,annotation_ref,mask_rle\n1.2.3.60821,t1,7 3\n1.2.3.60820,t2,-1\n"
CANDID_IMAGES = {f"dataset/1.2.3.{number}": "" for number in (60820, 60822, 60823, 99999)}
CANDID = {
    "Pneumothorax_reports.csv": CANDID_REPORTS,
    "chest_tube.csv": CANDID_TUBES,
    "dataset/1.2.3.60821.dcm": "",
    "readme.txt": "",
    **CANDID_IMAGES,
}


def test_candid_rows_become_pairs_with_runs_of_all_their_rows(tmp_path: Path) -> None:
    size = (1024, 1024)
    assert list(CandidPtxAdapter(write_files(tmp_path, CANDID)).pairs()) == [
        SourcePair(
            dataset="candid-ptx",
            source_id="1.2.3.60820",
            image="dataset/1.2.3.60820",
            patient="P0001",
            study="9.1",
            report="No pneumothorax.",
            labels={"Pneumothorax": False, "Chest Tube": False, "Rib Fracture": None},
            masks={"Pneumothorax": MaskSource(), "Chest Tube": MaskSource()},
        ),
        SourcePair(
            dataset="candid-ptx",
            source_id="1.2.3.60821",
            image="dataset/1.2.3.60821.dcm",
            patient="P0002",
            study="9.2",
            report="Left pneumothorax.",
            labels={"Pneumothorax": True, "Chest Tube": True, "Rib Fracture": None},
            masks={
                "Pneumothorax": MaskSource(runs=("100 5 1019 5", "5000 2"), runs_size=size),
                "Chest Tube": MaskSource(runs=("7 3",), runs_size=size),
            },
        ),
        SourcePair(
            dataset="candid-ptx",
            source_id="1.2.3.60822",
            image="dataset/1.2.3.60822",
            patient="P0003",
            study="9.3",
            labels={"Pneumothorax": None, "Chest Tube": False, "Rib Fracture": None},
            masks={"Chest Tube": MaskSource()},
        ),
        Reject("dataset/1.2.3.60823", "image of two patients"),
        Reject("1.2.3.60824", "image file missing"),
        Reject("dataset/1.2.3.99999", "image without a row"),
    ]


@pytest.mark.parametrize("table", ["acute_rib_fracture.csv", "Rib_fracture_mask_rle.csv"])
def test_candid_rib_fractures_are_read_from_either_table(tmp_path: Path, table: str) -> None:
    files = CANDID | {table: "anon_SOPUID,mask_rle\n1.2.3.60820,1 1\n1.2.3.60820,9 2\n"}
    pairs = [pair for pair in CandidPtxAdapter(write_files(tmp_path, files)).pairs() if isinstance(pair, SourcePair)]
    assert [pair.labels["Rib Fracture"] for pair in pairs] == [True, False, False]
    assert pairs[0].masks["Rib Fracture"].runs == ("1 1", "9 2")


def test_candid_options_name_other_columns(tmp_path: Path) -> None:
    renamed = CANDID_REPORTS.replace("Report", "Text").replace("SOPInstanceUID", "uid")
    files = CANDID | {"Pneumothorax_reports.csv": renamed}
    pair = next(CandidPtxAdapter(write_files(tmp_path, files), image_column="uid", report_column="Text").pairs())
    assert isinstance(pair, SourcePair)
    assert pair.report == "No pneumothorax."
    with pytest.raises(UsageError, match="missing columns 'SOPInstanceUID', 'Report'"):
        next(CandidPtxAdapter(str(tmp_path)).pairs())


# --- CASIA-CXR

CASIA_HEADER = (
    "ExamID,ImageID,PatientID,ImageDir,PatientAge,PatientGender,PositionView,Projection,ReportID,"
    "Findings,Indication,Comparison,Impression,EndHere,#\n"
)
CASIA_MASS = CASIA_HEADER + (
    "E1,I1,P1,CASIA-CXR_Mass/Images/I1.jpg,057Y,M,PA,Frontal,R1,Masse hilaire.,Toux,,Masse.,,\n"
    "E2,I2,P1,Images,60,F,,AP,R2,,,,Opacité.,,\n"
    "E3,I3,P2,somewhere/else,,,,,R3,,,,,,\n"
    "E4,I4,P3,CASIA-CXR_Mass/Images/I4.jpg,57 ans,F,PA,,R4,Clair.,,,,,\n"
    "E5,I1,P1,CASIA-CXR_Mass/Images/I1.jpg,057Y,M,PA,Frontal,R1,Masse hilaire.,Toux,,Masse.,,\n"
    ",,,,,,,,,,,,,EndHere,#\n"
)
CASIA_IMAGES = {f"CASIA-CXR_Mass/Images/{name}.jpg": "" for name in ("I1", "I2", "I3", "stray")}


def casia_pair(name: str, patient: str, exam: str, **fields: Any) -> SourcePair:
    path = f"CASIA-CXR_Mass/Images/{name}.jpg"
    return SourcePair("casia-cxr", path, path, patient, exam, language="fr", labels={"Mass": True}, **fields)


@pytest.mark.parametrize("name", ["CASIA-CXR_Mass/CASIA-CXR_Mass_Reports.csv", "CASIA-CXR_Combined_Reports.csv"])
def test_casia_rows_become_pairs_with_french_reports(tmp_path: Path, name: str) -> None:
    files = {name: CASIA_MASS, **CASIA_IMAGES}
    report = "FINDINGS: Masse hilaire.\nIMPRESSION: Masse."
    assert list(CasiaCxrAdapter(write_files(tmp_path, files)).pairs()) == [
        casia_pair("I1", "P1", "E1", view="PA", sex="M", age_years=57.0, report=report),
        casia_pair("I2", "P1", "E2", view="AP", sex="F", age_years=60.0, report="IMPRESSION: Opacité."),
        casia_pair("I3", "P2", "E3"),
        Reject("CASIA-CXR_Mass/Images/I4.jpg", "image file missing"),
        Reject("CASIA-CXR_Mass/Images/I1.jpg", "duplicate row"),
        Reject("CASIA-CXR_Mass/Images/stray.jpg", "image without a row"),
    ]


def test_casia_image_whose_name_is_not_unique_is_not_guessed(tmp_path: Path) -> None:
    row = "E3,I3,P2,somewhere/else,,,,,R3,Clair.,,,,,\n"
    files = {"CASIA-CXR_Combined_Reports.csv": CASIA_HEADER + row, "a/I3.jpg": "", "b/I3.jpg": ""}
    assert next(CasiaCxrAdapter(write_files(tmp_path, files)).pairs()) == Reject("somewhere/else", "image file missing")


def test_casia_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no CASIA-CXR_Cardiomegaly/CASIA-CXR_Cardiomegaly_Reports.csv or CASIA-CXR_C"
    ):
        list(CasiaCxrAdapter(str(tmp_path)).pairs())


# --- ChestDR

CHESTDR_HEADER = f"study_id,img_id,{','.join(CHESTDR_FINDINGS)}\n"
CHESTDR_CSV = (
    CHESTDR_HEADER
    + f"s1,a.png,1,0,1{',0' * 16}\n"
    + f"s1,b.png,0,0,0{',0' * 16}\n"
    + f",c.png,0,0,0{',0' * 16}\n"
    + f"s3,gone.png,0,0,0{',0' * 16}\n"
    + f"s1,a.png,1,0,1{',0' * 16}\n"
)
ABSENT: dict[str, bool | None] = dict.fromkeys(CHESTDR_FINDINGS.values(), False)


@pytest.mark.parametrize(
    ("csv", "images"),
    [
        ("chestdr_published_19d.csv", "images"),
        ("MedFMC_trainval_annotation/chestdr_published_19d.csv", "MedFMC_train/chest/images"),
        ("MedFMC_train/chest/chest_train.csv", "MedFMC_train/chest/images"),
    ],
)
def test_chestdr_rows_become_pairs_in_every_layout(tmp_path: Path, csv: str, images: str) -> None:
    files = {csv: CHESTDR_CSV, **{f"{images}/{name}.png": "" for name in ("a", "b", "c", "stray")}}
    files |= {"MedFMC_train/colon/images/x.png": "", "MedFMC_train/endo/images/y.png": ""}
    assert list(ChestDrAdapter(write_files(tmp_path, files)).pairs()) == [
        SourcePair(
            "chestdr",
            "a.png",
            f"{images}/a.png",
            "s1",
            "s1",
            labels=ABSENT | {"Pleural Effusion": True, "Pneumonia": True},
        ),
        SourcePair("chestdr", "b.png", f"{images}/b.png", "s1", "s1", labels=ABSENT),
        SourcePair("chestdr", "c.png", f"{images}/c.png", "c.png", "c.png", labels=ABSENT),
        Reject("gone.png", "image file missing"),
        Reject(f"{images}/a.png", "duplicate row"),
        Reject(f"{images}/stray.png", "image without a row"),
    ]


def test_chestdr_options_name_another_table_and_columns(tmp_path: Path) -> None:
    files = {"mine.csv": CHESTDR_CSV.replace("img_id", "file"), "a.png": ""}
    pair = next(
        ChestDrAdapter(write_files(tmp_path, files), csv="mine.csv", image_column="file", patient_column="").pairs()
    )
    assert isinstance(pair, SourcePair)
    assert (pair.source_id, pair.patient) == ("a.png", "a.png")


def test_chestdr_without_its_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no chestdr_published_19d\.csv or MedFMC_trainval_annotation"):
        list(ChestDrAdapter(str(tmp_path)).pairs())
