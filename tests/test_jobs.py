"""The whole path with real Ray Data, Ray Train and DeepSpeed, on a small synthetic corpus."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute
import pytest
import sklearn.metrics
import torch
from safetensors.torch import load_file
from small_runs import PAIRS, small
from tensorboardX.proto.event_pb2 import Event

from chexray.jobs.curate import curate
from chexray.jobs.demo import demo
from chexray.jobs.evaluate import evaluate, read_results
from chexray.jobs.ingest import ingest
from chexray.jobs.merge import merge
from chexray.jobs.pretrain import pretrain
from chexray.platform import storage
from chexray.platform.artifacts import read_manifest
from chexray.platform.config import Runtime
from chexray.platform.corpus.inspection import inspect_corpus
from chexray.platform.corpus.order import EpochSteps
from chexray.platform.corpus.shards import list_shards, read_columns, read_table
from chexray.platform.corpus.uids import read_uids
from chexray.platform.errors import UsageError
from chexray.platform.model.checkpoint import load_checkpoint
from chexray.platform.model.contrastive import info_nce
from chexray.platform.model.preprocess import model_pixels, normalise

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def corpus(small_corpus: str) -> str:
    return small_corpus


@pytest.fixture(scope="module")
def checkpoint(small_checkpoint: str) -> str:
    return small_checkpoint


@pytest.fixture(scope="module")
def source(corpus: str) -> str:
    """The dataset that the corpus was made from."""
    return str(Path(corpus).parent / "source")


@pytest.fixture(scope="module")
def subset(folder: Path, corpus: str, checkpoint: str) -> str:
    out = str(folder / "subset")
    curate(small("curate.keep=0.3"), corpus, out, scorer=checkpoint)
    return out


@pytest.fixture(scope="module")
def scores(folder: Path, corpus: str, checkpoint: str) -> str:
    out = str(folder / "scores")
    evaluate(small(), checkpoint, corpus, out)
    return out


def test_ingest_loses_no_pair_without_a_reason_and_keeps_patients_in_one_split(corpus: str) -> None:
    counts = read_manifest(corpus, "corpus").counts
    rejects = read_table(f"{corpus}/rejects.parquet")
    assert counts["listed"] == PAIRS
    assert counts["pairs"] + rejects.num_rows == PAIRS
    assert rejects.num_rows > 0
    assert all(rejects["reason"].to_pylist())
    rows = read_columns(corpus, ["patient_id", "split"]).to_pylist()
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["patient_id"], set()).add(row["split"])
    assert all(len(of_patient) == 1 for of_patient in splits.values())


def test_ingest_again_is_a_no_op_and_after_an_interruption_gives_the_same_shards(source: str, corpus: str) -> None:
    before = {shard.path: read_table(f"{corpus}/{shard.path}") for shard in list_shards(corpus)}
    finished = read_manifest(corpus).finished
    arguments: tuple[Any, ...] = (small(), "synthetic", source, corpus, {"count": PAIRS, "size": 96})
    assert ingest(*arguments).finished == finished
    (Path(corpus) / "manifest.json").unlink()
    (Path(corpus) / sorted(before)[0]).unlink()
    ingest(*arguments)
    after = {shard.path: read_table(f"{corpus}/{shard.path}") for shard in list_shards(corpus)}
    assert after.keys() == before.keys()
    assert all(after[path].equals(before[path]) for path in before)


def test_merge_of_corpora_without_what_an_evaluation_set_holds(folder: Path, corpus: str, real_data: Path) -> None:
    nih = str(folder / "nih")
    ingest(small("ingest.split=test"), "nih", str(real_data / "nih"), nih)
    again = str(folder / "nih-to-train")
    ingest(small("ingest.split=train"), "nih", str(real_data / "nih"), again)
    out = str(folder / "merged")
    counts = merge(small(), [corpus, again], out, evaluation=[nih]).counts
    own = read_manifest(corpus, "corpus").counts["pairs"]
    # 790 rows of which two show one image; all that is left of them is in the evaluation set.
    assert counts["listed"] == own + 789
    assert counts["rejected_by_reason"]["image of an evaluation set"] == 789
    assert set(counts["pairs_by_dataset"]) == {"synthetic"}
    assert counts["pairs"] == own - counts["rejected_by_reason"].get("near-duplicate image", 0)
    assert merge(small(), [corpus, again], out, evaluation=[nih]).counts == counts
    assert "synthetic" in inspect_corpus(out)


def test_pretrain_two_workers_follow_the_trajectory_of_one(folder: Path, corpus: str, checkpoint: str) -> None:
    out = str(folder / "two-workers")
    pretrain(small(), corpus, out, runtime=Runtime(workers=2))
    one, two = (_history(uri) for uri in (checkpoint, out))
    assert len(one) == len(two) >= 20
    difference = max(abs(a["loss"] - b["loss"]) for a, b in zip(one, two, strict=True))
    print(f"worst difference of the loss over {len(one)} steps: {difference:.2e}")
    assert difference < 1e-5  # worst seen in float32: 7.2e-7
    assert [a["pairs"] for a in one] == [b["pairs"] for b in two]


@pytest.mark.slow
def test_pretrain_whose_worker_is_killed_goes_on_by_itself_to_the_same_weights(
    folder: Path, corpus: str, checkpoint: str
) -> None:
    out = folder / "killed"
    with ThreadPoolExecutor(1) as thread:
        run = thread.submit(pretrain, small(), corpus, str(out))
        saved = out / "state" / "run"
        assert _wait_for(lambda: sorted(saved.glob("checkpoint_*/run.json"))[1:], run)
        for process in psutil.process_iter(["name", "cmdline"]):
            if any("RayTrainWorker" in part for part in process.info["cmdline"] or []):
                process.kill()
        counts = run.result(timeout=300).counts
    assert [start["workers"] for start in counts["starts"]] == [1, 1]
    assert counts["starts"][1]["step"] > 0
    # Lost are the steps since the last checkpoint that arrived, which is one an epoch.
    assert 0 <= counts["steps_repeated"] <= 2 * counts["accounts"][0]["steps"]
    resumed, expected = (load_file(f"{uri}/open_clip_model.safetensors") for uri in (out, checkpoint))
    worst = max(float((resumed[name] - expected[name]).abs().max()) for name in expected)
    assert worst == 0.0
    assert [line["step"] for line in _history(str(out))] == [line["step"] for line in _history(checkpoint)]


@pytest.mark.slow
def test_pretrain_can_end_with_the_weights_of_the_lowest_validation_loss(folder: Path, corpus: str) -> None:
    out, recipe = str(folder / "best"), small("train.choose=best", "train.lr=0.02", "train.epochs=4")
    cost = pretrain(recipe, corpus, out, runtime=Runtime(workers=2)).cost
    losses = [line["validation_loss"] for line in _history(out) if "validation_loss" in line]
    assert len(losses) == 4
    rows = read_columns(corpus, ["image", "report"], "validation").to_pylist()
    assert cost["validation_flops"] > 0
    loaded, total = load_checkpoint(out), 0.0
    steps = EpochSteps(len(rows), recipe.train.global_batch)
    for step in range(steps.steps):
        first, end = steps.bounds(step)
        pixels = np.stack([model_pixels(row["image"], loaded.image_size) for row in rows[first:end]])
        with torch.no_grad():
            image = loaded.model.encode_image(normalise(torch.from_numpy(pixels)), normalize=True)
            text = loaded.model.encode_text(loaded.tokenize([row["report"] for row in rows[first:end]]), normalize=True)
            total += float(info_nce(image, text, loaded.model.logit_scale.exp())) * (end - first)
    assert total / len(rows) == pytest.approx(min(losses), abs=1e-4)


def test_pretrain_records_what_it_was_trained_on_and_what_it_cost(corpus: str, checkpoint: str) -> None:
    manifest = read_manifest(checkpoint, "checkpoint")
    ids = read_columns(corpus, ["sample_id"], "train")["sample_id"].to_pylist()
    stored = [f"{high:016x}{low:016x}" for high, low in read_uids(f"{checkpoint}/trained_on.npy").tolist()]
    assert stored == sorted(ids)
    assert manifest.cost["compute_vs_full"] == 1.0
    assert manifest.cost["pairs_trained"] == len(ids) * 5


def test_pretrain_leaves_its_curves_in_tensorboards_format(checkpoint: str) -> None:
    """Read by the format's own framing: length, its checksum, the record, its checksum."""
    (file,) = Path(checkpoint, "tensorboard").iterdir()
    data, losses = file.read_bytes(), {}
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        losses.update((event.step, v.simple_value) for v in event.summary.value if v.tag == "train/loss")
    assert losses == {line["step"]: pytest.approx(line["loss"], rel=1e-6) for line in _history(checkpoint)}


