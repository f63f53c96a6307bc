"""Stages and manifests: finished is a no-op, unfinished resumes, another's is refused; on disk and on S3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chexray.platform import artifacts, storage
from chexray.platform.artifacts import Manifest, Stage, fingerprint, read_manifest
from chexray.platform.config import Recipe, load_recipe, setting_keys
from chexray.platform.errors import ChexrayError, UsageError

CONFIG: dict[str, Any] = {"seed": 0, "keep": 0.227, "nested": {"codec": "jpeg", "size": None}}


def corpus_stage(out: str, digest: str = "digest", overwrite: bool = False, **changes: Any) -> Stage:
    return Stage(out, "corpus", {**CONFIG, **changes}, source=("/raw", digest), overwrite=overwrite)


def written(stage: Stage, content: bytes = b"pairs") -> Manifest:
    assert stage.begin() is None
    storage.write_bytes(stage.path("shards", "one"), content)
    return stage.finish({"kept": 3}, {"flops": 1})


def test_stage_never_run_writes_a_manifest_that_is_read_back(place: str) -> None:
    manifest = written(corpus_stage(place))
    assert read_manifest(place, "corpus") == manifest
    assert (manifest.kind, manifest.config, manifest.counts) == ("corpus", CONFIG, {"kept": 3})
    assert (manifest.inputs, manifest.input_fingerprints) == ({"source": "/raw"}, {"source": "digest"})
    assert manifest.packages["chexray"] == "0.1.0"
    assert manifest.started <= manifest.finished
    assert manifest.seconds >= 0


def test_stage_that_is_finished_does_nothing(place: str) -> None:
    first = written(corpus_stage(place))
    again = corpus_stage(place)
    assert again.begin() == first
    assert not again.resumed
    assert storage.read_bytes(storage.join(place, "shards", "one")) == b"pairs"


def test_stage_that_was_interrupted_resumes_with_its_files(place: str) -> None:
    interrupted = corpus_stage(place)
    interrupted.begin()
    assert not interrupted.resumed
    storage.write_bytes(interrupted.path("shards", "one"), b"half")
    again = corpus_stage(place)
    assert again.begin() is None
    assert again.resumed
    assert storage.read_bytes(again.path("shards", "one")) == b"half"
    assert read_manifest_fails(place).startswith(f"{place}: an artifact that was never finished")


def test_stage_that_must_have_begun_is_refused_in_an_empty_place_and_in_that_of_another(place: str) -> None:
    with pytest.raises(UsageError, match=r"--resume: .* holds nothing and no run of these settings"):
        corpus_stage(place).require_begun()
    corpus_stage(place).begin()
    corpus_stage(place).require_begun()
    with pytest.raises(UsageError, match=r"--resume: .* holds something else"):
        corpus_stage(place, seed=1).require_begun()
    assert corpus_stage(place).begin() is None
    corpus_stage(place).finish({})
    corpus_stage(place).require_begun()


@pytest.mark.parametrize("finished", [True, False])
def test_stage_of_another_configuration_is_refused_and_changes_nothing(place: str, finished: bool) -> None:
    first = corpus_stage(place)
    first.begin()
    if finished:
        first.finish({})
    before = {name: storage.read_bytes(storage.join(place, name)) for name in storage.list_files(place)}
    other = corpus_stage(place, seed=1)
    with pytest.raises(UsageError, match="holds another artifact") as caught:
        other.begin()
    assert first.fingerprint in str(caught.value)
    assert other.fingerprint in str(caught.value)
    assert "--overwrite" in str(caught.value)
    assert {name: storage.read_bytes(storage.join(place, name)) for name in storage.list_files(place)} == before


@pytest.mark.parametrize("seed", [0, 1], ids=["same", "another"])
def test_stage_told_to_overwrite_replaces_all(place: str, seed: int) -> None:
    written(corpus_stage(place))
    stage = corpus_stage(place, overwrite=True, seed=seed)
    assert stage.begin() is None
    assert not stage.resumed
    assert storage.list_files(place) == ["stage.json"]
    stage.finish({"kept": 1})
    assert read_manifest(place).counts == {"kept": 1}


@pytest.mark.parametrize(
    "name_and_content",
    [
        ("thesis.docx", b"years of work"),
        ("manifest.json", b'{"name": "a web page", "icons": []}'),
        ("manifest.json", b"[1, 2]"),
        ("manifest.json", b'{"kind": "invoice", "fingerprint": "0"}'),
        ("stage.json", b'{"stage": "production"}'),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_stage_in_a_folder_that_is_not_ours_is_refused_even_with_overwrite(
    place: str, overwrite: bool, name_and_content: tuple[str, bytes]
) -> None:
    name, content = name_and_content
    storage.write_bytes(storage.join(place, name), content)
    with pytest.raises(UsageError, match="not empty and not chexray's"):
        corpus_stage(place, overwrite=overwrite).begin()
    assert storage.list_files(place) == [name]
    assert storage.read_bytes(storage.join(place, name)) == content


@pytest.mark.parametrize("overwrite", [False, True])
def test_stage_in_the_place_of_a_file_is_refused_even_with_overwrite(place: str, overwrite: bool) -> None:
    storage.write_bytes(place, b"a file")
    with pytest.raises(UsageError, match="not empty and not chexray's"):
        corpus_stage(place, overwrite=overwrite).begin()
    assert storage.read_bytes(place) == b"a file"


def test_stage_in_an_empty_folder_begins(tmp_path: Path) -> None:
    assert corpus_stage(str(tmp_path)).begin() is None


def test_fingerprint_does_not_depend_on_the_place(tmp_path: Path) -> None:
    corpora = [str(tmp_path / name) for name in ("a", "b")]
    for corpus in corpora:
        written(corpus_stage(corpus))
    marks = {
        Stage(str(tmp_path / f"out-{i}"), "subset", CONFIG, {"corpus": (corpus, "corpus")}).fingerprint
        for i, corpus in enumerate(corpora)
    }
    assert len(marks) == 1
    assert {
        Stage("x", "corpus", CONFIG, source=(root, "digest")).fingerprint for root in ("/raw", "s3://elsewhere")
    } == {corpus_stage("y").fingerprint}


def test_fingerprint_depends_on_kind_config_and_inputs() -> None:
    marks = [
        fingerprint("corpus", CONFIG, {}),
        fingerprint("subset", CONFIG, {}),
        fingerprint("corpus", {**CONFIG, "keep": 0.228}, {}),
        fingerprint("corpus", {**CONFIG, "nested": {"codec": "jpeg", "size": 0}}, {}),
        fingerprint("corpus", {**CONFIG, "new": None}, {}),
        fingerprint("corpus", CONFIG, {"source": "1"}),
        fingerprint("corpus", CONFIG, {"source": "2"}),
        fingerprint("corpus", CONFIG, {"corpus": "1"}),
    ]
    assert len(set(marks)) == len(marks)
    assert all(len(mark) == 16 and set(mark) <= set("0123456789abcdef") for mark in marks)


def test_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    turned = dict(reversed(list(CONFIG.items())))
    assert fingerprint("corpus", turned, {"a": "1", "b": "2"}) == fingerprint("corpus", CONFIG, {"b": "2", "a": "1"})


def another_value(value: Any) -> Any:
    if isinstance(value, tuple | dict):
        return (*value, "x") if isinstance(value, tuple) else {**value, "x": "y"}
    return f"{value}x" if value is None or isinstance(value, str) else (not value if value is True else value * 2 + 1)


@pytest.mark.parametrize("key", setting_keys())
def test_fingerprint_depends_on_every_setting_of_a_recipe(key: str) -> None:
    base = load_recipe("tiny").model_dump()
    changed = Recipe.model_validate(base).model_dump()
    section = changed
    *parents, last = key.split(".")
    for parent in parents:
        section = section[parent]
    section[last] = another_value(section[last])
    assert fingerprint("checkpoint", changed, {}) != fingerprint("checkpoint", base, {})


def read_manifest_fails(uri: str, kind: artifacts.Kind | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        read_manifest(uri, kind)
    return str(caught.value)


def test_read_manifest_of_no_folder_says_what_was_expected(place: str) -> None:
    assert read_manifest_fails(place, "corpus") == f"{place}: no such folder; expected a corpus"


def test_read_manifest_of_a_foreign_folder_says_what_to_give(place: str) -> None:
    storage.write_bytes(storage.join(place, "image.png"), b"")
    assert read_manifest_fails(place, "corpus").startswith(f"{place}: not a corpus (no manifest.json); give the --out")


def test_read_manifest_of_an_unfinished_stage_says_to_run_it_again(place: str) -> None:
    corpus_stage(place).begin()
    assert read_manifest_fails(place, "corpus").startswith(f"{place}: a corpus that was never finished; run the")


def test_read_manifest_of_another_kind_names_both(place: str) -> None:
    written(corpus_stage(place))
    assert read_manifest_fails(place, "subset") == f"{place}: this is a corpus, not a subset"


def test_read_manifest_that_is_cut_short_names_the_file(place: str) -> None:
    written(corpus_stage(place))
    uri = storage.join(place, "manifest.json")
    storage.write_bytes(uri, storage.read_bytes(uri)[:40])
    assert read_manifest_fails(place).startswith(f"{uri}: not a JSON file")


def test_read_manifest_with_unknown_or_missing_fields_says_it_is_none_of_ours(place: str) -> None:
    written(corpus_stage(place))
    uri = storage.join(place, "manifest.json")
    content = storage.read_json(uri)
    del content["fingerprint"]
    storage.write_json(uri, {**content, "colour": "blue"})
    assert read_manifest_fails(place) == f"{uri}: not a chexray manifest (2 errors)"


def test_read_manifest_of_another_format_names_both_formats(place: str) -> None:
    written(corpus_stage(place))
    uri = storage.join(place, "manifest.json")
    storage.write_json(uri, {**storage.read_json(uri), "format": 2, "unheard": "of"})
    assert read_manifest_fails(place).startswith(f"{place}: written in format 2, this chexray reads format 1")


def test_stage_whose_input_is_missing_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    corpus = str(tmp_path / "corpus")
    with pytest.raises(UsageError, match="no such folder; expected a corpus"):
        Stage(str(tmp_path / "out"), "subset", CONFIG, {"corpus": (corpus, "corpus")})
    written(corpus_stage(corpus))
    with pytest.raises(UsageError, match="this is a corpus, not a checkpoint"):
        Stage(str(tmp_path / "out"), "scores", CONFIG, {"checkpoint": (corpus, "checkpoint")})


def test_require_same_corpus_takes_a_copy_and_refuses_another(place: str) -> None:
    ours, copy, other, subset = (storage.join(place, name) for name in ("ours", "copy", "other", "subset"))
    for uri, digest in ((ours, "1"), (copy, "1"), (other, "2")):
        written(corpus_stage(uri, digest))
    written(Stage(subset, "subset", CONFIG, {"corpus": (ours, "corpus")}))
    artifacts.require_same_corpus(subset, ours)
    artifacts.require_same_corpus(subset, copy)
    with pytest.raises(UsageError, match="was drawn from another corpus") as caught:
        artifacts.require_same_corpus(subset, other)
    assert read_manifest(ours).fingerprint in str(caught.value)
    assert read_manifest(other).fingerprint in str(caught.value)


def test_check_reject_rate_at_the_limit_passes_and_above_it_fails_with_the_numbers() -> None:
    artifacts.check_reject_rate({"a": 1}, 10, 0.1, "rejects.parquet")
    artifacts.check_reject_rate({}, 0, 0.0, "rejects.parquet")
    with pytest.raises(
        ChexrayError, match=r"3 of 10 pairs were rejected \(30\.0%; allowed 10\.0%\), most \(2\) for 'b'"
    ):
        artifacts.check_reject_rate({"a": 1, "b": 2}, 10, 0.1, "rejects.parquet")


def test_manifest_file_is_sorted_json_that_any_tool_reads(tmp_path: Path) -> None:
    written(corpus_stage(str(tmp_path / "out")))
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert list(json.loads(text)) == sorted(json.loads(text))


def test_stage_whose_output_holds_its_own_input_is_refused_even_with_overwrite(tmp_path: Path) -> None:
    corpus = Stage(str(tmp_path / "run" / "corpus"), "corpus", {}, source=("raw", "digest"))
    corpus.begin()
    corpus.finish({})
    for out in (tmp_path / "run" / "corpus", tmp_path / "run"):
        with pytest.raises(UsageError, match="holds this run's own corpus"):
            Stage(str(out), "subset", {}, {"corpus": (corpus.uri, "corpus")}, overwrite=True)
    assert (tmp_path / "run" / "corpus" / "manifest.json").exists()


def test_stage_overwriting_interrupted_leaves_nothing_that_passes_for_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the old artifact is removed: the folder is nobody's, and the next run of either goes on with it."""
    place = str(tmp_path / "corpus")
    old = corpus_stage(place)
    old.begin()
    storage.write_bytes(old.path("shards", "a.parquet"), b"old")
    old.finish({})

    def killed(uri: str, keep: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "clear_folder", killed)
        with pytest.raises(KeyboardInterrupt):
            Stage(place, "corpus", {"other": 1}, source=("/raw", "digest"), overwrite=True).begin()
    with pytest.raises(UsageError, match="never finished"):
        read_manifest(place, "corpus")
    again = corpus_stage(place)
    assert again.begin() is None
    assert not again.resumed
    assert storage.list_files(place) == ["stage.json"]


def test_stage_resuming_sweeps_what_a_killed_process_was_writing(tmp_path: Path) -> None:
    place = tmp_path / "corpus"
    corpus_stage(str(place)).begin()
    (place / "shards").mkdir()
    (place / "shards" / ".train-00000.parquet.0a1b2c3d.part").write_bytes(b"half")
    (place / "shards" / "train-00001.parquet").write_bytes(b"whole")
    corpus_stage(str(place)).begin()
    assert storage.list_files(str(place)) == ["shards/train-00001.parquet", "stage.json"]


def test_stage_of_other_settings_names_them(tmp_path: Path) -> None:
    Stage(str(tmp_path / "c"), "corpus", {"ingest": {"codec": "png", "seed": 0}}, source=("/raw", "1")).begin()
    other = Stage(str(tmp_path / "c"), "corpus", {"ingest": {"codec": "jpeg", "seed": 0}}, source=("/raw", "1"))
    with pytest.raises(UsageError, match=r"they differ in ingest\.codec\)"):
        other.begin()


def test_stage_inside_the_data_it_reads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lies inside the data that is read"):
        Stage(str(tmp_path / "raw" / "out"), "corpus", {}, source=(str(tmp_path / "raw"), "1"))
