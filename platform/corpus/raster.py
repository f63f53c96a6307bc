"""Bytes to 8-bit grey pixels and back: PNG, JPEG, BMP and TIFF by Pillow, bare pixels, and the door to DICOM.

Shapes: H rows, W columns of one image. Every image here is uint8, 0 black to 255 white.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageOps, UnidentifiedImageError

from chexray.platform.corpus.redaction import Rule, redact_plain
from chexray.platform.corpus.schema import RawFormat
from chexray.platform.errors import ChexrayError

Image = NDArray[np.uint8]
"""image_HW: 0 black to 255 white."""

ImageReason = Literal[
    "image empty",
    "image truncated",
    "image not readable",
    "image too large",
    "image too small",
    "image constant",
    "image with several frames",
    "image without pixels",
    "image in colour",
    "image encoding not supported",
    "not a radiograph",
    "not a chest",
    "lateral view",
    "frontal view",
]
"""Why an image is left out. The last seven are said of DICOM alone."""

ViewFilter = Literal["any", "frontal", "lateral"]
"""Which views are wanted."""

MAX_PIXELS = 100_000_000
"""Above this a file is refused from its header: a 43 x 43 cm detector at 0.1 mm has 18.5 million pixels."""

MIN_SHORT_SIDE = 32

_ORIENTATION = 0x0112
"""The EXIF tag."""
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_DECODE_ERRORS = (
    LookupError,  # an empty ICC profile after the pixels of a PNG; a TIFF's second frame of an unknown compression
    OSError,  # the file ends early
    SyntaxError,  # a broken PNG chunk
    TypeError,  # a TIFF whose sizes are no numbers
    ValueError,  # a PNG chunk too short for its content
    struct.error,  # an EXIF chunk of 4 bytes
)
"""What Pillow's readers raise on bad bytes, with an example of each."""


class UnreadableImage(ChexrayError):  # noqa: N818 - says what the image is, like `Reject`
    """An image that cannot become a pair: `reason` is one of `ImageReason`, `detail` says what was seen."""

    def __init__(self, reason: ImageReason, detail: str | None = None) -> None:
        super().__init__(reason, detail)
        self.reason: ImageReason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


def decode_image(data: bytes) -> Image:
    """Display pixels image_HW uint8 of a DICOM or raster file: `decode_source` without its wishes."""
    return decode_source(data, None).image_HW


@dataclass(frozen=True)
class Decoded:
    """Display pixels, the size (height, width) that the file has, what its header says, and what was masked."""

    image_HW: Image
    size: tuple[int, int]
    view: str | None = None
    sex: str | None = None
    age_years: float | None = None
    notes: tuple[str, ...] = ()


def decode_source(
    data: bytes,
    raw: RawFormat | None,
    view: ViewFilter = "any",
    window: int = 0,
    rules: Sequence[Rule] = (),
    short_side: int | None = None,
) -> Decoded:
    """What a file shows: bare pixels where there is a `raw`, else DICOM ('DICM' at byte 128, PS3.10 7.1) or raster.

    `view` and `window` concern DICOM alone: see `chexray.platform.corpus.dicom.read_radiograph`. `rules`: regions to
    mask. With a `short_side`, a JPEG file of at least four times that size is decoded at a half, a quarter or an
    eighth (the decoder's scaled DCT), at twice the `short_side` or more. Raises `UnreadableImage`.
    """
    if raw is not None:
        image_HW, size = decode_raw(data, raw), (raw.height, raw.width)
    elif data[128:132] == b"DICM":
        # Here and not above: dicom.py imports this module, and pydicom is loaded only where DICOM is met.
        from chexray.platform.corpus.dicom import read_radiograph

        return read_radiograph(data, view, window, rules)
    else:
        # Regions in pixels are those of the file.
        image_HW, size = _decode_grey(data, short_side=None if rules else short_side)
        check_image(image_HW)
    if not rules:
        return Decoded(image_HW, size)
    image_HW, note = redact_plain(image_HW, rules)
    return Decoded(image_HW, size, notes=(note,) if note else ())


