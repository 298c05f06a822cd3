"""Keys are replaced: what opens afterwards, what is refused, and what the keyring's file holds at each point."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, Malformed
from pipeline.events.control import Control, Deployment, Key, Principal
from pipeline.events.wrapped import MAX_FORMER, secret_id
from pipeline.keys import encryption
from pipeline.keys.keyring import FileKeyring, GrantedKeys, NotGranted, WrapAltered
from pipeline.keys.rotation import (
    add_keyring_key,
    drop_keyring_keys,
    forgotten,
    prepared,
    rewrapped_key,
    rewrapped_tenant,
    rotated,
    use_keyring_key,
)
from pipeline.keys.vault import UnknownKey, Vault
from tests.unit.pipeline.keys.key_world import BOUND, KeyWorld

DAY_MS = 86_400_000


@pytest.fixture
def world(tmp_path: Path) -> KeyWorld:
    return KeyWorld(tmp_path / "keyring.json")


def test_texts_of_every_former_data_key_open_and_the_newest_seals(world: KeyWorld) -> None:
    sealed = [world.seal()]
    for n in range(MAX_FORMER):
        world.put(rotated(world.kms, world.tenant, "data", n))
        sealed.append(world.seal())
    assert len({encryption.named_key(each) for each in sealed}) == MAX_FORMER + 1
    assert [world.open(each) for each in sealed] == [b"text"] * len(sealed)
    assert encryption.named_key(sealed[-1]) == secret_id(world.tenant.data_key)
    with pytest.raises(ConfigError, match=f"forget data acme {encryption.named_key(sealed[0])}"):
        rotated(world.kms, world.tenant, "data", MAX_FORMER)


def test_a_text_from_before_keys_had_ids_opens_after_two_rotations(world: KeyWorld) -> None:
    bare = world.kms.wrap(b"d" * 32, "data/acme")
    world.put(world.tenant.model_copy(update={"data_key": bare}))
    sealed = world.seal()
    assert sealed[0] == encryption.SUITE
    for n in (1, 2):
        world.put(rotated(world.kms, world.tenant, "data", n))
    assert world.open(sealed) == b"text"
    assert world.seal()[0] == encryption.SUITE_NAMED
    former = world.tenant.former_data_keys[0]
    assert (secret_id(former.secret), former.retired) == (encryption.fingerprint(b"d" * 32), 1)


def test_a_reader_behind_says_that_it_does_not_know_the_key(world: KeyWorld) -> None:
    behind = world.behind()
    world.put(rotated(world.kms, world.tenant, "data", 1))
    sealed = world.seal()
    assert not behind.vault.knows("acme", sealed)
    with pytest.raises(UnknownKey):
        behind.vault.decrypt("acme", *BOUND, sealed)
    asyncio.run(behind.caught_up())
    assert behind.vault.knows("acme", sealed)
    assert behind.vault.decrypt("acme", *BOUND, sealed) == b"text"


def test_a_forgotten_key_opens_nothing_any_more_even_what_was_opened_before(world: KeyWorld) -> None:
    sealed, content = world.seal(), os.urandom(32)
    wrap = encryption.wrap_content_key(base64.b64decode(world.tenant.hpke_public), content)
    bound = encryption.associated_data("g1", "acme", *BOUND)
    direct = encryption.encrypt_text(content, bound, b"direct", os.urandom)
    for kind in ("data", "hpke"):
        world.put(rotated(world.kms, world.tenant, kind, 1))
    assert (world.open(sealed), world.open(direct, wrap)) == (b"text", b"direct")
    former = (world.tenant.former_data_keys[0], world.tenant.former_hpke_keys[0])
    for kind, each in zip(("data", "hpke"), former, strict=True):
        world.put(forgotten(world.tenant, kind, secret_id(each.secret)))  # type: ignore[arg-type]
    for args in ((sealed,), (direct, wrap)):
        with pytest.raises(Malformed):
            world.open(*args)
    with pytest.raises(ConfigError, match="known: none"):
        forgotten(world.tenant, "data", secret_id(former[0].secret))


def test_a_new_hpke_key_is_told_and_both_open(world: KeyWorld) -> None:
    publics, contents = [], []
    for n in range(3):
        public = base64.b64decode(world.tenant.hpke_public)
        content = os.urandom(32)
        publics.append(public)
        contents.append((content, encryption.wrap_content_key(public, content)))
        world.put(rotated(world.kms, world.tenant, "hpke", n))
    assert len(set(publics)) == 3
    bound = encryption.associated_data("g1", "acme", *BOUND)
    for content, wrap in contents:
        assert world.open(encryption.encrypt_text(content, bound, b"x", os.urandom), wrap) == b"x"


def test_a_prepared_key_opens_before_anything_is_sealed_under_it(world: KeyWorld) -> None:
    before = secret_id(world.tenant.data_key)
    world.put(prepared(world.kms, world.tenant, "data"))
    assert prepared(world.kms, world.tenant, "data") == world.tenant
    assert encryption.named_key(world.seal()) == before
    ahead = rotated(world.kms, world.tenant, "data", 1)
    assert secret_id(ahead.data_key) == secret_id(world.tenant.next_data_key)
    assert ahead.next_data_key == ""
    writer = Control()
    writer.apply(0, Deployment(generation="g1", partitions=4))
    writer.apply(1, ahead)
    assert world.open(Vault(world.kms, writer).encrypt("acme", *BOUND, b"text")) == b"text"


def test_a_webhook_is_signed_with_both_secrets_until_the_overlap_is_over(world: KeyWorld) -> None:
    first = world.vault.webhook_secret("acme")
    world.put(rotated(world.kms, world.tenant, "webhook", 1000, overlap_ms=DAY_MS))
    second = world.vault.webhook_secret("acme")
    assert world.vault.webhook_secrets("acme", 1001) == (second, first)
    assert world.vault.webhook_secrets("acme", 1000 + DAY_MS) == (second,)
    world.put(rotated(world.kms, world.tenant, "webhook", 1000 + DAY_MS, overlap_ms=DAY_MS))
    assert len(world.tenant.former_webhook_secrets) == 1


def test_canaries_of_former_keys_are_known(world: KeyWorld) -> None:
    first = world.vault.canary("acme")
    world.put(rotated(world.kms, world.tenant, "data", 1))
    second = world.vault.canary("acme")
    assert first != second
    assert world.vault.canaries("acme") == (second, first)


def test_a_bound_secret_opens_for_no_other_key_principal_or_tenant(world: KeyWorld) -> None:
    for name, tenant in (("app", "acme"), ("other", "acme"), ("far", "beta")):
        world.put(Principal(id=name, tenant=tenant))
    loose = Key(id="k1", principal="app", secret=world.kms.wrap(b"s" * 32, "key/k1"))
    key = rewrapped_key(world.kms, loose, "acme", world.kms.current)
    assert key.bound
    assert rewrapped_key(world.kms, key, "acme", world.kms.current) is key
    world.put(key)
    assert world.vault.key_secret("k1") == b"s" * 32
    for stolen in (
        key.model_copy(update={"id": "k2"}),
        key.model_copy(update={"id": "k2", "principal": "other"}),
        key.model_copy(update={"id": "k2", "principal": "far"}),
    ):
        world.put(stolen)
        with pytest.raises(WrapAltered):
            world.vault.key_secret("k2")
    for principal in ("other", "far"):
        world.put(key.model_copy(update={"principal": principal}))
        with pytest.raises(WrapAltered):
            world.vault.key_secret("k1")


def test_a_keyring_key_is_known_before_it_wraps_and_goes_when_nothing_needs_it(world: KeyWorld) -> None:
    sealed, reader = world.seal(), Vault(FileKeyring(world.path), world.control)
    assert reader.decrypt("acme", *BOUND, sealed) == b"text"
    name = add_keyring_key(world.path)
    assert add_keyring_key(world.path) == name
    assert json.loads(world.path.read_text())["current"] == "k1"
    use_keyring_key(world.path, name, 1000)
    kms = FileKeyring(world.path)
    world.put(rewrapped_tenant(kms, world.tenant, kms.current))
    assert rewrapped_tenant(kms, world.tenant, kms.current) is world.tenant
    assert reader.decrypt("acme", *BOUND, sealed) == b"text", "a process from before reads the file again"
    assert drop_keyring_keys(world.path, frozenset({"k1"}), 10_000, 1) == []
    assert drop_keyring_keys(world.path, frozenset(), 10_000, 20_000) == []
    assert drop_keyring_keys(world.path, frozenset(), 21_000, 20_000) == ["k1"]
    assert Vault(FileKeyring(world.path), world.control).decrypt("acme", *BOUND, sealed) == b"text"
    assert FileKeyring(world.path).names == (name,)
    assert world.path.stat().st_mode & 0o777 == 0o600


def test_a_keyring_without_the_key_says_so(world: KeyWorld, tmp_path: Path) -> None:
    other = FileKeyring.create(tmp_path / "other.json")
    use_keyring_key(world.path, add_keyring_key(world.path), 1)
    with pytest.raises(ConfigError, match="keyring has no key"):
        other.unwrap(FileKeyring(world.path).wrap(b"x", "a"), "a")
    with pytest.raises(ConfigError, match="--prepare"):
        use_keyring_key(world.path, "k9", 1)


def test_a_granted_secret_opens_however_it_was_wrapped_since_and_a_renewed_file_is_read(
    world: KeyWorld, tmp_path: Path
) -> None:
    path = tmp_path / "granted.json"
    GrantedKeys.write(path, world.kms, {"data/acme": (world.tenant.data_key,)})
    granted = GrantedKeys(path)
    worker = Vault(granted, world.control)
    sealed = world.seal()
    use_keyring_key(world.path, add_keyring_key(world.path), 1)
    kms = FileKeyring(world.path)
    world.put(rewrapped_tenant(kms, world.tenant, kms.current))
    assert worker.decrypt("acme", *BOUND, sealed) == b"text"
    world.put(rotated(kms, world.tenant, "data", 2))
    sealed = Vault(kms, world.control).encrypt("acme", *BOUND, b"later")
    with pytest.raises(NotGranted):
        worker.decrypt("acme", *BOUND, sealed)
    GrantedKeys.write(path, kms, {"data/acme": (world.tenant.data_key, world.tenant.former_data_keys[0].secret)})
    assert worker.decrypt("acme", *BOUND, sealed) == b"later"
    assert len(worker.canaries("acme")) == 2
