"""A real broker with a deployment on it, for tests that need one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pipeline.config import Keys, Settings, cache
from pipeline.control import deployment
from pipeline.control import topics as topic_admin
from pipeline.control.policy_file import read_policies
from pipeline.control.registry import Registry
from pipeline.control.table import ControlTable
from pipeline.embedded.broker import EmbeddedBroker
from pipeline.embedded.broker_config import BrokerSettings
from pipeline.embedded.supervisor import Supervisor, free_port
from pipeline.endpoints import KafkaEndpoint
from pipeline.events import wire
from pipeline.keys.signing import SigningKeys
from pipeline.keys.vault import FileKeyring, Vault
from pipeline.sections import Kafka

CACHE = cache()
POLICIES = Path(__file__).parents[1] / "pipeline" / "control" / "policies" / "default.toml"
TENANTS = (("acme", "enterprise"), ("globex", "team"), ("initech", "free"))


@dataclass
class Deployment:
    """A broker with topics, policies, three tenants and a key for each; ``control_table`` is as of its making."""

    broker: EmbeddedBroker
    supervisor: Supervisor
    home: Path
    keyring: FileKeyring
    control_table: ControlTable
    keys: dict[str, str] = field(default_factory=dict)
    """tenant → key text"""

    @property
    def bootstrap(self) -> str:
        return self.broker.bootstrap

    @property
    def kafka(self) -> KafkaEndpoint:
        return KafkaEndpoint(self.bootstrap)

    @property
    def signing(self) -> SigningKeys:
        return signing_of(self.home / "keys")

    @property
    def pin(self) -> str:
        return Keys(home=self.home / "keys").pin

    @property
    def vault(self) -> Vault:
        return Vault(self.keyring, self.control_table.control)

    def request(
        self,
        tenant: str,
        name: str,
        prompt: str = "What is a dog?",
        *,
        counter: int,
        session: str = "s",
        at: int = 0,
        key: str = "",
        **fields: object,
    ) -> tuple[bytes, list[tuple[str, bytes]]]:
        """Value and headers of a genuine record of ``requests``, signed with the tenant's key or the one named ``key``,
        now or ``at`` (Unix ms)."""
        key, secret = self.keys[key or tenant].removeprefix("sk-sluice-").split(".")
        messages = msgspec.json.encode([{"role": "user", "content": prompt}])
        sealed = self.vault.encrypt(tenant, "request", "messages", name, messages)
        body = wire.InferenceBody(**{"model": "echo", "max_tokens": 16, "sealed": sealed, **fields})  # type: ignore[arg-type]
        value = msgspec.json.encode(body)
        headers = wire.sign(
            base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4)),
            key,
            name,
            "inference",
            value,
            time=at or int(time.time() * 1000),
            session=session,
            counter=counter,
        )
        return value, headers


def signing_of(keys: Path) -> SigningKeys:
    """The keys of the operator whom ``established`` makes."""
    return SigningKeys(keys / "operators", keys / "roots", "operator")


async def established(bootstrap: str, keys: Path, partitions: int) -> str:
    """Write a deployment's first document to topics that are there; gives its pin."""
    settings = Settings(kafka=Kafka(bootstrap=bootstrap, partitions=partitions), keys=Keys(home=keys))
    await deployment.establish(settings, (), print)
    return settings.keys.pin


async def _furnish(broker: EmbeddedBroker, supervisor: Supervisor, home: Path, partitions: int) -> Deployment:
    await topic_admin.create(KafkaEndpoint(broker.bootstrap), partitions, 1)
    keyring = FileKeyring.create(home / "keys" / "keyring.json")
    pin = await established(broker.bootstrap, home / "keys", partitions)
    table = ControlTable(KafkaEndpoint(broker.bootstrap), pin)
    await table.start()
    made = Deployment(broker, supervisor, home, keyring, table)
    registry = Registry(KafkaEndpoint(broker.bootstrap), table, keyring, made.signing)
    await registry.apply_policies(read_policies(POLICIES))
    for tenant, plan in TENANTS:
        await registry.add_tenant(tenant, plan)
        made.keys[tenant] = await registry.add_key(tenant, f"{tenant}-app")
    await registry.close()
    await table.close()
    return made


@contextlib.contextmanager
def furnished(home: Path, partitions: int) -> Iterator[Deployment]:
    """A broker of its own until the block ends."""
    supervisor = Supervisor()
    broker = EmbeddedBroker(BrokerSettings(home / "kafka", CACHE, free_port(), free_port()), supervisor)
    broker.ensure_fetched(print)
    broker.start()
    try:
        yield asyncio.run(_furnish(broker, supervisor, home, partitions))
    finally:
        supervisor.stop_all()