def decode_raw(data: bytes, raw: RawFormat) -> Image:
    """Pixels image_HW uint8 of a file that is nothing but pixels, such as JSRT's `.IMG`.

    0 becomes 0 and 2**bits - 1 becomes 255, or the other way round where `raw` is inverted. Raises `UnreadableImage`
    for another length, and for values of more bits, which mean that the format is not this one.
    """
    check_size(raw.height, raw.width)
    if not 1 <= raw.bits <= 16:
        raise ValueError(f"bits is {raw.bits}: it must be 1 to 16")
    expected = raw.height * raw.width * 2
    if len(data) < expected:
        raise UnreadableImage("image truncated" if data else "image empty", f"{len(data)} of {expected} bytes")
    if len(data) > expected:
        raise UnreadableImage("image not readable", f"{len(data)} bytes, {expected} expected")
    words_HW = np.frombuffer(data, ">u2").reshape(raw.height, raw.width)
    top = 2**raw.bits - 1
    if words_HW.max() > top:
        raise UnreadableImage("image not readable", f"a value of {words_HW.max()}, at most {top} expected")
    table = stretch(np.arange(top + 1), 0, top)
    return check_image((255 - table if raw.inverted else table)[words_HW])


def decode_raster(data: bytes) -> Image:
    """Pixels image_HW uint8 of a single-frame PNG, JPEG, BMP or TIFF, upright by its EXIF orientation.

    Colour and palette become luma (ITU-R 601, alpha ignored); 8-bit grey is unchanged. Deeper grey
    (16-bit, 32-bit, float) is stretched linearly from its own minimum and maximum to 0 and 255, because
    files do not say how many of their bits are used. Raises `UnreadableImage`.
    """
    return check_image(_decode_grey(data)[0])


def decode_mask(data: bytes) -> Image:
    """A mask file as mask_HW uint8 of 0 and 255: above half of the format's white is 255. May be constant, or a GIF.

    Deep grey is stretched by its own range first, as in `decode_raster`. Raises `UnreadableImage`.
    """
    return _black_or_white(_decode_grey(data, (*_FORMATS, "GIF"))[0])


def other_view(found: str | None, wanted: ViewFilter) -> ImageReason | None:
    """Why a view (PA, AP or LATERAL) is not the wanted one; None where it is, or is not known."""
    if wanted == "frontal" and found == "LATERAL":
        return "lateral view"
    if wanted == "lateral" and found in ("PA", "AP"):
        return "frontal view"
    return None


def check_image(image_HW: Image) -> Image:
    """The image itself, or `UnreadableImage` where it is too small or has one value only."""
    height, width = image_HW.shape
    if min(height, width) < MIN_SHORT_SIDE:
        raise UnreadableImage("image too small", f"{height} x {width} pixels, at least {MIN_SHORT_SIDE} a side needed")
    if image_HW.min() == image_HW.max():
        raise UnreadableImage("image constant", f"every pixel is {image_HW.flat[0]}")
    return image_HW


def check_size(height: int, width: int) -> None:
    """`UnreadableImage` where a header announces no pixels or more than `MAX_PIXELS`."""
    if height < 1 or width < 1:
        raise UnreadableImage("image empty", f"{height} x {width} pixels")
    if height * width > MAX_PIXELS:
        raise UnreadableImage("image too large", f"{height} x {width} pixels, at most {MAX_PIXELS} are decoded")


def reading_reason(error: Exception) -> ImageReason:
    """What a decoder's error means: only their words tell a file that ends early from a broken one."""
    return "image truncated" if "truncated" in str(error).lower() else "image not readable"


def stretch(values_HW: NDArray[np.generic], low: float, high: float) -> Image:
    """Values of any type as uint8: `low` and below is 0, `high` and above 255, rounded to the nearest."""
    if high <= low:
        return np.zeros(values_HW.shape, np.uint8)
    share_HW = (values_HW.astype(np.float64) - low) / (high - low)
    return np.rint(np.clip(share_HW, 0.0, 1.0) * 255.0).astype(np.uint8)


