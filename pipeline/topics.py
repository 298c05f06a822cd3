"""Every Kafka topic: its key and why, how it is written, how long it is kept. Walked by ``topics check``."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Literal, NamedTuple

DAY_MS = 24 * 3600 * 1000
_COMPACTION = {
    # the segment that is written to is never compacted, and a worker that takes a partition over reads all of it
    "segment.bytes": str(16 * 1024 * 1024),
    "min.cleanable.dirty.ratio": "0.1",
}


class Topic(NamedTuple):
    name: str
    key: str
    why: str
    partitions: Literal["main", "one"] = "main"
    cleanup: Literal["delete", "compact"] = "delete"
    retention_ms: int = 7 * DAY_MS
    single_writer: bool = False
    writers: tuple[str, ...] = ()
    """Processes that write it; an operator's commands write ``control`` and ``access`` as well."""
    readers: tuple[str, ...] = ()

    def config(self, replication: int) -> dict[str, str]:
        """Broker-side settings; the append time is the broker's, so no client can write history."""
        settings = {
            "cleanup.policy": self.cleanup,
            "message.timestamp.type": "LogAppendTime",
            "unclean.leader.election.enable": "false",
            "max.message.bytes": str(2 * 1024 * 1024),
            "min.insync.replicas": "2" if replication >= 3 else "1",
        }
        if self.cleanup == "delete":
            settings["retention.ms"] = str(self.retention_ms)
        return settings | self.adjusted

    @property
    def adjusted(self) -> dict[str, str]:
        """Those of the settings that a topic of an older build is given as well: they change how it is stored alone."""
        # a broker that stores a batch in another form unpacks it whole, whatever it unpacks to
        as_sent = {"compression.type": "producer"}
        return as_sent | _COMPACTION if self.cleanup == "compact" else as_sent


FOREVER = -1

TOPICS: tuple[Topic, ...] = (
    Topic(
        "requests",
        "organisation",
        "the root of the quota tree, so each hard limit lives in one partition",
        writers=("gateway",),
        readers=("admit",),
    ),
    Topic(
        "decisions",
        "organisation",
        "the history of the same partition",
        writers=("admit",),
        readers=("admit", "seal"),
        single_writer=True,
    ),
    Topic("work", "request", "one big tenant can use every worker", writers=("admit",), readers=("generate",)),
    Topic(
        "completions",
        "organisation",
        "back to the partition that holds the reservation",
        writers=("generate",),
        readers=("admit",),
    ),
    Topic(
        "responses",
        "lane",
        "each gateway reads the lanes it owns",
        writers=("admit", "generate"),
        readers=("gateway",),
        retention_ms=DAY_MS // 24,
    ),
    Topic(
        "findings",
        "organisation",
        "correlation by tenant and principal",
        writers=("gateway", "admit", "generate"),
        readers=("watch",),
    ),
    Topic(
        "alerts",
        "tenant",
        "delivered in order per tenant",
        writers=("watch",),
        readers=("watch", "notify", "seal"),
    ),
    Topic(
        "deliveries",
        "target",
        "attempts in order per target",
        writers=("notify",),
        readers=("notify", "seal"),
    ),
    Topic("access", "tenant", "who did what to whose data", writers=("gateway", "generate"), readers=("seal",)),
    Topic(
        "control",
        "document",
        "one order for all documents",
        "one",
        readers=("gateway", "admit", "generate", "seal", "watch", "notify"),
        retention_ms=FOREVER,
    ),
    Topic(
        "snapshots",
        "partition",
        "the newest chunks of each partition's ledger",
        cleanup="compact",
        writers=("admit",),
        readers=("admit",),
    ),
    Topic(
        "audit",
        "origin",
        "manifests of one log in order",
        writers=("seal",),
        readers=("seal",),
        retention_ms=FOREVER,
        single_writer=True,
    ),
    Topic("dead_letters", "none", "bytes that could not be understood", writers=("admit",)),
)
POOL_WORK = "work."
"""Begins the name of the work topic of one tenant's own workers, one for each tenant whose plan asks for them."""


