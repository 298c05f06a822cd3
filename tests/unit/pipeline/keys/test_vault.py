"""Secrets that a keyring derives: one for each purpose and key, and none for a worker of one tenant."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.keys.vault import FileKeyring, GrantedKeys


def keyring(path: Path, current: str, **keys: bytes) -> FileKeyring:
    named = {name: base64.b64encode(key).decode() for name, key in keys.items()}
    path.write_text(json.dumps({"current": current, "keys": named}))
    return FileKeyring(path)


def test_each_key_gives_its_own_secret_for_each_purpose_and_the_current_ones_first(tmp_path: Path) -> None:
    before = keyring(tmp_path / "before", "k1", k1=b"1" * 32)
    after = keyring(tmp_path / "after", "k2", k1=b"1" * 32, k2=b"2" * 32)
    (one,) = before.derive("a")
    two, kept = after.derive("a")
    assert kept == one
    assert len({one, two, *before.derive("b"), *after.derive("b")}) == 4
    assert {len(secret) for secret in (one, two)} == {32}


def test_the_secret_is_that_of_rfc_5869_without_a_salt(tmp_path: Path) -> None:
    secrets = keyring(tmp_path / "keyring", "k1", k1=bytes([0x0B]) * 22).derive("")
    assert secrets[0].hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"


def test_a_worker_of_one_tenant_derives_nothing(tmp_path: Path) -> None:
    path = tmp_path / "granted"
    GrantedKeys.write(path, keyring(tmp_path / "keyring", "k1", k1=b"1" * 32), {})
    with pytest.raises(ConfigError, match="derives no secrets"):
        GrantedKeys(path).derive("a")
