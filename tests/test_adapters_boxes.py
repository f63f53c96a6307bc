"""VinDr, SIIM-ACR, RSNA and NIH: all real rows and boxes against counts by pandas, and folders written by hand."""

import gzip
import io
import zipfile
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from dataset_files import MemoryDataset, label_file, list_dataset, pairs_of, rejects_of

from chexray.platform.corpus.adapters.nih import FINDINGS as NIH_FINDINGS
from chexray.platform.corpus.masks import build_mask
from chexray.platform.corpus.schema import MaskSource
from chexray.platform.errors import ChexrayError, UsageError


def test_vindr_real_kaggle_rows_are_pairs_with_the_majoritys_labels_and_all_boxes() -> None:
    path = label_file("vinbigdata-train.csv.gz")
    table = pd.read_csv(path)
    images = table.image_id.unique()
    entries = list_dataset("vindr-cxr", {"train.csv.gz": path.read_bytes()}, [f"train/{i}.dicom" for i in images])
    pairs = pairs_of(entries)
    assert len(entries) == len(pairs) == 15_000
    assert [pair.source_id for pair in pairs] == images.tolist()
    assert {(pair.view, pair.split) for pair in pairs} == {("PA", None)}
    votes = table.drop_duplicates(["image_id", "rad_id", "class_name"]).groupby(["class_name", "image_id"]).size()
    findings = {name: "No Finding" if name == "No finding" else name for name in table.class_name.unique()}
    assert len(findings) == 15
    for name, label in findings.items():
        chosen = votes[name]
        assert {pair.source_id for pair in pairs if pair.labels[label]} == set(chosen[chosen >= 2].index)
        assert {pair.labels[label] for pair in pairs} == {True, False}
    assert sum(pair.labels["No Finding"] is True for pair in pairs) == 10_606
    boxes = table.dropna().set_index(["image_id", "class_name"]).sort_index()
    for pair in pairs[::40]:
        present = {name for name, value in pair.labels.items() if value and name != "No Finding"}
        assert pair.masks.keys() == present
        for name in present:
            drawn = boxes.loc[[(pair.source_id, name)], ["x_min", "y_min", "x_max", "y_max"]].to_numpy()
            assert sorted(pair.masks[name].boxes) == sorted(map(tuple, drawn.tolist()))


CXR_COLUMNS = "image_id,rad_id,Edema,Nodule/Mass,Other diseases,No finding"
CXR_TRAIN = """
a,R1,1,0,0,0
a,R2,1,1,0,0
a,R3,0,,0,0
b,R1,0,0,0,1
b,R2,0,0,0,1
b,R3,0,0,1,0
gone,R1,0,0,0,1
"""
CXR_BOXES = """
a,R1,Edema,1,2,30,40
a,R2,Edema,3,4,50,60
a,R2,Nodule/Mass,5,6,7,8
b,R1,No finding,,,,
b,R3,Other diseases,1,1,9,9
"""


def write_vindr_cxr(folder: MemoryDataset) -> None:
    folder.write("annotations/image_labels_train.csv", CXR_COLUMNS + CXR_TRAIN)
    folder.write("annotations/annotations_train.csv", f"image_id,rad_id,class_name,x_min,y_min,x_max,y_max{CXR_BOXES}")
    test = "image_id,Edema,Nodule/Mass,Other disease,No finding\nc,0,1,1,0\na,0,0,0,1\n"
    folder.write("annotations/image_labels_test.csv", test)
    boxes = "image_id,class_name,x_min,y_min,x_max,y_max\nc,Nodule/Mass,5.5,6,7,8\n"
    folder.write("annotations/annotations_test.csv", boxes)
    folder.add_images(["train/a.dicom", "train/b.dicom", "test/c.dicom"])