def pool_topic(tenant: str) -> Topic:
    """The work topic of a tenant's own workers: who may not read it sees none of the tenant's work."""
    return Topic(f"{POOL_WORK}{tenant}", "request", "all workers of one isolated tenant, and no other's")


BY_NAME: dict[str, Topic] = {topic.name: topic for topic in TOPICS}

GROUPS: dict[str, tuple[str, ...]] = {
    "gateway": (),
    "admit": ("sluice-admit", "sluice-admit-workers"),
    "generate": ("sluice-generate", "sluice-generate-workers"),
    "seal": ("sluice-seal-workers",),
    "watch": ("sluice-watch", "sluice-watch-marks"),
    "notify": ("sluice-notify", "sluice-notify-workers"),
}
"""The consumer groups of each stage, which is its own principal at the brokers."""
OPERATOR = "operator"
"""The principal of an operator's commands: it makes topics, users and rights, and needs no right itself."""


def pool_user(tenant: str) -> str:
    """Give the principal of a tenant's own workers."""
    return f"generate-{tenant}"


class AclRule(NamedTuple):
    """A principal may do this to what bears this name, or, ``prefixed``, a name that begins so."""

    principal: str
    operation: Literal["Read", "Write"]
    resource: Literal["topic", "group"]
    name: str
    prefixed: bool = False


def acl_rules(pools: Iterable[str] = (), producers: Iterable[str] = ()) -> list[AclRule]:
    """Give all that anyone but the operator may do at the brokers.

    ``pools`` are the tenants with workers of their own, ``producers`` the principals of direct producers. Nothing else
    is allowed; what may be read or written may be described, too.
    """
    given = [AclRule("admit", "Write", "topic", POOL_WORK, prefixed=True)]
    for topic in TOPICS:
        given += [AclRule(writer, "Write", "topic", topic.name) for writer in topic.writers]
        given += [AclRule(reader, "Read", "topic", topic.name) for reader in topic.readers]
    for stage, groups in GROUPS.items():
        given += [AclRule(stage, "Read", "group", group) for group in groups]
    for tenant in pools:
        given += _pool_rules(tenant)
    return given + [producer_rule(producer) for producer in producers]


def producer_rule(user: str) -> AclRule:
    """Give the one right of a direct producer."""
    return AclRule(user, "Write", "topic", "requests")


def _pool_rules(tenant: str) -> list[AclRule]:
    """Give a tenant's own workers what the shared ones may do, to the tenant's own topic of work."""
    worker = pool_user(tenant)
    given = [AclRule(worker, "Read", "topic", pool_topic(tenant).name), AclRule(worker, "Read", "topic", "control")]
    given += [AclRule(worker, "Write", "topic", topic.name) for topic in TOPICS if "generate" in topic.writers]
    return given + [AclRule(worker, "Read", "group", f"{group}.{tenant}") for group in GROUPS["generate"]]


_MURMUR_SEED, _M, _MASK = 0x9747B28C, 0x5BD1E995, 0xFFFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """Kafka's default placement: murmur2 of the key, made positive, modulo the count (as the Java client does)."""
    return (_murmur2(key) & 0x7FFFFFFF) % partitions


def _murmur2(key: bytes) -> int:
    length = len(key)
    h = (_MURMUR_SEED ^ length) & _MASK
    whole = length & ~3
    for word in struct.unpack_from(f"<{whole >> 2}I", key):
        k = word * _M & _MASK
        h = (h * _M ^ (k ^ k >> 24) * _M) & _MASK
    rest = key[whole:]
    if rest:
        h = ((h ^ int.from_bytes(rest, "little")) * _M) & _MASK
    h = ((h ^ (h >> 13)) * _M) & _MASK
    return h ^ (h >> 15)
