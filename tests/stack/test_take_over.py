"""A deployment from before documents were signed is taken over once, whatever happens in between; a second start, and
other builds beside it, change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import wiring
from pipeline.config import Keys, Settings, cache
from pipeline.control import deployment as deployments
from pipeline.control import topics as topic_admin
from pipeline.control.connect import require_pinned
from pipeline.control.table import ControlTable
from pipeline.embedded.broker import EmbeddedBroker
from pipeline.embedded.broker_config import BrokerSettings
from pipeline.embedded.supervisor import Supervisor, free_port
from pipeline.errors import ConfigError
from pipeline.events.control import AnyDocument, Deployment, Key, Organisation, Plan, Principal, Tenant
from pipeline.kafka.writer import Publisher
from pipeline.keys.files import create_log_keys
from pipeline.keys.vault import FileKeyring, Vault, tenant_keys
from pipeline.sections import Kafka
from tests.admit_site import read


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    supervisor = Supervisor()
    home = tmp_path_factory.mktemp("kafka")
    broker = EmbeddedBroker(BrokerSettings(home, cache(), free_port(), free_port()), supervisor)
    broker.ensure_fetched(print)
    broker.start()
    yield broker.bootstrap
    supervisor.stop_all()


def settings_of(bootstrap: str, keys: Path) -> Settings:
    return Settings(kafka=Kafka(bootstrap=bootstrap, partitions=2), keys=Keys(home=keys))


def documents(keyring: FileKeyring, log_keys: tuple[str, ...]) -> list[AnyDocument]:
    """As version 0.1.0 wrote them: each wrapped secret opens for an id alone."""
    return [
        Deployment(generation="g1a2b3c4", partitions=2, log_keys=log_keys),
        Plan(id="team", models=("echo",)),
        Organisation(id="acme"),
        Tenant(id="acme", organisation="acme", plan="team", **tenant_keys(keyring, "acme")),
        Principal(id="app", tenant="acme"),
        Key(id="k1", principal="app", secret=keyring.wrap(b"s" * 32, "key/k1")),
    ]


async def write(settings: Settings, values: list[bytes]) -> None:
    publisher = Publisher(settings.kafka.endpoint)
    await publisher.send_all([("control", 0, b"x", value, ()) for value in values])
    await publisher.close()


async def values(settings: Settings) -> list[bytes]:
    return [item.value for item in await read(settings.kafka.bootstrap, "control")]


def test_a_deployment_of_before_is_taken_over_once(
    bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, told = settings_of(bootstrap, tmp_path / "keys"), list[str]()

    async def scene() -> None:
        keyring = FileKeyring.create(settings.keys.keyring)
        await topic_admin.create(settings.kafka.endpoint, 2, 1)
        log_keys = create_log_keys(settings.keys.log_key, "sluice").verifier_keys
        before = [document.model_dump_json().encode() for document in documents(keyring, log_keys)]
        await write(settings, before)
        with pytest.raises(ConfigError, match="elsewhere are not those of the deployment g1a2b3c4"):
            await wiring.apply_topics(settings_of(bootstrap, tmp_path / "elsewhere"), told.append)
        assert await values(settings) == before
        with pytest.raises(ConfigError, match=r"keys\.deployment is empty"):
            async with wiring.control_table(settings):
                pass
        await crashes_behind_a_record_of_another(settings, monkeypatch)
        await wiring.apply_topics(settings, told.append)
        after = await values(settings)
        assert told[0].startswith(f"taken over: the {len(after) - 1} records of g1a2b3c4")
        assert after[: len(before)] == before
        async with wiring.registry(settings) as registry:
            assert registry.control.generation == "g1a2b3c4"
            assert Vault(keyring, registry.control).key_secret("k1") == b"s" * 32
            assert registry.control.tenants["acme"].status == "active"
        # the record was sent, the process ended before it kept the pin
        settings.keys.pin_file.unlink()
        again = list[str]()
        await wiring.apply_topics(settings, again.append)
        assert (await values(settings), again) == (after, [])
        await refuses_whoever_it_is_not(settings, tmp_path)
        async with wiring.registry(settings) as registry:
            await registry.change_tenant("acme", status="suspended")
        await write(settings, [before[3]])
        async with wiring.control_table(settings) as table:
            assert table.control.tenants["acme"].status == "suspended"
            assert table.passed_over["unsigned"] == 1

    asyncio.run(scene())


async def crashes_behind_a_record_of_another(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of another writer comes first, and the process ends before it has the pin."""
    genuine = deployments._send

    async def send(settings: Settings, pin: str) -> None:
        await write(settings, [Organisation(id="late").model_dump_json().encode()])
        assert await genuine(settings, pin) is None
        raise ConnectionError

    monkeypatch.setattr(deployments, "_send", send)
    with pytest.raises(ConnectionError):
        await wiring.apply_topics(settings, print)
    monkeypatch.setattr(deployments, "_send", genuine)
    assert not settings.keys.pin_file.exists()


async def refuses_whoever_it_is_not(settings: Settings, tmp_path: Path) -> None:
    """Keys of elsewhere neither take it over a second time nor read it."""
    stranger = settings_of(settings.kafka.bootstrap, tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="nothing here says that it is yours"):
        await wiring.apply_topics(stranger, print)
    table = ControlTable(settings.kafka.endpoint, "0" * 64)
    await table.start()
    await table.close()
    with pytest.raises(ConfigError, match=r"control holds the deployment .*expected 0000000000000000 as pinned"):
        require_pinned(table)
