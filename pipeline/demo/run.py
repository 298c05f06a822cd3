"""Runs the demo on a started stack: traffic with progress, then the reconciliation, the panels and the verdict."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline import wiring
from pipeline.clock import now_ms
from pipeline.config import Settings
from pipeline.demo.abuse import ABUSES, abuse_gateway, abuse_kafka
from pipeline.demo.clients import Clients, TrafficReport
from pipeline.demo.figures import alerts_since, tenant_figures
from pipeline.demo.panels import read_panels
from pipeline.demo.people import issue_credentials
from pipeline.demo.receiver import Receiver
from pipeline.demo.reconcile import reconcile
from pipeline.demo.scenarios import scenarios
from pipeline.demo.summary import Summary
from pipeline.embedded.stack import LocalStack
from pipeline.watch.correlate import LONGEST_MS

_ALERTS_S = 30.0
_RAISED = frozenset({"repeated-injection", "extraction-campaign", "quota-abuse"})
"""In globex, acme, and over both principals of initech; each once in ten minutes, however often the demo runs."""
_FREE_PER_MINUTE = 10
Say = Callable[[str], None]


def run_demo(stack: LocalStack, say: Say) -> Summary:
    """Send the traffic and sum up what became of it."""
    settings = stack.settings
    began = now_ms()
    report, delivered = asyncio.run(_send_traffic(settings, stack.url, began, say))
    say("reconciling and verifying")
    equations = reconcile(settings)
    tenants = tenant_figures(settings, began, delivered)
    audit = wiring.verify(settings, asyncio.run(wiring.log_keys(settings)), lambda _: None, with_source=True)
    return Summary(tenants, equations, audit, report, read_panels(settings, began))


async def _send_traffic(settings: Settings, url: str, began: int, say: Say) -> tuple[TrafficReport, Counter[str]]:
    receiver = Receiver()
    report = TrafficReport()
    webhook = await receiver.start()
    try:
        credentials = await issue_credentials(settings, webhook)
        receiver.secrets = credentials.secrets
        every = scenarios()
        with _TrafficProgress(sum(len(scenario.requests) for scenario in every) + ABUSES, say) as progress:
            async with Clients(url, credentials, report) as clients:
                for scenario in every:
                    progress.title(scenario.title)
                    await clients.send(scenario, progress.advance)
            progress.title("abuse")
            await abuse_gateway(url, credentials, report, progress.advance)
            async with wiring.registry(settings) as registry:
                await abuse_kafka(settings.kafka.endpoint, registry.control, credentials, report, progress.advance)
        missing = await _wait_alerts(settings, began, receiver)
    finally:
        await receiver.close()
    if missing:
        report.surprises.append(f"alerts: expected each raised and delivered, got none of {', '.join(sorted(missing))}")
    if receiver.refused:
        report.surprises.append(f"webhooks: expected every signature to verify, got {receiver.refused} that did not")
    free = report.answers["initech"]
    if free > _FREE_PER_MINUTE:
        report.surprises.append(f"initech: expected {_FREE_PER_MINUTE} answers on the free plan, got {free}")
    return report, receiver.received


async def _wait_alerts(settings: Settings, began: int, receiver: Receiver) -> set[str]:
    """Wait for every alert and its delivery; gives the rules whose alert is missing."""
    missing = set(_RAISED)
    for _ in range(int(_ALERTS_S / 0.3)):
        raised = await asyncio.to_thread(alerts_since, settings, began - LONGEST_MS)
        fresh = [rule for rule, time in raised if time >= began]
        missing = set(_RAISED) - {rule for rule, _ in raised}
        if not missing and sum(receiver.received.values()) >= len(fresh):
            # what is about to be recorded as delivered
            await asyncio.sleep(1.0)
            return set()
        await asyncio.sleep(0.3)
    return missing or {"a delivery"}


class _TrafficProgress:
    """A bar in a terminal, a line for each scenario elsewhere."""

    def __init__(self, total: int, say: Say) -> None:
        self._say = say
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
        self._task = self._bar.add_task("traffic", total=total)

    def __enter__(self) -> _TrafficProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def title(self, text: str) -> None:
        """Name the scenario that is sent now."""
        self._bar.update(self._task, description=text)
        if self._bar.disable:
            self._say(text)

    def advance(self) -> None:
        """Count one call."""
        self._bar.advance(self._task)
