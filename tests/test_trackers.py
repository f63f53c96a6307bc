"""Runs in MLflow and Weights & Biases, read back from what their own clients wrote."""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import psutil
import pytest
import wandb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from test_resume import DEADLINE_SECONDS, known, start, wait_until
from wandb.proto import wandb_internal_pb2

from chexray.jobs.mlflow_tracker import MlflowTracker
from chexray.jobs.pretrain import pretrain
from chexray.jobs.trackers import Point, TrackedRun, describe, totals_of, tracked_run
from chexray.jobs.tracking import Line, Tracking, build_trackers, tracked
from chexray.jobs.wandb_tracker import WandbTracker
from chexray.platform.artifacts import Stage, read_manifest
from chexray.platform.config import RunConfig, load_recipe
from chexray.platform.errors import ChexrayError, StoppedError, UsageError

RUN = TrackedRun(
    "0123456789abcdef-5eed", "model", {"train.lr": 0.001, "train.clip_norm": None}, {"chexray.version": "1"}
)


def points(first: int, end: int) -> list[Point]:
    return [
        Point(step, 1_700_000_000.5 + step, {"train/loss": 3.0 / (step + 1), "train/lr": 1e-3 * step})
        for step in range(first, end)
    ]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of files to which MLflow reports."""
    for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    return tmp_path / "store"


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which W&B leaves what it would upload."""
    wandb.teardown()  # it reads its environment once
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_PROJECT": "chest"}.items():
        monkeypatch.setenv(name, value)
    yield tmp_path / "wandb"
    wandb.teardown()


def show(tracking: Tracking, shown: list[Point]) -> None:
    assert tracking.show
    tracking.show(shown)


def mlflow_runs(experiment: str = "Default") -> list[Any]:
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    assert found
    return list(client.search_runs([found.experiment_id]))


def curve(run: Any, name: str) -> list[tuple[int, float]]:
    return [(one.step, one.value) for one in MlflowClient().get_metric_history(run.info.run_id, name)]


def wandb_runs(folder: Path) -> list[list[Any]]:
    """The records of each start of a run, in their order."""
    wandb.teardown()  # only then has its process written everything
    files = sorted(folder.glob("offline-run-*/run-*.wandb"), key=lambda file: file.parent.name)
    return [wandb_records(file.read_bytes()) for file in files]


def wandb_records(data: bytes) -> list[Any]:
    """Of an offline run, by the file's own framing, which is LevelDB's log format after a header of 7 bytes.

    Blocks of 32 KiB; each chunk has a CRC (4 bytes), a length (2) and a type: whole, first, middle or last part.
    """
    place, whole, records = 7, b"", []
    assert data[:4] == b":W&B"
    while place < len(data):
        if 32768 - place % 32768 < 7:  # no room for a chunk's header: padding
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        part = data[place + 7 : place + 7 + length]
        place += 7 + length
        whole = part if kind in (1, 2) else whole + part
        if kind in (1, 4):
            records.append(wandb_internal_pb2.Record.FromString(whole))
    return records


def wandb_curve(records: list[Any], name: str) -> list[tuple[int, float]]:
    found = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            found.append((record.history.step.num, values[name]))
    return found


