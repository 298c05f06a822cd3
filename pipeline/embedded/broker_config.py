"""The settings of one embedded broker, its ``server.properties`` and its logging."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.embedded.supervisor import LOOPBACK
from pipeline.topics import OPERATOR

MAX_MESSAGE_BYTES = 2 << 20
BROKER = "broker"
"""The brokers know this user, and the operator, from their settings; neither needs an ACL."""
PRODUCERS_MECHANISM = "SCRAM-SHA-256"
"""Direct producers have credentials of this kind alone, and their listener takes no other."""
REAUTHENTICATE_MS = 60_000
"""A direct producer proves who it is at least so often: one that was dropped is cut off by then (KIP-368)."""
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"

LOG4J = """\
Configuration:
  Appenders:
    Console:
      name: STDOUT
      PatternLayout:
        pattern: "%d{ISO8601} %p %m (%c{1})%n"
  Loggers:
    Root:
      level: WARN
      AppenderRef:
        - ref: STDOUT
    Logger:
      - name: kafka.server.KafkaRaftServer
        level: INFO
"""


@dataclass(frozen=True, slots=True)
class BrokerAccess:
    """Every listener authenticates: the brokers themselves and the operator by PLAIN, everybody else by SCRAM.

    The two passwords stand in ``server.properties``; those of SCRAM users lie salted in the brokers' own metadata,
    where the operator puts them. ACLs alone say what a user may do; the operator and the brokers need none.
    """

    broker_password: str = field(repr=False)
    operator_password: str = field(repr=False)
    certificate: Path | None = None
    """PEM of a PKCS#8 key and its certificate: clients then come over TLS."""
    users: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """SCRAM users and their passwords that a broker knows from the moment its storage is made."""
    reauthenticate_ms: int = REAUTHENTICATE_MS
    """Of the listener of direct producers."""
    producers_tls_only: bool = False
    """Stages then come in plain text although there is a certificate: they share a private network with the broker."""

    @property
    def protocol(self) -> str:
        """Kafka's name of what stages speak."""
        return "SASL_SSL" if self.certificate and not self.producers_tls_only else "SASL_PLAINTEXT"

    @property
    def producers_protocol(self) -> str:
        """Kafka's name of what direct producers speak."""
        return "SASL_SSL" if self.certificate else "SASL_PLAINTEXT"


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """One broker lives and listens here.

    `home` holds its records, `cache` the jars (shared by all brokers); both are trusted folders.
    `voters` are (node id, host, controller port) of every broker of a cluster, this one included;
    empty for a single broker. A node keeps its id for the life of its `home`.
    """

    home: Path
    cache: Path
    port: int
    controller_port: int
    heap_mb: int = 256
    node_id: int = 1
    voters: tuple[tuple[int, str, int], ...] = ()
    access: BrokerAccess | None = None
    """None: whoever reaches the port may do anything (tests of one process)."""
    producers_port: int = 0
    """A listener for direct producers alone, 0 for none: their users have SCRAM-SHA-256, which no other one takes."""


def broker_config(settings: BrokerSettings) -> dict[str, str]:
    """The broker's server.properties: small, loopback only, topics never made by accident."""
    s = settings
    voters = s.voters or ((s.node_id, LOOPBACK, s.controller_port),)
    replicas = min(3, len(voters))
    in_sync = 1 if replicas == 1 else 2
    config: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": s.node_id,
        "controller.quorum.voters": ",".join(f"{n}@{h}:{p}" for n, h, p in voters),
        "listeners": ",".join([*_clients(s), f"CONTROLLER://{LOOPBACK}:{s.controller_port}"]),
        "advertised.listeners": ",".join(_clients(s)),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "CLIENT",
        "log.dirs": s.home / "records",
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "replica.fetch.max.bytes": MAX_MESSAGE_BYTES,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "transaction.max.timeout.ms": 60_000,
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
        "log.retention.check.interval.ms": 10_000,
        "log.initial.task.delay.ms": 1000,
        "log.cleaner.dedupe.buffer.size": 4 << 20,
        "log.segment.bytes": 64 << 20,
        # A killed broker registers again only when its last session has lapsed.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
    }
    config |= own_topics(replicas, in_sync) | (_open() if s.access is None else authenticated(s.access))
    return {key: str(value) for key, value in config.items()}


def _clients(settings: BrokerSettings) -> list[str]:
    """Give the listeners that clients come to."""
    given = [f"CLIENT://{LOOPBACK}:{settings.port}"]
    if settings.access is not None and settings.producers_port:
        given.append(f"PRODUCERS://{LOOPBACK}:{settings.producers_port}")
    return given


def _open() -> dict[str, object]:
    return {"listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT"}


def authenticated(access: BrokerAccess) -> dict[str, object]:
    """Settings of listeners that authenticate and of the standard authorizer (KIP-11, KIP-801)."""
    own = f'{PLAIN} required username="{BROKER}" password="{access.broker_password}"'
    own += f' user_{BROKER}="{access.broker_password}"'
    config: dict[str, object] = {
        "listener.security.protocol.map": f"CLIENT:{access.protocol},PRODUCERS:{access.producers_protocol},"
        "CONTROLLER:SASL_PLAINTEXT",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.mechanism.controller.protocol": "PLAIN",
        "listener.name.client.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.client.plain.sasl.jaas.config": f'{own} user_{OPERATOR}="{access.operator_password}";',
        "listener.name.client.scram-sha-512.sasl.jaas.config": f"{_SCRAM} required;",
        "listener.name.producers.sasl.enabled.mechanisms": PRODUCERS_MECHANISM,
        "listener.name.producers.scram-sha-256.sasl.jaas.config": f"{_SCRAM} required;",
        "listener.name.producers.scram-sha-256.connections.max.reauth.ms": access.reauthenticate_ms,
        "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.controller.plain.sasl.jaas.config": f"{own};",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": f"User:{BROKER};User:{OPERATOR}",
    }
    if access.certificate is not None:
        for store in ("keystore", "truststore"):
            config[f"ssl.{store}.type"] = "PEM"
            config[f"ssl.{store}.location"] = str(access.certificate)
    return config


def own_topics(replicas: int, in_sync: int) -> dict[str, object]:
    """Settings of the topics that the broker makes for itself."""
    config: dict[str, object] = {}
    for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
        config[f"{topic}.num.partitions"] = 4
        config[f"{topic}.replication.factor"] = replicas
    for log in ("transaction.state.log", "share.coordinator.state.topic"):
        config[f"{log}.min.isr"] = in_sync
    return config
