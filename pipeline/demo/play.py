"""Plays the demo on a running stack: traffic with progress, then the account, the board and the verdict."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline import wiring
from pipeline.config import Settings
from pipeline.demo import account, board, script
from pipeline.demo.abuse import ABUSES, abuse_gateway, abuse_kafka
from pipeline.demo.cast import assemble
from pipeline.demo.receiver import Receiver
from pipeline.demo.summary import Summary
from pipeline.demo.traffic import Callers, TrafficSeen
from pipeline.embedded.stack import LocalStack
from pipeline.watch.correlate import LONGEST_MS

_ALERTS_S = 30.0
_RAISED = frozenset({"repeated-injection", "extraction-campaign", "quota-abuse"})
"""In globex, acme, and over both principals of initech; each once in ten minutes, however often the demo runs."""
_FREE_PER_MINUTE = 10
Say = Callable[[str], None]


def run(stack: LocalStack, say: Say, *, as_json: bool = False) -> int:
    """0 where every count reconciles, the log verifies, and callers saw what they had to; else 1."""
    settings, began = stack.settings, int(time.time() * 1000)
    seen, alerts = asyncio.run(_play(settings, stack.url, began, say))
    say("reconciling and verifying")
    lines = account.reconcile(settings)
    rows = [
        (*row[:7], alerts[row[0]], *row[7:]) if row[0] else ("(unknown)", *row[1:7], 0, *row[7:])
        for row in account.per_tenant(settings, began)
    ]
    report = wiring.verify(settings, asyncio.run(wiring.log_keys(settings)), lambda _: None, with_source=True)
    summary = Summary(rows, lines, report, seen, board.read(settings, began))
    if as_json:
        summary.print_json()
    else:
        summary.print_tables()
    return 0 if summary.ok else 1


async def _play(settings: Settings, url: str, began: int, say: Say) -> tuple[TrafficSeen, Counter[str]]:
    receiver, seen = Receiver(), TrafficSeen()
    webhook = await receiver.start()
    try:
        cast = await assemble(settings, webhook)
        receiver.secrets = cast.secrets
        scenes = script.scenes()
        with _Traffic(sum(len(scene.lines) for scene in scenes) + ABUSES, say) as traffic:
            async with Callers(url, cast, seen) as callers:
                for scene in scenes:
                    traffic.title(scene.title)
                    await callers.play(scene, traffic.tick)
            traffic.title("abuse")
            await abuse_gateway(url, cast, seen, traffic.tick)
            async with wiring.registry(settings) as registry:
                await abuse_kafka(settings.kafka.bootstrap, registry.control, cast, seen, traffic.tick)
        missing = await _until_alerted(settings, began, receiver)
    finally:
        await receiver.close()
    if missing:
        seen.surprises.append(f"alerts that were not raised or not delivered: {', '.join(sorted(missing))}")
    if receiver.refused:
        seen.surprises.append(f"{receiver.refused} webhooks did not verify")
    if seen.answers["initech"] > _FREE_PER_MINUTE:
        seen.surprises.append(f"initech on the free plan got {seen.answers['initech']} answers within a minute")
    return seen, receiver.received


async def _until_alerted(settings: Settings, began: int, receiver: Receiver) -> set[str]:
    """Wait for every alert and its delivery; gives the rules whose alert is missing."""
    missing = set(_RAISED)
    for _ in range(int(_ALERTS_S / 0.3)):
        raised = await asyncio.to_thread(account.alerts_since, settings, began - LONGEST_MS)
        fresh = [rule for rule, time in raised if time >= began]
        missing = set(_RAISED) - {rule for rule, _ in raised}
        if not missing and sum(receiver.received.values()) >= len(fresh):
            # what is about to be recorded as delivered
            await asyncio.sleep(1.0)
            return set()
        await asyncio.sleep(0.3)
    return missing or {"a delivery"}


class _Traffic:
    """Progress: a bar in a terminal, a line for each scene elsewhere."""

    def __init__(self, total: int, say: Say) -> None:
        self._say = say
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
        self._task = self._bar.add_task("traffic", total=total)

    def __enter__(self) -> _Traffic:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def title(self, text: str) -> None:
        self._bar.update(self._task, description=text)
        if self._bar.disable:
            self._say(text)

    def tick(self) -> None:
        self._bar.advance(self._task)
