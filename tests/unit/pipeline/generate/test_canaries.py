"""The canaries of others: known as tenants come, and only those whose keys a worker holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.events.control import Control, Plan, Tenant
from pipeline.events.messages import Work
from pipeline.generate.canaries import Canaries
from pipeline.generate.guard import guard_of
from pipeline.keys.vault import FileKeyring, GrantedKeys, Vault, tenant_keys

PIECES = 5
WORK = Work("g-0-1", 0, "acme", "acme", "app", "r1", 0, 10, system_prompt="release")


@pytest.fixture
def keyring(tmp_path: Path) -> FileKeyring:
    return FileKeyring.create(tmp_path / "keyring.json")


@pytest.fixture
def control(keyring: FileKeyring) -> Control:
    made = Control()
    for name in ("acme", "beta"):
        add(made, keyring, name)
    return made


def add(control: Control, keyring: FileKeyring, name: str) -> None:
    tenant = Tenant(id=name, organisation=name, plan="free", **tenant_keys(keyring, name))
    control.apply(control.version + 1, tenant)


def stops(canaries: Canaries, said: str) -> bool:
    """Whether an answer of acme with ``said`` in it ends there."""
    guard = guard_of(WORK, foreign=canaries.others("acme"))
    for at in range(0, len(said), PIECES):
        guard.push(said[at : at + PIECES])
    guard.flush()
    return guard.verdict == "withhold"


def test_every_other_tenants_is_found_and_ones_own_is_not(control: Control, keyring: FileKeyring) -> None:
    vault = Vault(keyring, control)
    canaries = Canaries(control, vault)
    assert not stops(canaries, f"It is {vault.canary('acme')}.")
    assert stops(canaries, f"It is {vault.canary('beta')}.")
    assert not stops(canaries, "It is nothing of anybody's, however long the answer that says so may be.")


def test_tenants_that_come_are_known_at_once_and_replaced_keys_give_others(
    control: Control, keyring: FileKeyring
) -> None:
    canaries = Canaries(control, Vault(keyring, control))
    assert not stops(canaries, "nothing yet")
    before = Vault(keyring, control).canary("beta")
    for name in ("gamma", "beta"):
        add(control, keyring, name)
    control.apply(control.version + 1, Plan(id="free"))
    fresh = Vault(keyring, control)
    assert fresh.canary("beta") != before
    for name in ("gamma", "beta"):
        assert stops(canaries, f"It is {fresh.canary(name)}.")


def test_a_tenants_own_worker_knows_of_no_other(control: Control, keyring: FileKeyring, tmp_path: Path) -> None:
    own = control.tenants["acme"]
    GrantedKeys.write(tmp_path / "granted.json", keyring, {"data/acme": own.data_key})
    canaries = Canaries(control, Vault(GrantedKeys(tmp_path / "granted.json"), control))
    assert canaries.others("acme") is None


def test_alone_nothing_is_foreign(keyring: FileKeyring) -> None:
    control = Control()
    add(control, keyring, "acme")
    assert Canaries(control, Vault(keyring, control)).others("acme") is None
