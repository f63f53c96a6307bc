"""A sweep: real runs under Ray Tune, judged on validation data, resumable, with what trials share made once."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest
from small_runs import small

from chexray.jobs.evaluate import read_results
from chexray.jobs.sweep import resume, sweep
from chexray.platform import storage
from chexray.platform.artifacts import read_manifest
from chexray.platform.errors import ChexrayError, UsageError
from chexray.platform.ledger import model_flops
from chexray.platform.sweep.records import TrialRecord, read_plan, read_trials, trial_folder, write_trial
from chexray.platform.sweep.space import Scheduler, SweepSpace

pytestmark = pytest.mark.usefixtures("ray_cluster")

SPACE = SweepSpace(
    methods=("random", "semdedup"),
    keep=(0.4, 1.0),
    budgets=(1, 2),
    scheduler=Scheduler(name="none", looks=2),
)
"""Eight points, six runs: of the whole corpus both methods keep the same."""
RUNS = {"random-0.4-1x-s0", "random-0.4-2x-s0", "semdedup-0.4-1x-s0", "semdedup-0.4-2x-s0", "full-1x-s0", "full-2x-s0"}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, small_corpus: str) -> str:
    out = str(tmp_path_factory.mktemp("sweep") / "out")
    sweep(small("evaluate.bootstrap=20"), small_corpus, out, SPACE)
    return out


def _trials(out: str) -> dict[str, TrialRecord]:
    return {record.name: record for record in read_trials(out, read_plan(out).trials)}


def _table(out: str) -> dict[str, Any]:
    """What is the same in every sweep of the same seeds."""
    return {
        name: (record.state, record.epochs, record.pairs_seen, record.training_flops, record.metrics)
        for name, record in _trials(out).items()
    }


def test_sweep_runs_every_point_and_the_whole_corpus_once(swept: str) -> None:
    trials = _trials(swept)
    assert set(trials) == RUNS
    assert {record.state for record in trials.values()} == {"done"}
    assert trials["full-1x-s0"].methods == ("random", "semdedup")
    assert read_manifest(swept, "sweep").counts == {"points": 8, "trials": 6, "done": 6}


def test_sweep_gives_runs_of_one_budget_the_same_compute(swept: str) -> None:
    trials, train = _trials(swept), read_plan(swept).train_pairs
    flops = model_flops(small().model).train
    for name, record in trials.items():
        assert record.pairs_kept == (train if "full" in name else round(0.4 * train))
        assert record.pairs_seen == record.epochs * record.pairs_kept
        assert abs(record.pairs_seen - record.point.budget * train) <= record.pairs_kept / 2
        assert record.training_flops >= record.pairs_seen * flops


def test_sweep_looks_at_the_validation_split_twice_and_ends_with_what_its_run_says(swept: str) -> None:
    for name, record in _trials(swept).items():
        history = storage.read_bytes(storage.join(trial_folder(swept, name), "checkpoint/history.jsonl")).decode()
        noted = [line for line in history.splitlines() if "validation_loss" in line]
        assert len(record.looks) == len(noted) == min(2, record.epochs or 0)
        assert f'"validation_loss": {record.looks[-1].validation_loss}' in noted[-1]
        assert record.looks[-1].pairs_seen == record.pairs_seen


def test_sweep_is_judged_by_validation_data_alone(swept: str) -> None:
    for name, record in _trials(swept).items():
        rows = read_results(storage.join(trial_folder(swept, name), "scores"))
        assert {row["split"] for row in rows} == {"validation"}
        assert "zero_shot.mean_auroc" in record.metrics
        assert "retrieval.image_to_text_recall@10" in record.metrics


def test_sweep_scores_the_corpus_once_for_all_its_trials(swept: str) -> None:
    subsets = Path(swept, "subsets")
    (scored,) = (path for path in subsets.iterdir() if path.name.startswith("scored-"))
    assert {path.name for path in subsets.iterdir()} == {scored.name, "random-0.4-s0", "semdedup-0.4-s0"}
    cost = read_manifest(str(scored)).cost["total_flops"]
    trials, sweep_cost = _trials(swept), read_manifest(swept).cost
    assert {trials[f"semdedup-0.4-{budget}x-s0"].curation_flops for budget in (1, 2)} == {cost}
    assert {record.curation_flops for name, record in trials.items() if "semdedup" not in name} == {0}
    assert (sweep_cost["curation_flops"], sweep_cost["unshared_curation_flops"]) == (cost, 2 * cost)
    training = sum(record.training_flops for record in trials.values())
    assert sweep_cost["saved_by_sharing"] == pytest.approx(cost / (training + 2 * cost))


@pytest.mark.slow
def test_sweep_resumed_keeps_what_has_ended_and_gives_the_same_table(swept: str, tmp_path: Path) -> None:
    out = str(tmp_path / "broken")
    shutil.copytree(swept, out)
    Path(out, "manifest.json").unlink()
    trials = _trials(out)
    write_trial(out, trials["random-0.4-2x-s0"].model_copy(update={"state": "running", "metrics": {}}))
    shutil.rmtree(Path(trial_folder(out, "random-0.4-2x-s0"), "checkpoint"))
    shutil.rmtree(Path(trial_folder(out, "random-0.4-2x-s0"), "scores"))
    write_trial(out, trials["full-1x-s0"].model_copy(update={"state": "trained", "metrics": {}}))
    shutil.rmtree(Path(trial_folder(out, "full-1x-s0"), "scores"))
    kept = {name: Path(trial_folder(out, name), "trial.json").read_bytes() for name in RUNS}
    resume(out)
    assert _table(out) == _table(swept)
    changed = {name for name in RUNS if Path(trial_folder(out, name), "trial.json").read_bytes() != kept[name]}
    assert changed == {"random-0.4-2x-s0", "full-1x-s0"}
    assert _trials(out)["random-0.4-2x-s0"].tries == 2


def test_sweep_that_is_finished_is_left_as_it_is(swept: str, small_corpus: str) -> None:
    before = Path(swept, "manifest.json").read_bytes()
    sweep(small("evaluate.bootstrap=20"), small_corpus, swept, SPACE)
    assert Path(swept, "manifest.json").read_bytes() == before


@pytest.mark.slow
def test_sweep_on_s3_is_the_same_as_on_the_local_disk(swept: str, small_corpus: str, s3: str) -> None:
    out = f"{s3}/{uuid.uuid4().hex}"
    space = SPACE.model_copy(update={"methods": ("random",), "keep": (0.4,), "budgets": (1.0,)})
    manifest = sweep(small("evaluate.bootstrap=20"), small_corpus, out, space)
    name = "random-0.4-1x-s0"
    assert _table(out)[name] == _table(swept)[name]
    assert read_manifest(out, "sweep") == manifest
    assert storage.exists(f"{out}/conclusions.csv")
    assert storage.exists(f"{out}/winner/manifest.json")


@pytest.mark.slow
def test_sweep_with_a_failing_trial_goes_on_with_the_others_and_says_which(small_corpus: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    space = SweepSpace(
        methods=("random",),
        keep=(0.4,),
        budgets=(1,),
        settings={"model.vision.timm_model": ("no_such_tower", "test_convnext")},
        scheduler=Scheduler(name="none"),
    )
    with pytest.raises(ChexrayError, match=r"1 of 2 trials failed.*no_such_tower"):
        sweep(small("evaluate.bootstrap=20"), small_corpus, out, space)
    assert sorted(record.state for record in _trials(out).values()) == ["done", "failed"]


def test_sweep_by_a_benchmark_that_learns_is_refused_before_anything_is_done(small_corpus: str, tmp_path: Path) -> None:
    space = SweepSpace(benchmarks=("zero_shot", "disease_prediction"))
    with pytest.raises(UsageError, match="chooses by validation data"):
        sweep(small(), small_corpus, str(tmp_path / "out"), space)
    assert not (tmp_path / "out").exists()
