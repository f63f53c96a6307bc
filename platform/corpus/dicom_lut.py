"""From stored values to what is displayed, as one table: modality LUT, VOI LUT or window, polarity.

Every step maps a value without regard to its neighbours, so the steps are done once for each of the 2**bits values
that can be stored and not for each pixel; the result is the same, to the last bit. Clauses are of PS3.3.
Shapes: V all values of the stored bits, in the order of their codes; H rows, W columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from chexray.platform.corpus.dicom_dataset import first_text, floats, integers, is_big_endian, items
from chexray.platform.corpus.dicom_pixels import Codes, StoredPixels
from chexray.platform.corpus.raster import Image, UnreadableImage, stretch

_BLOCK = 2**16
Values = NDArray[np.float64]


def display(pixels: StoredPixels, dataset: Dataset, window: int) -> Image:
    """image_HW uint8, 0 black to 255 white, of any size.

    Shown is the VOI LUT or window of index `window` (the first where the file has no such one); a VOI LUT goes
    before a window (C.11.2 leaves the choice to the application). Without either, the image's own range is shown,
    padding pixels not counted (C.7.5.1.1.2).
    """
    stored_V = stored_values(pixels.bits, pixels.signed)
    modality_V = _modality_values(stored_V, dataset)
    table_V = _voi_table(modality_V, dataset, window)
    if table_V is None:
        low, high = _shown_range(pixels.codes_HW, modality_V, ~_padding_values(stored_V, dataset))
        table_V = stretch(modality_V, low, high)
    # C.7.6.3.1.2: the minimum value of MONOCHROME1 is meant to be displayed as white.
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        table_V = 255 - table_V
    return _apply(table_V, pixels.codes_HW)


def stored_values(bits: int, signed: bool) -> NDArray[np.int64]:
    """The value of every code of `bits` bits: itself, or its two's complement (PS3.5 8.1.1)."""
    codes_V = np.arange(2**bits)
    return np.where(codes_V >= 2 ** (bits - 1), codes_V - 2**bits, codes_V) if signed else codes_V


def _modality_values(stored_V: NDArray[np.int64], dataset: Dataset) -> Values:
    """C.11.1: through a lookup table, or slope and intercept, or the stored values themselves."""
    if luts := items(dataset, "ModalityLUTSequence"):
        return _look_up(stored_V, luts[0])
    slopes, intercepts = floats(dataset, "RescaleSlope"), floats(dataset, "RescaleIntercept")
    slope, intercept = slopes[0] if slopes else 1.0, intercepts[0] if intercepts else 0.0
    if not (np.isfinite([slope, intercept]).all() and slope):
        raise UnreadableImage("image not readable", f"rescale slope {slope}, intercept {intercept}")
    return stored_V.astype(np.float64) * slope + intercept


def _voi_table(modality_V: Values, dataset: Dataset, window: int) -> Image | None:
    """C.11.2: 8-bit table_V of the VOI LUT or window of index `window`; None where the dataset has no usable one."""
    if luts := items(dataset, "VOILUTSequence"):
        item = luts[window if window < len(luts) else 0]
        top = 2 ** min(max(_descriptor(item)[2], 1), 16) - 1
        return stretch(_look_up(modality_V, item), 0, top)
    windows = list(zip(floats(dataset, "WindowCenter"), floats(dataset, "WindowWidth"), strict=False))
    if not windows:
        return None
    center, width = windows[window if window < len(windows) else 0]
    share_V = _windowed(modality_V, center, width, first_text(dataset, "VOILUTFunction").upper())
    return None if share_V is None else stretch(share_V, 0.0, 1.0)