def test_curate_keeps_the_target_at_any_super_batch_and_any_number_of_scorers(
    folder: Path, corpus: str, checkpoint: str, subset: str
) -> None:
    pairs = read_manifest(corpus).counts["pairs_by_split"]["train"]
    assert abs(read_manifest(subset, "subset").counts["kept"] / pairs - 0.3) <= 0.005
    two = str(folder / "subset-two-scorers")
    curate(small("curate.keep=0.3"), corpus, two, scorer=checkpoint, runtime=Runtime(workers=2))
    first, second = (read_table(f"{uri}/subset.parquet") for uri in (subset, two))
    assert first.equals(second)
    out = str(folder / "subset-32")
    curate(small("curate.keep=0.3", "curate.super_batch=32"), corpus, out, scorer=checkpoint)
    assert abs(read_manifest(out).counts["kept"] / pairs - 0.3) <= 0.005


def test_curate_writes_the_kept_rows_as_a_compact_corpus_and_their_ids(corpus: str, subset: str) -> None:
    table = read_table(f"{subset}/subset.parquet")
    kept = table.filter(table["kept"])["sample_id"].to_pylist()
    compact = read_columns(f"{subset}/corpus", ["sample_id", "image"], "train")
    whole = read_columns(corpus, ["sample_id", "image"], "train")
    assert compact.equals(whole.filter(pa.compute.is_in(whole["sample_id"], pa.array(kept))))
    ids = [f"{high:016x}{low:016x}" for high, low in read_uids(f"{subset}/kept.npy").tolist()]
    assert ids == sorted(kept)
    audit = json.loads(Path(subset, "audit.json").read_text())
    assert audit["kept"] == len(kept)


