"""One partition of ``alerts``: attempts out, their records to ``deliveries``. Notify runs one per partition.

Order per attempt: post, write the record, wait for its acknowledgement, fold it in. A crash after the post and before
the record makes the post twice; a crash anywhere else repeats nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from functools import partial

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.control.table import ControlTable
from pipeline.errors import ConfigError, Malformed, Retryable
from pipeline.events.codec import decode, encode
from pipeline.events.messages import Alert, Delivery
from pipeline.kafka.reader import KafkaRecord, PartitionReader
from pipeline.kafka.shutdown import stop_consumer
from pipeline.kafka.writer import Publisher
from pipeline.keys.vault import Vault
from pipeline.notify import outbox as notify
from pipeline.notify.webhook import WebhookSender

_log = logging.getLogger(__name__)
_PAUSE_S = 1.0
_HISTORY_MS = notify.HOUR_MS
"""How much further back than the oldest open alert ``deliveries`` is read: ``alerts`` may repeat a finished one."""


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """Which targets and how often."""

    allow_private: bool = False
    """Also send to plain HTTP, private and loopback addresses: a tenant can then reach what this process can."""
    timeout_s: float = 15.0
    """Whole attempt, seconds."""
    concurrency: int = 32
    """Attempts under way at once, over all partitions of this worker; one per tenant at most."""
    schedule: notify.Schedule = field(default_factory=notify.Schedule)
    instance: str = ""
    """Fixed name of this worker in the group; with one, a restart goes on at once."""


class OutboxContext:
    """What all partitions of one worker share."""

    def __init__(
        self, bootstrap: str, feed: ControlTable, vault: Vault, settings: NotifySettings, courier: WebhookSender
    ) -> None:
        self.bootstrap, self.feed, self.vault, self.settings, self.courier = bootstrap, feed, vault, settings, courier
        self.publisher = Publisher(bootstrap)
        self.slots = asyncio.Semaphore(settings.concurrency)

    async def target(self, tenant: str) -> str:
        """The tenant's webhook, empty where it has none. Reads ``control`` again before it says so."""
        if tenant not in self.feed.control.tenants:
            with contextlib.suppress(Retryable):
                await self.feed.refresh()
        document = self.feed.control.tenants.get(tenant)
        return document.webhook if document else ""

    async def attempt(self, held: notify.PendingAlert, url: str) -> notify.WebhookReply:
        """Post once. A secret that does not open counts as a failed attempt, so that it can be mended meanwhile."""
        alert = held.alert
        try:
            secret = self.vault.webhook_secret(alert.tenant)
        except (ConfigError, Malformed, KeyError, ValueError):
            return notify.WebhookReply(0, fault="the tenant's webhook secret does not open with this keyring")
        async with self.slots:
            return await self.courier.post(url, secret, alert.alert, int(time.time()), notify.body(alert))


