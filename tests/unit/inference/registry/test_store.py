"""The registry: versions rise, shares decide, revoked ones stay out, bytes leave by role and budget."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.registry.content import MANIFEST_FILE
from inference.registry.dsse import Trust
from inference.registry.encrypted import EncryptedFolder
from inference.registry.keys import ED25519, SigningKey
from inference.registry.listing import BrokenVersion, StoredVersion
from inference.registry.opening import Freshness, open_model
from inference.registry.refusal import ModelRefused
from inference.registry.store import ModelRegistry
from inference.registry.wrapping import TenantRecipient, Worker, WorkerAddress
from tests.unit.inference.registry.registry_site import WEIGHTS, Clock, FakeKms

Release = Callable[..., Path]


def refused(code: str, act: Callable[[], object]) -> None:
    with pytest.raises(ModelRefused) as refusal:
        act()
    assert refusal.value.code == code, str(refusal.value)


def test_versions_rise_and_are_kept_encrypted(registry: ModelRegistry, release: Release, kms: FakeKms) -> None:
    operator, acme, other = TenantRecipient(kms), TenantRecipient(kms, "acme"), TenantRecipient(kms, "other")
    folder = release(2)
    registry.add(folder, [operator, acme])
    refused("rolled_back", lambda: registry.add(folder, [operator]))
    refused("rolled_back", lambda: registry.add(release(1), [operator]))
    place = registry.home / "models" / "tiny" / "2"
    plain = (folder / WEIGHTS).read_bytes()
    assert plain[1000:1064] not in (place / f"{WEIGHTS}.sealed").read_bytes()
    for holder in (operator, acme):
        with registry.open("tiny", 2, holder) as model:
            assert model.file(WEIGHTS).read() == plain
    refused("key", lambda: registry.open("tiny", 2, other))
    refused("unknown", lambda: registry.open("tiny", 3, operator))
    refused("unknown", lambda: registry.open("../../etc", 3, operator))
    (held,) = registry.list_versions()
    assert isinstance(held, StoredVersion)
    assert (held.manifest.version, held.share, held.status) == (2, 0, "held")


def test_a_version_at_rest_cannot_be_altered_or_swapped(
    registry: ModelRegistry, release: Release, kms: FakeKms
) -> None:
    operator = TenantRecipient(kms)
    for version in (1, 2):
        registry.add(release(version), [operator])
    models = registry.home / "models" / "tiny"
    shutil.copytree(models / "1", models / "3")
    refused("altered", lambda: registry.open("tiny", 3, operator))
    shutil.copy(models / "1" / f"{WEIGHTS}.sealed", models / "2" / f"{WEIGHTS}.sealed")
    refused("sealed", lambda: registry.open("tiny", 2, operator))
    (models / "1" / "more.json").write_text("{}")
    refused("extra_file", lambda: registry.open("tiny", 1, operator))
    assert [event.alarm for event in registry.events()[-3:]] == [True, True, False]


def test_traffic_goes_where_it_was_rolled_and_back(registry: ModelRegistry, release: Release, kms: FakeKms) -> None:
    operator = TenantRecipient(kms)
    for version in (1, 2, 3):
        registry.add(release(version), [operator])
    refused("rollout", lambda: registry.rollouts.roll("tiny", {1: 5000}))
    refused("unknown", lambda: registry.rollouts.roll("tiny", {9: 10_000}))
    refused("rollout", lambda: registry.rollouts.rollback("tiny"))
    registry.rollouts.roll("tiny", {2: 10_000})
    registry.rollouts.roll("tiny", {2: 9000, 3: 1000})
    registry.rollouts.roll("tiny", {3: 10_000})
    refused("rolled_back", lambda: registry.open("tiny", 2, operator))
    refused("rolled_back", lambda: registry.rollouts.roll("tiny", {1: 10_000}))
    assert registry.rollouts.rollback("tiny") == {2: 9000, 3: 1000} == registry.rollouts.shares("tiny")
    registry.open("tiny", 2, operator).close()
    refused("rollout", lambda: registry.rollouts.rollback("tiny"))


def test_nobody_goes_back_to_what_has_expired(
    registry: ModelRegistry, release: Release, kms: FakeKms, clock: Clock
) -> None:
    registry.add(release(1, expires=clock.now // 1000 + 60), [TenantRecipient(kms)])
    registry.add(release(2), [TenantRecipient(kms)])
    for version in (1, 2):
        registry.rollouts.roll("tiny", {version: 10_000})
    clock.now += 61_000
    refused("expired", lambda: registry.rollouts.rollback("tiny"))
    assert registry.rollouts.shares("tiny") == {2: 10_000}


def test_a_revoked_version_is_served_no_more_even_by_an_older_list(
    registry: ModelRegistry, release: Release, kms: FakeKms, keys: dict[str, SigningKey]
) -> None:
    operator, signers = TenantRecipient(kms), [key for name, key in keys.items() if name != "ecdsa-p256"]
    for version in (1, 2):
        registry.add(release(version), [operator])
    registry.rollouts.roll("tiny", {1: 9000, 2: 1000})
    registry.rollouts.revoke("tiny", 9, "never made", signers)
    older = (registry.home / "revocations.json").read_bytes()
    refused("signature", lambda: registry.rollouts.revoke("tiny", 2, "poisoned", [keys[ED25519]]))
    registry.rollouts.revoke("tiny", 2, "poisoned", signers)
    assert registry.rollouts.shares("tiny") == {1: 10_000}
    refused("revoked", lambda: registry.open("tiny", 2, operator))
    refused("revoked", lambda: registry.rollouts.roll("tiny", {2: 10_000}))
    assert [registry.version("tiny", version).status for version in (1, 2)] == ["served", "revoked"]
    (registry.home / "revocations.json").write_bytes(older)
    refused("rolled_back", lambda: registry.open("tiny", 1, operator))
    (registry.home / "revocations.json").unlink()
    refused("state", lambda: registry.open("tiny", 1, operator))


def test_a_folder_that_was_served_pins_its_version(registry: ModelRegistry, release: Release, clock: Clock) -> None:
    first, second = release(1), release(2)
    registry.open_folder(first).close()
    registry.open_folder(second).close()
    refused("rolled_back", lambda: registry.open_folder(first))
    clock.now += 2_000_000_000
    refused("expired", lambda: registry.open_folder(second))
    (registry.home / "state.json").unlink()
    (registry.home / "models").mkdir()
    refused("state", lambda: registry.open_folder(second))


ACCESS = '[identity.alice]\nroles = ["model:export"]\ndaily_bytes = {}\n'


def test_bytes_leave_by_role_and_budget_and_open_for_that_worker_alone(
    registry: ModelRegistry, release: Release, kms: FakeKms, trust: Trust, clock: Clock, tmp_path: Path
) -> None:
    operator, worker = TenantRecipient(kms), Worker.generate()
    worker.write(tmp_path / "worker.pem")
    address = WorkerAddress.read(tmp_path / "worker.pem.pub")
    assert (tmp_path / "worker.pem").stat().st_mode & 0o077 == 0
    folder = release(1)
    weights = (folder / WEIGHTS).read_bytes()
    registry.add(folder, [operator])
    refused("role", lambda: registry.exports.export("tiny", 1, operator, address, tmp_path / "out"))
    (registry.home / "access.toml").write_text(ACCESS.format(2_000_000))
    assert registry.exports.export("tiny", 1, operator, address, tmp_path / "out").alarm is False
    refused("budget", lambda: registry.exports.export("tiny", 1, operator, address, tmp_path / "again"))
    assert not (tmp_path / "again").exists()
    clock.now += 86_400_000
    (registry.home / "access.toml").write_text(ACCESS.format(1_300_000))
    assert registry.exports.export("tiny", 1, operator, address, tmp_path / "later").alarm is True
    freshness = Freshness(0)
    with open_model(EncryptedFolder(tmp_path / "out", Worker.read(tmp_path / "worker.pem")), trust, freshness) as model:
        assert model.file(WEIGHTS).read() == weights
    refused("key", lambda: open_model(EncryptedFolder(tmp_path / "out", Worker.generate()), trust, freshness))
    refused("key", lambda: open_model(EncryptedFolder(tmp_path / "out", operator), trust, freshness))
    exports = [event for event in registry.events() if event.act == "export"]
    assert [(event.outcome, event.alarm) for event in exports] == [
        ("refused", False),
        ("done", False),
        ("refused", True),
        ("done", True),
    ]
    assert exports[1].to == address.name
    assert exports[1].count > 1_200_000


def test_the_record_shows_what_was_changed_in_it(registry: ModelRegistry, release: Release, kms: FakeKms) -> None:
    registry.add(release(1), [TenantRecipient(kms)])
    registry.rollouts.roll("tiny", {1: 10_000})
    refused("unknown", lambda: registry.open("tiny", 7, TenantRecipient(kms)))
    events = registry.events()
    assert [(e.act, e.outcome, e.reason) for e in events] == [
        ("add", "done", ""),
        ("roll", "done", "1=10000"),
        ("load", "refused", "unknown"),
    ]
    assert {event.actor for event in events} == {"alice"}
    path = registry.home / "events.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"sequence": 4, "cut by a crash')
    registry.rollouts.roll("tiny", {1: 10_000})
    assert [event.sequence for event in registry.events()] == [1, 2, 3, 4]
    first, rest = whole.split(b"\n", 1)
    for changed in (whole.replace(b"alice", b"bobby", 1), rest, first + whole):
        path.write_bytes(changed)
        refused("state", registry.events)


def test_an_operator_s_typing_error_in_the_access_file_is_told(registry: ModelRegistry, release: Release) -> None:
    kms = FakeKms()
    registry.add(release(1), [TenantRecipient(kms)])
    (registry.home / "access.toml").write_text('[identity.alice]\nroles = ["admin"]\n')
    worker = Worker.generate()
    refused(
        "role", lambda: registry.exports.export("tiny", 1, TenantRecipient(kms), worker.address, registry.home / "out")
    )


def test_one_version_that_does_not_hold_hides_no_other(
    registry: ModelRegistry, release: Release, kms: FakeKms, keys: dict[str, SigningKey]
) -> None:
    for version in (1, 2):
        registry.add(release(version), [TenantRecipient(kms)])
    models = registry.home / "models" / "tiny"
    shutil.copytree(models / "1", models / "3")
    envelope = (models / "2" / MANIFEST_FILE).read_bytes()
    (models / "2" / MANIFEST_FILE).write_bytes(envelope.replace(b'"sig": "', b'"sig": "AAAA', 1))
    first, second, third = registry.list_versions("tiny")
    assert isinstance(first, StoredVersion)
    assert (first.manifest.version, first.status) == (1, "held")
    assert isinstance(second, BrokenVersion)
    assert (second.version, second.refusal.code) == (2, "signature")
    assert isinstance(third, BrokenVersion)
    assert (third.version, third.refusal.code) == (3, "altered")
    assert registry.version("tiny", 1) == first
    refused("signature", lambda: registry.version("tiny", 2))
    refused("altered", lambda: registry.rollouts.roll("tiny", {3: 10_000}))
    refused("unknown", lambda: registry.version("tiny", 4))


def test_an_export_that_cannot_be_written_costs_no_bytes(
    registry: ModelRegistry, release: Release, kms: FakeKms, tmp_path: Path
) -> None:
    registry.add(release(1), [TenantRecipient(kms)])
    (registry.home / "access.toml").write_text(ACCESS.format(2_000_000))
    address = Worker.generate().address
    with pytest.raises(FileExistsError, match="to be made"):
        registry.exports.export("tiny", 1, TenantRecipient(kms), address, tmp_path)
    assert (registry.events()[-1].outcome, registry.events()[-1].count) == ("failed", 0)
    registry.exports.export("tiny", 1, TenantRecipient(kms), address, tmp_path / "out")
    refused("budget", lambda: registry.exports.export("tiny", 1, TenantRecipient(kms), address, tmp_path / "again"))


def test_what_was_revoked_is_known_by_model(registry: ModelRegistry, keys: dict[str, SigningKey]) -> None:
    signers = [key for name, key in keys.items() if name != "ecdsa-p256"]
    assert registry.rollouts.revoked("tiny") == frozenset()
    registry.rollouts.revoke("tiny", 2, "poisoned", signers)
    registry.rollouts.revoke("other", 3, "poisoned", signers)
    assert registry.rollouts.revoked("tiny") == {2}


def test_what_a_killed_add_has_left_goes_with_the_next_one(
    registry: ModelRegistry, release: Release, kms: FakeKms, clock: Clock
) -> None:
    registry.add(release(1), [TenantRecipient(kms)])
    models = registry.home / "models" / "tiny"
    for name, age in ((".2.77", 100_000), (".2.78", 100)):
        shutil.copytree(models / "1", models / name)
        os.utime(models / name, (clock.now // 1000 - age,) * 2)
    os.utime(models / "1", (0, 0))
    registry.add(release(2), [TenantRecipient(kms)])
    assert sorted(path.name for path in models.iterdir()) == [".2.78", "1", "2"]
