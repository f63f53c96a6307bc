"""Where the salt of patient and study ids comes from, and who can read it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from corpora import SALT, pair, write_corpus

from chexray.platform import storage
from chexray.platform.corpus.salt import keep_salt, salt_for, salt_name, warn_of_other_salts
from chexray.platform.errors import UsageError


def test_salt_is_kept_beside_the_corpus_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHEXRAY_SALT", raising=False)
    salt = salt_for(str(tmp_path))
    assert len(salt) == 32
    assert list(tmp_path.iterdir()) == []
    keep_salt(str(tmp_path), salt)
    assert salt_for(str(tmp_path)) == salt
    assert stat.S_IMODE((tmp_path / ".salt").stat().st_mode) == 0o600
    (tmp_path / "other").mkdir()
    assert salt_for(str(tmp_path / "other")) != salt


def test_salt_of_a_corpus_on_s3_is_kept_there(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHEXRAY_SALT", raising=False)
    salt = salt_for(f"{s3}/salted")
    keep_salt(f"{s3}/salted", salt)
    assert salt_for(f"{s3}/salted") == salt == storage.read_bytes(f"{s3}/salted/.salt").decode()


def test_salt_from_the_environment_is_used_and_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHEXRAY_SALT", "from the environment")
    assert salt_for(str(tmp_path)) == "from the environment"
    keep_salt(str(tmp_path), "from the environment")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given_salt", ["", "1234567"])
def test_salt_that_is_too_short_is_refused_without_showing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given_salt: str
) -> None:
    monkeypatch.setenv("CHEXRAY_SALT", given_salt)
    with pytest.raises(UsageError, match="a salt needs at least 8") as caught:
        salt_for(str(tmp_path))
    assert "1234567" not in str(caught.value)


def test_salt_name_tells_salts_apart_without_holding_them() -> None:
    assert salt_name("first salt") == salt_name("first salt") != salt_name("other salt")
    assert len(salt_name("first salt")) == 8


def test_corpora_of_another_salt_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = write_corpus(tmp_path / "a", [pair(1)])
    second = write_corpus(tmp_path / "b", [pair(2)], salt="another salt")

    def named(name: str | None, corpora: list[str]) -> list[str]:
        caplog.clear()
        warn_of_other_salts(name, corpora)
        return [record.getMessage().split(": ")[0] for record in caplog.records]

    assert named(salt_name(SALT), [first, second]) == [second]
    assert "another salt" in caplog.text
    assert SALT not in caplog.text
    assert named(salt_name(SALT), [first]) == []
    assert named(None, [first]) == [first]  # merged from corpora of different salts