@pytest.mark.slow
def test_curate_warm_up_trains_a_scorer_and_counts_its_cost(folder: Path, corpus: str) -> None:
    out = str(folder / "warm")
    cost = curate(small("curate.keep=0.3", "curate.warmup_fraction=0.2"), corpus, out).cost
    warmup = read_manifest(f"{out}/scorer", "checkpoint")
    pairs = read_manifest(corpus).counts["pairs_by_split"]["train"]
    assert warmup.counts["pairs"] == round(pairs * 0.2)
    assert cost["warmup_flops"] == warmup.cost["total_flops"]
    assert cost["total_flops"] == cost["warmup_flops"] + cost["scoring_flops"]


def test_subset_of_another_corpus_is_refused(folder: Path, corpus: str, subset: str) -> None:
    other = str(folder / "other-corpus")
    ingest(small(), "synthetic", str(folder / "other"), other, {"count": 60, "size": 96, "seed": 9})
    with pytest.raises(UsageError, match="another corpus"):
        pretrain(small(), other, str(folder / "never"), subset)


def test_evaluate_agrees_with_a_plain_loop_over_the_test_split(corpus: str, checkpoint: str, scores: str) -> None:
    results = read_results(scores)
    rows = read_columns(corpus, ["sample_id", "image", "report", "labels"], "test").to_pylist()
    loaded = load_checkpoint(checkpoint)
    pixels = torch.from_numpy(np.stack([model_pixels(row["image"], loaded.image_size) for row in rows]))
    with torch.no_grad():
        image = loaded.model.encode_image(normalise(pixels), normalize=True)
        prompts = loaded.model.encode_text(loaded.tokenize(["Cardiomegaly", "no Cardiomegaly"]), normalize=True)
    score = torch.softmax(image @ prompts.T, dim=1)[:, 0].numpy()
    labels = [dict(row["labels"]).get("Cardiomegaly") for row in rows]
    known = [i for i, label in enumerate(labels) if label is not None]
    expected = sklearn.metrics.roc_auc_score([labels[i] for i in known], score[known])
    found = next(r for r in results if r["finding"] == "Cardiomegaly")
    assert found["value"] == pytest.approx(expected, abs=1e-4)  # worst seen: rounding to six decimals
    assert found["low"] <= found["value"] <= found["high"]
    assert found["seen_in_training"] == 0.0
    assert {r["metric"] for r in results if r["benchmark"] == "retrieval"} >= {"image_to_text_recall@10"}
    predictions = read_table(f"{scores}/cells/{Path(checkpoint).name}/zero_shot/0/predictions.parquet")
    assert predictions.num_rows == len(rows) * len({r["finding"] for r in results if r["finding"]})


