"""The acts behind ``sluice quota``: what is left, why a request was refused, and the ledgers worked out again.

All of them read Kafka alone, and write nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Literal, NamedTuple

from pipeline.admit.explained_decision import ExplainedDecision, explain
from pipeline.admit.ledger import Ledger
from pipeline.admit.quota import ceiling, remaining
from pipeline.admit.recompute import (
    DecisionLog,
    Documents,
    Progress,
    Recomputation,
    current_ledger,
    find_decision,
    recompute,
)
from pipeline.clock import now_ms
from pipeline.config import Settings
from pipeline.control.connect import control_table
from pipeline.errors import ConfigError
from pipeline.events.control import Control
from pipeline.events.ids import is_request_id, place_of
from pipeline.events.limits import LimitState, ScopedLimit, limits_over
from pipeline.kafka.reader import PartitionReader
from pipeline.topics import partition_of
from pipeline.wiring.operate import check_broker

Subject = Literal["tenant", "principal", "key"]


class LeftOfLimit(NamedTuple):
    """A limit with what is left of it."""

    scoped: ScopedLimit
    state: LimitState


class LeftOfLimits(NamedTuple):
    """All limits over a tenant, principal or key leave so much at ``time`` (Unix ms)."""

    subject: Subject
    time: int
    limits: tuple[LeftOfLimit, ...]


async def left_of_limits(settings: Settings, name: str, subject: Subject | None, tell: Progress) -> LeftOfLimits:
    """Work out what is left now of every limit over ``name``. Raises ConfigError where it names nothing, or several."""
    control = await _control(settings)
    subject = _subject(control, name, subject)
    principal = control.keys[name].principal if subject == "key" else name if subject == "principal" else ""
    tenant = control.tenants[control.principals[principal].tenant if principal else name]
    limits = tuple(limits_over(control, tenant, principal, name if subject == "key" else ""))
    partition = partition_of(tenant.organisation.encode(), control.require_deployment().partitions)
    async with _log(settings, partition, tell) as log:
        ledger = await current_ledger(log)
    if not isinstance(ledger, Ledger):
        raise ConfigError(f"decisions[{partition}] is of an older build and not lifted yet; start: sluice run admit")
    now = max(now_ms(), ledger.time)
    states = remaining(ledger.cells, [ceiling(*scoped) for scoped in limits], now)
    return LeftOfLimits(subject, now, tuple(map(LeftOfLimit, limits, states)))


async def explain_decision(settings: Settings, request: str, tell: Progress) -> ExplainedDecision:
    """Derive the decision about a request again from the log. Raises ConfigError where there is none."""
    control = await _control(settings)
    deployment = control.require_deployment()
    place = place_of(request) if is_request_id(deployment.generation, request) else None
    if place is None or place[0] >= deployment.partitions:
        raise ConfigError(
            f"expected a request id such as {deployment.generation}-0-17, got {request[:80]!r}; it is x-request-id of "
            "an answer, and the request of a decision"
        )
    async with _log(settings, place[0], tell) as log:
        found = await find_decision(log, await _documents(settings), place[1])
    if found is None:
        raise ConfigError(f"request {request} has no decision in the log; wait for it, or look for another id")
    return explain(found.record, found.body, found.replay)


async def replay_ledgers(settings: Settings, tell: Progress) -> list[Recomputation]:
    """Work the ledger of every partition out again. Raises ConfigError where one cannot be."""
    control = await _control(settings)
    documents = await _documents(settings)
    found = []
    for partition in range(control.require_deployment().partitions):
        async with _log(settings, partition, tell) as log:
            found.append(await recompute(log, documents))
    return found


def _subject(control: Control, name: str, asked: Subject | None) -> Subject:
    known: dict[Subject, bool] = {
        "tenant": name in control.tenants,
        "principal": name in control.principals and control.principals[name].tenant in control.tenants,
        "key": name in control.keys and control.keys[name].principal in control.principals,
    }
    found = [subject for subject, exists in known.items() if exists and asked in (None, subject)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{name!r} names a {' and a '.join(found)}; say which with --as")
    kinds = asked or "tenant, principal or key"
    raise ConfigError(f"expected the id of a {kinds}, got {name[:80]!r}; see: sluice tenant list, sluice key list")


@contextlib.asynccontextmanager
async def _log(settings: Settings, partition: int, tell: Progress) -> AsyncIterator[DecisionLog]:
    log = DecisionLog(settings.kafka.endpoint, partition, tell)
    try:
        yield log
    finally:
        await log.close()


async def _control(settings: Settings) -> Control:
    await check_broker(settings)
    async with control_table(settings) as table:
        return table.control


async def _documents(settings: Settings) -> Documents:
    reader = PartitionReader(settings.kafka.endpoint, "control", 0)
    try:
        await reader.start(0)
        return Documents([(item.offset, item.value) for item in await reader.read_to_end()], settings.keys.pin)
    finally:
        await reader.close()
