"""Creates the topics of a deployment and tells where a broker's topics differ from the table."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError

from pipeline.control.table import ControlTable
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError, Retryable
from pipeline.events import plans
from pipeline.kafka.clients import make_admin
from pipeline.kafka.security import require_login
from pipeline.retry import retry_until
from pipeline.topics import POOL_WORK, TOPICS, Topic, pool_topic

_TRIES_S = 30.0
_HIDDEN = 29
"""Kafka's error TOPIC_AUTHORIZATION_FAILED."""
_SET_FOR_TOPIC = 1
"""Kafka's number for the source of a setting that was made for the topic itself."""


async def create(kafka: KafkaEndpoint, partitions: int, replication: int) -> list[str]:
    """Create what is missing; gives the names of the created topics.

    Topics that are there keep their settings, but for those by which they are stored.
    """
    admin = await _connect(kafka)
    try:
        present = set(await admin.list_topics())
        missing = [topic for topic in TOPICS if topic.name not in present]
        for topic in missing:
            await _create(admin, topic, partitions, replication)
        pools = [pool_topic(name.removeprefix(POOL_WORK)) for name in present if name.startswith(POOL_WORK)]
        await _adjust(admin, [*(topic for topic in TOPICS if topic.name in present), *pools])
    finally:
        await admin.close()
    return [topic.name for topic in missing]


async def add_pools(kafka: KafkaEndpoint, tenants: Iterable[str]) -> list[str]:
    """Create the work topics of tenants with their own workers, laid out as ``work``; gives those that were made.

    Before control says that such a tenant exists: admit would wait for the topic, and everybody behind it. Raises
    Retryable.
    """
    admin = await _connect(kafka)
    try:
        present = set(await admin.list_topics())
        missing = [topic for topic in map(pool_topic, tenants) if topic.name not in present]
        if missing:
            [work] = await admin.describe_topics(["work"])
            for topic in missing:
                await _create(admin, topic, len(work["partitions"]), len(work["partitions"][0]["replicas"]))
    finally:
        await admin.close()
    return [topic.name for topic in missing]


async def check(kafka: KafkaEndpoint, pin: str) -> list[str]:
    """Compare the broker with the table: a sentence with the fix for each difference, none where all is well."""
    admin = await _connect(kafka)
    try:
        present = set(await admin.list_topics())
        if "control" not in present:
            return ["no topic control: nothing was set up here yet; run: sluice topics apply"]
        table = ControlTable(kafka, pin)
        try:
            await table.start()
        finally:
            await table.close()
        if table.control.deployment is None:
            return ["control holds no deployment document; run: sluice topics apply"]
        partitions = table.control.deployment.partitions
        wanted = [*TOPICS, *map(pool_topic, plans.pools(table.control))]
        faults = [f"no topic {t.name}; run: sluice topics apply" for t in wanted if t.name not in present]
        existing = [topic for topic in wanted if topic.name in present]
        described = {d["topic"]: d for d in await admin.describe_topics([t.name for t in existing])}
        configs = await _configs(admin, existing)
        for topic in existing:
            faults += _differences(topic, partitions, described[topic.name], configs[topic.name])
        return faults
    finally:
        await admin.close()


async def require_partitions(kafka: KafkaEndpoint, pinned: int, pools: Iterable[str] = ()) -> None:
    """Raises ConfigError where the broker's count of a main topic, or of one in ``pools``, differs from ``pinned``,
    Retryable where no broker says. Topics that this process may not see are passed over."""
    admin = await _connect(kafka)
    names = [topic.name for topic in (*TOPICS, *map(pool_topic, pools)) if topic.partitions == "main"]
    try:
        described = await admin.describe_topics(names)
        counts = {d["topic"]: len(d["partitions"]) for d in described if d["error_code"] != _HIDDEN}
    except KafkaError as error:
        raise Retryable(f"the topics could not be looked at: {error!r}") from error
    finally:
        await admin.close()
    for topic, count in counts.items():
        if count != pinned:
            raise ConfigError(
                f"{topic} has {count} partitions, control pins {pinned}: records would be misplaced and quotas split. "
                "Restore the topic or start a new deployment; see: sluice topics check"
            )


