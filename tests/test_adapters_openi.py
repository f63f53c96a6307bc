"""Open-I: all 3,955 real reports, and folders written by hand."""

import tarfile
import xml.etree.ElementTree as ET
from collections import Counter

import pytest
from dataset_files import MemoryDataset, label_file, list_dataset, pairs_of, rejects_of

from chexray.platform.corpus.adapters.openi import FINDINGS
from chexray.platform.corpus.reports import split_sections
from chexray.platform.errors import UsageError


@pytest.fixture(scope="module")
def openi_reports() -> dict[str, bytes]:
    with tarfile.open(label_file("NLMCXR_reports.tgz")) as archive:
        members = [member for member in archive if member.isfile()]
        return {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]


def section(report: ET.Element, label: str) -> str:
    return "".join(node.text or "" for node in report.iterfind(f".//AbstractText[@Label='{label}']")).strip()


def test_openi_real_reports_give_every_image_once_with_its_report(openi_reports: dict[str, bytes]) -> None:
    mark = b'<parentImage id="'
    ids = [[part.split(b'"')[0].decode() for part in data.split(mark)[1:]] for data in openi_reports.values()]
    images = [f"NLMCXR_png/{image}.png" for listed in ids for image in listed]
    entries = list_dataset("openi", dict(openi_reports), images)
    pairs = pairs_of(entries)
    assert len(openi_reports) == 3_955
    assert sorted(pair.image for pair in pairs) == sorted(images)
    assert (len(pairs), len({pair.patient for pair in pairs})) == (7_470, 3_851)
    assert Counter(reason for _, reason in rejects_of(entries)) == {"report without an image": 104}

    # A second reading of the XML, by image.
    reports = [ET.fromstring(data) for data in openi_reports.values()]
    by_image = {image: report for report, listed in zip(reports, ids, strict=True) for image in listed}
    terms = {image: [node.text or "" for node in report.iterfind("MeSH/major")] for image, report in by_image.items()}
    first = {image: {term.split("/")[0].strip() for term in listed} for image, listed in terms.items()}
    normal = {image for image, listed in terms.items() if listed == ["normal"]}
    labels = {pair.source_id: pair.labels for pair in pairs}
    assert sum(report.findtext("MeSH/major") == "normal" for report in reports) == 1_391
    assert {image for image in labels if labels[image]["No Finding"]} == normal
    spelt = {"Cardiomegaly": "Cardiomegaly", "Pulmonary Atelectasis": "Atelectasis", "Opacity": "Lung Opacity"}
    for term, finding in spelt.items():
        assert {image for image in labels if labels[image][finding]} == {i for i in first if term in first[i]}
        assert {image for image in labels if labels[image][finding] is False} == normal
    indexed = {(node.text or "").split("/")[0].strip() for report in reports for node in report.iterfind("MeSH/major")}
    assert {term for term in FINDINGS if "/" not in term} <= indexed

    sections = {pair.source_id: split_sections(pair.report) for pair in pairs if pair.report}
    for name in ("findings", "impression"):
        found = {image for image, parts in sections.items() if getattr(parts, name)}
        assert found == {image for image, report in by_image.items() if section(report, name.upper()).strip("X .")}


def report_xml(*images: str, terms: tuple[str, ...] = ("normal",), text: str = "Clear.") -> str:
    listed = "".join(f'<parentImage id="{image}"/>' for image in images)
    majors = "".join(f"<major>{term}</major>" for term in terms)
    texts = {"INDICATION": "Cough", "FINDINGS": text}
    abstract = "".join(f'<AbstractText Label="{name}">{body}</AbstractText>' for name, body in texts.items())
    return f'<eCitation><uId id="CXR7"/><Abstract>{abstract}</Abstract><MeSH>{majors}</MeSH>{listed}</eCitation>'


