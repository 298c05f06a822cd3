"""``sluice backup`` and ``sluice restore`` as an operator types them, where no broker is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.keys import backup as module
from pipeline.keys.backup import encrypt_backup, read_folder
from tests.unit.pipeline.control.test_restore_keys import made

PASSPHRASE = "correct horse battery"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A backup of a deployment, beside a file with its passphrase."""
    monkeypatch.setattr(module, "_COST", {"n": 2**10, "r": 8, "p": 1})
    file = tmp_path / "one.backup"
    file.write_bytes(encrypt_backup(made(tmp_path / "before"), PASSPHRASE))
    (tmp_path / "passphrase").write_text(f"{PASSPHRASE}\n")
    return file


def sluice(kept: Path, *words: str, passphrase: str = "passphrase") -> int:
    home = kept.parent / "home"
    return cli.main(["--home", str(home), *words, "--passphrase-file", str(kept.parent / passphrase)])


def test_a_check_says_what_is_in_it_and_writes_nothing(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sluice(kept, "restore", "check", str(kept), "--json") == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["tenants"], told["keys"], told["records"]) == (1, 0, 2)
    assert not (kept.parent / "home").exists()


def test_keys_come_back_into_a_home_that_was_never_up(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = kept.parent / "settings.toml"
    assert sluice(kept, "restore", "keys", str(kept), "--same-log", "--settings", str(settings)) == 0
    assert read_folder(kept.parent / "home" / "keys") == read_folder(kept.parent / "before")
    assert settings.stat().st_mode & 0o777 == 0o600
    assert sluice(kept, "restore", "keys", str(kept)) == 2
    assert "nothing is overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("passphrase", "said"),
    [
        ("absent", "--passphrase-file: expected a file with a passphrase"),
        ("other", "the backup does not open: another passphrase"),
        ("empty", "got an empty one"),
    ],
)
def test_without_the_passphrase_nothing_opens(
    passphrase: str, said: str, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (kept.parent / "other").write_text("another passphrase")
    (kept.parent / "empty").write_text("\n")
    assert sluice(kept, "restore", "keys", str(kept), passphrase=passphrase) == 2
    assert said in capsys.readouterr().err
    assert not (kept.parent / "home").exists()


def test_a_backup_overwrites_nothing_and_asks_no_broker_before(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = kept.read_bytes()
    assert sluice(kept, "backup", str(kept)) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert kept.read_bytes() == before


def test_a_short_passphrase_is_refused_before_anything_is_put_on_record(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (kept.parent / "short").write_text("12345678901")
    assert sluice(kept, "backup", str(kept.parent / "two.backup"), passphrase="short") == 2
    assert "expected 12 characters or more, got 11" in capsys.readouterr().err


def test_another_file_is_no_backup(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept.write_text("[kafka]\n")
    assert sluice(kept, "restore", "check", str(kept)) == 2
    assert "expected a backup of sluice, got another file" in capsys.readouterr().err
