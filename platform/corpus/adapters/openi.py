"""Open-I, the Indiana University collection (Demner-Fushman et al. 2016): 7,470 images with 3,955 reports."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from chexray.platform import storage
from chexray.platform.corpus.adapters.cells import join_sections
from chexray.platform.corpus.adapters.images import IMAGE_SUFFIXES, images_by_stem, stem_of
from chexray.platform.corpus.adapters.table import check_root
from chexray.platform.corpus.schema import NO_FINDING, DatasetCard, Reject, SourcePair
from chexray.platform.errors import UsageError

FINDINGS = {
    "Airspace Disease": "Airspace Disease",
    "Atherosclerosis": "Atherosclerosis",
    "Bronchiectasis": "Bronchiectasis",
    "Bullous Emphysema": "Emphysema",
    "Calcified Granuloma": "Calcified Granuloma",
    "Cardiomegaly": "Cardiomegaly",
    "Catheters, Indwelling": "Support Devices",
    "Cicatrix": "Scarring",
    "Consolidation": "Consolidation",
    "Diaphragmatic Eventration": "Diaphragmatic Eventration",
    "Emphysema": "Emphysema",
    "Fibrosis": "Fibrosis",
    "Fractures, Bone": "Fracture",
    "Granuloma": "Granuloma",
    "Granulomatous Disease": "Granulomatous Disease",
    "Heart Failure": "Heart Failure",
    "Hernia, Diaphragmatic": "Hernia",
    "Hernia, Hiatal": "Hernia",
    "Hydropneumothorax": "Pneumothorax",
    "Implanted Medical Device": "Support Devices",
    "Infiltrate": "Infiltration",
    "Kyphosis": "Kyphosis",
    "Lung Diseases, Interstitial": "Interstitial Lung Disease",
    "Mass": "Mass",
    "Medical Device": "Support Devices",
    "Nodule": "Nodule",
    "Opacity": "Lung Opacity",
    "Pericardial Effusion": "Pericardial Effusion",
    "Pleural Effusion": "Pleural Effusion",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
    "Pulmonary Atelectasis": "Atelectasis",
    "Pulmonary Congestion": "Pulmonary Congestion",
    "Pulmonary Disease, Chronic Obstructive": "COPD",
    "Pulmonary Edema": "Edema",
    "Pulmonary Emphysema": "Emphysema",
    "Pulmonary Fibrosis": "Fibrosis",
    "Scoliosis": "Scoliosis",
    "Thickening/pleura": "Pleural Thickening",
    "Tube, Inserted": "Support Devices",
    "Tuberculosis": "Tuberculosis",
}
"""From the MeSH or RadLex term of a `major` element to the label. Other terms name places, or say too little."""

_LABELS = tuple(sorted(set(FINDINGS.values())))
_NORMAL = "normal"
_SAYS_NOTHING = ("no indexing", "technical quality of image unsatisfactory")
_DECLARATION = re.compile(r"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_XML_HEADER = re.compile(r"^\s*<\?xml[^>]*\?>")
_DICOM_NAME = re.compile(r"^CXR(?:(\d+)_(?=\1_))?")
"""What DICOM files lack of an image's id: 'CXR' of 'CXR10_IM-0002-1001', 'CXR1_' of 'CXR1_1_IM-0001-3001'."""


