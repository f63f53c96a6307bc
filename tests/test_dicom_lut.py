"""Modality and VOI lookup tables (PS3.3 C.11.1 and C.11.2): hand-computed values, and pydicom's own mapping."""

import io

import numpy as np
import pydicom
import pytest
from dicom_files import lut, noise, radiograph, shown_row, written
from pydicom.pixels import apply_voi_lut
from pydicom.uid import ImplicitVRLittleEndian

from chexray.platform.corpus.dicom import display_pixels


def test_display_of_several_voi_luts_shows_the_one_asked_for() -> None:
    sequence = lut(2, 0, 8, [0, 100]) + lut(2, 0, 8, [0, 200])
    dataset = radiograph(np.array([[0, 1]], np.uint16), VOILUTSequence=sequence)
    assert [display_pixels(dataset, window)[0].tolist() for window in (0, 1, 2)] == [[0, 100], [0, 200], [0, 100]]


def test_display_with_non_monotonic_modality_lut_spans_the_mapped_values_that_occur() -> None:
    sequence = lut(4, 0, 16, [500, 100, 900, 300])
    assert shown_row([0, 1, 3], ModalityLUTSequence=sequence) == [255, 0, 128]


def test_display_of_implicit_vr_luts_is_that_of_explicit() -> None:
    # PS3.5 A.1: implicit VR leaves open whether descriptor and padding are US or SS.
    stored = np.array([[-3, -2, -1, 0, 1]], np.int16)
    sequence = lut(3, 0, 8, [0, 100, 200])
    sequence[0].add_new("LUTDescriptor", "SS", [3, -2, 8])
    dataset = radiograph(stored, VOILUTSequence=sequence, PixelPaddingValue=-3)
    explicit = display_pixels(pydicom.dcmread(io.BytesIO(written(dataset))))
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    implicit = display_pixels(pydicom.dcmread(io.BytesIO(written(dataset))))
    assert explicit[0].tolist() == implicit[0].tolist() == [0, 0, 100, 200, 200]


@pytest.mark.parametrize("packed", [False, True])
def test_display_with_voi_lut_maps_and_holds_its_ends(packed: bool) -> None:
    data: list[int] | bytes = [0, 10, 200, 255]
    sequence = lut(4, 100, 8, bytes(data) if packed else data)
    assert shown_row([0, 100, 101, 102, 103, 4095], VOILUTSequence=sequence) == [0, 0, 10, 200, 255, 255]


def test_display_with_8_bit_voi_lut_of_many_entries_does_not_wrap() -> None:
    sequence = lut(4096, 0, 8, [i // 16 for i in range(4096)])
    assert shown_row([0, 300, 2048, 4095], VOILUTSequence=sequence) == [0, 18, 128, 255]


def test_display_with_modality_lut_then_window_uses_the_mapped_values() -> None:
    elements = {"WindowCenter": 200, "WindowWidth": 101}
    sequence = lut(3, 10, 16, [149, 175, 250])
    sequence[0].ModalityLUTType = "US"
    assert shown_row([10, 11, 12], ModalityLUTSequence=sequence, **elements) == [0, 65, 255]


def test_display_with_voi_lut_of_12_bits_is_as_pydicom_maps_it() -> None:
    table = np.sort(np.random.default_rng(3).integers(0, 4096, 4096)).tolist()
    dataset = radiograph(noise(), VOILUTSequence=lut(4096, 0, 12, table))
    expected = apply_voi_lut(dataset.pixel_array, dataset) / 4095 * 255
    error = np.abs(display_pixels(dataset) - expected)
    assert error.max() <= 0.5 + 1e-9  # measured worst: 0.50, the rounding
