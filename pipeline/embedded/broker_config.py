"""The settings of one embedded broker, its ``server.properties`` and its logging."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.embedded.supervisor import LOOPBACK

MAX_MESSAGE_BYTES = 2 << 20

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


def broker_config(settings: BrokerSettings) -> dict[str, str]:
    """The broker's server.properties: small, loopback only, topics never made by accident."""
    s = settings
    voters = s.voters or ((s.node_id, LOOPBACK, s.controller_port),)
    replicas = min(3, len(voters))
    in_sync = 1 if replicas == 1 else 2
    config = {
        "process.roles": "broker,controller",
        "node.id": s.node_id,
        "controller.quorum.voters": ",".join(f"{n}@{h}:{p}" for n, h, p in voters),
        "listeners": f"PLAINTEXT://{LOOPBACK}:{s.port},CONTROLLER://{LOOPBACK}:{s.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{s.port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
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
    return {key: str(value) for key, value in (config | _own_topics(replicas, in_sync)).items()}


def _own_topics(replicas: int, in_sync: int) -> dict[str, int]:
    """Settings of the topics that the broker makes for itself."""
    config = {}
    for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
        config[f"{topic}.num.partitions"] = 4
        config[f"{topic}.replication.factor"] = replicas
    for log in ("transaction.state.log", "share.coordinator.state.topic"):
        config[f"{log}.min.isr"] = in_sync
    return config