@dataclass(frozen=True)
class OpenIAdapter:
    """Open-I below `root`: reports `*.xml` (in `ecgen-radiology/`), images PNG or DICOM, all anywhere below, by name.

    Each image of a report is a pair: `CXR10_IM-0002-1001.png`, or `10_IM-0002-1001.dcm`; PNG where both are there.
    The report is its FINDINGS and IMPRESSION; XXXX stands for words that were removed. 28 have neither.

    Labels are the manual index terms (`major`) of the study. 'normal' alone makes all findings absent and 'No Finding'
    present; else what is not indexed is unknown. There is a study a patient, and no split. Views are in the DICOM
    headers alone, and about a third of them are empty.
    XML that declares a type or entities, or is not UTF-8, is rejected unread: entities can swell without bound.
    Expected: 7,470 images of 3,851 reports, and 104 reports without an image, which are rejected.
    Licence: CC BY-NC-ND 4.0, as the reports say.
    """

    name: ClassVar[str] = "openi"
    card: ClassVar[DatasetCard] = DatasetCard(
        title="Open-I (Indiana University)",
        use="either",
        images=7_470,
        patients=3_851,
        reports="en",
        findings=len(_LABELS),
        masks=(),
        licence="CC BY-NC-ND 4.0",
        citation="Demner-Fushman et al., JAMIA 23, 2016",
        url="https://openi.nlm.nih.gov/faq",
    )

    root: str

    def pairs(self) -> Iterator[SourcePair | Reject]:
        """A pair or a reject for every image of every report, then a reject for every image without a report."""
        check_root(self.root)
        files = storage.list_files(self.root)
        reports = [path for path in files if path.lower().endswith(".xml")]
        if not reports:
            raise UsageError(f"{self.root}: no XML reports there; unpack NLMCXR_reports.tgz into it")
        images = images_by_stem(files)
        seen: set[str] = set()
        for path in reports:
            for entry in self._of_report(path, images):
                if isinstance(entry, SourcePair) and entry.source_id in seen:
                    yield Reject(entry.image, "duplicate row")
                    continue
                if isinstance(entry, SourcePair):
                    seen.update((entry.source_id, _DICOM_NAME.sub("", entry.source_id)))
                yield entry
        for path in files:
            if path.lower().endswith(IMAGE_SUFFIXES) and stem_of(path) not in seen:
                yield Reject(path, "image without a report")

    def _of_report(self, path: str, images: dict[str, str]) -> Iterator[SourcePair | Reject]:
        report = _parse(storage.read_bytes(storage.join(self.root, path)))
        if isinstance(report, str):
            yield Reject(path, "report not readable", report)
            return
        node = report.find("uId")
        study = node.get("id", "") if node is not None else ""
        listed = [image.get("id", "") for image in report.iter("parentImage")]
        if not study or not listed:
            yield Reject(path, "report without an image") if study else Reject(path, "report not readable", "no uId")
            return
        text = join_sections(_section(report, "FINDINGS"), _section(report, "IMPRESSION"))
        labels = _labels([(term.text or "").strip() for term in report.iterfind("MeSH/major")])
        for image in listed:
            found = images.get(image) or images.get(_DICOM_NAME.sub("", image))
            if found is None:
                yield Reject(image, "image file missing")
                continue
            yield SourcePair(
                dataset=self.name,
                source_id=image,
                image=found,
                patient=study,
                study=study,
                report=text,
                labels=labels,
            )


def _parse(data: bytes) -> ET.Element | str:
    """The report's root element, or why it is not read. Entities and types are refused before any parsing."""
    try:
        text = data.decode("utf-8-sig")
        if _DECLARATION.search(text):
            return "it declares a document type or entities"
        # The header may name another encoding than the one that was checked.
        return ET.fromstring(_XML_HEADER.sub("", text))
    except UnicodeDecodeError:
        return "not UTF-8"
    except (ET.ParseError, ValueError):
        return "not well-formed XML"


def _section(report: ET.Element, name: str) -> str | None:
    nodes = (node for node in report.iter("AbstractText") if node.get("Label", "").upper() == name)
    return " ".join(text for node in nodes if (text := (node.text or "").strip())) or None


def _labels(terms: list[str]) -> dict[str, bool | None]:
    """Labels of the index terms: 'Opacity/lung/base/left/mild' is by its first part, or by its first two."""
    if [term.lower() for term in terms] == [_NORMAL]:
        return {**dict.fromkeys(_LABELS, False), NO_FINDING: True}
    parts = [[part.strip() for part in term.split("/")] for term in terms]
    names = {"/".join(part[:count]) for part in parts for count in (1, 2)}
    present = {FINDINGS[name] for name in names if name in FINDINGS}
    labels: dict[str, bool | None] = {name: True if name in present else None for name in _LABELS}
    says_something = any(part[0].lower() not in (*_SAYS_NOTHING, _NORMAL, "") for part in parts)
    return {**labels, NO_FINDING: False if says_something else None}
