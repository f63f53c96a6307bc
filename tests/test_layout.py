"""The rules of the layout: the folder is the import path, nothing shadows the standard library, nothing is local."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("platform", "jobs", "curation", "evals", "cluster")


def setuptools_settings() -> dict[str, Any]:
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    return settings


def folders_with_modules() -> set[str]:
    return {path.parent.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py")}


def project_files() -> list[Path]:
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("needs a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_platform_has_no_init_so_that_it_does_not_shadow_the_standard_library() -> None:
    assert (ROOT / "platform").is_dir()
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_standard_library_platform_imported_from_the_repository_root_is_the_standard_one() -> None:
    assert python("import platform, uuid; print(platform.system() != '', uuid.uuid4() is not None)") == "True True"
    assert not Path(python("import platform; print(platform.__file__)")).is_relative_to(ROOT / "platform")


def test_packages_are_every_folder_with_modules_and_no_other() -> None:
    expected = {"chexray." + folder.replace("/", ".") for folder in folders_with_modules()}
    listed = setuptools_settings()["packages"]
    assert set(listed) == expected
    assert len(listed) == len(expected)


def test_package_folders_map_each_room_to_itself() -> None:
    assert setuptools_settings()["package-dir"] == {f"chexray.{room}": room for room in ROOMS}


def test_packages_all_have_a_py_typed_marker() -> None:
    assert [folder for folder in sorted(folders_with_modules()) if not (ROOT / folder / "py.typed").exists()] == []


@pytest.mark.parametrize("module", ["platform.corpus.schema", "curation.selection", "evals.zero_shot"])
def test_module_imported_by_its_path_is_the_file_at_that_path(module: str) -> None:
    found = python(f"import importlib.util; print(importlib.util.find_spec('chexray.{module}').origin)")
    assert Path(found).parts[-2:] == Path(module.replace(".", "/") + ".py").parts[-2:]


def test_lock_names_no_address_and_hashes_every_requirement() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    entries = re.split(r"\n(?=[^\s#])", text.strip())
    names = [entry.split()[0] for entry in entries if not entry.startswith("#")]
    assert len(names) > 50
    assert all(re.fullmatch(r"[\w.\-]+(\[[\w,\-]+\])?==[\w.+!]+", name) for name in names)
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry and not entry.startswith("#")] == []


def test_lock_holds_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for group in project["optional-dependencies"].values() for d in group)]
    locked = {normal(line.split("==")[0]) for line in (ROOT / "requirements.lock").read_text().splitlines()}
    assert {normal(name) for name in wanted} - locked == set()


def normal(requirement: str) -> str:
    """A requirement's name as PyPI compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()


def test_files_name_no_folder_of_a_developer_machine() -> None:
    # /home/ray is the home in Ray's own images.
    local = re.compile(rf"{re.escape(str(ROOT))}\b|/home/(?!ray\b)\w[\w.-]*/|/Users/\w[\w.-]*/|(?<![\w.])/(?:root)/\w")
    found = {}
    for file in project_files():
        match = local.search(file.read_bytes().decode("utf-8", errors="ignore"))
        if match:
            found[file.relative_to(ROOT).as_posix()] = match.group()
    assert found == {}


@pytest.mark.parametrize("name", ["README.md", "Makefile", "pyproject.toml", "requirements.lock", ".gitignore"])
def test_project_file_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


def test_makefile_has_the_targets_that_people_are_told_of() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"setup", "demo", "test", "test-slow", "check", "lock", "clean"} <= targets
