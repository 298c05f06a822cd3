"""A backup opens with its passphrase alone, and is whole or none."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from pipeline.errors import ConfigError, Malformed
from pipeline.keys import backup as module
from pipeline.keys.backup import (
    MAGIC,
    Backup,
    KeptFile,
    KeptRecord,
    decrypt_backup,
    encrypt_backup,
    read_folder,
    write_folder,
)

PASSPHRASE = "correct horse battery"
SECRET = b"a secret that no byte of the file may show"
KEPT = Backup(
    created=1_700_000_000_000,
    version="0.1.0",
    generation="g1",
    deployment="00" * 32,
    files=(KeptFile("keyring.json", SECRET), KeptFile("roots/root.pem", b"\x00\xff")),
    settings=b"[kafka]\n",
    control=(KeptRecord(1, b"plan/team", b"{}"), KeptRecord(2, b"", b"\xff\x00")),
    decided=(3, 0),
)


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COST", {"n": 2**10, "r": 8, "p": 1})


def test_what_was_kept_comes_back_and_shows_in_no_byte() -> None:
    raw = encrypt_backup(KEPT, PASSPHRASE)
    assert decrypt_backup(raw, PASSPHRASE) == KEPT
    assert SECRET not in raw
    assert encrypt_backup(KEPT, PASSPHRASE) != raw


def test_another_passphrase_or_any_changed_byte_opens_nothing() -> None:
    raw = encrypt_backup(KEPT, PASSPHRASE)
    with pytest.raises(Malformed, match="does not open"):
        decrypt_backup(raw, PASSPHRASE + " ")
    for place in range(0, len(raw), 7):
        changed = bytearray(raw)
        changed[place] ^= 1
        with pytest.raises(Malformed):
            decrypt_backup(bytes(changed), PASSPHRASE)
    for end in (0, 5, len(MAGIC), len(MAGIC) + 9, len(raw) - 1):
        with pytest.raises(Malformed):
            decrypt_backup(raw[:end], PASSPHRASE)


@pytest.mark.parametrize("asked", [{"n": 2**30}, {"r": 1_000}, {"p": 64}, {"n": 0}, {"n": "x"}, {"nonce": ""}])
def test_a_file_cannot_ask_for_more_work_than_any_of_ours(asked: dict[str, object]) -> None:
    head, _, rest = encrypt_backup(KEPT, PASSPHRASE)[len(MAGIC) :].partition(b"\n")
    stated = json.dumps({**json.loads(head), **asked}).encode()
    with pytest.raises(Malformed, match="of this version"):
        decrypt_backup(MAGIC + stated + b"\n" + rest, PASSPHRASE)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b", "", "a\0b"])
def test_no_file_of_a_backup_leads_out_of_its_folder(path: str) -> None:
    evil = msgspec.structs.replace(KEPT, files=(KeptFile(path, b"x"),))
    with pytest.raises(Malformed, match="lead out of it"):
        decrypt_backup(encrypt_backup(evil, PASSPHRASE), PASSPHRASE)


def test_a_short_passphrase_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected 12 characters or more, got 11"):
        encrypt_backup(KEPT, "12345678901")


def test_a_folder_comes_back_for_this_account_alone(tmp_path: Path) -> None:
    write_folder(tmp_path / "keys", KEPT.files)
    assert read_folder(tmp_path / "keys") == KEPT.files
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "keys").rglob("*")}
    assert modes == {"keyring.json": 0o600, "roots": 0o700, "root.pem": 0o600}
    with pytest.raises(ConfigError, match="expected to write it"):
        write_folder(tmp_path / "keys", KEPT.files)
