"""The embedded brokers of one deployment, and who may reach them: the operator, each stage, direct producers."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pipeline.embedded.broker import EmbeddedBroker
from pipeline.embedded.broker_config import PRODUCERS_MECHANISM, BrokerSettings
from pipeline.embedded.local_users import MECHANISM, LocalUsers
from pipeline.embedded.supervisor import LOOPBACK, Supervisor, free_port
from pipeline.topics import acl_rules, pool_user


class BrokerPorts(NamedTuple):
    """Ports of one broker on loopback. ``producers``: of its listener for direct producers; 0: one that is free."""

    kafka: int
    controller: int
    producers: int = 0


class LocalKafka:
    """One broker or several, in ``kafka`` and beside it.

    ``authenticates``: they let in the users of ``keys/kafka`` alone; else whoever reaches them.
    """

    def __init__(self, home: Path, cache: Path, supervisor: Supervisor, *, authenticates: bool) -> None:
        self._home, self._cache = home, cache
        self._supervisor = supervisor
        self._users = LocalUsers(home / "keys" / "kafka")
        self.authenticates = authenticates
        self.brokers: list[EmbeddedBroker] = []

    @property
    def bootstrap(self) -> str:
        return ",".join(broker.bootstrap for broker in self.brokers)

    def make(self, ports: list[BrokerPorts]) -> None:
        """Prepare the brokers and make their passwords; alone, a broker needs to know of no voters."""
        voters = tuple((node, LOOPBACK, at.controller) for node, at in enumerate(ports, 1))
        access = self._users.access() if self.authenticates else None
        self.brokers = [
            EmbeddedBroker(
                BrokerSettings(
                    self._home / ("kafka" if node == 1 else f"kafka-{node}"),
                    self._cache,
                    at.kafka,
                    at.controller,
                    node_id=node,
                    voters=voters if len(voters) > 1 else (),
                    access=access,
                    producers_port=(at.producers or free_port()) if access else 0,
                ),
                self._supervisor,
            )
            for node, at in enumerate(ports, 1)
        ]

    def launch(self) -> None:
        """Start the brokers; those of a new deployment know the stages from the beginning."""
        made = not any(broker.formatted for broker in self.brokers)
        for broker in self.brokers:
            broker.launch()
        if made and self.authenticates:
            self._users.settle(self._users.unknown())

    @property
    def knows_stages(self) -> bool:
        """Tell whether a stage that starts before the brokers answer will be let in."""
        return not (self.authenticates and self._users.unknown())

    def await_ready(self) -> None:
        """Wait for the brokers, then give the stages the users and rights that they do not have yet."""
        for broker in self.brokers:
            broker.await_ready()
        if self.authenticates:
            # the operator's client takes a while to import, and brokers to start
            from pipeline.control import acl

            self._users.introduce(self.brokers[0].endpoint)
            acl.grant(self.brokers[0].endpoint, acl_rules())

    def admit_pool(self, tenant: str) -> dict[str, str]:
        """Give a tenant's own workers a user and its rights; gives their settings."""
        if not self.authenticates:
            return {}
        from pipeline.control import acl

        kafka, user = self.brokers[0].endpoint, pool_user(tenant)
        # brokers of before a restore are gone, and with them a user whose password is still here
        self._users.introduce_again(kafka, user)
        acl.grant(kafka, acl_rules([tenant]))
        return self._users.environment(user)

    def environment(self, stage: str) -> dict[str, str]:
        """Give the settings by which a process is ``stage`` to the brokers."""
        return self._users.environment(stage) if self.authenticates else {}

    @property
    def operator_section(self) -> dict[str, object]:
        """Settings of an operator's commands."""
        if not self.authenticates:
            return {"bootstrap": self.bootstrap}
        security = self.brokers[0].endpoint.security
        return {
            "bootstrap": self.bootstrap,
            "security_protocol": security.protocol,
            "sasl_mechanism": MECHANISM,
            "user": security.user,
            "password_file": str(self._users.password_file(security.user)),
        }

    @property
    def gateway_section(self) -> dict[str, object]:
        """Settings that tell direct producers where they are let in, and how."""
        if not self.authenticates:
            return {}
        bootstrap = ",".join(broker.producers for broker in self.brokers)
        return {"advertised_bootstrap": bootstrap, "advertised_mechanism": PRODUCERS_MECHANISM}
