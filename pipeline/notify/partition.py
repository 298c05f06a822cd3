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

from pipeline.clock import now_ms
from pipeline.control.table import ControlTable
from pipeline.errors import ConfigError, Malformed, Retryable
from pipeline.events.codec import decode, encode
from pipeline.events.messages import Alert, Delivery
from pipeline.kafka.committed import CommittedOffsets
from pipeline.kafka.reader import KafkaRecord, PartitionReader
from pipeline.kafka.writer import Publisher
from pipeline.keys.vault import Vault
from pipeline.notify import outbox as notify
from pipeline.notify.webhook import WebhookSender
from pipeline.retry import retry_forever

_log = logging.getLogger(__name__)
_COMMIT_S = 5.0
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


@dataclass(slots=True)
class OutboxContext:
    """What all partitions of one worker share."""

    bootstrap: str
    control_table: ControlTable
    vault: Vault
    settings: NotifySettings
    sender: WebhookSender
    publisher: Publisher
    committed: CommittedOffsets
    slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.slots = asyncio.Semaphore(self.settings.concurrency)

    async def target(self, tenant: str) -> str:
        """Give the tenant's webhook, empty where it has none. Reads ``control`` again before it says so."""
        table = self.control_table
        if tenant not in table.control.tenants:
            with contextlib.suppress(Retryable):
                await table.refresh()
        document = table.control.tenants.get(tenant)
        return document.webhook if document else ""

    async def attempt(self, alert: Alert, url: str) -> notify.WebhookReply:
        """Post once. A secret that does not open counts as a failed attempt, so that it can be mended meanwhile."""
        try:
            secret = self.vault.webhook_secret(alert.tenant)
        except (ConfigError, Malformed, KeyError, ValueError):
            return notify.WebhookReply(0, fault="the tenant's webhook secret does not open with this keyring")
        async with self.slots:
            return await self.sender.post(url, secret, alert.alert, now_ms() // 1000, notify.body(alert))


class PartitionOutbox:
    """One partition of ``alerts``: what is open, and the attempts under way (one per tenant)."""

    def __init__(self, context: OutboxContext, partition: int) -> None:
        self._context, self._partition = context, partition
        self._alerts = PartitionReader(context.bootstrap, "alerts", partition)
        self._outbox = notify.Outbox()
        self._deliveries: dict[str, asyncio.Task[None]] = {}
        """Attempts under way, by tenant."""
        self._committed: int | None = None
        """None until the outbox is complete."""
        self._commit_at = 0.0
        self._stop = asyncio.Event()
        self._fault: BaseException | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until ``stop``, then let attempts under way end. Raises Retryable, Fatal."""
        self._stop = stop
        try:
            await self._take()
            while not stop.is_set():
                await retry_forever(self._poll_once, stop, f"alerts[{self._partition}] to go on")
        finally:
            await self._settle()
            await self._alerts.close()

    async def _poll_once(self) -> None:
        for pending in self._add(await self._alerts.poll(wait_ms=200)):
            await self._accept(pending)
        self._attempt_what_is_due()
        if self._fault is not None:
            raise self._fault
        if time.monotonic() >= self._commit_at:
            self._commit_at = time.monotonic() + _COMMIT_S
            await self._commit()

    async def _take(self) -> None:
        """Open the partition from the committed offset on, which may be missing or cut away."""
        committed = await self._context.committed.get(self._partition)
        await self._alerts.start(None)
        begin, end = await self._alerts.begin(), await self._alerts.end()
        self._alerts.seek(committed if begin <= committed <= end else begin)
        items = await self._alerts.read_to_end()
        if items:
            self._add(items)
            for item in await self._history(items[0].time - _HISTORY_MS):
                with contextlib.suppress(Malformed):
                    self._outbox.apply(decode(Delivery, item.value))
        for pending in self._outbox.open():
            await self._accept(pending)
        self._committed = committed

    async def _commit(self) -> None:
        """Commit the offset in ``alerts`` before which everything is delivered or dead."""
        low = self._outbox.low(self._alerts.position)
        if self._committed not in (None, low):
            await self._context.committed.set(self._partition, low)
            self._committed = low

    async def _history(self, since: int) -> list[KafkaRecord]:
        """The records of ``deliveries`` from the append time ``since`` (Unix ms) on."""
        reader = PartitionReader(self._context.bootstrap, "deliveries", self._partition)
        try:
            await reader.start(await reader.offset_since(since))
            return await reader.read_to_end()
        finally:
            await reader.close()

    def _add(self, items: list[KafkaRecord]) -> list[notify.PendingAlert]:
        """Fold alerts in and give those that are not known yet."""
        unknown = []
        for item in items:
            try:
                pending = self._outbox.add(item.offset, decode(Alert, item.value))
            except Malformed as error:
                _log.error("notify: alerts[%d] passed over record %d: %s", self._partition, item.offset, error)
                continue
            if pending is not None:
                unknown.append(pending)
        return unknown

    async def _accept(self, pending: notify.PendingAlert) -> None:
        tenant = pending.alert.tenant
        if not await self._context.target(tenant):
            self._outbox.drop(pending.alert)
        elif self._outbox.crowded(tenant):
            _log.error("notify: alert %s of tenant %s given up: too many are waiting", pending.alert.alert, tenant)
            await self._record(notify.give_up(pending, now_ms()))

    def _attempt_what_is_due(self) -> None:
        for pending in self._outbox.due(now_ms(), set(self._deliveries)):
            tenant = pending.alert.tenant
            delivery = self._deliveries[tenant] = asyncio.create_task(self._deliver(pending))
            delivery.add_done_callback(partial(self._end_delivery, tenant))

    def _end_delivery(self, tenant: str, delivery: asyncio.Task[None]) -> None:
        del self._deliveries[tenant]
        if not delivery.cancelled() and delivery.exception() is not None:
            self._fault = delivery.exception()

    async def _deliver(self, pending: notify.PendingAlert) -> None:
        alert, url = pending.alert, await self._context.target(pending.alert.tenant)
        if not url:
            await self._record(notify.give_up(pending, now_ms()))
            return
        reply = await self._context.attempt(alert, url)
        schedule = self._context.settings.schedule
        delivery = notify.decide(pending, reply, now_ms(), notify.target_name(url), schedule)
        await self._record(delivery)
        level = {"delivered": logging.INFO, "retry": logging.WARNING, "dead": logging.ERROR}[delivery.status]
        facts = (delivery.status, alert.alert, alert.tenant, delivery.attempt, reply.status, reply.fault)
        _log.log(level, "notify: %s: alert %s of tenant %s, attempt %d, HTTP %d %s", *facts)

    async def _record(self, delivery: Delivery) -> None:
        """Write until acknowledged, then fold in: an attempt that is not on record does not count."""
        key, value = delivery.target.encode(), encode(delivery)

        async def send() -> None:
            await self._context.publisher.send("deliveries", self._partition, key, value)

        await retry_forever(send, self._stop, f"the attempt for alert {delivery.alert} to be recorded")
        self._outbox.apply(delivery)

    async def _settle(self) -> None:
        """Let attempts under way end, so that they are on record; one that takes too long is made again later."""
        deliveries = list(self._deliveries.values())
        if deliveries:
            await asyncio.wait(deliveries, timeout=self._context.settings.timeout_s + 1)
        for delivery in deliveries:
            delivery.cancel()
        await asyncio.gather(*deliveries, return_exceptions=True)
        with contextlib.suppress(Retryable):
            await self._commit()
