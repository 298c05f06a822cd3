"""Runs notify: alerts to webhooks, attempts to ``deliveries``. At least once, always under the same ``webhook-id``.

The consumer group says which partitions this worker serves. The committed offset of a partition of ``alerts`` is that
of its oldest alert that is not finished; from there on the partition is read again when it is taken.
"""

from __future__ import annotations

import asyncio

from pipeline.control.table import ControlTable
from pipeline.endpoints import KafkaEndpoint
from pipeline.kafka.committed import CommittedOffsets
from pipeline.kafka.membership import Assign, ConsumerGroup, share
from pipeline.kafka.worker_status import WorkerStatus
from pipeline.kafka.writer import Publisher
from pipeline.keys.vault import Vault
from pipeline.notify.partition import NotifySettings, OutboxContext, PartitionOutbox
from pipeline.notify.webhook import WebhookSender

__all__ = ["NotifySettings", "run"]
GROUP = "sluice-notify"
"""Holds the committed offsets."""


async def run(
    kafka: KafkaEndpoint,
    control_table: ControlTable,
    vault: Vault,
    settings: NotifySettings,
    stop: asyncio.Event,
    assign: Assign = (),
    status: WorkerStatus | None = None,
) -> None:
    """Deliver until ``stop`` is set. The caller starts and follows ``control_table``.

    Raises Retryable without a broker (start again), Fatal where ``alerts`` was cut below what was read.
    """
    status = status or WorkerStatus("notify")
    publisher, committed = Publisher(kafka), CommittedOffsets(kafka, GROUP, "alerts")
    handover_s = settings.timeout_s + 1
    group = ConsumerGroup(kafka, f"{GROUP}-workers", "alerts", settings.instance, handover_s)
    try:
        await committed.start()
        async with WebhookSender(settings.allow_private, settings.timeout_s) as sender:
            context = OutboxContext(kafka, control_table, vault, settings, sender, publisher, committed)
            await share(group, lambda p, s: status.told(PartitionOutbox(context, p), s), stop, assign, status)
    finally:
        await publisher.close()
        await committed.close()
