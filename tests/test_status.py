"""`chexray status` on roots that are written here, by stages and by hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from made_sweep import made_space, made_sweep
from typed_command import run

from chexray.platform import storage
from chexray.platform.artifacts import Kind, Stage
from chexray.platform.errors import UsageError
from chexray.platform.status import ArtifactStatus, find_artifacts


def write(uri: str, kind: Kind, counts: dict[str, Any] | None = None, cost: dict[str, Any] | None = None) -> None:
    """An artifact; without counts an unfinished one."""
    stage = Stage(uri, kind, {"made": uri})
    stage.begin()
    storage.write_bytes(f"{uri}/part-0.parquet", b"x")
    if counts is not None:
        stage.finish(counts, cost)


def by_path(root: Path | str) -> dict[str, ArtifactStatus]:
    return {one.path: one for one in find_artifacts(str(root))}


def test_artifacts_are_found_with_what_their_manifests_say(tmp_path: Path) -> None:
    write(f"{tmp_path}/a/corpus", "corpus", {"listed": 90, "pairs": 80})
    write(f"{tmp_path}/a/subset", "subset", {"pairs": 80, "kept": 20}, {"total_flops": 5, "scoring_flops": 4})
    write(f"{tmp_path}/a-b", "scores", {"cells": 3})
    write(f"{tmp_path}/model", "checkpoint")
    found = by_path(tmp_path)
    assert list(found) == ["a/corpus", "a/subset", "a-b", "model"]
    assert [(one.kind, one.state, one.pairs, one.cost) for one in found.values()] == [
        ("corpus", "finished", 80, None),
        ("subset", "finished", 20, 5),
        ("scores", "finished", None, None),
        ("checkpoint", "unfinished", None, None),
    ]
    manifest = storage.read_json(f"{tmp_path}/a/subset/manifest.json")
    assert (found["a/subset"].started, found["a/subset"].seconds) == (manifest["started"], manifest["seconds"])


def test_root_that_is_an_artifact_is_listed_itself_and_what_it_holds_is_inside(tmp_path: Path) -> None:
    write(f"{tmp_path}/model", "checkpoint", {"pairs": 7})
    write(f"{tmp_path}/model/subset", "subset", {"kept": 7})
    write(f"{tmp_path}/model-2", "checkpoint", {"pairs": 7})
    assert {path: one.inside for path, one in by_path(tmp_path / "model").items()} == {".": False, "subset": True}
    assert {path: one.inside for path, one in by_path(tmp_path).items()} == {
        "model": False,
        "model/subset": True,
        "model-2": False,
    }


def test_artifact_that_is_being_replaced_is_unfinished(tmp_path: Path) -> None:
    write(f"{tmp_path}/c", "corpus", {"pairs": 1})
    marker = storage.read_json(f"{tmp_path}/c/stage.json")
    storage.write_json(f"{tmp_path}/c/stage.json", marker | {"fingerprint": "being replaced"})
    assert by_path(tmp_path)["c"].state == "unfinished"


def test_files_of_others_are_passed_over_and_broken_ones_are_said_to_be(tmp_path: Path) -> None:
    for name, text in {
        "theirs/manifest.json": '{"name": "web app"}',
        "list/manifest.json": "[1]",
        "other/my-manifest.json": "not JSON",
        "broken/manifest.json": '{"kind": "corp',
        "plan/sweep.json": '{"corpus": 1}',
    }.items():
        storage.write_bytes(f"{tmp_path}/{name}", text.encode())
    found = by_path(tmp_path)
    assert {path: one.state for path, one in found.items()} == {"broken": "unreadable", "plan": "unreadable"}
    assert "manifest.json: not a JSON file" in str(found["broken"].problem)
    assert "sweep.json: not as this chexray writes it" in str(found["plan"].problem)


@pytest.mark.parametrize("running", [True, False])
def test_sweep_says_how_many_trials_stand_how(running: bool, tmp_path: Path) -> None:
    made_sweep(tmp_path / "sweep", running=running, steps=2)
    sweep = by_path(tmp_path)["sweep"]
    states = Counter(
        storage.read_json(f"{tmp_path}/sweep/{name}")["state"]
        for name in storage.list_files(f"{tmp_path}/sweep", ("trial.json",))
    )
    points = len({point.name for point in made_space().points()})
    assert sweep.kind == "sweep"
    assert sweep.trials is not None
    assert sum(sweep.trials.values()) == points
    assert {name: count for name, count in sweep.trials.items() if name != "waiting"} == states
    assert sweep.trials.get("waiting", 0) == points - states.total()
    assert ("running" in sweep.trials) == running
    assert all(one.inside for one in find_artifacts(str(tmp_path)) if one.path != "sweep")


def test_root_on_s3_reads_the_same(s3: str) -> None:
    write(f"{s3}/status/deep/corpus", "corpus", {"pairs": 3})
    assert [(path, one.pairs) for path, one in by_path(f"{s3}/status").items()] == [("deep/corpus", 3)]


def test_root_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        find_artifacts(f"{tmp_path}/no")


def test_status_prints_a_line_an_artifact_and_what_is_inside_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert run(monkeypatch, "status", str(tmp_path)) == 0
    assert "nothing of chexray below" in capsys.readouterr().out
    write(f"{tmp_path}/[a]", "checkpoint", {"pairs": 1234}, {"total_flops": 2 * 10**15})
    write(f"{tmp_path}/[a]/subset", "subset")
    assert run(monkeypatch, "status", str(tmp_path)) == 0
    printed = capsys.readouterr().out
    (line,) = [line.split() for line in printed.splitlines() if "[a]" in line]
    assert line[:5] == ["[a]", "checkpoint", "finished", "1,234", "2"]
    assert "and 1 inside these" in printed
    assert run(monkeypatch, "status", str(tmp_path), "--all", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["path"] for one in told["artifacts"]] == ["[a]", "[a]/subset"]
