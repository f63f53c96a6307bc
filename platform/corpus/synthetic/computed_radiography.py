"""A drawn film as a Computed Radiography DICOM file: 12 bits stored, explicit VR little endian.

Shapes: H rows, W columns.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from chexray.platform.corpus.synthetic.cohort import PairPlan
from chexray.platform.corpus.synthetic.film import STORED_MAXIMUM

_UID_ROOT = "2.25."
"""UUID-derived UIDs (PS3.5 B.2), here from the pair's generator rather than a clock."""


def encode_dicom(
    stored_HW: npt.NDArray[np.uint16], plan: PairPlan, rng: np.random.Generator, *, inverted: bool
) -> bytes:
    """The file's bytes. `stored_HW`: 0 (black) to 4095; `inverted` stores MONOCHROME1, where 0 is white.

    Window centre 2048 and width 4096 span the stored range (PS3.3 C.11.2.1.2). Patient and study are made up.
    """
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = _uid(rng)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = f"{_UID_ROOT}1"
    image = FileDataset("", {}, file_meta=meta, preamble=b"\x00" * 128)
    _describe_patient(image, plan, rng)
    _describe_acquisition(image, plan)
    image.SOPClassUID = ComputedRadiographyImageStorage
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.SeriesInstanceUID = _uid(rng)
    _attach_pixels(image, stored_HW, inverted=inverted)
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _uid(rng: np.random.Generator) -> str:
    return f"{_UID_ROOT}{int.from_bytes(rng.bytes(15), 'big')}"


def _describe_patient(image: FileDataset, plan: PairPlan, rng: np.random.Generator) -> None:
    image.PatientID = plan.patient_id
    image.PatientName = f"Synthetic^{plan.patient_id}"
    image.PatientSex = plan.sex
    image.PatientAge = f"{plan.age:03d}Y"
    image.PatientBirthDate = ""
    image.StudyInstanceUID = f"{_UID_ROOT}{int.from_bytes(plan.study_id.encode(), 'big')}"
    image.StudyID = plan.study_id
    image.StudyDate = f"{2012 + int(rng.integers(8))}{int(rng.integers(1, 13)):02d}{int(rng.integers(1, 29)):02d}"
    image.StudyTime = f"{int(rng.integers(24)):02d}{int(rng.integers(60)):02d}00"
    image.AccessionNumber = ""
    image.ReferringPhysicianName = ""


def _describe_acquisition(image: FileDataset, plan: PairPlan) -> None:
    image.Modality = "CR"
    image.Manufacturer = "chexray synthetic"
    image.SeriesNumber = 1
    image.InstanceNumber = 1
    image.BodyPartExamined = "CHEST"
    image.ViewPosition = plan.view
    image.Laterality = ""
    image.PatientOrientation = ["L", "F"]


def _attach_pixels(image: FileDataset, stored_HW: npt.NDArray[np.uint16], *, inverted: bool) -> None:
    pixels = STORED_MAXIMUM - stored_HW if inverted else stored_HW
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = 0
    spacing = f"{400 / pixels.shape[0]:.5f}"  # a 40 cm cassette
    image.ImagerPixelSpacing = [spacing, spacing]
    image.WindowCenter, image.WindowWidth = "2048", "4096"
    image.RescaleIntercept, image.RescaleSlope = "0", "1"
    image.PixelData = pixels.astype("<u2").tobytes()
