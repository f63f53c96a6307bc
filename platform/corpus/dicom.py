"""DICOM bytes to the pixels that a radiologist would see, in the standard's order.

Stored values -> modality LUT or rescale (PS3.3 C.11.1) -> VOI LUT or window (C.11.2) -> inversion of
MONOCHROME1 (C.7.6.3.1.2) -> 8 bits -> regions with burned-in text masked. Shapes: H rows, W columns of one image.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from pydicom.dataset import Dataset

from chexray.platform.corpus.dicom_dataset import READ_ERRORS, parse_dataset
from chexray.platform.corpus.dicom_header import header_of, keep_header
from chexray.platform.corpus.dicom_lut import display
from chexray.platform.corpus.dicom_pixels import read_pixels
from chexray.platform.corpus.raster import Decoded, Image, UnreadableImage, ViewFilter, check_image, reading_reason
from chexray.platform.corpus.redaction import Rule, redact

_PIXEL_DATA_TAGS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")


def read_radiograph(data: bytes, view: ViewFilter = "any", window: int = 0, rules: Sequence[Rule] = ()) -> Decoded:
    """Parse a single-frame grey file (PS3.10) once, look at its header, and decode it only if that is wanted.

    `view`: see `keep_header`. `window`: of several windows or VOI LUTs (see
    `chexray.platform.corpus.dicom_lut.display`). `rules`: regions to mask. Raises `UnreadableImage`.
    """
    if window < 0:
        raise ValueError(f"window is {window}: it must be 0 or more")
    try:
        dataset = parse_dataset(io.BytesIO(data))
        header = header_of(dataset)
        if reason := keep_header(header, view):
            raise UnreadableImage(reason)
        if "PixelData" not in dataset and any(tag in data for tag in _PIXEL_DATA_TAGS):
            # pydicom drops an encapsulated element that the file ends in, and says so in its log only.
            raise UnreadableImage("image truncated", f"{len(data)} bytes of DICOM end in its Pixel Data")
        shown_HW = display_pixels(dataset, window)
    except READ_ERRORS as error:
        # Without its message, which may quote the header.
        raise UnreadableImage(reading_reason(error), f"DICOM: {type(error).__name__}") from error
    image_HW, note = redact(shown_HW, header, rules)
    height, width = check_image(image_HW).shape
    notes = (note,) if note else ()
    return Decoded(image_HW, (height, width), header.view, header.sex, header.age_years, notes)


def display_pixels(dataset: Dataset, window: int = 0) -> Image:
    """Display pixels image_HW uint8 (0 black, 255 white) of a parsed dataset, of any size.

    Raises `UnreadableImage` where there are no pixels, several frames, colour, or too few bytes.
    """
    return display(read_pixels(dataset), dataset, window)