def test_vindr_cxr_of_physionet_takes_the_majority_and_the_boxes_of_what_is_not_absent(folder: MemoryDataset) -> None:
    write_vindr_cxr(folder)
    entries = folder.listed("vindr-cxr", validation_share=0.0)
    a, b, c = pairs_of(entries)
    # Of the mass two radiologists say something, and each the opposite.
    assert a.labels == {"Edema": True, "Nodule/Mass": None, "Other disease": False, "No Finding": False}
    assert a.masks == {
        "Edema": MaskSource(boxes=((1, 2, 30, 40), (3, 4, 50, 60))),
        "Nodule/Mass": MaskSource(boxes=((5, 6, 7, 8),)),
    }
    assert b.labels == {"Edema": False, "Nodule/Mass": False, "Other disease": False, "No Finding": True}
    assert b.masks == {}
    assert c.labels == {"Edema": False, "Nodule/Mass": True, "Other disease": True, "No Finding": False}
    assert c.masks == {"Nodule/Mass": MaskSource(boxes=((5.5, 6, 7, 8),))}
    assert [(pair.image, pair.split, pair.view) for pair in (a, b, c)] == [
        ("train/a.dicom", "train", "PA"),
        ("train/b.dicom", "train", "PA"),
        ("test/c.dicom", "test", "PA"),
    ]
    assert rejects_of(entries) == [("gone", "image file missing"), ("train/a.dicom", "image in two splits")]


def test_vindr_validation_is_drawn_from_training_alone(folder: MemoryDataset) -> None:
    write_vindr_cxr(folder)
    pairs = pairs_of(folder.listed("vindr-cxr", validation_share=1.0))
    assert [pair.split for pair in pairs] == ["validation", "validation", "test"]


def test_vindr_pcxr_has_diagnoses_of_its_table_and_findings_of_its_boxes(folder: MemoryDataset) -> None:
    for split, image in (("train", "a"), ("test", "b")):
        folder.write(f"image_labels_{split}.csv", f"image_id,rad_ID,No finding,CPAM\n{image},R1,0.0,1.0\n")
        folder.add_images([f"{split}/{image}.dicom"])
    header = "image_id,rad_ID,class_name,x_min,y_min,x_max,y_max,class_id\n"
    folder.write("annotations_train.csv", f"{header}a,R1,Edema,1,2,3,4,7\na,R1,No finding,,,,,0\n")
    folder.write("annotations_test.csv", f"{header}b,R1,Dextro cardia,1,2,3,4,8\n")
    a, b = pairs_of(folder.listed("vindr-pcxr", validation_share=0.0))
    assert a.labels == {"CPAM": True, "No Finding": False, "Edema": True, "Dextro cardia": False}
    assert b.labels == {"CPAM": True, "No Finding": False, "Edema": False, "Dextro cardia": True}
    assert (a.masks, a.split, a.view) == ({"Edema": MaskSource(boxes=((1, 2, 3, 4),))}, "train", None)
    assert (b.image, b.split) == ("test/b.dicom", "test")


@pytest.mark.parametrize("cells", ["1,2,3,", "1,2,x,4", "1,2,inf,4"])
def test_vindr_box_that_is_none_is_refused_with_its_row(folder: MemoryDataset, cells: str) -> None:
    write_vindr_cxr(folder)
    header = "image_id,class_name,x_min,y_min,x_max,y_max"
    folder.write("annotations/annotations_test.csv", f"{header}\nc,Edema,1,2,3,4\nc,Edema,{cells}\n")
    with pytest.raises(UsageError, match=r"annotations_test.csv, row 2: box .* must be"):
        folder.listed("vindr-cxr")


def test_siim_real_rows_are_one_pair_an_image_with_all_its_masks() -> None:
    path = label_file("siim-pneumothorax-train-rle.csv.gz")
    table = pd.read_csv(path, skipinitialspace=True, dtype=str)
    images = table.ImageId.unique()
    files: dict[str, bytes | str] = {"train-rle.csv.gz": path.read_bytes()}
    entries = list_dataset("siim-acr", files, [f"dicom-images-train/s/{image}/{image}.dcm" for image in images])
    pairs = pairs_of(entries)
    assert len(entries) == len(pairs) == 12_047
    assert sum(pair.labels["Pneumothorax"] is True for pair in pairs) == 2_669
    assert {pair.split for pair in pairs} == {None}
    counts = table[table.EncodedPixels != "-1"].groupby("ImageId").size()
    assert {
        pair.source_id: len(pair.masks["Pneumothorax"].runs) for pair in pairs if pair.labels["Pneumothorax"]
    } == dict(counts)
    assert all(pair.masks == {"Pneumothorax": MaskSource()} for pair in pairs if not pair.labels["Pneumothorax"])
    most = max(pairs, key=lambda pair: len(pair.masks["Pneumothorax"].runs))
    assert len(most.masks["Pneumothorax"].runs) == counts.max() == 10
    mask_HW = build_mask(most.masks["Pneumothorax"], [], (1024, 1024), (1024, 1024))
    inside = np.zeros(1024 * 1024, bool)
    for runs in table[table.ImageId == most.source_id].EncodedPixels:
        numbers = [int(number) for number in runs.split()]
        ends = np.cumsum(numbers)
        for start, end in zip(ends[::2], ends[1::2], strict=True):
            inside[start:end] = True
    np.testing.assert_array_equal(mask_HW == 255, inside.reshape(1024, 1024).T)