def _differences(topic: Topic, partitions: int, described: Any, config: dict[str, str]) -> list[str]:
    wanted = partitions if topic.partitions == "main" else 1
    count = len(described["partitions"])
    faults = []
    if count != wanted:
        faults.append(
            f"{topic.name}: expected {wanted} partitions as pinned in control, the broker has {count}. "
            "Counts never change within a generation; restore the topic or start a new deployment."
        )
    replication = len(described["partitions"][0]["replicas"])
    for name, value in topic.config(replication).items():
        if name in config and config[name] != value:
            faults.append(f"{topic.name}: expected {name}={value}, the broker has {config[name]}; alter the topic.")
    return faults


async def _adjust(admin: AIOKafkaAdminClient, topics: list[Topic]) -> None:
    """Change how topics that another build made are stored, and nothing else of them."""
    by_name = {topic.name: topic for topic in topics}
    responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in by_name])
    changes = []
    for resource in (resource for response in responses for resource in response.resources):
        wanted = by_name[resource[3]].adjusted
        in_force = {entry[0]: entry[1] for entry in resource[4] if entry[0] in wanted}
        if in_force != wanted:
            own = {entry[0]: entry[1] for entry in resource[4] if entry[3] == _SET_FOR_TOPIC}
            # the request replaces all that is set for the topic
            changes.append(ConfigResource(ConfigResourceType.TOPIC, resource[3], {**own, **wanted}))
    for response in await admin.alter_configs(changes) if changes else ():
        for code, message, _, name in response.resources:
            if code:
                raise Retryable(f"could not alter {name}: error {code} {message or ''}")


async def _configs(admin: AIOKafkaAdminClient, topics: list[Topic]) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in topics]
    configs: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs(resources):
        for resource in response.resources:
            configs[resource[3]] = {entry[0]: entry[1] for entry in resource[4]}
    return configs


async def reach(kafka: KafkaEndpoint, timeout_s: float, stop: asyncio.Event | None = None) -> None:
    """Wait for a broker. Raises Retryable where none answers for so long, Stopped where ``stop`` is set first."""
    await (await _connect(kafka, timeout_s, stop)).close()


async def _connect(
    kafka: KafkaEndpoint, timeout_s: float = _TRIES_S, stop: asyncio.Event | None = None
) -> AIOKafkaAdminClient:
    """Give a started client. Raises Retryable saying what was tried and for how long, ConfigError at once where the
    brokers refuse who asks."""

    async def start() -> AIOKafkaAdminClient:
        admin = make_admin(kafka)
        try:
            await admin.start()
        except BaseException as error:
            await admin.close()
            if isinstance(error, KafkaError | OSError):
                await require_login(kafka)
                raise Retryable(repr(error)) from error
            raise
        return admin

    began = time.monotonic()
    try:
        return await retry_until(start, timeout_s, f"the Kafka broker at {kafka.bootstrap}", stop)
    except Retryable as error:
        raise Retryable(
            f"no Kafka broker answered at {kafka.bootstrap} for {time.monotonic() - began:.0f} s "
            f"(last: {error.__cause__}). Start it, or set kafka.bootstrap (SLUICE_KAFKA__BOOTSTRAP)."
        ) from error


async def _create(admin: AIOKafkaAdminClient, topic: Topic, partitions: int, replication: int) -> None:
    count = partitions if topic.partitions == "main" else 1
    described = NewTopic(topic.name, count, replication, topic_configs=topic.config(replication))
    try:
        response = await admin.create_topics([described])
    except TopicAlreadyExistsError:
        return
    except KafkaError as error:
        raise Retryable(f"could not create {topic.name}: {error!r}") from error
    for _, code, message in response.topic_errors:
        if code not in (0, TopicAlreadyExistsError.errno):
            raise Retryable(f"could not create {topic.name}: error {code} {message or ''}")
