"""Benchmarks as files: the shipped twenty, files of one's own, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from chexray.evals.specs import (
    TASKS,
    choose_specs,
    load_spec,
    plain_specs,
    read_data,
    read_spec,
    shipped_specs,
    twin_of,
)
from chexray.platform.corpus.adapters import ADAPTERS
from chexray.platform.errors import UsageError

GOOD = {
    "name": "mine",
    "title": "Mine",
    "task": "zero_shot",
    "source": "me",
    "datasets": ["nih"],
    "metric": "mean_auroc",
}


def test_registry_has_the_twenty_benchmarks_of_five_task_types() -> None:
    specs = shipped_specs()
    assert Counter(spec.task for spec in specs.values()) == {
        "zero_shot": 9,
        "retrieval": 3,
        "disease_prediction": 4,
        "segmentation": 2,
        "report_generation": 2,
    }
    assert list(dict.fromkeys(spec.task for spec in specs.values())) == list(TASKS)


def test_registry_names_datasets_that_can_be_ingested_and_its_files_by_their_benchmarks() -> None:
    for spec in shipped_specs().values():
        assert set(spec.datasets) <= ADAPTERS.keys()
        assert spec.source


def test_registry_twins_ask_for_findings_and_masks_that_are_drawn() -> None:
    for spec in shipped_specs().values():
        twin = twin_of(spec)
        assert twin.is_twin
        assert not spec.is_twin
        assert (twin.name, twin.task, twin.metric) == (spec.name, spec.task, spec.metric)
        assert bool(twin.masks) == (spec.task == "segmentation")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": "zeroshot"}, "task='zeroshot'"),
        ({"metric": "auroc"}, "metric auroc: zero_shot has mean_auroc"),
        ({"nme": "x"}, "nme: unknown; allowed: name, version"),
        ({"name": "Has Spaces"}, "name='Has Spaces'"),
        ({"prompts": "poem"}, "prompt family is 'poem'; allowed: evidence, presence"),
        ({"datasets": []}, r"datasets=\[\]"),
        ({"findings": ["A", "A"]}, "findings: one is named twice"),
        ({"exclusive": True}, "exclusive: needs two or more findings"),
        ({"twin": {"findings": ["Unicorn"]}}, "Unicorn: not drawn"),
        ({"task": "segmentation", "metric": "dice"}, "masks: segmentation needs"),
        ({"version": 0}, "version=0"),
        ({"task": "retrieval", "metric": "image_to_text_recall@1", "findings": ["A"]}, "with exclusive: true only"),
        ({"task": "segmentation", "masks": ["lungs"], "metric": "mean_dice"}, "mean_dice: is of two or more masks"),
    ],
)
def test_file_that_cannot_be_is_refused_with_its_field(tmp_path: Path, change: dict[str, object], said: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(GOOD | change))
    with pytest.raises(UsageError, match=said):
        load_spec(str(file))


@pytest.mark.parametrize("field", ["name", "title", "task", "source", "datasets", "metric"])
def test_file_without_a_field_says_which(field: str) -> None:
    with pytest.raises(UsageError, match=f"mine.yaml: {field}: is missing"):
        read_spec(yaml.safe_dump({key: value for key, value in GOOD.items() if key != field}), "mine.yaml")


@pytest.mark.parametrize("text", ["[", "- a", "", "!!python/object/apply:os.system [ls]"])
def test_file_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"mine\.yaml"):
        read_spec(text, "mine.yaml")


def test_chosen_names_mix_the_registry_with_files(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(GOOD))
    assert list(choose_specs(["nih-zero-shot", str(file)])) == ["nih-zero-shot", "mine"]
    assert len(choose_specs(["all", str(file)])) == 21
    with pytest.raises(UsageError, match="--benchmarks nih: unknown; allowed: all, chexpert-zero-shot"):
        choose_specs(["nih"])
    with pytest.raises(UsageError, match="none given"):
        choose_specs([])


def test_file_by_the_name_of_a_shipped_benchmark_and_twins_that_its_file_leaves_open_are_refused(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(GOOD | {"name": "nih-zero-shot"}))
    with pytest.raises(UsageError, match="is the name of a shipped benchmark"):
        choose_specs([str(file)])
    masked = read_spec(yaml.safe_dump(GOOD | {"task": "segmentation", "metric": "dice", "masks": ["lungs"]}), "x")
    with pytest.raises(UsageError, match=r"mine: its file has no twin\.masks"):
        twin_of(masked)


def test_plain_tasks_refuse_names_of_the_registry() -> None:
    assert list(plain_specs(["retrieval", "zero_shot"])) == ["zero_shot", "retrieval"]
    with pytest.raises(UsageError, match="take their data from --data"):
        plain_specs(["nih-zero-shot"])


def test_data_file_reads_places_relative_to_itself(tmp_path: Path) -> None:
    file = tmp_path / "data.yaml"
    file.write_text("nih: corpora/nih\nsiim-acr: /data/siim\nmimic-cxr-jpg: s3://bucket/mimic\n")
    assert read_data(str(file)) == {
        "nih": f"{tmp_path}/corpora/nih",
        "siim-acr": "/data/siim",
        "mimic-cxr-jpg": "s3://bucket/mimic",
    }


@pytest.mark.parametrize("text", ["- nih", "nih: [a]", "nih: 3", "["])
def test_data_file_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match="--data"):
        read_data(str(file))
