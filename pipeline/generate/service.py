"""The generate process: settings to a running worker."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.clock import now_ms
from pipeline.config import Generate, Settings
from pipeline.control.connect import followed_control, stage_clients
from pipeline.errors import ConfigError
from pipeline.events import plans
from pipeline.events.control import Control
from pipeline.events.messages import Work
from pipeline.events.wire import Message
from pipeline.kafka.membership import Assign, ConsumerGroup, share
from pipeline.kafka.worker_status import WorkerStatus
from pipeline.kafka.writer import Publisher
from pipeline.keys.vault import Vault, open_kms
from pipeline.retry import unless_stopped
from pipeline.status_server import served_status
from pipeline.topics import pool_topic

if TYPE_CHECKING:
    from detectors.verbatim import ProtectedIndex
    from pipeline.generate.guard import Guards


async def generate(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    async with served_status(settings, WorkerStatus("generate")) as status:
        await _serve(settings, stop, assign, status)


async def _serve(settings: Settings, stop: asyncio.Event, assign: Assign, status: WorkerStatus) -> None:
    from pipeline.generate import engines
    from pipeline.generate.metrics import WorkerMetrics, find_nvml
    from pipeline.generate.model_acts import ModelActs
    from pipeline.generate.partition import GenerateContext, GeneratePartition
    from pipeline.generate.protected_texts import read_protected
    from pipeline.generate.sender import Sender

    kafka, leaving = settings.kafka.endpoint, asyncio.Event()
    trace = engines.make_trace(settings.generate, settings.keys)
    protected = await asyncio.to_thread(read_protected, settings.generate.protected)
    # the model loads while the broker may still be starting
    loading = asyncio.to_thread(engines.make_engine, settings.generate, settings.models, settings.keys)
    engine = await unless_stopped(loading, stop, "the model to load")
    pool = settings.generate.pool
    # a tenant's own workers share a group and its committed offsets with no others
    topic, suffix = (pool_topic(pool).name, f".{pool}") if pool else ("work", "")
    opening = stage_clients(kafka, f"sluice-generate{suffix}", topic, stop)
    async with followed_control(settings, stop, status) as table, opening as (publisher, offsets, committed):
        _require_tier(settings.generate, table.control)
        vault = Vault(open_kms(settings.keys.keyring), table.control)
        guard = _guard(table.control, vault, protected)
        sender, reports = Sender(publisher), Sender(Publisher(kafka))
        sender.start()
        reports.start()
        metrics = WorkerMetrics(engine, find_nvml())
        context = GenerateContext(
            kafka, _worker_name(), engine, table, vault, sender, reports, offsets, committed, guard, trace, pool
        )
        context.adapted, context.observe = engines.adapter_loader(engine), metrics.observe
        group = ConsumerGroup(kafka, f"sluice-generate-workers{suffix}", topic, settings.kafka.instance)
        acts = ModelActs(settings.models.home, publisher, table.control.require_deployment().partitions)
        beside = [asyncio.create_task(acts.follow(leaving)), asyncio.create_task(engines.follow(engine, leaving))]
        status.renderers.append(metrics.meters.render)
        await share(group, lambda p, s: status.told(GeneratePartition(context, p), s), stop, assign, status)
        leaving.set()
        await asyncio.gather(*beside)
        await reports.close()
        await sender.close()
        await engine.close()


def _worker_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{now_ms() // 1000}"


def _guard(
    control: Control, vault: Vault, protected: ProtectedIndex | None
) -> Callable[[Work, Sequence[Message]], Guards]:
    """Give the function that makes the guards of one request's answer."""
    from pipeline.generate.canaries import Canaries
    from pipeline.generate.guard import guard_of

    canaries = Canaries(control, vault)

    def guard(work: Work, messages: Sequence[Message]) -> Guards:
        return guard_of(work, messages, protected, vault.canaries(work.tenant), canaries.others(work.tenant))

    return guard


def _require_tier(section: Generate, control: Control) -> None:
    """Raises ConfigError where no plan asks for this worker, or asks for more than it gives."""
    tier = plans.pools(control).get(section.pool, "")
    if section.pool and not tier:
        raise ConfigError(
            f"generate.pool {section.pool}: no plan asks for workers of this tenant's own; set isolation in its plan, "
            "or leave generate.pool empty"
        )
    if tier == "device" and section.device == "cpu":
        raise ConfigError(
            f"generate.pool {section.pool}: its plan asks for a device of its own, got generate.device cpu; set cuda:N"
        )
