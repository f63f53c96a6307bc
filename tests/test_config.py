"""Settings: recipes load, and what is wrong is refused with its key, its value and what is allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from chexray.platform.config import Recipe, load_recipe, recipe_names, setting_keys
from chexray.platform.errors import UsageError


def refusal(*overrides: str, recipe: str = "tiny") -> str:
    with pytest.raises(UsageError) as caught:
        load_recipe(recipe, list(overrides))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`section.key` to value, by walking a dumped recipe: the oracle for `setting_keys`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {prefix + name: value}
    return found


def test_recipes_shipped_are_tiny_and_paper() -> None:
    assert {"tiny", "paper"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_shipped_loads_under_its_name(name: str) -> None:
    assert load_recipe(name).name == name


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_dumped_and_loaded_again_is_equal(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert Recipe.model_validate(recipe.model_dump()) == recipe
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(recipe.model_dump()))
    assert load_recipe(str(file)) == recipe


def test_paper_recipe_has_the_published_settings() -> None:
    """Values of DESIGN section 4: the paper's and its released code's."""
    recipe = load_recipe("paper")
    assert (recipe.model.vision.image_size, recipe.model.text.context_length, recipe.model.embed_dim) == (378, 256, 512)
    assert (recipe.model.init_temperature, recipe.model.text.pooler) == (0.01, "last_token_pooler")
    train = recipe.train
    assert (train.lr, train.min_lr, train.weight_decay) == (5e-5, 5e-6, 1e-4)
    assert (train.epochs, train.global_batch) == (20, 480)
    curate = recipe.curate
    assert (curate.keep, curate.prototypes, curate.central_per_cluster, curate.momentum) == (0.227, 6, 10, 0.9)
    assert (curate.outlier, curate.support) == (0.05, 0.10)
    assert (curate.sinkhorn_epsilon, curate.sinkhorn_iterations) == (0.5, 3)
    assert recipe.model.pretrained
    assert not load_recipe("tiny").model.pretrained


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.lr=5e-4", 5e-4),  # YAML 1.1 reads this as text
        ("train.epochs=3", 3),
        ("train.clip_norm=null", None),
        ("train.clip_norm=", None),
        ("ingest.codec=png", "png"),
        ("model.text.hf_weights=false", False),
        ("model.vision.weights=s3://bucket/model.safetensors", "s3://bucket/model.safetensors"),
        ("evaluate.prompts=a=b", "a=b"),
    ],
)
def test_override_is_read_as_yaml(override: str, value: object) -> None:
    key = override.partition("=")[0]
    assert leaves(load_recipe("tiny", [override]).model_dump())[key] == value


def test_override_changes_one_setting_and_the_last_one_counts() -> None:
    base = leaves(load_recipe("tiny").model_dump())
    changed = leaves(load_recipe("tiny", ["train.epochs=3", "train.epochs=4"]).model_dump())
    assert {key for key in base if base[key] != changed[key]} == {"train.epochs"}
    assert changed["train.epochs"] == 4


def test_setting_keys_are_all_settings_of_the_model() -> None:
    assert set(setting_keys()) == set(leaves(Recipe(name="x").model_dump())) - {"name"}
    assert len(setting_keys()) == len(set(setting_keys()))


@pytest.mark.parametrize("key", setting_keys())
def test_setting_of_every_key_takes_its_own_value(key: str) -> None:
    recipe = load_recipe("paper")
    value = leaves(recipe.model_dump())[key]
    assert load_recipe("paper", [f"{key}={json.dumps(value)}"]) == recipe


def test_unknown_key_is_refused_with_the_nearest_and_the_allowed() -> None:
    message = refusal("train.epoch=3")
    assert message.startswith("--set train.epoch: unknown setting; did you mean train.epochs? allowed: train.epochs, ")
    assert "curate.keep" not in message


def test_unknown_section_is_refused_with_the_sections() -> None:
    assert refusal("zzz=3") == (
        "--set zzz: unknown setting; allowed: curate.*, evaluate.*, ingest.*, model.*, run.*, train.*"
    )


@pytest.mark.parametrize("key", ["name", "model", "model.vision", ""])
def test_key_that_is_no_setting_is_refused(key: str) -> None:
    assert "unknown setting" in refusal(f"{key}=3")


def test_override_without_equals_sign_is_refused_with_an_example() -> None:
    assert refusal("train.epochs") == ("--set train.epochs: expected section.key=value, as in --set train.epochs=5")


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("train.epochs=0", "greater than or equal to 1"),
        ("train.lr=0", "greater than 0"),
        ("train.lr=1.5", "less than or equal to 1"),
        ("train.beta1=1.0", "less than 1"),
        ("train.zero_stage=4", "less than or equal to 3"),
        ("train.seed=-1", "greater than or equal to 0"),
        ("curate.keep=1.1", "less than or equal to 1"),
        ("curate.prototypes=1", "greater than or equal to 2"),
        ("ingest.validation_share=-0.1", "greater than or equal to 0"),
        ("ingest.codec='gif'", "'jpeg' or 'png'"),
        ("model.text.pooler='max'", "'last_token_pooler'"),
        ("evaluate.split='train'", "'validation' or 'test'"),
        ("train.epochs='ten'", "valid integer"),
        ("train.epochs=2.5", "valid integer"),
        ("train.lr='fast'", "valid number"),
        ("train.lr=.nan", "finite number"),
        ("train.weight_decay=.inf", "finite number"),
        ("evaluate.prompts=7", "valid string"),
        ("train.epochs=[1, 2]", "valid integer"),
    ],
)
def test_value_that_is_not_allowed_is_refused_with_key_value_and_the_allowed(override: str, allowed: str) -> None:
    key, _, text = override.partition("=")
    message = refusal(override)
    assert message.startswith(f"{key}={yaml.safe_load(text)!r}: ")
    assert allowed in message


@pytest.mark.parametrize("key", ["train.epochs", "train.lr", "ingest.codec", "model.text.hf_model", "train.clip_norm"])
def test_truth_value_for_another_kind_of_setting_is_refused(key: str) -> None:
    assert refusal(f"{key}=true") == f"{key}: true is allowed for yes-or-no settings only"


def test_override_that_is_not_yaml_is_refused_with_its_text() -> None:
    assert refusal("train.lr=[").startswith("--set train.lr=[: '[' is not a YAML value")


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["ingest.validation_share=0.5", "ingest.test_share=0.5"], ["ingest: ", "validation_share + test_share"]),
        (["curate.kmeans_sample=5"], ["curate: ", "kmeans_sample 5", "prototypes 6"]),
        (["curate.keep=0.96"], ["curate: ", "keep 0.96", "outlier 0.05", "at most 0.95"]),
        (["train.min_lr=0.5", "train.lr=0.1"], ["train: ", "min_lr 0.5", "lr 0.1"]),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_both(overrides: list[str], named: list[str]) -> None:
    message = refusal(*overrides)
    assert all(part in message for part in named), message


@pytest.mark.parametrize("outlier", [0.01, 0.05, 0.07, 0.1, 0.35])
def test_keep_of_all_that_outliers_leave_is_allowed(outlier: float) -> None:
    keep = float(f"{1 - outlier:.2f}")
    assert load_recipe("tiny", [f"curate.outlier={outlier}", f"curate.keep={keep}"]).curate.keep == keep


def test_keep_of_everything_is_allowed_where_no_outliers_are_dropped() -> None:
    assert load_recipe("tiny", ["curate.selector=random", "curate.keep=1"]).curate.keep == 1
    assert load_recipe("tiny", ["curate.mode=paper", "curate.keep=1"]).curate.keep == 1


def test_recipe_unknown_is_refused_with_the_shipped_ones() -> None:
    message = refusal(recipe="huge")
    assert message.startswith("--recipe huge: unknown; shipped are ")
    assert all(name in message for name in recipe_names())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [", "not YAML"),
        ("- train", "expected sections"),
        ("train:\n  epoch: 3", "train.epoch: unknown setting; did you mean train.epochs? allowed: train.epochs,"),
        ("trains:\n  epochs: 3", "trains: unknown setting; "),
        ("train:\n  epochs: 0", "train.epochs=0: input should be greater than or equal to 1"),
        ("train: 3", "train=3: input should be a valid dictionary"),
    ],
)
def test_recipe_file_that_is_wrong_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert message in refusal(recipe=str(file))


def test_recipe_file_missing_is_refused_with_its_name(tmp_path: Path) -> None:
    assert refusal(recipe=str(tmp_path / "x.yaml")) == f"--recipe {tmp_path / 'x.yaml'}: no such file"


@pytest.mark.parametrize("text", ["train: 3", "train:"])
def test_override_of_a_section_that_is_none_in_the_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert "expected a section of settings" in refusal("train.epochs=3", recipe=str(file))


def test_settings_cannot_be_changed_once_loaded() -> None:
    recipe: BaseModel = load_recipe("tiny").train
    with pytest.raises(ValueError, match="frozen"):
        recipe.epochs = 3  # type: ignore[attr-defined]


def test_load_recipe_one_value_where_a_list_is_expected_says_how_to_write_it() -> None:
    with pytest.raises(UsageError, match=r"evaluate.label_shares=0.5: expected a list, as \[0.5\]"):
        load_recipe("tiny", ["evaluate.label_shares=0.5"])
