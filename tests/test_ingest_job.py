"""Ingestion as a job: what changes make it another corpus, what is filtered on purpose, and what stays private."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from corpora import SALT, blobs, encoded

from chexray.jobs.ingest import ingest
from chexray.jobs.merge import merge
from chexray.platform.artifacts import Manifest
from chexray.platform.config import load_recipe
from chexray.platform.corpus import drops
from chexray.platform.corpus.shards import read_columns, read_table
from chexray.platform.errors import ChexrayError, UsageError

pytestmark = pytest.mark.usefixtures("ray_cluster")

RULES = "- name: top\n  shares: [[0, 0, 1, {}]]\n"


@pytest.fixture(autouse=True)
def salted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHEXRAY_SALT", SALT)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Eight images of four patients; the even ones are laterals."""
    folder = tmp_path / "source"
    folder.mkdir()
    lines = ["path,report,patient_id,view"]
    for number in range(8):
        (folder / f"{number}.png").write_bytes(encoded(blobs(number, 120, 100)))
        view = "PA" if number % 2 else "LATERAL"
        lines.append(f"{number}.png,Opacity number {number} in the left lung.,patient-{number // 2},{view}")
    (folder / "pairs.csv").write_text("\n".join(lines))
    return folder


def run(source: Path, out: Path, *settings: str, **arguments: Any) -> Manifest:
    recipe = load_recipe("tiny", ["ingest.polarity=keep", "ingest.codec=png", "ingest.split=train", *settings])
    return ingest(recipe, "folder", str(source), str(out), **arguments)


def patients(corpus: Path) -> set[str]:
    return set(read_columns(str(corpus), ["patient_id"])["patient_id"].to_pylist())


