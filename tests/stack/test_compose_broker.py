"""The broker of ``docker-compose.yml`` without its container: what ``deploy secrets`` writes, on a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from pipeline import wiring
from pipeline.cli.compose_kafka import CONTROLLER_PORT, MOUNTED, RECORDS, write_secrets
from pipeline.config import Gateway, Keys, Settings, cache
from pipeline.control.policy_file import read_policies
from pipeline.embedded.broker import EmbeddedBroker
from pipeline.embedded.broker_config import PRODUCERS_MECHANISM, BrokerAccess, BrokerSettings
from pipeline.embedded.supervisor import Supervisor, free_port
from pipeline.endpoints import KafkaEndpoint, KafkaSecurity
from pipeline.errors import ConfigError
from pipeline.kafka.clients import make_consumer, make_producer
from pipeline.kafka.security import require_login
from pipeline.keys.api_key import kafka_password, parse_key
from pipeline.sections import Kafka
from pipeline.topics import BY_NAME, GROUPS, TOPICS, pool_topic, pool_user
from tests.deployment_site import POLICIES
from tests.patience import STUCK_S

ISOLATED = """
[[plan]]
id = "alone"
isolation = "process"
"""


class ComposeBroker(EmbeddedBroker):
    """An embedded broker whose properties are those of compose; paths and addresses are this machine's."""

    properties = ""

    def _write_config(self) -> None:
        super()._write_config()
        (self._settings.home / "server.properties").write_text(self.properties)


class Site:
    """The secrets, the broker, and what the jobs of compose do once it answers."""

    def __init__(self, home: Path, supervisor: Supervisor) -> None:
        self.secrets, inner, outer, controller = home / "secrets", free_port(), free_port(), free_port()
        self.settings = Settings(
            kafka=Kafka(
                bootstrap=f"127.0.0.1:{inner}",
                partitions=2,
                security_protocol="SASL_PLAINTEXT",
                sasl_mechanism="PLAIN",
                user="operator",
                password_file=str(self.secrets / "operator" / "password"),
            ),
            keys=Keys(home=home / "keys"),
            gateway=Gateway(
                advertised_bootstrap=f"127.0.0.1:{outer}",
                advertised_protocol="SASL_SSL",
                advertised_mechanism=PRODUCERS_MECHANISM,
            ),
        )
        write_secrets(self.settings, self.secrets)
        access = BrokerAccess("unused", (self.secrets / "operator" / "password").read_text())
        settings = BrokerSettings(home / "kafka", cache(), inner, controller, access=access)
        self.broker = ComposeBroker(settings, supervisor)
        text = (self.secrets / "broker" / "server.properties").read_text()
        for there, here in (
            (str(MOUNTED), str(self.secrets / "broker")),
            (RECORDS, str(settings.home / "records")),
            ("://:", "://127.0.0.1:"),
            (f":{CONTROLLER_PORT}", f":{controller}"),
        ):
            assert there in text
            text = text.replace(there, here)
        self.broker.properties = text
        self.broker.ensure_fetched(print)
        self.broker.start()

    async def furnish(self) -> None:
        await wiring.apply_topics(self.settings, print)
        await wiring.apply_users(self.settings, self.secrets)
        async with wiring.registry(self.settings) as hand:
            await hand.apply_policies(read_policies(POLICIES))

    def as_user(self, user: str, password: str) -> KafkaEndpoint:
        security = KafkaSecurity("SASL_PLAINTEXT", "SCRAM-SHA-512", user, password)
        return KafkaEndpoint(self.settings.kafka.bootstrap, security)

    def stage(self, name: str) -> KafkaEndpoint:
        return self.as_user(name, (self.secrets / name / "password").read_text())

    def producer(self, user: str, password: str, ca_file: str) -> KafkaEndpoint:
        security = KafkaSecurity("SASL_SSL", PRODUCERS_MECHANISM, user, password, ca_file=ca_file)
        return KafkaEndpoint(self.settings.gateway.advertised_bootstrap, security)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    supervisor = Supervisor()
    try:
        made = Site(tmp_path_factory.mktemp("compose"), supervisor)
        asyncio.run(made.furnish())
        yield made
    finally:
        supervisor.stop_all()