def test_mlflow_run_is_read_back_with_its_curves_parameters_tags_and_totals(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "chest")
    warnings: list[str] = []
    tracking = Tracking([Line(MlflowTracker(), RUN, warnings.append)])
    shown = points(0, 600)  # more than a call takes
    for first in range(0, 600, 7):
        show(tracking, shown[first : first + 7])
    tracking.totals = {"counts.pairs": 1234.0}
    tracking.close("finished")
    assert capsys.readouterr().out == ""  # it is the results' place
    (run,) = mlflow_runs("chest")
    for name in ("train/loss", "train/lr"):
        assert curve(run, name) == [(point.step, point.values[name]) for point in shown]
    assert MlflowClient().get_metric_history(run.info.run_id, "train/loss")[3].timestamp == 1_700_000_003_500
    assert run.data.params == {"train.lr": "0.001", "train.clip_norm": "None"}
    assert run.data.tags["chexray.version"] == "1"
    assert run.info.run_name == "model"
    assert (run.data.metrics["counts.pairs"], run.info.status) == (1234.0, "FINISHED")
    assert warnings == []


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(starts=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=4), data=st.data())
def test_mlflow_run_that_is_started_again_has_every_step_once(
    store: Path, starts: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Each start goes back by some steps, is shown what was done before, and goes on. Some are in a new process."""
    run = TrackedRun(f"run-{data.draw(st.uuids())}", "model", {}, {})
    tracking, done = Tracking([Line(MlflowTracker(), run, print)]), 0
    for back, steps in starts:
        if data.draw(st.booleans()):
            tracking.close("stopped")
            tracking = Tracking([Line(MlflowTracker(), run, print)])
        first = max(0, done - back)
        show(tracking, points(0, first))
        show(tracking, points(first, first + steps))
        done = max(done, first + steps)
    tracking.close("finished")
    (shown,) = [one for one in mlflow_runs() if one.data.tags["chexray.run"] == run.id]
    assert curve(shown, "train/loss") == [(point.step, point.values["train/loss"]) for point in points(0, done)]
    assert shown.info.status == "FINISHED"


def test_mlflow_run_that_is_started_again_keeps_its_parameters_and_takes_new_ones(store: Path) -> None:
    for params in ({"run.micro_batch": None}, {"run.micro_batch": 8, "run.compile": True}):
        warnings: list[str] = []
        Tracking([Line(MlflowTracker(), TrackedRun("one", "model", params, {}), warnings.append)]).close("finished")
        assert warnings == []
    (run,) = mlflow_runs()
    assert run.data.params == {"run.micro_batch": "None", "run.compile": "True"}


def test_mlflow_store_that_is_away_for_a_while_gets_everything_later(store: Path) -> None:
    tracker, warned, warnings = MlflowTracker(), threading.Event(), list[str]()

    def warn(message: str) -> None:
        warnings.append(message)
        warned.set()

    store.rename(store.with_name("away"))
    store.write_text("in the way")
    tracking = Tracking([Line(tracker, RUN, warn)])
    show(tracking, points(0, 5))
    assert warned.wait(60)
    store.unlink()
    store.with_name("away").rename(store)
    show(tracking, points(5, 9))
    tracking.close("finished")
    (run,) = mlflow_runs()
    assert [step for step, _ in curve(run, "train/loss")] == list(range(9))
    assert len(warnings) == 1


def test_tracking_server_that_is_not_there_costs_two_warnings_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as taken:  # bound, and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@127.0.0.1:{taken.getsockname()[1]}")
        warned, warnings = threading.Event(), list[str]()
        tracking = Tracking([Line(MlflowTracker(), RUN, lambda text: (warnings.append(text), warned.set())[0])])
        show(tracking, points(0, 3))
        assert warned.wait(60)
        tracking.close("finished", patience=0.1)
    asked, given_up = warnings
    assert "MLflow does not take this run's curves, and is asked again: MlflowException" in asked
    assert "MLflow has not taken all" in given_up
    assert "hunter2" not in asked


def test_tracking_server_that_never_answers_lets_no_step_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(2 * DEADLINE_SECONDS))
        warnings: list[str] = []
        tracking = Tracking([Line(MlflowTracker(), RUN, warnings.append)])
        connection, _ = server.accept()  # it is being asked
        show(tracking, points(0, 1000))
        tracking.close("finished", patience=0.1)
        assert warnings == ["MLflow has not taken all of this run's curves"]
        connection.close()


def test_wandb_run_is_read_back_with_its_curves_configuration_and_totals(offline: Path) -> None:
    warnings: list[str] = []
    tracking = Tracking([Line(WandbTracker(), RUN, warnings.append)])
    shown = points(0, 600)
    show(tracking, shown)
    tracking.totals = {"counts.pairs": 1234.0}
    tracking.close("finished")
    (records,) = wandb_runs(offline)
    assert wandb_curve(records, "train/loss") == [(point.step, point.values["train/loss"]) for point in shown]
    assert wandb_curve(records, "_timestamp") == [(point.step, point.time) for point in shown]
    (run,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert {**RUN.params, **RUN.tags}.items() <= config.items()
    assert (run.run_id, run.display_name, run.project) == (RUN.id, "model", "chest")
    totals = [
        json.loads(item.value_json)
        for record in records
        for item in record.summary.update
        if "counts.pairs" in (item.key, *item.nested_key)
    ]
    assert totals == [1234.0]
    assert [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"] == [0]
    assert warnings == []


def test_wandb_run_that_is_started_again_offline_leaves_one_run_in_two_folders(offline: Path) -> None:
    for end in (8, 12):
        tracking = Tracking([Line(WandbTracker(), RUN, print)])
        show(tracking, points(0, end))
        tracking.close("stopped" if end == 8 else "finished")
    first, second = wandb_runs(offline)
    ids = {r.run.run_id for r in (*first, *second) if r.WhichOneof("record_type") == "run"}
    assert ids == {RUN.id}
    assert [step for step, _ in wandb_curve(first, "train/loss")] == list(range(8))
    assert [step for step, _ in wandb_curve(second, "train/loss")] == list(range(12))


def test_wandb_without_a_key_says_so_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb.teardown()
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NETRC", "WANDB_CONFIG_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(UsageError, match=r"wandb has no key; set WANDB_API_KEY"):
        build_trackers(["wandb"])
    wandb.teardown()


def test_mlflow_without_what_its_address_needs_says_so_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "bogus://me:hunter2@server")
    with pytest.raises(
        UsageError, match=r"mlflow has nowhere to report to; set MLFLOW_TRACKING_URI to a server"
    ) as raised:
        build_trackers(["mlflow"])
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(("module", "package"), [("mlflow", "mlflow-skinny"), ("wandb", "wandb")])
def test_tracker_that_is_not_installed_is_refused_before_anything_is_looked_at(
    module: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python finds the package nowhere but where it runs: an empty folder of its name, as W&B leaves for its runs."""

    class Without(PathFinder):
        @classmethod
        def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
            return PathFinder.find_spec(fullname, [""] if fullname == module else path, target)

    (tmp_path / module).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Without if one is PathFinder else one for one in sys.meta_path])
    with pytest.raises(UsageError, match=f"{module} is not installed; install {package} "):
        pretrain(load_recipe("tiny", [f"run.trackers=[{module}]"]), "no corpus", "out")
    assert not Path("out").exists()


