"""Prompts, zero-shot probabilities and AUROCs against the golden files, torch and scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from chexray.evals.embedding_tasks import EncodedSplit, evaluate_zero_shot
from chexray.evals.prompts import PROMPT_FAMILIES, PromptPair, prompt_families
from chexray.evals.zero_shot import auroc_per_finding, mean_over_findings, zero_shot_probability
from chexray.platform.errors import UsageError
from chexray.platform.evaluate_config import EvaluateConfig

GOLDEN = Path(__file__).resolve().parents[1] / "../shared/data/golden/eval_reference.npz"


def test_zero_shot_golden_inputs_give_reference_aurocs() -> None:
    if not GOLDEN.exists():
        pytest.skip("golden evaluation values are not here")
    golden = np.load(GOLDEN)
    target_BF = np.where(golden["zs_targets"] == -1, np.nan, golden["zs_targets"])
    assert np.isnan(target_BF).any()
    auroc_F = auroc_per_finding(zero_shot_probability(golden["zs_image"], golden["zs_text"]), target_BF)
    # Measured worst error: 0.
    np.testing.assert_allclose(auroc_F, golden["zs_auroc"], rtol=0, atol=1e-12)
    assert mean_over_findings(auroc_F) == pytest.approx(float(golden["zs_mean"]), abs=1e-12)


def test_zero_shot_probability_random_embeddings_equals_torch_softmax() -> None:
    generator = np.random.default_rng(0)
    image_BD, text_F2D = generator.normal(size=(7, 16)), generator.normal(size=(3, 2, 16))
    cosine_BF2 = torch.nn.functional.cosine_similarity(
        torch.from_numpy(image_BD)[:, None, None], torch.from_numpy(text_F2D)[None], dim=-1
    )
    expected_BF = torch.softmax(cosine_BF2, dim=-1)[..., 0].numpy()
    # Measured worst error: 1.1e-16.
    np.testing.assert_allclose(zero_shot_probability(image_BD, text_F2D), expected_BF, rtol=0, atol=1e-12)


def test_zero_shot_probability_hand_computed_case_is_sigmoid_of_difference() -> None:
    image_BD = np.array([[1.0, 0.0]])
    text_F2D = np.array([[[1.0, 0.0], [-1.0, 0.0]], [[0.0, 1.0], [0.0, -1.0]]])
    probability_BF = zero_shot_probability(image_BD, text_F2D)
    # 1 / (1 + e^-2) and, for equal similarities, one half. Measured worst error: 0.
    np.testing.assert_allclose(probability_BF, [[0.8807970779778823, 0.5]], rtol=0, atol=1e-12)


def test_zero_shot_probability_half_precision_norms_change_nothing() -> None:
    generator = np.random.default_rng(1)
    image_BD, text_F2D = generator.normal(size=(5, 8)), generator.normal(size=(2, 2, 8))
    scaled = zero_shot_probability(image_BD * 1.004, text_F2D * 0.996)
    # Measured worst error: 1.1e-16.
    np.testing.assert_allclose(scaled, zero_shot_probability(image_BD, text_F2D), rtol=0, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_zero_shot_probability_embedding_without_direction_raises(value: float) -> None:
    image_BD = np.ones((3, 4))
    image_BD[1] = value
    with pytest.raises(ValueError, match="image_BD has a vector of length"):
        zero_shot_probability(image_BD, np.ones((2, 2, 4)))


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 2, 5), (2, 4)])
def test_zero_shot_probability_wrong_text_shape_raises(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="text_F2D"):
        zero_shot_probability(np.ones((3, 4)), np.ones(shape))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), levels=st.integers(1, 6), size=st.integers(2, 40))
def test_auroc_tied_scores_and_unknown_targets_equals_sklearn(seed: int, levels: int, size: int) -> None:
    generator = np.random.default_rng(seed)
    score_BF = generator.integers(levels, size=(size, 3)) / levels
    target_BF = generator.choice([0.0, 1.0, np.nan], size=(size, 3))
    auroc_F = auroc_per_finding(score_BF, target_BF)
    for auroc, score_B, target_B in zip(auroc_F, score_BF.T, target_BF.T, strict=True):
        known_B = ~np.isnan(target_B)
        if len(np.unique(target_B[known_B])) < 2:
            assert np.isnan(auroc)
        else:
            # Measured worst error: 1.1e-16.
            assert auroc == pytest.approx(roc_auc_score(target_B[known_B], score_B[known_B]), abs=1e-12)


def test_auroc_class_absent_is_nan_and_left_out_of_the_mean() -> None:
    score_BF = np.array([[0.1, 0.1, 0.1], [0.9, 0.9, 0.9], [0.5, 0.5, 0.5]])
    target_BF = np.array([[0.0, 0.0, np.nan], [1.0, 0.0, np.nan], [1.0, 0.0, np.nan]])
    auroc_F = auroc_per_finding(score_BF, target_BF)
    np.testing.assert_array_equal(auroc_F, [1.0, np.nan, np.nan])
    assert mean_over_findings(auroc_F) == 1.0
    assert np.isnan(mean_over_findings(auroc_F[1:]))


def test_auroc_minus_one_as_unknown_raises() -> None:
    with pytest.raises(ValueError, match=r"target is -1; allowed: 1 \(present\), 0 \(absent\), NaN"):
        auroc_per_finding(np.zeros((3, 1)), np.array([[1.0], [0.0], [-1.0]]))


def test_auroc_nan_score_of_known_sample_raises_and_of_unknown_sample_is_ignored() -> None:
    score_BF = np.array([[0.2], [np.nan], [0.7]])
    with pytest.raises(ValueError, match="score_B is NaN"):
        auroc_per_finding(score_BF, np.array([[0.0], [1.0], [1.0]]))
    assert auroc_per_finding(score_BF, np.array([[0.0], [np.nan], [1.0]]))[0] == 1.0


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        ("Pneumonia", ("Pneumonia", "no Pneumonia")),
        ("Pleural_Thickening", ("Pleural Thickening", "no Pleural Thickening")),
        ("No Finding", ("No Finding", "there is Finding")),
        ("No finding", ("No Finding", "there is Finding")),
        ("No_Finding", ("No Finding", "there is Finding")),
    ],
)
def test_prompts_presence_family_writes_reference_pair(finding: str, expected: tuple[str, str]) -> None:
    assert prompt_families("presence")[0].pair(finding) == PromptPair(*expected)


def test_prompts_sentence_family_writes_sentences() -> None:
    assert prompt_families("sentence")[0].pairs(["Pleural_Thickening", "No Finding"]) == (
        PromptPair("There is Pleural Thickening.", "There is no Pleural Thickening."),
        PromptPair("There is no finding.", "There is a finding."),
    )


def test_prompts_every_family_contrasts_two_different_texts() -> None:
    for family in PROMPT_FAMILIES.values():
        for finding in ("Hernia", "No Finding"):
            assert len(set(family.pair(finding))) == 2


def test_prompts_unknown_family_raises_listing_the_known() -> None:
    with pytest.raises(
        UsageError, match=r"prompt family is 'chexpert'; allowed: evidence, presence, radiograph, sentence"
    ):
        prompt_families("chexpert")


def test_prompts_blank_finding_raises() -> None:
    with pytest.raises(ValueError, match="finding is '_ '"):
        prompt_families("presence")[0].pair("_ ")


def test_ensemble_of_prompts_averages_the_unit_embeddings_of_its_families() -> None:
    """By hand: one finding; presence points along x against y, sentence along y against x, thrice as long."""
    embedding = {"Edema": (1, 0), "no Edema": (0, 1), "There is Edema.": (0, 3), "There is no Edema.": (3, 0)}

    def encode(texts: list[str]) -> npt.NDArray[np.float32]:
        return np.array([embedding[text] for text in texts], dtype=np.float32)

    image_BD = np.array([[1, 0], [0, 1]], dtype=np.float32)
    split = EncodedSplit(
        ["a", "b"], ["p", "q"], ["", ""], image_BD, image_BD, ["Edema"], np.array([[1.0], [0.0]]), np.array([0.5])
    )
    found = {}
    for name in ("presence", "sentence", "presence+sentence"):
        results, probability_BF = evaluate_zero_shot(split, encode, EvaluateConfig(prompts=name, bootstrap=10))
        assert results[0].variant == f"prompts={name}"
        found[name] = probability_BF[:, 0]
    high = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(found["presence"], [high, 1 - high])
    np.testing.assert_allclose(found["sentence"], [1 - high, high])
    np.testing.assert_allclose(found["presence+sentence"], [0.5, 0.5])
    with pytest.raises(UsageError, match="named twice"):
        prompt_families("presence+presence")