def _windowed(modality_V: Values, center: float, width: float, function: str) -> Values | None:
    """Shares of the output range, below 0 and above 1 too. An unknown function counts as LINEAR.

    None for a window that the clauses forbid.
    """
    linear = function not in ("LINEAR_EXACT", "SIGMOID")
    if not (np.isfinite([center, width]).all() and width >= (1 if linear else np.finfo(float).tiny)):
        return None
    if function == "SIGMOID":  # C.11.2.1.3.1
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (modality_V - center) / width, -700.0, 700.0)))
    if linear:  # C.11.2.1.2.1; of width 1 only its two outer cases are left.
        center, width = center - 0.5, width - 1
        if width == 0:
            return (modality_V > center).astype(np.float64)
    return (modality_V - center) / width + 0.5  # C.11.2.1.3.2


def _padding_values(stored_V: NDArray[np.int64], dataset: Dataset) -> NDArray[np.bool_]:
    """C.7.5.1.1.2: which values are the padding value, or between it and the padding range limit."""
    padding, limit = (integers(dataset, name)[:1] for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if not padding:
        return np.zeros(stored_V.shape, bool)
    ends = [_signed_as(stored_V, end) for end in padding + limit]
    return (stored_V >= min(ends)) & (stored_V <= max(ends))


def _look_up(values_V: NDArray[np.int64] | Values, item: Dataset) -> Values:
    """C.11.1.1: values through a LUT item, its first and last entries beyond its ends.

    Own code because pydicom 3.0 wraps the index of 8-bit tables with more than 256 entries.
    """
    entries, first, _ = _descriptor(item)
    data = item.get("LUTData")
    if isinstance(data, bytes):
        # C.11.1.1.1: 8-bit entries are packed, though some writers pad each to 16 bits.
        width = 1 if len(data) < 2 * entries else 2
        table = np.frombuffer(data[: len(data) // width * width], f"{'>' if is_big_endian(item) else '<'}u{width}")
    else:
        table = np.array(floats(item, "LUTData"))
    table = table[:entries].astype(np.float64)
    if not table.size:
        raise UnreadableImage("image not readable", "a LUT without data")
    index_V = np.rint(values_V).astype(np.int64) - _signed_as(values_V, first)
    return table[np.clip(index_V, 0, len(table) - 1)]


def _signed_as(values_V: NDArray[np.int64] | Values, value: int) -> int:
    """A 16-bit element that is among the values: the VR of some is open, so a signed one may be read as unsigned."""
    return value - 2**16 if values_V.min() < 0 and value >= 2**15 else value


def _descriptor(item: Dataset) -> tuple[int, int, int]:
    """C.11.1.1.1: entries (0 stands for 65,536), first value mapped (as it is written), bits of the entries."""
    values = integers(item, "LUTDescriptor")
    if len(values) != 3:
        raise UnreadableImage("image not readable", f"a LUT descriptor of {len(values)} values")
    return values[0] % 2**16 or 2**16, values[1], values[2]


def _shown_range(codes_HW: Codes, modality_V: Values, shown_V: NDArray[np.bool_]) -> tuple[float, float]:
    """The least and the greatest modality value of the pixels whose value is shown."""
    first, last = int(codes_HW.min()), int(codes_HW.max())
    steps = np.diff(modality_V[first : last + 1])
    if shown_V[first : last + 1].all() and ((steps >= 0).all() or (steps <= 0).all()):
        ends = modality_V[[first, last]]
        return float(ends.min()), float(ends.max())
    present_V = np.zeros(modality_V.shape, bool)
    flat = codes_HW.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        present_V[flat[start : start + _BLOCK]] = True
    shown = modality_V[present_V & shown_V]
    if shown.size == 0:
        raise UnreadableImage("image constant", "every pixel is padding")
    return float(shown.min()), float(shown.max())


def _apply(table_V: Image, codes_HW: Codes) -> Image:
    """table_V[codes_HW], in blocks: numpy makes 64-bit indices of all codes that it is given at once."""
    image_HW = np.empty(codes_HW.shape, np.uint8)
    out = image_HW.reshape(-1)
    flat: NDArray[Any] = np.ascontiguousarray(codes_HW).reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        # All codes are in range; 'clip' spares the copy that 'raise' makes of `out`.
        table_V.take(flat[start : start + _BLOCK], out=out[start : start + _BLOCK], mode="clip")
    return image_HW