async def may_write(kafka: KafkaEndpoint, topic: str) -> bool:
    async with make_producer(kafka, request_timeout_ms=5000) as producer:
        try:
            await asyncio.wait_for(producer.send_and_wait(topic, b"by the walk", key=b"k", partition=0), STUCK_S)
        except TopicAuthorizationFailedError:
            return False
        return True


@pytest.mark.parametrize("stage", GROUPS)
def test_a_stage_comes_in_by_its_file_and_writes_what_the_table_says(site: Site, stage: str) -> None:
    async def walk() -> None:
        for topic in TOPICS:
            assert await may_write(site.stage(stage), topic.name) == (stage in topic.writers), f"{stage}: {topic.name}"

    asyncio.run(walk())


def test_the_rights_are_those_of_the_table_and_a_second_run_changes_none(site: Site) -> None:
    assert asyncio.run(wiring.apply_users(site.settings, site.secrets)) == []
    assert asyncio.run(wiring.check_rights(site.settings)) == []


def test_strangers_and_wrong_passwords_are_not_let_in(site: Site) -> None:
    async def job() -> None:
        for user, password in (("admit", "guessed"), ("nobody", "guessed")):
            with pytest.raises(ConfigError, match="refused user"):
                await require_login(site.as_user(user, password))
        with pytest.raises((KafkaError, TimeoutError)):
            async with (
                asyncio.timeout(STUCK_S),
                make_producer(KafkaEndpoint(site.settings.kafka.bootstrap), request_timeout_ms=2000),
            ):
                pass

    asyncio.run(job())


def test_a_direct_producer_comes_over_tls_at_its_own_listener_and_writes_requests_alone(site: Site) -> None:
    ca_file = str(site.secrets / "operator" / "ca.pem")

    async def job() -> None:
        async with wiring.registry(site.settings) as hand:
            await hand.add_tenant("acme", "team")
            key = await wiring.add_producer_key(site.settings, hand, "acme", "acme-batch", user="")
        user, secret = parse_key(key)
        direct = site.producer(user, kafka_password(secret), ca_file)
        await require_login(direct)
        for topic in TOPICS:
            assert await may_write(direct, topic.name) == (topic is BY_NAME["requests"]), topic.name
        # neither may come in where the other does
        with pytest.raises(ConfigError, match="refused user"):
            await require_login(site.as_user(user, kafka_password(secret)))
        with pytest.raises(ConfigError, match="refused user"):
            await require_login(site.producer("admit", site.stage("admit").security.password, ca_file))

    asyncio.run(job())


def test_a_tenants_own_workers_are_given_a_user_that_sees_their_work_alone(site: Site, tmp_path: Path) -> None:
    async def job() -> None:
        policies = tmp_path / "alone.toml"
        policies.write_text(ISOLATED)
        async with wiring.registry(site.settings) as hand:
            await hand.apply_policies(read_policies(policies))
            for tenant in ("globex", "initech"):
                await hand.add_tenant(tenant, "alone")
        await wiring.grant(site.settings, "globex", tmp_path / "granted", kafka=True)
        password = tmp_path / "granted" / "kafka-password"
        worker = site.as_user(pool_user("globex"), password.read_text())
        assert password.stat().st_mode & 0o777 == 0o640
        async with make_consumer(worker) as consumer:
            seen = await consumer.topics()
        assert pool_topic("globex").name in seen
        assert not {pool_topic("initech").name, "work", "requests"} & seen
        assert await may_write(worker, "completions")
        assert not await may_write(worker, "decisions")
        # the jobs run again at each start, in any order
        before = password.read_text()
        await wiring.grant(site.settings, "globex", tmp_path / "granted", kafka=True)
        await wiring.apply_users(site.settings, site.secrets)
        assert password.read_text() == before
        await require_login(worker)
        assert await may_write(worker, "completions")

    asyncio.run(job())
