"""Keys come back whole or not at all, as the deployment of before or as one that follows it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.config import Keys, Settings
from pipeline.control import deployment
from pipeline.errors import ConfigError
from pipeline.events.codec import encode
from pipeline.events.control import AnyDocument, Tenant
from pipeline.events.signed_control import ControlFold
from pipeline.events.signed_document import sign
from pipeline.keys.backup import Backup, KeptRecord, read_folder
from pipeline.keys.signing import load_signer
from pipeline.keys.vault import FileKeyring, tenant_keys
from pipeline.wiring.backup import folded, restore_keys


def made(home: Path) -> Backup:
    """A deployment with one tenant, and its backup."""
    settings = Settings(keys=Keys(home=home))
    keyring = FileKeyring.create(settings.keys.keyring)
    pin = deployment.mint(settings, ("key",))
    first = (home / "deployment.json").read_bytes()
    fold = ControlFold(pin)
    fold.read(0, first)
    tenant: AnyDocument = Tenant(id="acme", organisation="acme", plan="team", **tenant_keys(keyring, "acme"))
    operator = load_signer(settings.keys.operators / "operator.pem")
    second = encode(sign(fold.control.generation, tenant, "", [operator]))
    records = (KeptRecord(1, b"", first), KeptRecord(2, b"", second))
    return Backup(1, "0", fold.control.generation, pin, read_folder(home), b"", records, (5,))


def first_document(home: Path) -> ControlFold:
    fold = ControlFold((home / "deployment").read_text())
    fold.read(0, (home / "deployment.json").read_bytes())
    assert fold.signed
    return fold


def test_on_the_same_log_the_pin_is_that_of_before(tmp_path: Path) -> None:
    backup = made(tmp_path / "keys")
    shutil.rmtree(tmp_path / "keys")
    assert restore_keys(tmp_path / "keys", backup, same_log=True) == backup.deployment
    assert read_folder(tmp_path / "keys") == backup.files
    assert folded(backup).tenants.keys() == {"acme"}


def test_on_other_brokers_a_generation_follows_which_no_other_restore_has(tmp_path: Path) -> None:
    backup = made(tmp_path / "keys")
    pins = {restore_keys(tmp_path / name, backup) for name in ("one", "two")}
    assert len({*pins, backup.deployment}) == 3
    for name in ("one", "two"):
        document = first_document(tmp_path / name).control.require_deployment()
        before = folded(backup).require_deployment()
        assert document.former == (backup.generation,)
        assert (document.roots, document.operators, document.log_keys) == (
            before.roots,
            before.operators,
            before.log_keys,
        )
        assert (tmp_path / name / "keyring.json").read_bytes() == (tmp_path / "keys" / "keyring.json").read_bytes()


def test_nothing_is_overwritten_and_nothing_is_left_of_what_did_not_fit(tmp_path: Path) -> None:
    backup = made(tmp_path / "keys")
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        restore_keys(tmp_path / "keys", backup)
    another = made(tmp_path / "another")
    theirs = {file.path: file for file in another.files}
    mixed = tuple(theirs["keyring.json"] if file.path == "keyring.json" else file for file in backup.files)
    swapped = Backup(1, "0", backup.generation, backup.deployment, mixed, b"", backup.control, (5,))
    with pytest.raises(ConfigError, match="does not open"):
        restore_keys(tmp_path / "fresh", swapped)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["another", "keys"]


def test_a_new_generation_needs_the_roots(tmp_path: Path) -> None:
    backup = made(tmp_path / "keys")
    without = tuple(file for file in backup.files if not file.path.startswith("roots/"))
    offline = Backup(1, "0", backup.generation, backup.deployment, without, b"", backup.control, (5,))
    with pytest.raises(ConfigError, match="expected 1 root keys to sign a new generation, got 0"):
        restore_keys(tmp_path / "fresh", offline)
    pin = restore_keys(tmp_path / "fresh", offline, tmp_path / "keys" / "roots")
    assert first_document(tmp_path / "fresh").pin == pin
    assert not (tmp_path / "fresh" / "roots").exists()


def test_a_backup_of_another_deployments_control_is_refused(tmp_path: Path) -> None:
    backup = made(tmp_path / "keys")
    foreign = Backup(1, "0", backup.generation, "0" * 64, backup.files, b"", backup.control, (5,))
    with pytest.raises(ConfigError, match="not that of its deployment"):
        restore_keys(tmp_path / "fresh", foreign)