class PartitionOutbox:
    """One partition of ``alerts``: what is open, and the attempts under way (one per tenant)."""

    def __init__(self, desk: OutboxContext, partition: int) -> None:
        self._desk, self._partition = desk, partition
        self._alerts = PartitionReader(desk.bootstrap, "alerts", partition)
        self._outbox = notify.Outbox()
        self._lanes: dict[str, asyncio.Task[None]] = {}
        self._taken = False
        self._fault: BaseException | None = None

    @property
    def low(self) -> int | None:
        """Offset in ``alerts`` before which everything is delivered or dead; None until that is known."""
        return self._outbox.low(self._alerts.position) if self._taken else None

    async def run(self, mark: int | None, stop: asyncio.Event) -> None:
        """Deliver until ``stop``; ``mark`` is the committed offset, None where there is none."""
        try:
            await self._take(mark)
            while not stop.is_set():
                try:
                    items = await self._alerts.poll(wait_ms=200)
                except Retryable as error:
                    _log.warning("notify: alerts[%d] not read, again: %s", self._partition, error)
                    await asyncio.sleep(_PAUSE_S)
                    continue
                for held in self._add(items):
                    await self._accept(held)
                self._attempt_what_is_due()
                if self._fault is not None:
                    raise self._fault
        finally:
            await self._settle()
            await self._alerts.close()

    async def _take(self, mark: int | None) -> None:
        await self._alerts.start(None)
        begin, end = await self._alerts.begin(), await self._alerts.end()
        self._alerts.seek(begin if mark is None or not begin <= mark <= end else mark)
        items = await self._alerts.read_to_end()
        if items:
            self._add(items)
            for item in await self._history(items[0].time - _HISTORY_MS):
                with contextlib.suppress(Malformed):
                    self._outbox.apply(decode(Delivery, item.value))
        for held in self._outbox.open():
            await self._accept(held)
        self._taken = True

    async def _history(self, since: int) -> list[KafkaRecord]:
        """The records of ``deliveries`` from the append time ``since`` (Unix ms) on."""
        at = TopicPartition("deliveries", self._partition)
        clerk = AIOKafkaConsumer(bootstrap_servers=self._desk.bootstrap, enable_auto_commit=False)
        reader = PartitionReader(self._desk.bootstrap, *at)
        try:
            await clerk.start()
            clerk.assign([at])
            found = (await clerk.offsets_for_times({at: max(0, since)}))[at]
            await reader.start(found.offset if found is not None else None)
            return await reader.read_to_end()
        finally:
            await stop_consumer(clerk)
            await reader.close()

    def _add(self, items: list[KafkaRecord]) -> list[notify.PendingAlert]:
        """Fold alerts in and give those that are not known yet."""
        found = []
        for item in items:
            try:
                held = self._outbox.add(item.offset, decode(Alert, item.value))
            except Malformed as error:
                _log.error("notify: alerts[%d] passed over record %d: %s", self._partition, item.offset, error)
                continue
            if held is not None:
                found.append(held)
        return found

    async def _accept(self, held: notify.PendingAlert) -> None:
        tenant = held.alert.tenant
        if not await self._desk.target(tenant):
            self._outbox.drop(held.alert)
        elif self._outbox.crowded(tenant):
            _log.error("notify: alert %s of tenant %s given up: too many are waiting", held.alert.alert, tenant)
            await self._record(notify.give_up(held, _now()))

    def _attempt_what_is_due(self) -> None:
        for held in self._outbox.due(_now(), set(self._lanes)):
            tenant = held.alert.tenant
            lane = self._lanes[tenant] = asyncio.create_task(self._deliver(held))
            lane.add_done_callback(partial(self._end_lane, tenant))

    def _end_lane(self, tenant: str, lane: asyncio.Task[None]) -> None:
        del self._lanes[tenant]
        if not lane.cancelled() and lane.exception() is not None:
            self._fault = lane.exception()

    async def _deliver(self, held: notify.PendingAlert) -> None:
        alert, url = held.alert, await self._desk.target(held.alert.tenant)
        if not url:
            await self._record(notify.give_up(held, _now()))
            return
        answer = await self._desk.attempt(held, url)
        schedule = self._desk.settings.schedule
        delivery = notify.decide(held, answer, _now(), notify.target_name(url), schedule)
        await self._record(delivery)
        level = {"delivered": logging.INFO, "retry": logging.WARNING, "dead": logging.ERROR}[delivery.status]
        told = (delivery.status, alert.alert, alert.tenant, delivery.attempt, answer.status, answer.fault)
        _log.log(level, "notify: %s: alert %s of tenant %s, attempt %d, HTTP %d %s", *told)

    async def _record(self, delivery: Delivery) -> None:
        """Write until acknowledged, then fold in: an attempt that is not on record does not count."""
        key, value = delivery.target.encode(), encode(delivery)
        while True:
            try:
                await self._desk.publisher.send("deliveries", self._partition, key, value)
                break
            except Retryable as error:
                _log.warning("notify: attempt for alert %s not recorded, again: %s", delivery.alert, error)
                await asyncio.sleep(_PAUSE_S)
        self._outbox.apply(delivery)

    async def _settle(self) -> None:
        """Let attempts under way end, so that they are on record; one that takes too long is made again later."""
        lanes = list(self._lanes.values())
        if lanes:
            await asyncio.wait(lanes, timeout=self._desk.settings.timeout_s + _PAUSE_S)
        for lane in lanes:
            lane.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)


def _now() -> int:
    return int(time.time() * 1000)
