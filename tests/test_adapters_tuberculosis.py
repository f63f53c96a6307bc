"""TBX11K, Montgomery and Shenzhen: folders in the published layout and the pairs that they hold, by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from dataset_files import write_files

from chexray.platform.corpus.adapters.nlm import MontgomeryAdapter, ShenzhenAdapter
from chexray.platform.corpus.adapters.tbx11k import Tbx11kAdapter
from chexray.platform.corpus.schema import MaskSource, Reject, SourcePair
from chexray.platform.errors import UsageError

# --- TBX11K

CATEGORIES = [
    {"id": 1, "name": "ActiveTuberculosis", "supercategory": "Tuberculosis"},
    {"id": 2, "name": "ObsoletePulmonaryTuberculosis", "supercategory": "Tuberculosis"},
    {"id": 3, "name": "PulmonaryTuberculosis", "supercategory": "Tuberculosis"},
]


def coco(images: dict[int, str], boxes: list[tuple[int, int, list[float]]]) -> str:
    return json.dumps(
        {
            "images": [{"id": number, "file_name": name} for number, name in images.items()],
            "annotations": [{"image_id": i, "category_id": c, "bbox": box} for i, c, box in boxes],
            "categories": CATEGORIES,
        }
    )


TBX = {
    "lists/TBX11K_train.txt": "tb/tb0001.png\nhealth/h0001.png\ntb/tb1199.png\nhealth/h0001.png\n",
    "lists/TBX11K_val.txt": "sick/s0001.png\ntb/tb0002.png\ntb/gone.png\ntest/test_1.png\n../tb/x.png\n",
    "annotations/json/TBX11K_train.json": coco(
        {1: "tb/tb0001.png", 2: "health/h0001.png"}, [(1, 1, [10, 20, 30.5, 40]), (1, 2, [0, 0, 5, 6])]
    ),
    "annotations/json/TBX11K_val.json": coco({7: "tb/tb0002.png"}, [(7, 2, [1, 2, 3, 4])]),
    **{f"imgs/{name}.png": "" for name in ("tb/tb0001", "tb/tb1199", "tb/tb0002", "health/h0001", "sick/s0001")},
    "imgs/tb/stray.png": "",
    "imgs/test/test_1.png": "",
    "imgs/extra/da/1.png": "",
}


def tbx_pair(name: str, split: Any, labels: tuple[bool, bool | None, bool | None, bool], **fields: Any) -> SourcePair:
    names = ("Tuberculosis", "Active Tuberculosis", "Latent Tuberculosis", "No Finding")
    known = dict(zip(names, labels, strict=True))
    return SourcePair("tbx11k", name, f"imgs/{name}", name, name, split=split, labels=known, **fields)


def test_tbx11k_lists_become_pairs_with_boxes_and_validation_as_test(tmp_path: Path) -> None:
    boxes = MaskSource(boxes=((10.0, 20.0, 40.5, 60.0), (0.0, 0.0, 5.0, 6.0)))
    none = {"Tuberculosis": MaskSource()}
    assert list(Tbx11kAdapter(write_files(tmp_path, TBX)).pairs()) == [
        tbx_pair("tb/tb0001.png", "train", (True, True, True, False), masks={"Tuberculosis": boxes}),
        tbx_pair("health/h0001.png", "train", (False, False, False, True), masks=none),
        tbx_pair("tb/tb1199.png", "train", (True, None, None, False)),
        Reject("imgs/health/h0001.png", "duplicate row"),
        tbx_pair("sick/s0001.png", "test", (False, False, False, False), masks=none),
        tbx_pair(
            "tb/tb0002.png",
            "test",
            (True, False, True, False),
            masks={"Tuberculosis": MaskSource(boxes=((1.0, 2.0, 4.0, 6.0),))},
        ),
        Reject("imgs/tb/gone.png", "image file missing"),
        Reject("imgs/test/test_1.png", "label not known"),
        Reject("imgs/", "label not known"),
        Reject("imgs/tb/stray.png", "image without a row"),
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"lists/TBX11K_val.txt": None}, r"lists/TBX11K_val\.txt: no such file; give the folder that holds imgs"),
        ({"annotations/json/TBX11K_train.json": None}, r"json/TBX11K_train\.json: no such file"),
        ({"annotations/json/TBX11K_train.json": "{}"}, r"not COCO annotations \(KeyError: 'categories'\)"),
        ({"annotations/json/TBX11K_train.json": "[]"}, "not COCO annotations"),
        (
            {"annotations/json/TBX11K_train.json": coco({1: "tb/a.png"}, [(1, 9, [0, 0, 1, 1])])},
            r"not COCO annotations \(KeyError: 9\)",
        ),
    ],
)
def test_tbx11k_that_cannot_be_read_is_refused(tmp_path: Path, files: dict[str, str | None], message: str) -> None:
    kept = {name: text for name, text in (TBX | files).items() if text is not None}
    with pytest.raises(UsageError, match=message):
        list(Tbx11kAdapter(write_files(tmp_path, kept)).pairs())


# --- Montgomery

MONTGOMERY = {
    "CXR_png/MCUCXR_0001_0.png": "",
    "CXR_png/MCUCXR_0104_1.png": "",
    "CXR_png/MCUCXR_0105_1.png": "",
    "CXR_png/odd.png": "",
    "CXR_png/Thumbs.db": "",
    "ManualMask/leftMask/MCUCXR_0001_0.png": "",
    "ManualMask/rightMask/MCUCXR_0001_0.png": "",
    "ManualMask/leftMask/MCUCXR_0104_1.png": "",
    "ClinicalReadings/MCUCXR_0001_0.txt": "Patient's Sex: F \nPatient's Age: 027Y\nnormal\n",
    "ClinicalReadings/MCUCXR_0104_1.txt": "Patient's Sex: M\nPatient's Age: 036Y\ncavitary infiltrate in RUL\n",
}


def nlm_pair(dataset: str, parent: str, name: str, **fields: Any) -> SourcePair:
    ill = name.endswith("_1.png")
    known: dict[str, Any] = {"split": "test", "labels": {"Tuberculosis": ill, "No Finding": not ill}}
    patient = name.rpartition("_")[0]
    return SourcePair(dataset, name, f"{parent}CXR_png/{name}", patient, patient, view="PA", **(known | fields))


@pytest.mark.parametrize("parent", ["MontgomerySet/", ""])
def test_montgomery_images_become_pairs_with_lungs_of_both_sides(tmp_path: Path, parent: str) -> None:
    files = {f"{parent}{name}": text for name, text in MONTGOMERY.items()}
    sides = tuple(f"{parent}ManualMask/{side}/MCUCXR_0001_0.png" for side in ("leftMask", "rightMask"))
    masks = {"lungs": MaskSource(files=sides)}
    assert list(MontgomeryAdapter(write_files(tmp_path, files)).pairs()) == [
        nlm_pair("montgomery", parent, "MCUCXR_0001_0.png", sex="F", age_years=27.0, masks=masks),
        nlm_pair("montgomery", parent, "MCUCXR_0104_1.png", sex="M", age_years=36.0),
        nlm_pair("montgomery", parent, "MCUCXR_0105_1.png"),
        Reject(f"{parent}CXR_png/odd.png", "file name not understood"),
    ]


# --- Shenzhen

READINGS = {
    "CHNCXR_0001_0": ("male 45yrs\nnormal", "M", 45.0),
    "CHNCXR_0002_0": ("Female, 28yrs\nnormal", "F", 28.0),
    "CHNCXR_0327_1": ("femal 32yrs\nbilateral PTB", "F", 32.0),
    "CHNCXR_0330_1": ("male 18month\nsecondary PTB", "M", 1.5),
    "CHNCXR_0331_1": ("secondary PTB in a male", None, None),
    "CHNCXR_0332_1": ("", None, None),
}


@pytest.mark.parametrize("masks", ["mask/mask/", "masks/", ""])
def test_shenzhen_images_become_pairs_with_masks_where_they_were_drawn(tmp_path: Path, masks: str) -> None:
    parent = "ChinaSet_AllFiles/"
    files = {f"{parent}CXR_png/{name}.png": "" for name in READINGS}
    files |= {f"{parent}ClinicalReadings/{name}.txt": text for name, (text, _, _) in READINGS.items()}
    drawn = f"{masks}CHNCXR_0001_0_mask.png"
    pairs = list(ShenzhenAdapter(write_files(tmp_path, files | {drawn: ""})).pairs())
    lungs = {"lungs": MaskSource(files=(drawn,))}
    assert pairs == [
        nlm_pair(
            "shenzhen",
            parent,
            f"{name}.png",
            sex=sex,
            age_years=age,
            masks=lungs if name == "CHNCXR_0001_0" else {},
        )
        for name, (_, sex, age) in READINGS.items()
    ]


@pytest.mark.parametrize("adapter", [MontgomeryAdapter, ShenzhenAdapter])
def test_nlm_split_is_as_asked(tmp_path: Path, adapter: Any) -> None:
    root = write_files(tmp_path, {"CXR_png/MCUCXR_0001_0.png": "", "CXR_png/CHNCXR_0001_0.png": ""})
    assert {pair.split for pair in adapter(root).pairs()} == {"test"}
    assert {pair.split for pair in adapter(root, split=None).pairs()} == {None}


@pytest.mark.parametrize(("adapter", "prefix"), [(MontgomeryAdapter, "MCUCXR"), (ShenzhenAdapter, "CHNCXR")])
def test_nlm_without_images_is_refused(tmp_path: Path, adapter: Any, prefix: str) -> None:
    with pytest.raises(UsageError, match=rf"no CXR_png/{prefix}_\*\.png below it"):
        list(adapter(str(tmp_path)).pairs())
    with pytest.raises(UsageError, match="gone: no such dataset folder"):
        list(adapter(str(tmp_path / "gone")).pairs())