def test_path_on_s3_gives_what_the_local_path_gives(
    source: str, corpus: str, checkpoint: str, subset: str, scores: str, s3: str
) -> None:
    """Patients' ids are salted anew in every corpus, so intervals are drawn anew too: values are compared."""
    root, recipe = f"{s3}/path", small("curate.keep=0.3")
    ingest(recipe, "synthetic", source, f"{root}/corpus", {"count": PAIRS, "size": 96})
    columns = ["sample_id", "image", "report", "labels", "split"]
    assert read_columns(f"{root}/corpus", columns).equals(read_columns(corpus, columns))
    pretrain(recipe, f"{root}/corpus", f"{root}/model")
    weights = "open_clip_model.safetensors"
    assert storage.read_bytes(f"{root}/model/{weights}") == Path(checkpoint, weights).read_bytes()
    curate(recipe, f"{root}/corpus", f"{root}/subset", scorer=f"{root}/model")
    assert storage.read_bytes(f"{root}/subset/kept.npy") == Path(subset, "kept.npy").read_bytes()
    evaluate(recipe, f"{root}/model", f"{root}/corpus", f"{root}/scores")
    found, expected = (
        [{k: value for k, value in row.items() if k not in ("low", "high", "checkpoint")} for row in read_results(uri)]
        for uri in (f"{root}/scores", scores)
    )
    assert found == expected


@pytest.mark.slow
def test_demo_runs_the_whole_path_and_compares_three_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = demo(small("train.epochs=1"), str(folder / "demo"), 200)
    assert [row["run"] for row in rows] == ["curated", "random", "full"]
    curated, random, full = rows
    assert curated["pairs"] == random["pairs"] < full["pairs"]
    assert random["compute_vs_full"] < curated["compute_vs_full"]
    assert full["compute_vs_full"] == 1.0
    assert "What each run reached" in capsys.readouterr().out


def _wait_for(found: Callable[[], Any], run: Future[Any], seconds: float = 300) -> Any:
    """Poll until something is found, the run ends or time is up."""
    deadline = time.monotonic() + seconds
    while not (result := found()) and not run.done() and time.monotonic() < deadline:
        wait([run], timeout=0.05)
    return result


def _history(uri: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(uri, "history.jsonl").read_text().splitlines()]