def test_tracker_that_is_not_known_is_refused_with_those_that_are() -> None:
    assert load_recipe("tiny", ["run.trackers=[mlflow, wandb]"]).run.trackers == ("mlflow", "wandb")
    with pytest.raises(UsageError, match=r"run\.trackers\.0='neptune': input should be 'mlflow' or 'wandb'"):
        load_recipe("tiny", ["run.trackers=[neptune]"])


def stage_in(folder: Path, overwrite: bool = False) -> Stage:
    return Stage(str(folder), "checkpoint", {"train": {"lr": 0.5}}, source=("memory", "digest"), overwrite=overwrite)


def test_run_keeps_its_id_until_its_artifact_is_overwritten(tmp_path: Path) -> None:
    ids = []
    for overwrite in (False, False, True):
        stage = stage_in(tmp_path / "model", overwrite)
        assert stage.begin() is None
        ids.append(tracked_run(stage, RunConfig()).id)
        if len(ids) == 2:
            stage.finish({})
    elsewhere = stage_in(tmp_path / "other")
    elsewhere.begin()
    ids.append(tracked_run(elsewhere, RunConfig()).id)
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert all(one.startswith(elsewhere.fingerprint) for one in ids)


@pytest.mark.parametrize(
    ("error", "status"),
    [(StoppedError("asked"), "KILLED"), (KeyboardInterrupt(), "KILLED"), (ChexrayError("broken"), "FAILED")],
)
def test_run_that_does_not_end_well_is_shown_so(store: Path, tmp_path: Path, error: BaseException, status: str) -> None:
    stage = stage_in(tmp_path / "model")
    stage.begin()
    with pytest.raises(type(error)), tracked(build_trackers(["mlflow"]), stage, RunConfig()):
        raise error
    (run,) = mlflow_runs()
    assert run.info.status == status
    assert run.data.params["train.lr"] == "0.5"
    assert run.data.tags["chexray.fingerprint"] == stage.fingerprint


def test_describe_hides_keys_of_the_environment_and_passwords_in_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "c0ffee")
    error = ValueError("no answer from http://me:hunter2@host:80/api with c0ffee\nmore")
    assert describe(error) == "ValueError: no answer from http://***@host:80/api with ***"


@pytest.mark.slow
def test_pretraining_that_is_killed_goes_on_in_the_same_runs_with_every_step_once(
    small_corpus: str, store: Path, offline: Path, tmp_path: Path
) -> None:
    out, trackers = tmp_path / "out", "run.trackers=[mlflow, wandb]"
    first = start(small_corpus, str(out), trackers)
    wait_until(lambda: len(known(out / "state" / "run")) >= 2, first)
    for process in [*psutil.Process(first.pid).children(recursive=True), psutil.Process(first.pid)]:
        process.kill()
    first.communicate(timeout=DEADLINE_SECONDS)
    second = start(small_corpus, str(out), trackers)
    errors = second.communicate(timeout=DEADLINE_SECONDS)[1].decode()
    assert second.returncode == 0, errors[-3000:]
    assert "warning: MLflow" not in errors
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    (run,) = mlflow_runs()
    expected = [(line["step"], line["loss"]) for line in history]
    assert curve(run, "train/loss") == expected
    assert [step for step, _ in curve(run, "train/workers")] == list(range(len(history)))
    totals = totals_of(read_manifest(str(out)))
    assert run.data.metrics["cost.total_flops"] == totals["cost.total_flops"] > 0
    assert run.data.params["train.epochs"] == "5"
    assert run.info.status == "FINISHED"
    started_again = wandb_runs(offline)[-1]
    assert wandb_curve(started_again, "train/loss") == expected


@pytest.mark.slow
def test_pretraining_ends_well_while_no_tracking_server_is_there(
    small_corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{nowhere}")
        monkeypatch.setenv("WANDB_BASE_URL", f"http://{nowhere}")
        monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
        monkeypatch.setenv("WANDB_DIR", str(tmp_path))
        monkeypatch.delenv("WANDB_MODE", raising=False)
        process = start(small_corpus, str(tmp_path / "out"), "run.trackers=[mlflow, wandb]")
        errors = process.communicate(timeout=DEADLINE_SECONDS)[1].decode()
    assert process.returncode == 0, errors[-3000:]
    for name in ("MLflow", "Weights & Biases"):
        assert errors.count(f"warning: {name} does not take this run's curves") == 1
        assert errors.count(f"warning: {name} has not taken all") == 1
    assert 40 * "a" not in errors
