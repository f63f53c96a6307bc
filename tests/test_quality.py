"""Polarity and emptiness of images; oracles are 790 real chests with their negatives, and hand-made pixels."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from chexray.platform.corpus import quality
from chexray.platform.corpus.quality import (
    cell_means,
    fix_polarity,
    is_inverted,
    keep_image,
    level_share,
    polarity_score,
)
from chexray.platform.corpus.raster import Image, decode_image
from chexray.platform.corpus.schema import seeded_fraction
from chexray.platform.corpus.synthetic.cohort import SyntheticConfig
from chexray.platform.corpus.synthetic.dataset import draw_pair


@pytest.fixture(scope="module")
def nih(real_data: Path) -> dict[str, Image]:
    return {path.name: decode_image(path.read_bytes()) for path in sorted((real_data / "nih" / "images").iterdir())}


def held_out(name: str) -> bool:
    """Whether an image is of the half of the patients that the template was not fitted on."""
    return seeded_fraction(0, "polarity", name.split("_")[0]) < 0.5


def crop(image_HW: Image, share: float, seed: int) -> Image:
    rng = np.random.default_rng(seed)
    height, width = (int(side * share) for side in image_HW.shape)
    top, left = (
        int(rng.integers(0, side - part + 1)) for side, part in zip(image_HW.shape, (height, width), strict=True)
    )
    return image_HW[top : top + height, left : left + width]


def errors(images: list[Image]) -> tuple[int, int]:
    """How many are called inverted, and how many of their negatives are not."""
    return sum(map(is_inverted, images)), sum(not is_inverted(255 - image) for image in images)


def fitted_half_template(images: list[Image]) -> np.ndarray:
    """Ridge discriminant between images and their negatives: the left half of its 8 x 8 weights, -9 to 9."""
    views = [[image, crop(image, 0.8, seed), crop(image, 0.65, seed)] for seed, image in enumerate(images)]
    means_V88 = np.array([cell_means(view) for each in views for view in each])
    centred_V88 = means_V88 - means_V88.mean((1, 2), keepdims=True)
    scaled_V88 = centred_V88 / centred_V88.std((1, 2), keepdims=True)
    features_VF = ((scaled_V88 + scaled_V88[:, :, ::-1]) / 2)[:, :, :4].reshape(len(scaled_V88), 32)
    weights = np.linalg.solve(np.cov(features_VF.T) + np.eye(32), features_VF.mean(0)).reshape(8, 4)
    weights -= weights.mean()
    return weights * 9 / np.abs(weights).max()


def test_polarity_template_is_the_discriminant_of_the_fitting_half(nih: dict[str, Image]) -> None:
    refitted = fitted_half_template([image for name, image in nih.items() if not held_out(name)])
    error = np.abs(refitted - np.array(quality._HALF_TEMPLATE))
    assert error.max() <= 0.501  # measured worst: 0.50, the rounding


def test_polarity_of_held_out_patients_is_right(nih: dict[str, Image]) -> None:
    images = [image for name, image in nih.items() if held_out(name)]
    called, missed = errors(images)
    assert len(images) == 390
    assert called == 0  # aim: at most 0.3 %
    assert missed <= 2  # measured: 2, 0.5 %; aim: at most 1 %


def test_polarity_of_all_nih_images_is_right(nih: dict[str, Image]) -> None:
    called, missed = errors(list(nih.values()))
    assert (called, missed) <= (0, 2)  # measured: 0 and 2 of 790


def test_polarity_of_crops_is_mostly_right(nih: dict[str, Image]) -> None:
    called, missed = errors([crop(image, 0.8, seed) for seed, image in enumerate(nih.values())])
    assert called <= 2  # measured: 1 of 790
    assert missed <= 8  # measured: 6


@pytest.mark.parametrize("level", [0, 255])
def test_polarity_of_padded_images_is_right(nih: dict[str, Image], level: int) -> None:
    images = list(nih.values())[::8]
    padded = [np.pad(image, ((0, 0), (60, 60)), constant_values=level) for image in images]
    called, missed = errors(padded)
    assert (called, missed) <= (0, 1)  # measured: 0 and 0 of 99


def test_polarity_of_images_from_elsewhere_is_right(real_data: Path) -> None:
    paths = [*(real_data / "lungs" / "images").iterdir(), *(real_data / "nih_original").iterdir()]
    assert errors([decode_image(path.read_bytes()) for path in paths]) == (0, 0)


def test_polarity_of_dicom_with_a_wrong_photometric_interpretation_is_fixed(real_data: Path) -> None:
    # The second file has the first's pixels but says MONOCHROME1, so that it is decoded to the negative.
    right, wrong = (
        decode_image((real_data / "dicom" / name).read_bytes())
        for name in ("1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm", "Fake_MONOHR1.dcm")
    )
    assert fix_polarity(right)[1] is False
    fixed, changed = fix_polarity(wrong)
    assert changed
    np.testing.assert_array_equal(fixed, right)


def test_polarity_of_drawn_chests_is_right() -> None:
    assert errors([draw_pair(SyntheticConfig(size=128), index).image_HW for index in range(24)]) == (0, 0)


def test_polarity_of_a_constant_image_is_unknown() -> None:
    assert polarity_score(np.full((64, 64), 200, np.uint8)) == 0.0
    assert not is_inverted(np.full((64, 64), 200, np.uint8))


def test_fix_polarity_of_an_upright_image_returns_it_unchanged() -> None:
    image = draw_pair(SyntheticConfig(size=128), 1).image_HW
    fixed, changed = fix_polarity(image)
    assert not changed
    assert fixed is image


@given(arrays.arrays(np.uint8, st.tuples(st.integers(32, 80), st.integers(32, 80))))
def test_polarity_score_of_the_negative_is_the_opposite(image_HW: Image) -> None:
    score = polarity_score(image_HW)
    assert -1.0 <= score <= 1.0
    assert abs(score + polarity_score(255 - image_HW)) < 1e-5  # measured worst: 3e-8 on real images
    assert not (is_inverted(image_HW) and is_inverted(255 - image_HW))


def test_keep_image_with_one_spot_on_a_blank_gives_nearly_constant() -> None:
    image = np.full((256, 256), 3, np.uint8)
    image[::2, ::3] += 1
    image[:10] = 200
    assert keep_image(image) == "image nearly constant"
    assert keep_image(image, max_level_share=0.99) is None
    assert level_share(image) == pytest.approx(246 / 256, abs=0.005)


def test_keep_image_of_real_chests_keeps_all(nih: dict[str, Image]) -> None:
    assert max(level_share(image) for image in nih.values()) < 0.47  # measured: 0.46
    assert all(keep_image(image) is None for image in nih.values())
