"""Runs that choose their pairs while they train, and subsets by every selector, with real Ray, Train and DeepSpeed."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_runs import small

from chexray.curation.features import open_features
from chexray.curation.plan import CurationPlan
from chexray.jobs.curate import curate
from chexray.jobs.curated_plan import Curation
from chexray.jobs.pretrain import pretrain
from chexray.platform.artifacts import read_manifest
from chexray.platform.config import Recipe, Runtime
from chexray.platform.corpus.shards import read_columns, read_table
from chexray.platform.errors import UsageError

pytestmark = pytest.mark.usefixtures("ray_cluster")

CURATED = (
    "train.epochs=2",
    "train.global_batch=24",
    "curate.prototypes=4",
    "curate.keep=0.4",
    "curate.super_batch=40",
    "curate.kmeans_sample=80",
    "curate.refresh_steps=1",
    "curate.ahead=1",
    "curate.image_size=48",
    "curate.examples=1",
)


def curated(*more: str) -> Recipe:
    return small(*CURATED, *more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("curated")


@pytest.fixture(scope="module")
def corpus(small_corpus: str) -> str:
    return small_corpus


@pytest.fixture(scope="module")
def scorer(small_checkpoint: str) -> str:
    return small_checkpoint


@pytest.fixture(scope="module")
def subset(folder: Path, corpus: str, scorer: str) -> str:
    """By prototypes, with features that other selectors use."""
    out = str(folder / "subset")
    curate(curated("curate.stability_seeds=1"), corpus, out, scorer=scorer)
    return out


def kept(subset: str) -> list[str]:
    table = read_table(f"{subset}/subset.parquet")
    return sorted(table.filter(table["kept"])["sample_id"].to_pylist())


def history(checkpoint: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(checkpoint, "history.jsonl").read_text().splitlines()]


def check_streamed(out: str, corpus: str, recipe: Recipe) -> None:
    """The budget, the bound on staleness, and that the later epochs train on what the first one kept."""
    pairs = read_manifest(corpus).counts["pairs_by_split"]["train"]
    plan = CurationPlan(recipe.curate, pairs, recipe.train.global_batch)
    manifest, chosen = read_manifest(out, "checkpoint"), read_manifest(f"{out}/subset", "subset")
    assert chosen.counts["kept"] == plan.kept == round(0.4 * pairs)
    assert 1 <= chosen.counts["staleness_steps"]["most"] <= 8
    by_epoch: Counter[int] = Counter()
    for step in history(out):
        by_epoch[step["epoch"]] += step["pairs"]
    assert by_epoch == {0: plan.kept, 1: plan.kept}
    assert [step["step"] for step in history(out)] == list(range(2 * plan.steps.steps))
    ids = read_columns(f"{out}/subset/corpus", ["sample_id"], "train")["sample_id"].to_pylist()
    assert sorted(ids) == kept(f"{out}/subset")
    assert manifest.cost["pairs_trained"] == 2 * plan.kept
    assert chosen.cost["pairs_scored"] == pairs
    scored = chosen.cost["scoring_flops"] + manifest.cost["flops_per_pair"]["train_image"] * plan.kept
    scored += manifest.cost["flops_per_pair"]["train_text"] * plan.kept
    per_pair = manifest.cost["flops_per_pair"]["train_image"] + manifest.cost["flops_per_pair"]["train_text"]
    assert manifest.cost["curation_epoch_vs_reference"] == pytest.approx(scored / (per_pair * pairs))


@pytest.fixture(scope="module")
def streamed(folder: Path, corpus: str, scorer: str) -> str:
    out = str(folder / "streamed")
    pretrain(curated(), corpus, out, curation="streaming", scorer=scorer)
    return out


def test_streaming_run_keeps_its_budget_and_trains_later_epochs_on_it(corpus: str, streamed: str, scorer: str) -> None:
    check_streamed(streamed, corpus, curated())
    finished = read_manifest(streamed).finished
    assert pretrain(curated(), corpus, streamed, curation="streaming", scorer=scorer).finished == finished


@pytest.mark.slow
def test_streaming_run_of_two_workers_and_two_scorers_keeps_the_same_pairs(
    folder: Path, corpus: str, streamed: str, scorer: str
) -> None:
    out = str(folder / "streamed-two")
    pretrain(curated(), corpus, out, curation="streaming", scorer=scorer, runtime=Runtime(workers=2, scorers=2))
    check_streamed(out, corpus, curated())
    one, two = (history(uri) for uri in (streamed, out))
    # Rounding of another share moves a loss by 1e-6, and a pair at the edge of a band may change places.
    assert len(set(kept(f"{streamed}/subset")) ^ set(kept(f"{out}/subset"))) <= 4
    assert one[0]["loss"] == pytest.approx(two[0]["loss"], abs=1e-5)


def run_with_a_kill(recipe: Recipe, corpus: str, out: str, scorer: str, curation: Curation) -> None:
    """A run whose training worker is killed when its first checkpoint, in the epoch that chooses, has arrived."""
    killed = False
    with ThreadPoolExecutor(1) as thread:
        run = thread.submit(pretrain, recipe, corpus, out, curation=curation, scorer=scorer)
        while not killed and not run.done():
            wait([run], timeout=0.05)
            noted = Path(out, "state/run/checkpoint_manager_snapshot.json")  # Ray's list of those that count
            if not noted.exists() or "checkpoint_" not in noted.read_text():
                continue
            for process in psutil.process_iter(["cmdline"]):
                if any("RayTrainWorker" in part for part in process.info["cmdline"] or []):
                    process.kill()
                    killed = True
        run.result(timeout=300)
    assert killed


@pytest.mark.slow
@pytest.mark.parametrize("curation", ["streaming", "paper"])
def test_run_whose_worker_is_killed_while_it_chooses_goes_on_from_its_checkpoint_to_the_same(
    folder: Path, corpus: str, scorer: str, curation: Curation
) -> None:
    more = ["curate.mode=paper", "train.global_batch=32"] if curation == "paper" else ["train.global_batch=8"]
    recipe = curated("run.checkpoint_steps=1", "run.checkpoints_kept=3", "train.epochs=2", *more)
    undisturbed, disturbed = (str(folder / f"{curation}-{name}") for name in ("undisturbed", "disturbed"))
    pretrain(recipe, corpus, undisturbed, curation=curation, scorer=scorer)
    run_with_a_kill(recipe, corpus, disturbed, scorer, curation)
    starts = read_manifest(disturbed).counts["starts"]
    print(f"{curation}: {starts}")
    assert len(starts) == 3  # the lost one, the epoch that chooses, the later one
    assert 1 <= starts[1]["step"] < starts[2]["step"]
    assert kept(f"{disturbed}/subset") == kept(f"{undisturbed}/subset")
    one, two = (history(out) for out in (undisturbed, disturbed))
    assert [step["loss"] for step in one] == [step["loss"] for step in two]
    with open_features(f"{undisturbed}/subset/features") as a, open_features(f"{disturbed}/subset/features") as b:
        assert (a.embedding_N2D == b.embedding_N2D).all()


@pytest.mark.slow
def test_paper_run_keeps_fixed_counts_and_two_workers_follow_one(folder: Path, corpus: str, scorer: str) -> None:
    recipe = curated("curate.mode=paper", "train.global_batch=96", "train.epochs=1")
    runs = []
    for workers in (1, 2):
        out = str(folder / f"paper-{workers}")
        pretrain(recipe, corpus, out, curation="paper", scorer=scorer, runtime=Runtime(workers=workers))
        runs.append(out)
    assert kept(f"{runs[0]}/subset") == kept(f"{runs[1]}/subset")
    one, two = (history(out) for out in runs)
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(one, two, strict=True)) < 1e-5
    table = read_table(f"{runs[0]}/subset/subset.parquet").to_pandas()
    # Every support pair, no outlier, and of each batch at most ten central ones a prototype.
    assert table[table.band == "support"].kept.all()
    assert not table[table.band == "outlier"].kept.any()
    assert table[table.band == "central"].kept.sum() <= 10 * 4 * len(one)
    assert [step["pairs"] for step in one] == [step["pairs"] for step in two]


@pytest.mark.parametrize(
    "selector", ["prototype", "stratified", "term_coverage", "similarity", "density", "semdedup", "k_center"]
)
def test_curate_by_features_that_are_there_keeps_the_target(
    folder: Path, corpus: str, subset: str, selector: str
) -> None:
    out = str(folder / f"by-{selector}")
    recipe = curated(f"curate.selector={selector}", "curate.clusters=4", "curate.neighbours=3")
    features = None if selector in ("stratified", "term_coverage") else subset
    manifest = curate(recipe, corpus, out, features=features)
    pairs = manifest.counts["pairs"]
    assert abs(manifest.counts["kept"] - 0.4 * pairs) <= 0.5
    assert (kept(out) == kept(subset)) == (selector == "prototype")
    assert manifest.cost["scoring_flops"] == (read_manifest(subset).cost["scoring_flops"] if features else 0)


def test_curate_by_learnability_needs_a_reference(folder: Path, corpus: str, subset: str, scorer: str) -> None:
    recipe = curated("curate.selector=learnability")
    with pytest.raises(UsageError, match="--reference"):
        curate(recipe, corpus, str(folder / "never"), features=subset)
    out = str(folder / "by-learnability")
    manifest = curate(recipe, corpus, out, features=subset, reference=scorer)
    assert abs(manifest.counts["kept"] - 0.4 * manifest.counts["pairs"]) <= 0.5
    assert manifest.cost["pairs_scored"] == 2 * manifest.counts["pairs"]


def test_audit_of_a_subset_with_features_measures_coverage_and_stability(subset: str) -> None:
    audit = json.loads(Path(subset, "audit.json").read_text())
    assert audit["coverage"]["subset"]["largest"] > 0
    assert len(audit["stability"]["jaccard"]) == 2
    page = Path(subset, "audit.html").read_text()
    assert "data:image/jpeg" in page


@pytest.mark.parametrize(
    ("settings", "arguments", "message"),
    [
        ((), {"curation": "streaming", "subset": "x"}, "--curation streaming and --subset"),
        ((), {"scorer": "x"}, "--scorer"),
        (("curate.mode=paper",), {"curation": "streaming"}, "curate.mode=budget"),
        (("curate.selector=random",), {"curation": "paper"}, "curate.selector is random"),
    ],
)
def test_pretrain_curation_that_cannot_be_is_refused(
    folder: Path, corpus: str, settings: tuple[str, ...], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        pretrain(curated(*settings), corpus, str(folder / "never"), **arguments)