def test_siim_stage_2_with_the_folder_of_test_images_has_the_official_split(folder: MemoryDataset) -> None:
    rows = ["1.2.3,-1", "1.2.4,0 1", "1.2.4,5 2", "1.2.5,-1", "1.2.5,0 1", "1.2.6,-1", "1.2.7,"]
    folder.write("stage_2_train.csv", "\n".join(["ImageId,EncodedPixels", *rows]))
    folder.write("train-rle.csv", "ImageId, EncodedPixels\n1.2.9,-1\n")
    folder.add_images([f"dicom-images-train/a/b/1.2.{n}.dcm" for n in (3, 5, 7)])
    folder.add_images(["dicom-images-test/a/b/1.2.4.dcm", "dicom-images-test/a/b/unlabelled.dcm"])
    entries = folder.listed("siim-acr", validation_share=0.0)
    assert [(pair.source_id, pair.split, pair.masks["Pneumothorax"]) for pair in pairs_of(entries)] == [
        ("1.2.3", "train", MaskSource()),
        ("1.2.4", "test", MaskSource(runs=("0 1", "5 2"), runs_size=(1024, 1024))),
    ]
    assert rejects_of(entries) == [
        ("dicom-images-train/a/b/1.2.5.dcm", "labels contradict each other"),
        ("1.2.6", "image file missing"),
        ("dicom-images-train/a/b/1.2.7.dcm", "labels not readable"),
    ]


def test_rsna_real_rows_are_one_pair_an_image_with_all_its_boxes() -> None:
    with zipfile.ZipFile(label_file("kaggle_stage_2_train_labels.csv.zip")) as archive:
        data = archive.read("stage_2_train_labels.csv")
    table = pd.read_csv(io.BytesIO(data))
    images = [f"stage_2_train_images/{image}.dcm" for image in table.patientId.unique()]
    entries = list_dataset("rsna-pneumonia", {"stage_2_train_labels.csv": data}, images)
    pairs = pairs_of(entries)
    assert len(entries) == len(pairs) == 26_684
    assert Counter(pair.labels["Pneumonia"] for pair in pairs) == {False: 20_672, True: 6_012}
    assert all(pair.labels["No Finding"] is (False if pair.labels["Pneumonia"] else None) for pair in pairs)
    table["right"], table["bottom"] = table.x + table.width, table.y + table.height
    boxes = (
        table.dropna().groupby("patientId")[["x", "y", "right", "bottom"]].apply(lambda rows: rows.to_numpy().tolist())
    )
    assert (sum(map(len, boxes)), max(map(len, boxes))) == (9_555, 4)
    assert {
        p.source_id: [list(box) for box in p.masks["Pneumonia"].boxes] for p in pairs if p.labels["Pneumonia"]
    } == dict(boxes)
    assert all(pair.masks["Pneumonia"] == MaskSource() for pair in pairs if not pair.labels["Pneumonia"])


