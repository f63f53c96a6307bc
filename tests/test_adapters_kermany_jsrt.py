"""Kermany's pneumonia set and JSRT: folders in the published layout and the pairs that they hold, by hand."""

from pathlib import Path
from typing import Any

import pytest
from dataset_files import write_files

from chexray.platform.corpus.adapters.jsrt import JsrtAdapter
from chexray.platform.corpus.adapters.kermany import KermanyPneumoniaAdapter
from chexray.platform.corpus.schema import MaskSource, RawFormat, Reject, SourcePair
from chexray.platform.errors import UsageError

# --- Kermany

KERMANY = (
    "train/NORMAL/IM-0115-0001.jpeg",
    "train/NORMAL/IM-0540-0001-0002.jpeg",
    "train/NORMAL/NORMAL2-IM-0329-0001.jpeg",
    "train/PNEUMONIA/person1_bacteria_1.jpeg",
    "train/PNEUMONIA/person1_bacteria_2.jpeg",
    "train/PNEUMONIA/person1000_virus_1681.jpeg",
    "train/PNEUMONIA/unnamed.jpeg",
    "test/PNEUMONIA/person1_virus_6.jpeg",
    "val/PNEUMONIA/person1946_bacteria_4874.jpeg",
)


def kermany_pair(root: str, name: str, patient: str, split: Any, pneumonia: str | None) -> SourcePair:
    labels: dict[str, bool | None] = {
        "Pneumonia": pneumonia is not None,
        "Bacterial Pneumonia": pneumonia == "bacteria",
        "Viral Pneumonia": pneumonia == "virus",
        "No Finding": pneumonia is None,
    }
    return SourcePair("kermany-pneumonia", name, f"{root}{name}", patient, name, view="AP", split=split, labels=labels)


@pytest.mark.parametrize("root", ["", "chest_xray/"])
@pytest.mark.parametrize("copies", [(), ("chest_xray/", "chest_xray/__MACOSX/chest_xray/", "__MACOSX/chest_xray/")])
def test_kermany_images_become_pairs_once_whatever_is_copied(
    tmp_path: Path, root: str, copies: tuple[str, ...]
) -> None:
    files = {f"{root}{name}": "" for name in KERMANY}
    for copy in copies:
        for name in KERMANY:
            folder, file = name.rsplit("/", 1)
            files[f"{root}{copy}{folder}/{'._' if 'MACOSX' in copy else ''}{file}"] = ""
    files |= {f"{root}train/NORMAL/.DS_Store": "", f"{root}train/NORMAL/._IM-0115-0001.jpeg": ""}
    assert list(KermanyPneumoniaAdapter(write_files(tmp_path, files)).pairs()) == [
        kermany_pair(root, "test/PNEUMONIA/person1_virus_6.jpeg", "test/person1", "test", "virus"),
        kermany_pair(root, "train/NORMAL/IM-0115-0001.jpeg", "train/IM-0115", "train", None),
        kermany_pair(root, "train/NORMAL/IM-0540-0001-0002.jpeg", "train/IM-0540", "train", None),
        kermany_pair(root, "train/NORMAL/NORMAL2-IM-0329-0001.jpeg", "train/NORMAL2-IM-0329", "train", None),
        kermany_pair(root, "train/PNEUMONIA/person1000_virus_1681.jpeg", "train/person1000", "train", "virus"),
        kermany_pair(root, "train/PNEUMONIA/person1_bacteria_1.jpeg", "train/person1", "train", "bacteria"),
        kermany_pair(root, "train/PNEUMONIA/person1_bacteria_2.jpeg", "train/person1", "train", "bacteria"),
        Reject(f"{root}train/PNEUMONIA/unnamed.jpeg", "file name not understood"),
        kermany_pair(root, "val/PNEUMONIA/person1946_bacteria_4874.jpeg", "train/person1946", "validation", "bacteria"),
    ]


def test_kermany_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no train/NORMAL/\*\.jpeg or the like below it"):
        list(KermanyPneumoniaAdapter(write_files(tmp_path, {"train/OTHER/a.jpeg": ""})).pairs())


# --- JSRT

