"""Sealed texts open only with their key, in their place, unaltered."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, Malformed
from pipeline.events.control import Control, Deployment, Tenant
from pipeline.keys import encryption
from pipeline.keys.vault import FileKeyring, Vault, tenant_keys

KEY = b"k" * 32
TEXT = b"a prompt with a canary"
BOUND = encryption.associated_data("g1", "acme", "request", "messages", "r1")


def test_every_single_byte_matters() -> None:
    sealed = encryption.encrypt_text(KEY, BOUND, TEXT, os.urandom)
    assert len(sealed) == len(TEXT) + encryption.OVERHEAD
    assert encryption.decrypt_text(KEY, BOUND, sealed) == TEXT
    for at in range(len(sealed)):
        altered = bytearray(sealed)
        altered[at] ^= 1
        with pytest.raises(Malformed):
            encryption.decrypt_text(KEY, BOUND, bytes(altered))


def test_other_requests_and_tenants_cannot_open_it() -> None:
    sealed = encryption.encrypt_text(KEY, BOUND, TEXT, os.urandom)
    for other in (("g1", "acme", "request", "messages", "r2"), ("g1", "beta", "request", "messages", "r1")):
        with pytest.raises(Malformed):
            encryption.decrypt_text(KEY, encryption.associated_data(*other), sealed)


def test_a_direct_producer_needs_the_public_key_only(tmp_path: Path) -> None:
    kms = FileKeyring.create(tmp_path / "keyring.json")
    control = Control()
    control.apply(0, Deployment(generation="g1", partitions=4))
    keys = tenant_keys(kms, "acme")
    control.apply(1, Tenant(id="acme", organisation="acme", plan="free", **keys))
    content_key = os.urandom(32)
    wrap = encryption.wrap_content_key(base64.b64decode(keys["hpke_public"]), content_key)
    sealed = encryption.encrypt_text(content_key, BOUND, TEXT, os.urandom)
    vault = Vault(kms, control)
    assert vault.decrypt("acme", "request", "messages", "r1", sealed, wrap) == TEXT
    with pytest.raises(Malformed):
        vault.decrypt("acme", "request", "messages", "r1", sealed)


def test_the_keyring_is_private_and_another_one_opens_nothing(tmp_path: Path) -> None:
    mine, other = (FileKeyring.create(tmp_path / name) for name in ("a.json", "b.json"))
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o600
    wrapped = mine.wrap(b"secret", "key/k1")
    assert mine.unwrap(wrapped, "key/k1") == b"secret"
    for keyring, context in ((other, "key/k1"), (mine, "key/k2")):
        with pytest.raises(ConfigError, match="does not open"):
            keyring.unwrap(wrapped, context)
