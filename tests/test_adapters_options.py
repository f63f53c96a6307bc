"""Options of adapters as the command line gives them: values that YAML has read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from chexray.platform.corpus.adapters import ADAPTERS, adapter_class, open_adapter
from chexray.platform.corpus.adapters.folder import FolderAdapter
from chexray.platform.errors import UsageError


@pytest.mark.parametrize(
    ("adapter", "option", "text", "value"),
    [
        ("folder", "dataset", "2024", "2024"),
        ("folder", "dataset", "1.5", "1.5"),
        ("folder", "csv", "1", "1"),
        ("folder", "csv", ".\\list.csv", "list.csv"),
        ("folder", "csv", "null", None),
        ("folder", "masks", "masks/", "masks"),
        ("folder", "labels", "Pneumonia", ("Pneumonia",)),
        ("folder", "labels", "[Pneumonia, 7]", ("Pneumonia", "7")),
        ("folder", "labels", "null", None),
        ("folder", "language", "'no'", "no"),
        ("folder", "language", "PT", "pt"),
        ("casia-cxr", "view_columns", "[a, b]", ("a", "b")),
        ("nih", "validation_share", "0", 0),
        ("nih", "validation_share", "1.0", 1.0),
        ("padchest", "reviewed_only", "true", True),
        ("archive", "follow_links", "true", True),
        ("jsrt", "split", "null", None),
        ("brax", "image_format", "dicom", "dicom"),
    ],
)
def test_option_of_a_value_that_fits_is_taken(tmp_path: Path, adapter: str, option: str, text: str, value: Any) -> None:
    opened = open_adapter(adapter, str(tmp_path), **{option: yaml.safe_load(text)})
    assert getattr(opened, option) == value


@pytest.mark.parametrize(
    ("adapter", "option", "text", "message"),
    [
        ("folder", "language", "no", "--option language=False: YAML reads no, off and false so; quote it: "),
        ("archive", "report", "yes", "--option report=True: YAML reads yes, on and true so; quote it: "),
        ("folder", "labels", "[No, Pneumonia]", "--option labels=False: YAML reads no, off and false so; quote it: "),
        ("folder", "language", "english", "--option language='english': allowed: two or three letters (ISO 639)"),
        ("folder", "dataset", "2024-01-02", "--option dataset=datetime.date(2024, 1, 2): allowed: a text"),
        ("folder", "dataset", "null", "--option dataset=None: allowed: a text"),
        ("folder", "csv", "[a]", "--option csv=['a']: allowed: a file's path below the root, null"),
        ("folder", "csv", "../a.csv", "--option csv='../a.csv': allowed: a file's path below the root, null"),
        ("folder", "csv", "''", "--option csv='': allowed: a file's path below the root, null"),
        ("folder", "csv", "sub", "--option csv='sub': it is a folder; allowed: a file's path below the root, null"),
        ("folder", "masks", "/m", "--option masks='/m': allowed: a folder's path below the root, null"),
        ("archive", "reports", "..", "--option reports='..': allowed: a file's path below the root, null"),
        ("archive", "reports", "/etc/passwd", "--option reports='/etc/passwd': allowed: a file's path below the root"),
        ("archive", "reports", "{a: 1}", "--option reports={'a': 1}: allowed: a file's path below the root, null"),
        ("chestdr", "csv", "sub", "--option csv='sub': it is a folder; allowed: a file's path below the root, null"),
        ("folder", "labels", "{a: 1}", "--option labels={'a': 1}: allowed: a list of texts, null"),
        ("folder", "labels", "[[a]]", "--option labels=(['a'],): allowed: a list of texts, null"),
        ("nih", "validation_share", "2", "--option validation_share=2: allowed: a number from 0 to 1"),
        ("nih", "validation_share", "x", "--option validation_share='x': allowed: a number from 0 to 1"),
        ("nih", "validation_share", ".nan", "--option validation_share=nan: allowed: a number from 0 to 1"),
        ("siim-acr", "validation_share", "-0.1", "--option validation_share=-0.1: allowed: a number from 0 to 1"),
        ("vindr-cxr", "validation_share", "yes", "--option validation_share=True: allowed: a number from 0 to 1"),
        ("vindr-pcxr", "validation_share", "null", "--option validation_share=None: allowed: a number from 0 to 1"),
        ("nih", "seed", "0.5", "--option seed=0.5: allowed: a whole number"),
        ("padchest", "reviewed_only", "1", "--option reviewed_only=1: allowed: true, false"),
        ("brax", "image_format", "jpg", "--option image_format='jpg': allowed: png, dicom"),
        ("jsrt", "split", "dev", "--option split='dev': allowed: train, validation, test, null"),
        ("archive", "view", "oblique", "--option view='oblique': allowed: any, frontal, lateral"),
    ],
)
def test_option_of_another_value_is_refused_with_what_is_allowed(
    tmp_path: Path, adapter: str, option: str, text: str, message: str
) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(UsageError, match=f"^{re.escape(message)}") as caught:
        open_adapter(adapter, str(tmp_path), **{option: yaml.safe_load(text)})
    assert "\n" not in str(caught.value)


def test_refused_text_that_yaml_took_for_false_is_taken_as_the_message_says() -> None:
    with pytest.raises(UsageError) as caught:
        open_adapter("folder", "x", language=yaml.safe_load("no"))
    advice = re.search(r"quote it: --option 'language=(.*)'$", str(caught.value))
    assert advice is not None
    opened = open_adapter("folder", "x", language=yaml.safe_load(advice[1]))
    assert isinstance(opened, FolderAdapter)
    assert opened.language == "no"


@pytest.mark.parametrize("name", ADAPTERS)
def test_options_of_every_adapter_take_their_own_defaults(name: str, tmp_path: Path) -> None:
    default = adapter_class(name)(str(tmp_path))
    options = {key: value for key, value in vars(default).items() if key != "root"}
    assert open_adapter(name, str(tmp_path), **options) == default
