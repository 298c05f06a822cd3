"""A tenant with workers of its own: nobody else's worker sees its work, and without one it waits and expires."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Literal, get_args

import aiohttp
import pytest

from inference.watermark.secrets import create_master
from pipeline import wiring
from pipeline.config import Gateway, Generate, Keys, Models, Settings
from pipeline.control import topics as topic_admin
from pipeline.control.registry import Registry
from pipeline.control.table import ControlTable
from pipeline.embedded.supervisor import free_port
from pipeline.errors import ConfigError
from pipeline.events.codec import decode
from pipeline.events.control import Plan
from pipeline.events.messages import Work
from pipeline.kafka.reader import PartitionReader
from pipeline.sections import Kafka
from tests.deployment_site import Deployment, furnished
from tests.stack.real_stages import serving, settled

PARTITIONS = 2
TextKey = Literal["data", "hpke"]
ALONE = Plan(id="alone", models=("echo",), isolation="process", weight=300)
ON_DEVICE = Plan(id="on-device", models=("echo",), isolation="device")


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*given: Any, **named: Any) -> None:
        asyncio.run(test(*given, **named))

    return run


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with furnished(tmp_path_factory.mktemp("tiers"), PARTITIONS) as made:
        asyncio.run(_isolate(made))
        yield made


async def _isolate(made: Deployment) -> None:
    create_master(settings(made).keys.watermark_key)
    async with wiring.registry(settings(made)) as hand:
        await hand.apply_policies([ALONE, ON_DEVICE])
        for tenant, plan in (("bank", "alone"), ("mint", "on-device")):
            await hand.add_tenant(tenant, plan)
            made.keys[tenant] = await hand.add_key(tenant, f"{tenant}-app")


def settings(made: Deployment, **generate: Any) -> Settings:
    return Settings(
        kafka=Kafka(bootstrap=made.bootstrap, partitions=PARTITIONS),
        keys=Keys(home=made.home / "keys"),
        models=Models(home=made.home / "models"),
        gateway=Gateway(port=free_port()),
        generate=Generate(model="echo", **generate),
    )


@contextlib.asynccontextmanager
async def own_worker(made: Deployment, tenant: str) -> AsyncIterator[None]:
    """With the keys of that tenant alone."""
    ours = settings(made, pool=tenant)
    granted = Keys(home=made.home / tenant / "keys")
    await wiring.grant(ours, tenant, granted.home)
    stop = asyncio.Event()
    running = asyncio.create_task(wiring.generate(ours.model_copy(update={"keys": granted}), stop))
    try:
        yield
    finally:
        stop.set()
        await running


async def ask(made: Deployment, url: str, tenant: str, timeout_ms: int = 30_000) -> tuple[int, str]:
    """Status, and the text or the error's code."""
    body = {"prompt": f"words of {tenant}", "model": "echo", "max_tokens": 8, "timeout_ms": timeout_ms}
    headers = {"Authorization": f"Bearer {made.keys[tenant]}"}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/inference", json=body, headers=headers) as got:
        answer = await got.json()
        return got.status, answer["text"] if got.status == 200 else answer["error"]["code"]


async def read(made: Deployment, topic: str) -> list[bytes]:
    found = []
    for partition in range(PARTITIONS):
        reader = PartitionReader(made.kafka, topic, partition)
        await reader.start(0)
        found += [item.value for item in await reader.read_to_end()]
        await reader.close()
    return found


@in_loop
async def test_each_tenants_work_is_seen_by_its_own_workers_alone(deployment: Deployment) -> None:
    shared = settings(deployment)
    url = f"http://127.0.0.1:{shared.gateway.port}"
    async with serving(shared):
        assert await ask(deployment, url, "acme") == (200, "words of acme")
        assert await ask(deployment, url, "bank", 1500) == (504, "expired")
        async with own_worker(deployment, "bank"):
            assert await ask(deployment, url, "bank") == (200, "words of bank")
            assert await ask(deployment, url, "acme") == (200, "words of acme")
        _, ended = await settled(deployment.bootstrap, PARTITIONS)
    shared_work = [decode(Work, value) for value in await read(deployment, "work")]
    own_work = [decode(Work, value) for value in await read(deployment, "work.bank")]
    assert {work.tenant for work in shared_work} == {"acme"}
    assert {work.tenant for work in own_work} == {"bank"}
    assert {work.weight for work in own_work} == {ALONE.weight}
    outcomes = [outcome for outcome in ended if outcome.tenant == "bank"]
    assert sorted(outcome.result for outcome in outcomes) == ["expired", "finished"]
    for outcome in outcomes:
        assert (outcome.worker == "") == (outcome.result == "expired")


