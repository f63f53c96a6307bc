"""The SDK's notebook and page: what they show is there, and its commands are taken."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from chexray.platform import errors
from chexray.platform.sdk import Client, Result, Run
from chexray.platform.submission import JOBS, build_submission, check_command

DOCS = Path(__file__).resolve().parents[1] / "docs"
NOTEBOOK = json.loads((DOCS / "sdk.ipynb").read_text())
CELLS = [ast.parse("".join(cell["source"])) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
NODES = [node for cell in CELLS for node in ast.walk(cell)]
HELD: dict[str, Any] = {"client": Client, "run": Run, "random": Run, "one": Run, "result": Result}
"""What the notebook's names hold."""


def test_notebook_has_the_fields_of_nbformat_4_5_and_no_outputs() -> None:
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert NOTEBOOK["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", one) for one in ids)
    for cell in NOTEBOOK["cells"]:
        code = {"execution_count": None, "outputs": []} if cell["cell_type"] == "code" else {}
        assert {name: cell[name] for name in code} == code
        assert cell.keys() == {"cell_type", "id", "metadata", "source", *code}
    assert len(CELLS) >= 5


def test_notebook_imports_what_is_there() -> None:
    imported = [node for node in NODES if isinstance(node, ast.ImportFrom)]
    assert imported
    for node in imported:
        module = importlib.import_module(node.module or "")
        assert [name.name for name in node.names if not hasattr(module, name.name)] == []


def test_notebook_uses_names_that_it_made_before() -> None:
    known = set(dir(builtins))
    for cell in CELLS:
        names = [node for node in ast.walk(cell) if isinstance(node, ast.Name)]
        known |= {alias.name for node in ast.walk(cell) if isinstance(node, ast.ImportFrom) for alias in node.names}
        known |= {node.name for node in ast.walk(cell) if isinstance(node, ast.ExceptHandler) and node.name}
        known |= {node.id for node in names if isinstance(node.ctx, ast.Store)}
        assert {node.id for node in names} - known == set()


def test_notebook_uses_methods_that_are_there_with_arguments_that_they_take() -> None:
    used = [node for node in NODES if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    on_ours = [(HELD[node.value.id], node.attr) for node in used if node.value.id in HELD]  # type: ignore[attr-defined]
    assert len(on_ours) > 10
    for owner, name in on_ours:
        assert name in dir(owner) or name in owner.__annotations__
    for node in NODES:
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            owner = HELD.get(node.func.value.id)
            if owner is not None:
                keywords = {str(one.arg): None for one in node.keywords}
                inspect.signature(getattr(owner, node.func.attr)).bind(None, *node.args, **keywords)


def test_notebook_submits_commands_that_the_jobs_take() -> None:
    calls = [node for node in NODES if isinstance(node, ast.Call) and "submit" in ast.unparse(node.func)]
    assert len(calls) == 2
    for call in calls:
        given = {str(one.arg): eval(ast.unparse(one.value), {"bucket": "s3://bucket"}) for one in call.keywords}
        job = ast.literal_eval(call.args[0]) if call.args else "evaluate"
        resources, settings = given.pop("resources", None), given.pop("settings", None)
        check_command(build_submission(job, (), given, settings, resources))


@pytest.mark.parametrize("owner", [Client, Run])
def test_page_names_every_public_method(owner: type) -> None:
    page = (DOCS / "sdk.md").read_text()
    public = {name for name in vars(owner) if not name.startswith("_")}
    assert [name for name in sorted(public) if f"`{name}" not in page] == []


def test_page_names_every_job_and_errors_that_are_there() -> None:
    page = (DOCS / "sdk.md").read_text()
    assert [job for job in JOBS if f"`{job}`" not in page] == []
    named = set(re.findall(r"`(\w+Error)`", page)) - {"TimeoutError"}
    assert len(named) >= 9
    assert [name for name in sorted(named) if not issubclass(getattr(errors, name), errors.ChexrayError)] == []