NODULES = (
    "JPCLN001.IMG\t5\t15\t53\tmale\t1634\t692\tmalignant\tl.upper lobe\tlung cancer\r\n\r\n"
    "JPCLN002.IMG\t5\t20\t?\tfemale\t1614\t516\tbenign\tr.upper lobe\ttuberculoma"
    # Some copies lost a line's end.
    "JPCLN003.IMG\t4\t?\t66\tmale\t500\t600\tbenign\tr.lower lobe\thamartoma\r\n"
    "JPCLN154.IMG\t1\t10\t70\tmale\t1\t2\tbenign\tx\ty\r\n"
)
NORMALS = "JPCNN001.IMG   54   male  non-nodule\r\nJPCNN002.IMG ?  female  non-nodule\r\n"
PARTS = ("left lung", "right lung", "heart", "left clavicle", "right clavicle")
JSRT = {
    "Clinical_Information/CLNDAT_EN.txt": NODULES,
    "Clinical_Information/CNNDAT_EN.TXT": NORMALS,
    "Nodule154images/JPCLN001.IMG": "",
    "Nodule154images/JPCLN002.IMG": "",
    "Nodule154images/JPCLN003.IMG": "",
    "NonNodule93images/JPCNN001.IMG": "",
    "NonNodule93images/JPCNN099.IMG": "",
    "png/JPCNN002.png": "",
    "png/JPCLN001.png": "",
    **{f"scratch/fold1/masks/{part}/JPCLN001.gif": "" for part in PARTS},
    "scratch/fold2/masks/left_lung/JPCNN002.png": "",
    "scratch/fold2/masks/heart/JPCNN002.png": "",
}
RAW = RawFormat(2048, 2048, 12, inverted=True)


def jsrt_pair(stem: str, image: str, **fields: Any) -> SourcePair:
    nodule = stem.startswith("JPCLN")
    known: dict[str, Any] = {"split": "test", "labels": {"Nodule": nodule, "No Finding": not nodule}, "raw": RAW}
    return SourcePair("jsrt", stem, image, stem, stem, view="PA", **(known | fields))


def test_jsrt_images_become_pairs_with_masks_and_raw_format(tmp_path: Path) -> None:
    def scr(*parts: str) -> MaskSource:
        return MaskSource(files=tuple(f"scratch/fold1/masks/{part}/JPCLN001.gif" for part in parts))

    # 15 mm at 0.175 mm are 85.714 pixels, 42.857 to each side; 20 mm are 57.143 to each side.
    first = MaskSource(boxes=(pytest.approx((1591.1429, 649.1429, 1676.8571, 734.8571)),))
    second = MaskSource(boxes=(pytest.approx((1556.8571, 458.8571, 1671.1429, 573.1429)),))
    masks = {
        "lungs": scr("left lung", "right lung"),
        "heart": scr("heart"),
        "clavicles": scr("left clavicle", "right clavicle"),
        "Nodule": first,
    }
    heart = {"heart": MaskSource(files=("scratch/fold2/masks/heart/JPCNN002.png",))}
    ln, nn = "Nodule154images", "NonNodule93images"
    assert list(JsrtAdapter(write_files(tmp_path, JSRT)).pairs()) == [
        jsrt_pair("JPCLN001", f"{ln}/JPCLN001.IMG", sex="M", age_years=53.0, masks=masks),
        jsrt_pair("JPCLN002", f"{ln}/JPCLN002.IMG", sex="F", masks={"Nodule": second}),
        jsrt_pair("JPCLN003", f"{ln}/JPCLN003.IMG", sex="M", age_years=66.0),
        jsrt_pair("JPCNN001", f"{nn}/JPCNN001.IMG", sex="M", age_years=54.0, masks={"Nodule": MaskSource()}),
        jsrt_pair("JPCNN002", "png/JPCNN002.png", sex="F", masks=heart, raw=None),
        Reject(f"{nn}/JPCNN099.IMG", "image without a row"),
        Reject("JPCLN154.IMG", "image file missing"),
    ]


def test_jsrt_split_is_as_asked(tmp_path: Path) -> None:
    pairs = JsrtAdapter(write_files(tmp_path, JSRT), split=None).pairs()
    assert {pair.split for pair in pairs if isinstance(pair, SourcePair)} == {None}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"CLNDAT_EN.txt": NODULES}, "no JPCLN001.IMG or the like below it"),
        ({"JPCLN001.IMG": ""}, "no CLNDAT_EN.txt or CNNDAT_EN.TXT below it"),
    ],
)
def test_jsrt_without_images_or_clinical_files_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        list(JsrtAdapter(write_files(tmp_path, files)).pairs())