@in_loop
async def test_keys_of_a_tenant_with_its_own_workers_are_replaced_once_those_have_them(deployment: Deployment) -> None:
    ours = settings(deployment)
    url, granted = f"http://127.0.0.1:{ours.gateway.port}", deployment.home / "bank" / "keys"
    async with serving(ours), own_worker(deployment, "bank"):
        assert await ask(deployment, url, "bank") == (200, "words of bank")
        for kind in get_args(TextKey):
            with pytest.raises(ConfigError, match="yet to be granted"):
                await wiring.rotate_secret(ours, kind, "bank")
            await wiring.prepare_secret(ours, kind, "bank")
            assert await ask(deployment, url, "bank") == (200, "words of bank")
            await wiring.grant(ours, "bank", granted)
            await wiring.rotate_secret(ours, kind, "bank")
            assert await ask(deployment, url, "bank") == (200, "words of bank")
        await wiring.rotate_keyring(ours, prepare=False)
        assert await ask(deployment, url, "bank") == (200, "words of bank"), "found by its id, without another grant"
        assert await ask(deployment, url, "acme") == (200, "words of acme")


@in_loop
async def test_a_worker_that_was_not_granted_the_key_yet_answers_once_it_was(deployment: Deployment) -> None:
    ours = settings(deployment)
    url = f"http://127.0.0.1:{ours.gateway.port}"
    async with serving(ours), own_worker(deployment, "bank"):
        await wiring.prepare_secret(ours, "data", "bank")
        await wiring.rotate_secret(ours, "data", "bank")
        asking = asyncio.create_task(ask(deployment, url, "bank"))
        await asyncio.sleep(0.5)
        assert not asking.done()
        await wiring.grant(ours, "bank", deployment.home / "bank" / "keys")
        assert await asking == (200, "words of bank")


@in_loop
async def test_the_keys_of_one_tenants_worker_open_no_other_tenants_texts(deployment: Deployment) -> None:
    ours, out = settings(deployment), deployment.home / "opened"
    await wiring.grant(ours, "bank", out)
    async with wiring.registry(ours) as hand:
        vault = wiring.vault(ours.model_copy(update={"keys": Keys(home=out)}), hand)
        operator = wiring.vault(ours, hand)
        for tenant, opens in (("bank", True), ("acme", False)):
            sealed = operator.encrypt(tenant, "request", "messages", "r", b"secret")
            if opens:
                assert vault.decrypt(tenant, "request", "messages", "r", sealed) == b"secret"
                continue
            with pytest.raises(ConfigError, match="was not granted"):
                vault.decrypt(tenant, "request", "messages", "r", sealed)
        with pytest.raises(ConfigError, match="was not granted"):
            vault.key_secret(next(iter(hand.control.keys)))
    with pytest.raises(ConfigError, match="no plan asks"):
        await wiring.grant(ours, "acme", out)


@pytest.mark.parametrize(("pool", "told"), [("acme", "no plan asks"), ("nobody", "no plan asks"), ("mint", "cuda:N")])
@in_loop
async def test_a_worker_that_no_policy_asks_for_does_not_start(deployment: Deployment, pool: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        await wiring.generate(settings(deployment, pool=pool), asyncio.Event())


@in_loop
async def test_the_table_of_topics_has_those_of_isolated_tenants(deployment: Deployment) -> None:
    assert await topic_admin.check(deployment.kafka, deployment.pin) == []
    assert await topic_admin.add_pools(deployment.kafka, ["bank"]) == []
    table = ControlTable(deployment.kafka, deployment.pin)
    hand = Registry(deployment.kafka, table, deployment.keyring, deployment.signing)
    await table.start()
    try:
        await hand.apply_policies([ALONE.model_copy(update={"id": "free"})])
        assert await topic_admin.add_pools(deployment.kafka, ["initech"]) == [], "made before the plan was in force"
    finally:
        await hand.close()
        await table.close()
