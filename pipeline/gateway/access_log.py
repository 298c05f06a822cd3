"""Refusals at the gateway are written to ``access`` as counts: an attack costs rows per minute, not per try."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from pipeline.clock import now_ms
from pipeline.errors import Retryable
from pipeline.events.codec import encode
from pipeline.events.messages import Access
from pipeline.gateway.metrics import Metrics
from pipeline.gateway.writer import RequestWriter
from pipeline.gateway.wrong_keys import MAX_REPORTED, WrongKeyReport, WrongKeys, access_of, finding_of

log = logging.getLogger(__name__)
MINUTE_S = 60
MAX_ROWS = 1_000
OTHERS = "others"


class AccessLog:
    """Counts by (key id or ``unknown``, tenant, reason). What cannot be written stays counted for the next minute."""

    def __init__(self, writer: RequestWriter, metrics: Metrics, wrong_keys: WrongKeys) -> None:
        self._writer = writer
        self._metrics = metrics
        self._wrong_keys = wrong_keys
        self._reports: list[WrongKeyReport] = []
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def refused(self, actor: str, tenant: str, reason: str) -> None:
        """Count one refusal."""
        self._metrics.count("sluice_gateway_refusals_total", reason)
        row = (actor, tenant, reason)
        if row not in self._counts and len(self._counts) >= MAX_ROWS:
            row = (OTHERS, "", reason)
        self._counts[row] += 1

    async def follow(self, stop: asyncio.Event) -> None:
        """Write once a minute and once more at the end."""
        while not stop.is_set():
            try:
                async with asyncio.timeout(MINUTE_S):
                    await stop.wait()
            except TimeoutError:
                await self.flush()
        await self.flush()

    async def flush(self) -> None:
        """Write the counts as records."""
        counts = self._counts
        self._counts = Counter()
        for (actor, tenant, reason), count in counts.items():
            record = Access(now_ms(), actor, "refused", tenant, reason, count)
            try:
                await self._writer.send_plain("access", tenant or "unknown", encode(record))
                self._metrics.count("sluice_gateway_access_records_total")
            except Retryable as error:
                self._counts[(actor, tenant, reason)] += count
                log.warning("access: %d refusals are kept for the next minute: %s", count, error)
        await self._report()

    async def _report(self) -> None:
        """Write who sent many wrong keys: an act for the log, and a finding for the alerts."""
        waiting = [*self._reports, *self._wrong_keys.reports()][-2 * MAX_REPORTED :]
        self._reports = []
        for index, report in enumerate(waiting):
            now, named = now_ms(), report.named
            log.warning("%d wrong keys came from %s", report.times, report.address)
            try:
                await self._writer.send_plain("findings", named.organisation, encode(finding_of(report, now)))
                await self._writer.send_plain("access", named.tenant or "unknown", encode(access_of(report, now)))
            except Retryable as error:
                self._reports = waiting[index:]
                log.warning("access: reports of wrong keys are kept for the next minute: %s", error)
                return
