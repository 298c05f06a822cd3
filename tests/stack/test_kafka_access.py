"""A broker that authenticates: each principal may do what the table of topics says, and nothing else."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError

from pipeline.config import cache
from pipeline.control import acl
from pipeline.control import topics as topic_admin
from pipeline.embedded.broker import EmbeddedBroker
from pipeline.embedded.broker_config import BrokerAccess, BrokerSettings
from pipeline.embedded.supervisor import Supervisor, free_port
from pipeline.endpoints import KafkaEndpoint, KafkaSecurity
from pipeline.errors import ConfigError
from pipeline.kafka.clients import make_consumer, make_producer
from pipeline.kafka.users import MECHANISM, drop_users, put_users
from pipeline.topics import GROUPS, TOPICS, AclRule, acl_rules, pool_topic
from tests.certificates import broker_pem
from tests.patience import STUCK_S

POOLS, PRODUCERS = ("acme", "globex"), ("producer-k1",)
PRINCIPALS = (*GROUPS, *(f"generate-{tenant}" for tenant in POOLS), *PRODUCERS)
NAMES = (*(topic.name for topic in TOPICS), *(pool_topic(tenant).name for tenant in POOLS))
PASSWORD = "correct horse"


class Site:
    """A broker with every topic, and a user for every principal of the table."""

    def __init__(self, home: Path, supervisor: Supervisor, pem: Path | None = None) -> None:
        access = BrokerAccess("of the brokers", "of the operator", pem)
        self.protocol, self.ca_file = access.protocol, str(pem or "")
        settings = BrokerSettings(home / "kafka", cache(), free_port(), free_port(), access=access)
        self.broker = EmbeddedBroker(settings, supervisor)
        self.broker.ensure_fetched(print)
        self.broker.start()
        self.operator = self.broker.endpoint
        put_users(self.operator, dict.fromkeys(PRINCIPALS, PASSWORD))

    def as_user(self, user: str, password: str = PASSWORD) -> KafkaEndpoint:
        security = KafkaSecurity(self.protocol, MECHANISM, user, password, ca_file=self.ca_file)
        return KafkaEndpoint(self.broker.bootstrap, security)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    supervisor = Supervisor()
    try:
        site = Site(tmp_path_factory.mktemp("access"), supervisor)
        asyncio.run(furnish(site))
        yield site
    finally:
        supervisor.stop_all()


async def furnish(site: Site) -> None:
    await topic_admin.create(site.operator, 2, 1)
    await topic_admin.add_pools(site.operator, POOLS)
    async with make_producer(site.operator) as producer:
        for name in NAMES:
            await producer.send_and_wait(name, b"something to read", key=b"k", partition=0)
    created, deleted = acl.apply(site.operator, acl_rules(POOLS, PRODUCERS))
    assert created
    assert not deleted


def allowed(principal: str, operation: str, topic: str) -> bool:
    return any(
        rule.principal == principal
        and rule.operation == operation
        and rule.resource == "topic"
        and (topic == rule.name or (rule.prefixed and topic.startswith(rule.name)))
        for rule in acl_rules(POOLS, PRODUCERS)
    )


async def may_write(kafka: KafkaEndpoint, topic: str) -> bool:
    async with make_producer(kafka, request_timeout_ms=5000) as producer:
        try:
            await asyncio.wait_for(producer.send_and_wait(topic, b"by the walk", key=b"k", partition=0), STUCK_S)
        except TopicAuthorizationFailedError:
            return False
        return True


async def may_read(kafka: KafkaEndpoint, topic: str) -> bool:
    async with make_consumer(kafka, auto_offset_reset="earliest") as consumer:
        # a client waits for ever for a topic that it may not even see
        if topic not in await consumer.topics():
            return False
        consumer.assign([TopicPartition(topic, 0)])
        try:
            await asyncio.wait_for(consumer.getone(), STUCK_S)
        except TopicAuthorizationFailedError:
            return False
        return True


@pytest.mark.parametrize("principal", PRINCIPALS)
def test_a_principal_reads_and_writes_what_the_table_says_and_no_other_topic(site: Site, principal: str) -> None:
    async def walk() -> None:
        kafka = site.as_user(principal)
        for topic in NAMES:
            assert await may_write(kafka, topic) == allowed(principal, "Write", topic), f"{principal} writes {topic}"
            assert await may_read(kafka, topic) == allowed(principal, "Read", topic), f"{principal} reads {topic}"

    asyncio.run(walk())


def test_a_principal_joins_its_own_groups_and_no_others(site: Site) -> None:
    async def joins(principal: str, group: str) -> bool:
        topic = {"admit": "requests", "seal": "decisions"}[principal]
        async with make_consumer(site.as_user(principal), group_id=group) as consumer:
            try:
                await asyncio.wait_for(consumer.committed(TopicPartition(topic, 0)), STUCK_S)
            except GroupAuthorizationFailedError:
                return False
            return True

    async def walk() -> None:
        for principal in ("admit", "seal"):
            for owner, groups in GROUPS.items():
                for group in groups:
                    assert await joins(principal, group) == (principal == owner), f"{principal} joins {group}"

    asyncio.run(walk())


def test_only_the_operator_makes_topics_and_rights(site: Site) -> None:
    async def attempt() -> None:
        with pytest.raises(Exception, match=r"(?i)authori[sz]ation"):
            await topic_admin.add_pools(site.as_user("admit"), ("initech",))

    asyncio.run(attempt())
    with pytest.raises(ConfigError, match="user 'admit' may not read or change the access control lists"):
        acl.check(site.as_user("admit"), acl_rules(POOLS, PRODUCERS))


def test_a_wrong_password_and_a_stranger_are_refused_by_name_and_at_once(site: Site) -> None:
    for user, password in (("admit", "wrong"), ("nobody-known", PASSWORD)):
        with pytest.raises(ConfigError, match=f"refused user '{user}'") as refusal:
            asyncio.run(topic_admin.reach(site.as_user(user, password), STUCK_S))
        assert password not in str(refusal.value)
    stranger = KafkaEndpoint(site.broker.bootstrap)
    with pytest.raises(Exception, match="no Kafka broker answered"):
        asyncio.run(topic_admin.reach(stranger, 0))


def test_rights_beyond_the_table_are_told_and_taken_away(site: Site) -> None:
    extra = AclRule("mallory", "Write", "topic", "control")
    # another application at the same brokers keeps what it has
    elsewhere = [AclRule("billing", "Write", "topic", "invoices"), AclRule("billing", "Read", "group", "billing")]
    acl.apply(site.operator, [*acl_rules(POOLS, PRODUCERS), extra, *elsewhere])
    fault = "not granted by the table: User:mallory Write topic control; run: sluice topics acl apply"
    assert acl.check(site.operator, acl_rules(POOLS, PRODUCERS)) == [fault]
    assert acl.apply(site.operator, acl_rules(POOLS, PRODUCERS)) == ([], ["User:mallory Write topic control"])
    assert acl.check(site.operator, acl_rules(POOLS, PRODUCERS)) == []
    assert acl.apply(site.operator, [*acl_rules(POOLS, PRODUCERS), *elsewhere]) == ([], [])


def test_a_user_that_was_removed_is_refused(site: Site) -> None:
    put_users(site.operator, {"producer-k2": PASSWORD})
    asyncio.run(topic_admin.reach(site.as_user("producer-k2"), STUCK_S))
    drop_users(site.operator, ["producer-k2"])
    with pytest.raises(ConfigError, match="refused user 'producer-k2'"):
        asyncio.run(topic_admin.reach(site.as_user("producer-k2"), STUCK_S))


def test_over_tls_a_user_is_let_in_and_a_broker_that_cannot_be_believed_is_told(tmp_path: Path) -> None:
    supervisor = Supervisor()
    try:
        site = Site(tmp_path, supervisor, broker_pem(tmp_path))
        asyncio.run(furnish(site))
        gateway = site.as_user("gateway")
        assert asyncio.run(may_write(gateway, "requests"))
        assert not asyncio.run(may_write(gateway, "decisions"))
        with pytest.raises(ConfigError, match="refused user 'gateway'"):
            asyncio.run(topic_admin.reach(site.as_user("gateway", "wrong"), STUCK_S))
        unknown = KafkaEndpoint(gateway.bootstrap, dataclasses.replace(gateway.security, ca_file=""))
        with pytest.raises(ConfigError, match=r"the certificate of the Kafka broker .* is not believed"):
            asyncio.run(topic_admin.reach(unknown, STUCK_S))
    finally:
        supervisor.stop_all()