def test_rsna_classes_tell_the_normal_from_those_with_another_finding(folder: MemoryDataset) -> None:
    rows = [
        "a,,,,,0",
        "b,,,,,0",
        "c,1,2,3,4,1",
        "d,1,2,3,4,1",
        "d,,,,,0",
        "e,,,,,1",
        "f,,,,,0",
        "g,1,2,3,4,1",
        "h,,,,,0",
    ]
    folder.write("stage_2_train_labels.csv", "\n".join(["patientId,x,y,width,height,Target", *rows, "h,,,,,0"]))
    classes = ["a,Normal", "b,No Lung Opacity / Not Normal", "c,Lung Opacity", "c,Lung Opacity", "f,Odd", "g,Normal"]
    folder.write("stage_2_detailed_class_info.csv", "\n".join(["patientId,class", *classes]))
    folder.add_images(f"stage_2_train_images/{name}.png" for name in "abcdefg")
    entries = folder.listed("rsna-pneumonia")
    assert [(pair.source_id, pair.labels, pair.masks["Pneumonia"].boxes) for pair in pairs_of(entries)] == [
        ("a", {"Pneumonia": False, "No Finding": True}, ()),
        ("b", {"Pneumonia": False, "No Finding": False}, ()),
        ("c", {"Pneumonia": True, "No Finding": False}, ((1.0, 2.0, 4.0, 6.0),)),
    ]
    unlike = "labels contradict each other"
    assert rejects_of(entries) == [
        ("stage_2_train_images/d.png", unlike),
        ("stage_2_train_images/e.png", unlike),
        ("stage_2_train_images/f.png", "label not known"),
        ("stage_2_train_images/g.png", unlike),
        ("h", "image file missing"),
    ]


def test_nih_all_real_rows_are_pairs_and_880_have_boxes() -> None:
    data = gzip.decompress(label_file("Data_Entry_2017_v2020.csv.gz").read_bytes())
    table = pd.read_csv(io.BytesIO(data))
    boxes = label_file("BBox_List_2017.csv.gz")
    files: dict[str, bytes | str] = {
        "Data_Entry_2017_v2020.csv": data,
        "BBox_List_2017.csv": gzip.decompress(boxes.read_bytes()),
    }
    entries = list_dataset("nih", files, [f"images_001/images/{name}" for name in table["Image Index"]])
    pairs = pairs_of(entries)
    assert len(entries) == len(pairs) == 112_120
    assert len({pair.patient for pair in pairs}) == 30_805
    assert Counter(pair.view for pair in pairs) == Counter(table["View Position"])
    assert [pair.age_years for pair in pairs] == table["Patient Age"].tolist()
    present = table["Finding Labels"].str.get_dummies("|") == 1
    assert present.shape[1] == 15
    for name in (*NIH_FINDINGS, "No Finding"):
        assert [pair.labels[name] for pair in pairs] == present[name].tolist()
    boxed = {pair.source_id: pair for pair in pairs if pair.masks}
    drawn = pd.read_csv(boxes, skiprows=1, usecols=range(6), names=["image", "finding", "x", "y", "w", "h"])
    assert len(boxed) == drawn.image.nunique() == 880
    assert sum(len(mask.boxes) for pair in boxed.values() for mask in pair.masks.values()) == len(drawn) == 984
    for row in drawn.replace("Infiltrate", "Infiltration").itertuples():
        assert (row.x, row.y, row.x + row.w, row.y + row.h) in boxed[row.image].masks[row.finding].boxes
        assert boxed[row.image].labels[row.finding]


def test_nih_row_with_a_box_becomes_a_pair_with_its_mask(folder: MemoryDataset) -> None:
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    folder.write("Data_Entry_2017.csv", f"{header}\na.png,Infiltration,0,1,50,F,PA\n")
    folder.write("BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Infiltrate,1.5,2,10,20,,,\n")
    folder.add_images(["images/a.png"])
    (pair,) = pairs_of(folder.listed("nih"))
    assert pair.masks == {"Infiltration": MaskSource(boxes=((1.5, 2.0, 11.5, 22.0),))}


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ("vindr-cxr", "no annotations/image_labels_train.csv or image_labels_train.csv there"),
        ("vindr-pcxr", "no annotations/image_labels_train.csv or image_labels_train.csv there"),
        ("siim-acr", "no stage_2_train.csv or "),
        ("rsna-pneumonia", "no stage_2_train_labels.csv or "),
    ],
)
def test_adapter_without_its_table_or_root_is_refused(folder: MemoryDataset, adapter: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        folder.listed(adapter)
    folder.uri += "-gone"
    with pytest.raises(ChexrayError, match="no such dataset folder"):
        folder.listed(adapter)
