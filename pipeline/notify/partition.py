"""One partition of ``alerts``: attempts out, their records to ``deliveries``. Notify runs one per partition.

Order per attempt: post, write the record, wait for its acknowledgement, fold it in. A crash after the post and before
the record makes the post twice; a crash anywhere else repeats nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from pipeline.clock import now_ms
from pipeline.control.table import ControlTable
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError, Malformed, Retryable
from pipeline.events.codec import decode
from pipeline.events.messages import Alert, Delivery
from pipeline.kafka.committed import CommittedOffsets
from pipeline.kafka.reader import KafkaRecord, PartitionReader
from pipeline.kafka.writer import Publisher
from pipeline.keys.vault import Vault
from pipeline.metrics import DELIVERIES_OLDEST, DELIVERIES_OPEN, MetricSample
from pipeline.notify.outbox import HOUR_MS, PendingAlert, Schedule, WebhookReply, body
from pipeline.notify.step import UNKNOWN_TENANT, Arrival, DeliveryAttempt, NotifyItem, NotifyStage, NotifyStep
from pipeline.notify.webhook import WebhookSender
from pipeline.retry import retry_forever
from pipeline.stage import InputBatch

T = TypeVar("T")
_log = logging.getLogger(__name__)
_COMMIT_S = 5.0
_HISTORY_MS = HOUR_MS
"""How much further back than the oldest open alert ``deliveries`` is read: ``alerts`` may repeat a finished one."""


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """Targets, limits and schedule of one worker are set here."""

    allow_private: bool = False
    """Also send to plain HTTP, private and loopback addresses: a tenant can then reach what this process can."""
    timeout_s: float = 15.0
    """Whole attempt, seconds."""
    concurrency: int = 32
    """Attempts under way at once, over all partitions of this worker; one per tenant at most."""
    schedule: Schedule = field(default_factory=Schedule)
    instance: str = ""
    """Fixed name of this worker in the group; with one, a restart goes on at once."""


@dataclass(slots=True)
class OutboxContext:
    """The partitions of one worker share these."""

    kafka: KafkaEndpoint
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
        tenants = self.control_table.control.tenants
        if tenant not in tenants:
            await self.refresh()
        document = tenants.get(tenant)
        return document.webhook if document else ""

    async def refresh(self) -> None:
        """Read ``control`` to its end, where the broker answers."""
        with contextlib.suppress(Retryable):
            await self.control_table.refresh()

    async def attempt(self, alert: Alert, url: str) -> WebhookReply:
        """Post once. A secret that does not open counts as a failed attempt, so that it can be mended meanwhile."""
        try:
            secrets = self.vault.webhook_secrets(alert.tenant, now_ms())
        except (ConfigError, Malformed, KeyError, ValueError):
            return WebhookReply(0, fault="the tenant's webhook secret does not open with this keyring")
        async with self.slots:
            return await self.sender.post(url, secrets, alert.alert, now_ms() // 1000, body(alert))


class PartitionOutbox:
    """One partition of ``alerts``: its outbox, and the attempts under way (one per tenant)."""

    def __init__(self, context: OutboxContext, partition: int) -> None:
        self._context = context
        self._partition = partition
        self._alerts = PartitionReader(context.kafka, "alerts", partition)
        self._stage = NotifyStage(context.control_table.control, partition, context.settings.schedule)
        self._outbox = self._stage.start()
        self._deliveries: dict[str, asyncio.Task[None]] = {}
        """Attempts under way, by tenant."""
        self._unrecorded: list[int] = []
        """Offsets of alerts being taken in or recorded: the outbox is ahead of ``deliveries`` from these on."""
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

    def readings(self) -> list[MetricSample]:
        """Tell how far alerts are behind, and which wait for their target; nothing before the outbox is complete."""
        if self._committed is None:
            return []
        pending, label = self._outbox.open(), (str(self._partition),)
        oldest = min((each.alert.time for each in pending), default=now_ms())
        return [
            *self._alerts.lag(),
            MetricSample(DELIVERIES_OPEN, len(pending), label),
            MetricSample(DELIVERIES_OLDEST, max(0, now_ms() - oldest) / 1000, label),
        ]

    async def _poll_once(self) -> None:
        await self._accept(await self._alerts.poll(wait_ms=200))
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
            history = await self._history(items[0].time - _HISTORY_MS)
            arrivals = [Arrival(offset, alert) for offset, alert in self._decoded(Alert, "alerts", items)]
            deliveries = [delivery for _, delivery in self._decoded(Delivery, "deliveries", history)]
            self._outbox = self._stage.fold(self._outbox, [*arrivals, *deliveries])
        await self._accept(self._outbox.open())
        self._committed = committed

    async def _commit(self) -> None:
        """Commit the offset in ``alerts`` before which everything is delivered or dead, and on record."""
        low = min([self._outbox.low(self._alerts.position), *self._unrecorded])
        if self._committed not in (None, low):
            await self._context.committed.set(self._partition, low)
            self._committed = low

    async def _history(self, since: int) -> list[KafkaRecord]:
        """Read the records of ``deliveries`` from the append time ``since`` (Unix ms) on."""
        reader = PartitionReader(self._context.kafka, "deliveries", self._partition)
        try:
            await reader.start(await reader.offset_since(since))
            return await reader.read_to_end()
        finally:
            await reader.close()

    def _decoded(self, kind: type[T], topic: str, items: list[KafkaRecord]) -> Iterator[tuple[int, T]]:
        """Give offset and record of those that can be read."""
        for item in items:
            try:
                yield item.offset, decode(kind, item.value)
            except Malformed as error:
                _log.error("notify: %s[%d] passed over record %d: %s", topic, self._partition, item.offset, error)

    async def _accept(self, items: Sequence[KafkaRecord | PendingAlert]) -> None:
        """Take alerts in. Those of a tenant that is not known wait until ``control`` was read again."""
        if not items:
            return
        low = min(item.offset for item in items)
        self._unrecorded.append(low)
        step = await self._step(items, drained=False)
        if UNKNOWN_TENANT in step.signals:
            await self._context.refresh()
            await self._step(items[step.consumed :])
        self._unrecorded.remove(low)

    async def _step(self, items: Sequence[NotifyItem], *, drained: bool = True) -> NotifyStep:
        """Take a step and write its records until acknowledged; nothing behind them is committed meanwhile."""
        low = min(item.offset for item in items)
        step = self._stage.step(self._outbox, InputBatch(items, now_ms(), drained))
        self._outbox = step.state
        for rejection in step.rejections:
            _log.error("notify: alerts[%d] passed over record %d", self._partition, rejection.offset)
        self._unrecorded.append(low)
        for delivery, emission in zip(step.deliveries, step.emissions, strict=True):
            send = partial(self._context.publisher.send, *emission)
            await retry_forever(send, self._stop, f"the attempt for alert {delivery.alert} to be recorded")
            if not delivery.target:
                alert = (delivery.alert, delivery.tenant)
                _log.error("notify: alert %s of tenant %s given up: no target, or too many are waiting", *alert)
        self._unrecorded.remove(low)
        return step

    def _attempt_what_is_due(self) -> None:
        for pending in self._outbox.due(now_ms(), set(self._deliveries)):
            tenant = pending.alert.tenant
            delivery = self._deliveries[tenant] = asyncio.create_task(self._deliver(pending))
            delivery.add_done_callback(partial(self._end_delivery, tenant))

    def _end_delivery(self, tenant: str, delivery: asyncio.Task[None]) -> None:
        del self._deliveries[tenant]
        if not delivery.cancelled() and delivery.exception() is not None:
            self._fault = delivery.exception()

    async def _deliver(self, pending: PendingAlert) -> None:
        alert, url = pending.alert, await self._context.target(pending.alert.tenant)
        if not url:
            await self._step([DeliveryAttempt(pending)])
            return
        reply = await self._context.attempt(alert, url)
        (delivery,) = (await self._step([DeliveryAttempt(pending, url, reply)])).deliveries
        level = {"delivered": logging.INFO, "retry": logging.WARNING, "dead": logging.ERROR}[delivery.status]
        facts = (delivery.status, alert.alert, alert.tenant, delivery.attempt, reply.status, reply.fault)
        _log.log(level, "notify: %s: alert %s of tenant %s, attempt %d, HTTP %d %s", *facts)

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