def encode_image(image_HW: Image, codec: Literal["jpeg", "png"] = "jpeg", quality: int = 95) -> bytes:
    """8-bit grey JPEG (with `quality` 1 to 95) or PNG (lossless) of image_HW uint8."""
    if image_HW.dtype != np.uint8 or image_HW.ndim != 2:
        raise ValueError(f"image_HW is {image_HW.dtype} of shape {image_HW.shape}: it must be uint8 [H, W]")
    if codec not in ("jpeg", "png"):
        raise ValueError(f"codec is {codec!r}: it must be 'jpeg' or 'png'")
    if not 1 <= quality <= 95:
        raise ValueError(f"quality is {quality}: it must be 1 to 95")
    buffer = io.BytesIO()
    options = {"quality": quality} if codec == "jpeg" else {}
    PIL.Image.fromarray(image_HW).save(buffer, format=codec.upper(), **options)
    return buffer.getvalue()


def shrink(image_HW: Image, short_side: int | None) -> Image:
    """image_HW uint8 with its short side reduced to `short_side`, in proportion; never enlarged.

    Bicubic with a support that grows with the reduction (antialiased), above a factor of four after an average over
    whole pixels, which changes grey levels by little and takes a third of the time. None keeps the size.
    """
    if short_side is not None and short_side < 1:
        raise ValueError(f"short_side is {short_side}: it must be at least 1, or None")
    height, width = image_HW.shape
    short = min(height, width)
    if short_side is None or short <= short_side:
        return image_HW
    new_height, new_width = (max(1, round(side * short_side / short)) for side in (height, width))
    resized = PIL.Image.fromarray(image_HW).resize(
        (new_width, new_height), PIL.Image.Resampling.BICUBIC, reducing_gap=2.0
    )
    return np.asarray(resized)


def resize_mask(mask_HW: Image, height: int, width: int) -> Image:
    """mask_HW of 0 and 255 at another size: a pixel is 255 where at least half of its area was."""
    resized = PIL.Image.fromarray(mask_HW).resize((width, height), PIL.Image.Resampling.BOX)
    return _black_or_white(np.asarray(resized))


def _black_or_white(grey_HW: Image) -> Image:
    return np.where(grey_HW > 127, np.uint8(255), np.uint8(0))


def _decode_grey(
    data: bytes, formats: tuple[str, ...] = _FORMATS, short_side: int | None = None
) -> tuple[Image, tuple[int, int]]:
    """Upright grey pixels, and the height and width that the file has, upright too."""
    if not data:
        raise UnreadableImage("image empty", "0 bytes")
    try:
        with PIL.Image.open(io.BytesIO(data), formats=formats) as opened:
            width, height = opened.size
            check_size(height, width)
            if getattr(opened, "n_frames", 1) > 1:
                raise UnreadableImage("image with several frames", f"{opened.format} with more than one")
            turned = opened.getexif().get(_ORIENTATION, 1) != 1
            if short_side is not None and opened.format == "JPEG":
                share = 2 * short_side / min(width, height)
                opened.draft(None, (math.ceil(width * share), math.ceil(height * share)))
            opened.load()
            image_HW = _to_grey(ImageOps.exif_transpose(opened) if turned else opened)
            on_side = (image_HW.shape[0] > image_HW.shape[1]) != (height > width)
            return image_HW, (width, height) if on_side else (height, width)
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise UnreadableImage("image too large", str(error)) from error
    except UnidentifiedImageError as error:
        raise UnreadableImage("image not readable", f"{len(data)} bytes, none of {formats}") from error
    except _DECODE_ERRORS as error:
        raise UnreadableImage(reading_reason(error), f"{len(data)} bytes: {error}") from error


def _to_grey(image: PIL.Image.Image) -> Image:
    if not image.mode.startswith(("I", "F")):
        return np.asarray(image if image.mode == "L" else image.convert("L"))
    values_HW = np.asarray(image)
    if not np.isfinite(values_HW).all():
        raise UnreadableImage("image not readable", "pixel values that are not finite")
    return stretch(values_HW, float(values_HW.min()), float(values_HW.max()))
