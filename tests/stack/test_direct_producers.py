"""Programs that write to Kafka themselves: each key's own user, for as long as the key is in force, at its own pace."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kafka.protocol.admin import DescribeClientQuotasRequest

from pipeline import wiring
from pipeline.config import Gateway, Generate, Keys, Settings, cache
from pipeline.control import acl, producers
from pipeline.control.policy_file import read_policies
from pipeline.embedded.broker import EmbeddedBroker
from pipeline.embedded.broker_config import PRODUCERS_MECHANISM, BrokerAccess, BrokerSettings
from pipeline.embedded.supervisor import Supervisor, free_port
from pipeline.endpoints import KafkaEndpoint, KafkaSecurity
from pipeline.errors import ConfigError
from pipeline.kafka.clients import make_producer
from pipeline.kafka.connections import BrokerConnection
from pipeline.kafka.operator_client import operator_client
from pipeline.kafka.security import require_login
from pipeline.kafka.users import MECHANISM, put_users
from pipeline.keys.api_key import kafka_password, parse_key
from pipeline.producer.client import Producer
from pipeline.producer.outcomes import NotConfirmed
from pipeline.sections import Kafka
from pipeline.topics import acl_rules
from pipeline.wiring import STAGES
from tests.deployment_site import POLICIES
from tests.patience import STUCK_S
from tests.stack.gateway_site import answering
from tests.stack.real_stages import serving

LIFETIME_MS = 2_000
"""Of a login at the listener of direct producers."""


class Site:
    """A broker that authenticates, with a deployment and a tenant."""

    def __init__(
        self, home: Path, supervisor: Supervisor, pem: Path | None = None, lifetime_ms: int = LIFETIME_MS
    ) -> None:
        access = BrokerAccess("of the brokers", "of the operator", pem, reauthenticate_ms=lifetime_ms)
        ports = (free_port(), free_port())
        self.broker = EmbeddedBroker(
            BrokerSettings(home / "kafka", cache(), *ports, access=access, producers_port=free_port()), supervisor
        )
        self.broker.ensure_fetched(print)
        self.broker.start()
        password = home / "operator"
        password.write_text(access.operator_password)
        self.settings = Settings(
            kafka=Kafka(
                bootstrap=self.broker.bootstrap,
                partitions=2,
                security_protocol=access.protocol,
                sasl_mechanism="PLAIN",
                user="operator",
                password_file=str(password),
                ca_file=str(pem or ""),
            ),
            keys=Keys(home=home / "keys"),
            gateway=Gateway(
                port=free_port(),
                advertised_bootstrap=self.broker.producers,
                advertised_mechanism=PRODUCERS_MECHANISM,
            ),
            generate=Generate(model="echo"),
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.gateway.port}"

    async def furnish(self) -> None:
        await wiring.apply_topics(self.settings, print)
        async with wiring.registry(self.settings) as hand:
            await hand.apply_policies(read_policies(POLICIES))
            await hand.add_tenant("acme", "enterprise")
            await hand.add_tenant("globex", "team")
        acl.grant(self.broker.endpoint, acl_rules())

    async def issue(self, tenant: str = "acme", user: str = "") -> str:
        async with wiring.registry(self.settings) as hand:
            return await wiring.add_producer_key(self.settings, hand, tenant, f"{tenant}-batch", user=user)

    async def revoke(self, key: str) -> None:
        async with wiring.registry(self.settings) as hand:
            await wiring.revoke_key(self.settings, hand, key)

    def endpoint_of(self, key: str) -> KafkaEndpoint:
        user, secret = parse_key(key)
        security = KafkaSecurity("SASL_PLAINTEXT", PRODUCERS_MECHANISM, user, kafka_password(secret))
        return KafkaEndpoint(self.broker.producers, security)

    def rate_of(self, user: str) -> float | None:
        component = DescribeClientQuotasRequest.ComponentData(entity_type="user", match_type=0, match=user)
        client = operator_client(self.broker.endpoint)
        try:
            request = DescribeClientQuotasRequest(components=[component], strict=True)
            entries = client._manager.run(client._manager.send, request).entries
        finally:
            client.close()
        return next((value.value for entry in entries for value in entry.values), None)


@contextlib.asynccontextmanager
async def gateway(settings: Settings) -> AsyncIterator[None]:
    """Until the block ends."""
    stop = asyncio.Event()
    serving = asyncio.create_task(STAGES["gateway"](settings, stop))
    try:
        await answering(f"http://127.0.0.1:{settings.gateway.port}", serving)
        yield
    finally:
        stop.set()
        await serving


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    supervisor = Supervisor()
    try:
        made = Site(tmp_path_factory.mktemp("direct"), supervisor)
        asyncio.run(made.furnish())
        yield made
    finally:
        supervisor.stop_all()


def test_a_key_alone_lets_a_producer_in_and_it_stays_in_past_the_life_of_its_login(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    lapsed: list[bool] = []
    genuine = BrokerConnection._lapse

    def lapse(connection: BrokerConnection) -> None:
        lapsed.append(bool(connection._requests))
        genuine(connection)

    monkeypatch.setattr(BrokerConnection, "_lapse", lapse)

    async def job() -> None:
        key = await site.issue()
        async with asyncio.timeout(STUCK_S), serving(site.settings), Producer(site.url, key) as producer:
            tickets = []
            while sum(not busy for busy in lapsed) < 3:
                tickets.append(await producer.submit("hello", model="echo", max_tokens=8))
                await asyncio.sleep(0.05)
            answers = [await ticket.result() for ticket in tickets]
            assert {answer.result for answer in answers} == {"finished"}

    asyncio.run(job())


def test_a_key_for_the_gateway_alone_says_what_to_ask_for(site: Site) -> None:
    async def job() -> None:
        async with wiring.registry(site.settings) as hand:
            plain = await hand.add_key("acme", "acme-app")
        named = await site.issue(user="CN=acme-batch")
        async with asyncio.timeout(STUCK_S), gateway(site.settings):
            with pytest.raises(ConfigError, match="sluice key add TENANT PRINCIPAL --kafka"):
                await Producer(site.url, plain).start()
            with pytest.raises(ConfigError, match="know its bearer as 'CN=acme-batch'"):
                await Producer(site.url, named).start()
        await site.revoke(named)

    asyncio.run(job())


def test_a_revoked_key_has_no_user_no_right_and_no_rate_at_the_brokers(site: Site) -> None:
    async def job() -> None:
        key = await site.issue()
        kafka, user = site.endpoint_of(key), parse_key(key)[0]
        assert site.rate_of(user)
        async with make_producer(kafka) as producer:
            await producer.send_and_wait("requests", b"x", partition=0)
        await site.revoke(key)
        with pytest.raises(ConfigError, match="refused user"):
            await require_login(kafka)
        assert site.rate_of(user) is None
        assert await wiring.check_rights(site.settings) == []

    asyncio.run(job())


def test_an_open_producer_of_a_revoked_key_says_that_nothing_was_confirmed(site: Site) -> None:
    async def job() -> None:
        key = await site.issue()
        async with asyncio.timeout(STUCK_S), serving(site.settings), Producer(site.url, key) as producer:
            await (await producer.submit("hello", model="echo", max_tokens=8)).result()
            await site.revoke(key)
            with pytest.raises(NotConfirmed):
                await producer.submit("hello", model="echo", max_tokens=8)
            with pytest.raises(ConfigError, match="refused user"):
                await producer.submit("hello", model="echo", max_tokens=8)

    asyncio.run(job())


def test_producers_and_stages_have_listeners_of_their_own(site: Site) -> None:
    async def job() -> None:
        direct = site.endpoint_of(await site.issue())
        await require_login(direct)
        with pytest.raises(ConfigError, match="refused user"):
            await require_login(dataclasses.replace(direct, bootstrap=site.broker.bootstrap))
        put_users(site.broker.endpoint, {"admit": "of admit"})
        admit = KafkaEndpoint(site.broker.bootstrap, KafkaSecurity("SASL_PLAINTEXT", MECHANISM, "admit", "of admit"))
        await require_login(admit)
        with pytest.raises(ConfigError, match="refused user 'admit'"):
            await require_login(dataclasses.replace(admit, bootstrap=site.broker.producers))

    asyncio.run(job())


def test_the_plan_says_how_much_a_producer_writes_and_stages_are_not_held_up(site: Site) -> None:
    async def job() -> None:
        key = await site.issue("globex")
        user = parse_key(key)[0]
        async with wiring.registry(site.settings) as hand:
            plan = hand.control.plans["team"]
            assert site.rate_of(user) == plan.kafka_bytes_per_s
            await hand.apply_policies([plan.model_copy(update={"kafka_bytes_per_s": 4096})])
            await wiring.settle_producers(site.settings, hand)
            assert producers.producers(hand.control)[user] == 4096
        assert site.rate_of(user) == 4096
        assert [site.rate_of(stage) for stage in ("admit", "gateway", "operator")] == [None] * 3

    asyncio.run(job())


def test_where_this_user_may_make_no_users_the_key_is_revoked_and_told_what_else_there_is(
    site: Site, tmp_path: Path
) -> None:
    """As a managed service answers, which makes its users by an interface of its own."""
    put_users(site.broker.endpoint, {"gateway": "of the gateway"})
    (tmp_path / "gateway").write_text("of the gateway")
    kafka = site.settings.kafka.model_copy(
        update={"user": "gateway", "sasl_mechanism": MECHANISM, "password_file": str(tmp_path / "gateway")}
    )

    async def job() -> None:
        async with wiring.registry(site.settings) as hand:
            with pytest.raises(ConfigError, match="sluice key add TENANT PRINCIPAL --kafka-user NAME"):
                await wiring.add_producer_key(
                    site.settings.model_copy(update={"kafka": kafka}), hand, "acme", "acme-managed"
                )
            [made] = [key for key in hand.control.keys.values() if key.principal == "acme-managed"]
            assert made.status == "revoked"

    asyncio.run(job())


@pytest.mark.parametrize("name", ["admit", "operator", "broker", "generate-acme", "two\nlines", "x" * 256])
def test_a_producer_bears_no_name_of_a_stage(site: Site, name: str) -> None:
    with pytest.raises(ConfigError, match="--kafka-user: expected"):
        asyncio.run(site.issue(user=name))


def test_a_key_that_brokers_were_told_of_is_known_to_each_of_them(tmp_path: Path) -> None:
    supervisor = Supervisor()
    access = BrokerAccess("of the brokers", "of the operator")
    ports = [(free_port(), free_port()) for _ in range(3)]
    voters = tuple((node, "127.0.0.1", controller) for node, (_, controller) in enumerate(ports, 1))
    brokers = [
        EmbeddedBroker(
            BrokerSettings(
                tmp_path / str(node), cache(), *pair, node_id=node, voters=voters, access=access,
                producers_port=free_port(),
            ),
            supervisor,
        )
        for node, pair in enumerate(ports, 1)
    ]  # fmt: skip
    try:
        for broker in brokers:
            broker.launch()
        for broker in brokers:
            broker.await_ready()

        async def job() -> None:
            for number in range(5):
                user, password = f"k{number}", f"password of {number}"
                await asyncio.to_thread(
                    producers.admit, brokers[0].endpoint, user, 2**20, PRODUCERS_MECHANISM, password
                )
                for broker in brokers:
                    security = KafkaSecurity("SASL_PLAINTEXT", PRODUCERS_MECHANISM, user, password)
                    await require_login(KafkaEndpoint(broker.producers, security))

        asyncio.run(job())
    finally:
        supervisor.stop_all()
