"""What the dashboard reads of a sweep's folder: while it runs, at its end, and where files are missing or broken."""

from __future__ import annotations

import html
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_sweep import FINDINGS, REASON, TRAIN, made_space, made_sweep

from chexray.curation.audit_report import map_columns
from chexray.curation.feature_map import FeatureMap
from chexray.evals.dashboard.details import MOST_POINTS, MOST_STEPS, DetailReader, shortened
from chexray.evals.dashboard.page import embedded, exported_page
from chexray.evals.dashboard.snapshot import SweepReader, finite
from chexray.platform.errors import UsageError

CHOSEN = "prototype-0.227-8x-s1"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made_sweep(tmp_path_factory.mktemp("finished") / "sweep")


@pytest.fixture
def running(tmp_path: Path) -> str:
    return made_sweep(tmp_path / "sweep", running=True)


def trials(snapshot: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {trial["name"]: trial for trial in snapshot["trials"]}


def states(snapshot: dict[str, Any]) -> Counter[str]:
    return Counter(trial["state"] for trial in snapshot["trials"])


def rewrite(uri: str, name: str, text: str) -> None:
    Path(uri, "trials", name, "trial.json").write_text(text)


def test_finished_sweep_has_every_run_once_with_its_numbers(finished: str) -> None:
    snapshot = SweepReader(finished).snapshot(now=5.0)
    # 3 methods at 3 fractions, 2 budgets, 2 seeds; and the run of all pairs, which stands for 3 points.
    assert states(snapshot) == {"done": 37, "stopped": 2, "failed": 1}
    assert snapshot["problems"] == []
    assert (snapshot["sweep"], snapshot["read"], snapshot["plan"]["corpus"]) == ("sweep", 5.0, "merged")
    one = trials(snapshot)[CHOSEN]
    assert (one["method"], one["keep"], one["budget"], one["seed"]) == ("prototype", 0.227, 8.0, 1)
    assert (one["epochs"], one["epochs_done"], one["pairs_kept"]) == (35, 35.0, 45_400)
    assert one["training_flops"] == TRAIN * 45_400 * 35
    assert one["metric"] == one["metrics"]["zero_shot.mean_auroc"]
    assert [look["pairs"] for look in one["looks"]] == [317_800, 635_600, 953_400, 1_271_200, 1_589_000]


def test_rare_findings_are_those_below_two_percent(finished: str) -> None:
    rows = trials(SweepReader(finished).snapshot())[CHOSEN]["rare"]
    assert {row["finding"] for row in rows} == {name for name, share in FINDINGS.items() if share < 0.02}
    assert all(row["low"] < row["value"] < row["high"] for row in rows)


def test_run_of_all_pairs_stands_for_every_method(finished: str) -> None:
    full = trials(SweepReader(finished).snapshot())["full-2x-s0"]
    assert (full["method"], full["keep"], full["subset"]) == ("full", 1.0, None)
    assert full["methods"] == ["random", "prototype", "semdedup"]


def test_failed_trial_says_why_and_has_no_score(finished: str) -> None:
    (failed,) = (one for one in SweepReader(finished).snapshot()["trials"] if one["state"] == "failed")
    assert (failed["reason"], failed["metric"], failed["metrics"]) == (REASON, None, {})


def test_conclusions_are_those_of_the_file(finished: str) -> None:
    conclusions = SweepReader(finished).snapshot()["conclusions"]
    assert conclusions["lines"][0].startswith("22.7 % of the pairs")
    assert [row["method"] for row in conclusions["table"]] == ["prototype", "full"]


def test_running_sweep_knows_the_points_of_trials_that_wait(running: str) -> None:
    snapshot = SweepReader(running).snapshot()
    assert states(snapshot) == {"waiting": 23, "done": 11, "running": 3, "stopped": 2, "failed": 1}
    assert (snapshot["conclusions"], snapshot["plan"]["finished"]) == (None, None)
    waiting = trials(snapshot)["semdedup-0.5-8x-s1"]
    assert (waiting["method"], waiting["keep"], waiting["budget"], waiting["seed"]) == ("semdedup", 0.5, 8.0, 1)
    assert (waiting["started"], waiting["looks"], waiting["metric"]) == (None, [], None)


def test_half_written_files_are_named_and_the_rest_is_shown(running: str) -> None:
    rewrite(running, "random-0.1-2x-s0", '{"name": "random-0.1')
    rewrite(running, "random-0.1-2x-s1", '{"name": "random-0.1-2x-s1", "point": {"method": "no such"}}')
    Path(running, "trials", "random-0.1-8x-s0", "scores", "results.json").write_text("[{")
    Path(running, "conclusions.json").write_text("[]")
    snapshot = SweepReader(running).snapshot()
    found = trials(snapshot)
    assert found["random-0.1-2x-s0"]["state"] == found["random-0.1-2x-s1"]["state"] == "unreadable"
    assert found["random-0.1-2x-s0"]["method"] == "random"
    assert found["random-0.1-8x-s0"]["rare"] == []
    assert found["random-0.1-8x-s0"]["metric"]["value"] > 0.7
    assert len(snapshot["problems"]) == 4
    assert sum("trial.json: not a" in one for one in snapshot["problems"]) == 2
    assert snapshot["conclusions"] is None


def test_sweep_that_has_just_begun_is_all_waiting(tmp_path: Path) -> None:
    uri = made_sweep(tmp_path / "sweep", running=True)
    for record in Path(uri, "trials").rglob("trial.json"):
        record.unlink()
    snapshot = SweepReader(uri).snapshot()
    assert states(snapshot) == {"waiting": 40}
    assert snapshot["problems"] == []


def test_reader_sees_news_of_running_trials_and_reads_finished_ones_once(running: str) -> None:
    reader = SweepReader(running)
    before = trials(reader.snapshot())
    (name, *_) = (name for name, trial in before.items() if trial["state"] == "running")
    record = json.loads(Path(running, "trials", name, "trial.json").read_text())
    rewrite(running, name, json.dumps(record | {"state": "failed", "reason": "out of memory"}))
    rewrite(running, "random-0.1-2x-s0", "gone")  # it was done, and is not read again
    after = trials(reader.snapshot())
    assert (after[name]["state"], after[name]["reason"]) == ("failed", "out of memory")
    assert after["random-0.1-2x-s0"] == before["random-0.1-2x-s0"]


def test_another_sweep_in_the_folder_is_read_anew(running: str) -> None:
    reader = SweepReader(running)
    reader.snapshot()
    rewrite(running, "random-0.1-2x-s0", "gone")
    plan = json.loads(Path(running, "sweep.json").read_text())
    Path(running, "sweep.json").write_text(json.dumps(plan | {"started": plan["started"] + 1}))
    assert trials(reader.snapshot())["random-0.1-2x-s0"]["state"] == "unreadable"


def test_validation_loss_as_the_metric_is_the_last_look(tmp_path: Path) -> None:
    uri = made_sweep(tmp_path / "sweep", space=made_space(1, metric="validation_loss"))
    one = trials(SweepReader(uri).snapshot())["random-0.1-2x-s0"]
    assert one["metric"]["value"] == one["looks"][-1]["validation"]
    assert one["metric"]["higher_is_better"] is False


def test_numbers_that_json_has_no_word_for_are_none() -> None:
    assert finite({"a": [math.nan, 1.5], "b": (math.inf, "x")}) == {"a": [None, 1.5], "b": [None, "x"]}


def test_no_sweep_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not a sweep \(no sweep.json\)"):
        SweepReader(str(tmp_path)).snapshot()


def test_details_hold_the_history_and_the_audit_of_the_subset(finished: str) -> None:
    reader = DetailReader(finished)
    found = reader.details(trials(SweepReader(finished).snapshot())[CHOSEN])
    assert found["history"]["pairs"][-1] == 400 * (1_589_000 // 400)
    assert len(found["history"]["loss"]) <= MOST_STEPS
    subset = found["subset"]
    assert set(subset["datasets"]) == {"mimic", "chexpert", "padchest"}
    assert len(subset["clusters"]) == 6
    assert len(subset["map"]["x"]) == len(subset["map"]["kept"]) == 750 <= MOST_POINTS
    assert subset["counts"]["kept"] == 45_400


def test_details_of_a_trial_that_runs_are_not_there_yet(running: str) -> None:
    found = trials(SweepReader(running).snapshot())
    (trial, *_) = (one for one in found.values() if one["state"] == "running" and one["subset"])
    Path(running, trial["subset"], "manifest.json").unlink()
    assert DetailReader(running).details(trial) == {"history": None, "subset": None}


@pytest.mark.parametrize("path", ["../away", "subsets/../../x", "/etc", "trials/a", "subsets//a", "subsets\\..\\x"])
def test_subset_out_of_the_sweep_is_not_read(finished: str, path: str) -> None:
    assert DetailReader(finished).subset(path) is None


def test_shortened_history_has_the_mean_of_its_parts() -> None:
    steps = [{"step": n, "loss": float(n), "pairs": 10, "logit_scale": 100.0} for n in range(7)]
    curve = shortened(steps, most=3)
    assert curve == {
        "step": [2, 5, 6],
        "pairs": [30, 60, 70],
        "loss": [1.0, 4.0, 6.0],
        "temperature": [0.01, 0.01, 0.01],
    }
    assert shortened([]) == {"step": [], "pairs": [], "loss": [], "temperature": []}


def test_map_of_an_audit_is_what_the_dashboard_reads(tmp_path: Path) -> None:
    xy_M2 = np.array([[0.123456, 1.0], [2.0, -3.0]], np.float32)
    plane = FeatureMap(xy_M2, (0.5, 0.25), 9, ["a", "b"], ["central", None], [True, False], [["Edema"], []])
    assert map_columns(plane) == {
        "x": [0.1235, 2.0],
        "y": [1.0, -3.0],
        "band": ["central", None],
        "kept": [True, False],
        "explained": [0.5, 0.25],
        "pairs": 9,
    }


def test_exported_page_holds_everything_and_nothing_of_elsewhere(finished: str) -> None:
    page = exported_page(finished)
    start = page.index('<script type="application/json" id="content">') + 45
    content = json.loads(page[start : page.index("</script>", start)])
    assert len(content["snapshot"]["trials"]) == 40
    assert set(content["details"]["histories"]) == set(trials(content["snapshot"]))
    assert len(content["details"]["subsets"]) == 18
    assert "default-src 'none'; script-src 'sha256-" in html.unescape(page[:2000])
    assert 'src="http' not in page
    assert str(Path(finished).parent) not in page


def test_embedded_text_cannot_end_its_script() -> None:
    value = {"a": "</script><script>alert(1)</script><!--&amp;"}
    text = embedded(value)
    assert not set("<>&") & set(text)
    assert json.loads(text) == value