def test_openi_first_real_report_has_its_fields(openi_reports: dict[str, bytes]) -> None:
    files: dict[str, bytes | str] = {"ecgen-radiology/1.xml": openi_reports["ecgen-radiology/1.xml"]}
    images = ["NLMCXR_dcm/1/1_IM-0001-3001.dcm", "NLMCXR_png/CXR1_1_IM-0001-4001.png"]
    pairs = pairs_of(list_dataset("openi", files, images))
    assert [(pair.source_id, pair.image) for pair in pairs] == [
        ("CXR1_1_IM-0001-3001", "NLMCXR_dcm/1/1_IM-0001-3001.dcm"),
        ("CXR1_1_IM-0001-4001", "NLMCXR_png/CXR1_1_IM-0001-4001.png"),
    ]
    sections = split_sections(pairs[0].report or "")
    assert sections.impression == "Normal chest x-."
    assert (sections.findings or "").startswith("The cardiac silhouette and mediastinum size are within normal limits.")
    assert (pairs[0].patient, pairs[0].labels["No Finding"], pairs[0].labels["Edema"]) == ("CXR1", True, False)


@pytest.mark.parametrize(
    ("terms", "opacity", "thickening", "normal"),
    [
        (("normal",), False, False, True),
        (("Opacity/lung/base/left", "Thickening/pleura/apex"), True, True, False),
        (("Thickening/lung",), None, None, False),
        (("Lung/hypoinflation",), None, None, False),
        (("No Indexing",), None, None, None),
        (("Technical Quality of Image Unsatisfactory ", "Opacity"), True, None, False),
        (("normal", "Opacity"), True, None, False),
        ((), None, None, None),
    ],
)
def test_openi_labels_are_the_index_terms_and_absent_only_where_normal(
    folder: MemoryDataset, terms: tuple[str, ...], opacity: bool | None, thickening: bool | None, normal: bool | None
) -> None:
    folder.write("7.xml", report_xml("CXR7_IM-1-1", terms=terms))
    folder.add_images(["CXR7_IM-1-1.png"])
    labels = pairs_of(folder.listed("openi"))[0].labels
    assert (labels["Lung Opacity"], labels["Pleural Thickening"], labels["No Finding"]) == (opacity, thickening, normal)


BOMB = '<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'


@pytest.mark.parametrize(
    "content",
    [
        f"{BOMB}<eCitation><uId id='CXR7'/>&b;</eCitation>",
        f"<?xml version='1.0' encoding='UTF-16'?>{BOMB}<eCitation/>".encode("utf-16"),
        f"<?xml version='1.0' encoding='utf-7'?>{BOMB.replace('<', '+ADw-')}<eCitation/>",
        "<eCitation>",
        "<eCitation/>",
        "<eCitation><uId/></eCitation>",
        b"\xff\xfe",
        "",
        "&undefined;",
    ],
)
def test_openi_report_that_is_dangerous_or_broken_is_rejected(folder: MemoryDataset, content: str | bytes) -> None:
    folder.write("ecgen-radiology/7.xml", content)
    assert rejects_of(folder.listed("openi")) == [("ecgen-radiology/7.xml", "report not readable")]


def test_openi_images_and_reports_without_each_other_are_rejected(folder: MemoryDataset) -> None:
    folder.write("1.xml", report_xml("CXR7_IM-1-1", "CXR7_IM-1-2"))
    folder.write("2.xml", report_xml("CXR7_IM-1-1"))
    folder.write("3.xml", report_xml())
    folder.add_images(["png/CXR7_IM-1-1.png", "dcm/7_IM-1-1.dcm", "dcm/8_IM-1-1.dcm"])
    entries = folder.listed("openi")
    assert [pair.image for pair in pairs_of(entries)] == ["png/CXR7_IM-1-1.png"]
    assert rejects_of(entries) == [
        ("CXR7_IM-1-2", "image file missing"),
        ("png/CXR7_IM-1-1.png", "duplicate row"),
        ("3.xml", "report without an image"),
        ("dcm/8_IM-1-1.dcm", "image without a report"),
    ]


def test_openi_without_reports_is_refused(folder: MemoryDataset) -> None:
    with pytest.raises(UsageError, match="no XML reports there; unpack NLMCXR_reports"):
        folder.listed("openi")
