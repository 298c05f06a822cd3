"""What ships goes into the registry once; a stolen registry is of no use; the record is passed on whole, in order."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.registry.dsse import Trust
from inference.registry.event_forwarder import Forwarder
from inference.registry.install import install
from inference.registry.keys import SigningKey
from inference.registry.refusal import ModelRefused
from inference.registry.store import ModelRegistry
from inference.registry.traffic import WHOLE
from inference.registry.wrapping import TenantRecipient, Worker, create_worker
from tests.unit.inference.registry.registry_site import WEIGHTS, Clock, FakeKms

Release = Callable[..., Path]
WORKER = Worker.generate()


def acts(registry: ModelRegistry) -> list[tuple[str, str, int]]:
    return [(event.act, event.outcome, event.version) for event in registry.events()]


def test_the_first_start_adds_and_rolls_out_and_the_second_does_nothing(
    registry: ModelRegistry, trust: Trust, release: Release, kms: FakeKms
) -> None:
    folder = release(1)
    for _ in range(2):
        assert install(registry, trust, folder, [TenantRecipient(kms), WORKER.address]) == "tiny"
    assert registry.rollouts.shares("tiny") == {1: WHOLE}
    assert acts(registry) == [("add", "done", 1), ("roll", "done", 1)]
    for holder in (TenantRecipient(kms), WORKER):
        with registry.open("tiny", 1, holder) as opened:
            assert opened.file(WEIGHTS).read() == (folder / WEIGHTS).read_bytes()


def test_a_later_release_takes_over_and_can_be_rolled_back(
    registry: ModelRegistry, trust: Trust, release: Release, kms: FakeKms
) -> None:
    for version in (1, 2):
        install(registry, trust, release(version), [TenantRecipient(kms)])
    assert registry.rollouts.shares("tiny") == {2: WHOLE}
    assert registry.rollouts.rollback("tiny") == {1: WHOLE}
    install(registry, trust, release(3), [TenantRecipient(kms)])
    assert registry.rollouts.shares("tiny") == {3: WHOLE}


def test_shares_that_an_operator_set_are_left_alone(
    registry: ModelRegistry, trust: Trust, release: Release, kms: FakeKms
) -> None:
    first = release(1)
    install(registry, trust, first, [TenantRecipient(kms)])
    registry.add(release(2), [TenantRecipient(kms)])
    registry.rollouts.roll("tiny", {1: 2_500, 2: 7_500})
    install(registry, trust, first, [TenantRecipient(kms)])
    assert registry.rollouts.shares("tiny") == {1: 2_500, 2: 7_500}


def test_a_version_that_was_served_from_a_folder_can_be_added(
    registry: ModelRegistry, trust: Trust, release: Release, kms: FakeKms
) -> None:
    folder = release(4)
    registry.open_folder(folder).close()
    install(registry, trust, folder, [TenantRecipient(kms)])
    assert registry.versions("tiny") == [4]
    with pytest.raises(ModelRefused, match="above 4"):
        registry.add(folder, [TenantRecipient(kms)])


def test_a_tampered_release_is_not_taken_in(
    registry: ModelRegistry, trust: Trust, release: Release, kms: FakeKms
) -> None:
    folder = release(1)
    raw = bytearray((folder / WEIGHTS).read_bytes())
    raw[-1] ^= 1
    (folder / WEIGHTS).write_bytes(raw)
    with pytest.raises(ModelRefused, match="altered"):
        install(registry, trust, folder, [TenantRecipient(kms)])
    assert registry.versions("tiny") == []


def test_a_stolen_registry_is_of_no_use(
    registry: ModelRegistry, trust: Trust, release: Release, kms: FakeKms, clock: Clock, tmp_path: Path
) -> None:
    """A copy of the whole folder, and even the code: without a key of a recipient not one window of the weights."""
    folder = release(1)
    install(registry, trust, folder, [WORKER.address])
    stolen = shutil.copytree(registry.home, tmp_path / "stolen")
    weights = (folder / WEIGHTS).read_bytes()
    windows = [weights[at : at + 24] for at in range(0, len(weights) - 24, 4099)]
    for path in stolen.rglob("*"):
        if path.is_file():
            held = path.read_bytes()
            assert not any(window in held for window in windows), path
    thief = ModelRegistry(stolen, trust, actor="thief", clock=clock)
    for holder in (Worker.generate(), TenantRecipient(kms)):
        with pytest.raises(ModelRefused, match="got none"):
            thief.open("tiny", 1, holder)
    # nor does putting another's name on the wrapped key help
    envelope = next(stolen.rglob("keys.json"))
    other = Worker.generate()
    envelope.write_text(envelope.read_text().replace(WORKER.name, other.name))
    with pytest.raises(ModelRefused, match="does not open"):
        thief.open("tiny", 1, other)


def test_a_grant_lets_one_more_in_and_is_on_record_once(
    registry: ModelRegistry, release: Release, kms: FakeKms
) -> None:
    registry.add(release(1), [TenantRecipient(kms)])
    with pytest.raises(ModelRefused, match="got none"):
        registry.open("tiny", 1, WORKER)
    for _ in range(2):
        registry.exports.grant("tiny", 1, TenantRecipient(kms), WORKER.address)
    registry.open("tiny", 1, WORKER).close()
    registry.open("tiny", 1, TenantRecipient(kms)).close()
    assert [act for act, _, _ in acts(registry)] == ["add", "load", "grant", "load", "load"]
    with pytest.raises(ModelRefused, match="got none"):
        registry.exports.grant("tiny", 1, Worker.generate(), Worker.generate().address)


def test_a_workers_key_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "worker.pem"
    made = create_worker(path)
    assert create_worker(path).name == made.name
    assert path.stat().st_mode & 0o077 == 0
    assert [entry.name for entry in path.parent.iterdir()] == ["worker.pem"]


def test_the_record_is_passed_on_once_and_again_after_a_fault(
    registry: ModelRegistry, release: Release, kms: FakeKms, keys: dict[str, SigningKey]
) -> None:
    forwarder, got = Forwarder(registry.home), []
    registry.add(release(1), [TenantRecipient(kms)])
    with pytest.raises(ConnectionError), forwarder.pending() as events:
        raise ConnectionError(events)
    with pytest.raises(ModelRefused):
        registry.exports.export("tiny", 1, TenantRecipient(kms), WORKER.address, registry.home / "out")
    with forwarder.pending() as events, Forwarder(registry.home).pending() as others:
        got += events
        assert others == [], "one at a time"
    registry.rollouts.roll("tiny", {1: WHOLE})
    for each in (forwarder, Forwarder(registry.home), forwarder):
        with each.pending() as events:
            got += events
    assert [(event.act, event.outcome) for event in got] == [("add", "done"), ("export", "refused"), ("roll", "done")]