def test_ingest_under_another_salt_is_another_corpus(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(source, tmp_path / "c")
    monkeypatch.setenv("CHEXRAY_SALT", "another salt of ours")
    with pytest.raises(UsageError, match="they differ in salt"):
        run(source, tmp_path / "c")
    (tmp_path / "c" / "manifest.json").unlink()  # and interrupted, it does not go on with the wrong one
    with pytest.raises(UsageError, match="they differ in salt"):
        run(source, tmp_path / "c")


def test_ingest_overwriting_keeps_the_salt_that_was_drawn(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CHEXRAY_SALT")
    run(source, tmp_path / "c")
    before = patients(tmp_path / "c")
    assert run(source, tmp_path / "c").finished
    run(source, tmp_path / "c", "ingest.short_side=64", overwrite=True)
    assert patients(tmp_path / "c") == before
    assert (tmp_path / "c" / ".salt").exists()


def test_merge_after_mending_the_salts_is_another_merge(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(source, tmp_path / "train")
    monkeypatch.setenv("CHEXRAY_SALT", "another salt of ours")
    run(source, tmp_path / "exam", "ingest.split=test")
    inputs: tuple[Any, ...] = (load_recipe("tiny"), [str(tmp_path / "train")], str(tmp_path / "m"))
    with pytest.raises(ChexrayError, match="all 8 pairs were dropped"):
        merge(*inputs, evaluation=[str(tmp_path / "exam")])
    monkeypatch.setenv("CHEXRAY_SALT", SALT)
    run(source, tmp_path / "exam", "ingest.split=test", overwrite=True)
    with pytest.raises(UsageError, match="their inputs differ"):
        merge(*inputs, evaluation=[str(tmp_path / "exam")])


def test_redaction_of_plain_images_blacks_out_the_region_and_says_so(source: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES.format(0.25))
    run(source, tmp_path / "c", f"ingest.redaction={tmp_path / 'rules.yaml'}")
    rows = read_columns(str(tmp_path / "c"), ["image", "notes"]).to_pylist()
    assert len(rows) == 8
    for row in rows:
        image = np.asarray(PIL.Image.open(io.BytesIO(row["image"])))
        assert not image[:30].any()
        assert image[31:].any()
        assert row["notes"] == ["masked by top"]


def test_redaction_rules_that_were_edited_make_another_corpus(source: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES.format(0.25))
    run(source, tmp_path / "c", f"ingest.redaction={rules}")
    assert run(source, tmp_path / "c", f"ingest.redaction={rules}").counts["pairs"] == 8
    rules.write_text(RULES.format(0.5))
    with pytest.raises(UsageError, match=r"they differ in files\.redaction"):
        run(source, tmp_path / "c", f"ingest.redaction={rules}")


def test_views_that_are_filtered_out_are_no_failures(source: Path, tmp_path: Path) -> None:
    counts = run(source, tmp_path / "c", "ingest.view=frontal", "ingest.max_reject_rate=0").counts
    assert (counts["pairs"], counts["rejected_by_reason"]) == (4, {"lateral view": 4})


def test_every_reason_that_is_no_fault_is_given_somewhere() -> None:
    files = [file for file in Path(drops.__file__).parent.rglob("*.py") if file.name != "drops.py"]
    code = "".join(file.read_text() for file in files)
    assert [reason for reason in sorted(drops.NO_FAULT) if f'"{reason}"' not in code] == []


def test_raising_the_allowed_reject_rate_goes_on_with_what_was_written(source: Path, tmp_path: Path) -> None:
    (source / "3.png").write_bytes(b"junk")
    with pytest.raises(ChexrayError, match="run again to go on"):
        run(source, tmp_path / "c")
    shard = tmp_path / "c" / "shards" / "train-00000.parquet"
    written = shard.stat().st_mtime_ns
    assert run(source, tmp_path / "c", "ingest.max_reject_rate=0.5").counts["pairs"] == 7
    assert shard.stat().st_mtime_ns == written


def test_leaks_can_be_reported_without_being_dropped(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "exam", "ingest.split=test")
    exam = [str(tmp_path / "exam")]
    counts = run(source, tmp_path / "c", "ingest.leaks=report", evaluation=exam).counts
    assert counts["pairs"] == 8
    leaks = read_table(str(tmp_path / "c" / "leaks.parquet"))
    assert leaks["reason"].to_pylist() == ["image of an evaluation set"] * 8


def test_leaks_stay_listed_when_the_last_moment_of_a_run_is_done_again(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "exam", "ingest.split=test")
    exam = [str(tmp_path / "exam")]
    (source / "8.png").write_bytes(encoded(blobs(8, 120, 100)))
    with (source / "pairs.csv").open("a") as stream:
        stream.write("\n8.png,Opacity number 8.,patient-8,PA")
    counts = run(source, tmp_path / "c", evaluation=exam).counts
    (tmp_path / "c" / "manifest.json").unlink()
    assert run(source, tmp_path / "c", evaluation=exam).counts == counts
    assert len(read_table(str(tmp_path / "c" / "leaks.parquet"))) == 8


def test_another_image_of_a_leaked_patient_is_a_leak_too(source: Path, tmp_path: Path) -> None:
    """The evaluation set knows the patient under an id of its own, as RSNA's knows NIH's."""
    exam = tmp_path / "exam-source"
    exam.mkdir()
    (exam / "x.png").write_bytes((source / "0.png").read_bytes())
    (exam / "pairs.csv").write_text("path,report,patient_id\nx.png,Opacity.,somebody\n")
    run(exam, tmp_path / "exam", "ingest.split=test")
    counts = run(source, tmp_path / "c", evaluation=[str(tmp_path / "exam")]).counts
    assert counts["rejected_by_reason"] == {"image of an evaluation set": 1, "patient of an evaluation set": 1}


def test_ids_of_private_data_cannot_be_made_without_the_salt(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(source, tmp_path / "c")
    first = set(read_columns(str(tmp_path / "c"), ["sample_id"])["sample_id"].to_pylist())
    run(source, tmp_path / "again")
    assert set(read_columns(str(tmp_path / "again"), ["sample_id"])["sample_id"].to_pylist()) == first
    monkeypatch.setenv("CHEXRAY_SALT", "another salt of ours")
    run(source, tmp_path / "other")
    assert not first & set(read_columns(str(tmp_path / "other"), ["sample_id"])["sample_id"].to_pylist())
